"""Any row is a problem, or one error that names its place."""

import json
from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from prefix_rft_rllib.envs.rows.row_fields import RawProblem, RowReader
from prefix_rft_rllib.envs.rows.row_forms import FIELDS, PRESETS
from prefix_rft_rllib.envs.settings import EnvSettings
from tests.envs.row_makers import LUFFY, OPENR1, TRL, VERL

texts = st.text(st.characters(codec=None), max_size=4) | st.sampled_from(
    ["5", "[", "{}", "[null]", '["a"]', "[{'role': 'user'}]", '[{"role": "user", "content": "a"}]']
)
roles = st.sampled_from(["user", "assistant", "system", "tool", ""]) | st.none()
scalars = st.none() | st.booleans() | st.integers() | st.floats() | texts
values = st.recursive(
    scalars | st.fixed_dictionaries({"role": roles | scalars, "content": texts | st.none()}),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)
columns = st.sampled_from(
    [*FIELDS, *VERL, *LUFFY, *OPENR1, *TRL, "question", "demonstrations", "other"]
)
made = st.dictionaries(columns, values, max_size=5)
starts = st.sampled_from([{}, VERL, LUFFY, OPENR1, TRL])
rows = st.builds(lambda start, changes: {**start, **changes}, starts, made)
forms = (
    st.none() | st.sampled_from(list(PRESETS)) | st.dictionaries(st.sampled_from(FIELDS), columns)
)


@given(rows, forms, st.booleans())
@settings(max_examples=200, deadline=None)
def test_any_row_is_a_problem_or_an_error_that_names_its_place(row, fields, filtered):
    filters = ["no_parseable_answer"] if filtered else []
    plain = {"data": "x", "tokenizer": "y", "fields": fields or None, "filters": filters}
    reader = RowReader(EnvSettings.from_config(plain), Counter())
    try:
        problem = reader.read(row, "x.jsonl:3")
    except ValueError as error:
        message = str(error)
    else:
        message = ""
    if message:
        assert message.startswith("x.jsonl:3: ")
        return
    assert filtered if problem is None else isinstance(problem, RawProblem)
    if problem is not None:
        assert problem.prompt.strip()
        assert problem.answer.strip()
        assert all(text.strip() for text in problem.demonstration_texts)
        json.dumps([problem.prompt, problem.answer, problem.demonstration_texts]).encode()
        (problem.prompt + problem.answer + problem.problem_id + problem.domain).encode()
