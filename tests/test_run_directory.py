"""The run directory: what is written is read back, once, whatever it holds."""

import ast
import dataclasses
import gzip
import html.parser
import json
import logging
import math
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugin_util import markdown_to_safe_html
from tensorboard.util.tensor_util import make_ndarray

from prefix_rft_rllib import metrics
from prefix_rft_rllib.rollout_records import RolloutRecord, json_value
from prefix_rft_rllib.run_directory import (
    RunDirectory,
    read_metrics,
    read_minibatches,
    read_rollouts,
)
from prefix_rft_rllib.tensorboard_events import (
    MAX_SHOWN_CHARACTERS,
    choose_samples,
    sample_markdown,
    shown_text,
)

DOCS = Path(__file__).parent.parent / "docs" / "run_directory.md"
HOSTILE = (
    "<script>alert(1)</script></pre><img src=x onerror=y> **bold** `code`\n```\nfenced\n```\n"
    "- item\n# title\n\n    indented\n[a](http://x) ![i](y) [r]: z\n| a | b |\n|---|---|\n"
    "&amp; &lt; \x00 \x02wzxhzdk:0\x03 \x1b[31m \x85 \ud800 \udfff é 漢 🙂 \\( \\boxed{1} \\)"
)


class CharacterTokenizer:
    """Token ids are code points."""

    def decode(self, token_ids: list[int]) -> str:
        return "".join(map(chr, token_ids))


def record(**changes: object) -> RolloutRecord:
    values: dict = {
        "iteration": 3,
        "problem_id": "p1",
        "group_id": 7,
        "member": 0,
        "demonstration_index": 1,
        "prefix_fraction": 0.1 + 0.2,
        "drawn_prefix_tokens": 3,
        "num_prefix_tokens": 2,
        "was_cut": True,
        "window_low": 0.05,
        "reward": 1.0,
        "verdict": "CORRECT",
        "finish_reason": "stop",
        "advantage": 0.875,
        "weights_seq_no": 4,
        "minibatch": 1,
        "prompt_ids": [72, 105],
        "response_ids": [97, 98, 99, 100, 101],
        "region": ["prefix"] * 2 + ["response"] * 3,
        "entropy": np.array([0.1, 1 / 3, 2, 0, 1e-30], np.float32).tolist(),
        "old_logp": np.array([-0.1, -1e-8, -20, 0, -math.inf], np.float32).tolist(),
        "engine_logp": [math.nan, math.nan, -0.5, -0.25, -0.125],
        "weight": [0.0, 0.875, 0.875, 0.875, 0.875],
        "kept": [False, True, True, True, True],
    }
    return RolloutRecord(**values | changes)


def as_comparable(value: object) -> object:
    """NaN is unlike itself; its name is not."""
    if isinstance(value, list):
        return [as_comparable(item) for item in value]
    return "nan" if isinstance(value, float) and math.isnan(value) else value


def as_dict(rollout: RolloutRecord) -> dict:
    return {name: as_comparable(v) for name, v in dataclasses.asdict(rollout).items()}


def events_of(path: Path) -> EventAccumulator:
    # Nothing purged, no samples left out: what the files hold is what is compared.
    limits = {"scalars": 0, "tensors": 0}
    return EventAccumulator(str(path), limits, purge_orphaned_data=False).Reload()


def scalars_of(path: Path) -> dict[int, dict[str, float]]:
    events = events_of(path)
    rows: dict[int, dict[str, float]] = {}
    for tag in events.Tags()["scalars"]:
        for event in events.Scalars(tag):
            assert tag not in rows.setdefault(event.step, {}), "a point was written twice"
            rows[event.step][tag] = event.value
    return rows


def texts_of(path: Path, tag: str) -> list[str]:
    tensors = events_of(path).Tensors(f"{tag}/text_summary")
    return [make_ndarray(event.tensor_proto).item().decode() for event in tensors]


def write_iterations(run: RunDirectory, numbers: range) -> None:
    for n in numbers:
        run.write_rollouts(n, [record(iteration=n)], CharacterTokenizer())
        run.write_minibatches(n, [{"minibatch": 0, "loss": 0.5}, {"minibatch": 1, "loss": n}])
        run.write_metrics(n, {"rollouts/reward_mean": n / 3, "time/sync": 0.25})


def files_of(path: Path) -> dict[str, bytes]:
    """Everything but the event files, whose records hold the time of writing."""
    return {
        str(file.relative_to(path)): file.read_bytes()
        for file in path.rglob("*")
        if file.is_file() and "tfevents" not in file.name
    }


def test_metrics_come_back_as_they_were_written(tmp_path):
    run = RunDirectory(tmp_path / "new" / "run")
    row = {"rollouts/reward_mean": 0.1 + 0.2, "learner/num_prefix_tokens": 2**60 + 1}
    run.write_metrics(1, row)
    run.write_metrics(5, {"learner/lr": np.float32(1e-6), "rollouts/num_rollouts": np.int64(8)})
    # Flushed: readable before the directory is closed.
    assert read_metrics(run.path) == [
        {"training_iteration": 1, **row},
        {"training_iteration": 5, "learner/lr": 9.999999974752427e-07, "rollouts/num_rollouts": 8},
    ]
    first = (run.path / "metrics.jsonl").read_text().splitlines()[0]
    assert first.startswith('{"training_iteration": 1, ')
    run.close()
    run.close()


def test_numbers_that_json_lacks_are_written_as_null_and_strings(tmp_path):
    run = RunDirectory(tmp_path)
    run.write_metrics(1, {"a": math.nan, "b": math.inf, "c": -math.inf})
    run.close()
    line = (tmp_path / "metrics.jsonl").read_text()
    assert line == '{"training_iteration": 1, "a": null, "b": "Infinity", "c": "-Infinity"}\n'
    (row,) = read_metrics(tmp_path)
    assert math.isnan(row["a"])
    assert (row["b"], row["c"]) == (math.inf, -math.inf)


def test_an_iteration_is_written_once(tmp_path):
    run = RunDirectory(tmp_path, iteration=3)
    run.write_metrics(4, {"a": 1.0})
    for iteration in (4, 3):
        with pytest.raises(ValueError, match=rf"`iteration` \({iteration}\) must be above 4"):
            run.write_metrics(iteration, {"a": 1.0})
    # An iteration that failed after its optimizer steps were noted is run again.
    run.write_minibatches(5, [{"loss": 1.0}])
    run.write_minibatches(5, [{"loss": 2.0}])
    assert read_minibatches(tmp_path) == [{"training_iteration": 5, "loss": 2.0}]
    run.close()


def test_settings_that_json_lacks_are_written_as_their_repr(tmp_path):
    run = RunDirectory(tmp_path)
    run.write_config({"old": 1})
    run.write_config(
        {"lr": 1e-6, "betas": (0.9, 0.999), "cls": RunDirectory, "nested": {1: {2}}, "none": None}
        | {"flag": True, "path": Path("x"), "array": np.arange(2), "nan": math.nan}
    )
    assert json.loads((tmp_path / "config.json").read_text()) == {
        "lr": 1e-6,
        "betas": [0.9, 0.999],
        "cls": repr(RunDirectory),
        "nested": {"1": "{2}"},
        "none": None,
        "flag": True,
        "path": repr(Path("x")),
        "array": [0, 1],
        "nan": None,
    }
    # Settings alone open no event file.
    assert [file.name for file in tmp_path.iterdir()] == ["config.json"]


def test_rollouts_come_back_as_they_were_written(tmp_path):
    run = RunDirectory(tmp_path)
    plain = record(member=1, prefix_fraction=0.0, num_prefix_tokens=0, region=["response"] * 5)
    bare = record(entropy=None, old_logp=None, engine_logp=None, weight=None, kept=None)
    demonstration = record(
        member=None, verdict=None, finish_reason=None, weights_seq_no=None, window_low=None,
        region=["demonstration"] * 5,
    )  # fmt: skip
    records = [record(), plain, bare, demonstration]
    run.write_rollouts(12, records)
    run.write_rollouts(13, [])
    run.close()
    path = tmp_path / "rollouts" / "iteration_000012.jsonl.gz"
    assert [as_dict(r) for r in read_rollouts(path)] == [as_dict(r) for r in records]
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_the_json_of_a_rollout_has_runs_of_regions_and_shortest_float32_numbers():
    data = json.loads(record().to_json())
    assert data["region"] == [["prefix", 2], ["response", 3]]
    # float32(0.1) is 0.100000001490116...; 0.1 is the shortest decimal that rounds to it.
    assert data["entropy"] == [0.1, 0.33333334, 2.0, 0.0, 1e-30]
    assert data["old_logp"][-1] == "-Infinity"
    assert data["engine_logp"] == [None, None, -0.5, -0.25, -0.125]
    # Numbers per rollout are float64 and keep all digits.
    assert data["prefix_fraction"] == 0.30000000000000004
    assert "prompt_text" not in data


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(width=32, allow_nan=False), max_size=30), st.text(max_size=20))
def test_every_float32_and_every_text_survives_the_rollouts_file(values, text):
    ids = [ord(character) for character in text]
    rollout = record(
        problem_id=text, response_ids=[0] * len(values), region=["response"] * len(values),
        num_prefix_tokens=0, entropy=values, weight=None, kept=None, old_logp=None,
        engine_logp=None, prompt_ids=ids,
    ).with_texts(CharacterTokenizer())  # fmt: skip
    again = RolloutRecord.from_json(rollout.to_json())
    assert again == rollout
    assert np.array(again.entropy, np.float32).tobytes() == np.array(values, np.float32).tobytes()
    assert again.prompt_text == text


def test_equal_rollouts_give_equal_files(tmp_path):
    for name in ("a", "b"):
        run = RunDirectory(tmp_path / name)
        run.write_rollouts(1, [record()])
        run.close()
    assert files_of(tmp_path / "a") == files_of(tmp_path / "b")


def test_a_record_with_a_wrong_number_of_values_per_token_is_refused():
    with pytest.raises(AssertionError, match="entropy has 4 entries for 5 response tokens"):
        record(entropy=[0.0] * 4)


def test_texts_of_a_rollout_are_split_at_the_end_of_its_prefix():
    texts = record().with_texts(CharacterTokenizer())
    assert (texts.prompt_text, texts.prefix_text, texts.sampled_text) == ("Hi", "ab", "cde")
    whole = record(region=["demonstration"] * 5).with_texts(CharacterTokenizer())
    assert (whole.prefix_text, whole.sampled_text) == ("abcde", "")


def test_tensorboard_events_equal_the_metrics_file(tmp_path):
    run = RunDirectory(tmp_path)
    for n in range(1, 30):
        run.write_metrics(n, {"rollouts/verdicts/CORRECT": n, "evaluation/a b <c>/avg_at_k": n / 7})
    run.write_metrics(30, {"learner/loss": math.inf, "learner/num_prefix_tokens": 123_456_789})
    run.close()
    expected = {
        row.pop("training_iteration"): {key: float(np.float32(value)) for key, value in row.items()}
        for row in read_metrics(tmp_path)
    }
    assert scalars_of(tmp_path) == expected


@pytest.mark.parametrize("kept", [0, 3, 6, 9])
def test_a_rollback_leaves_exactly_what_a_run_up_to_there_writes(tmp_path, kept):
    for name, numbers in (("long", range(1, 7)), ("short", range(1, min(kept, 6) + 1))):
        run = RunDirectory(tmp_path / name)
        write_iterations(run, numbers)
        run.close()
    again = RunDirectory(tmp_path / "long", iteration=kept)
    again.write_rollouts(kept + 1, [])  # nothing to write, but the run has gone on
    again.close()
    long, short = files_of(tmp_path / "long"), files_of(tmp_path / "short")
    if kept == 0:
        assert [long.pop(name) for name in ("metrics.jsonl", "minibatches.jsonl")] == [b"", b""]
    assert long == short
    assert scalars_of(tmp_path / "long") == (scalars_of(tmp_path / "short") if kept else {})


def test_a_restored_run_goes_on_without_repeating_a_row_and_says_so(tmp_path, caplog):
    run = RunDirectory(tmp_path)
    write_iterations(run, range(1, 7))
    run.close()
    with caplog.at_level(logging.WARNING):
        again = RunDirectory(tmp_path, iteration=4)
        write_iterations(again, range(5, 8))
    again.close()
    assert [row["training_iteration"] for row in read_metrics(tmp_path)] == [1, 2, 3, 4, 5, 6, 7]
    steps = [row["training_iteration"] for row in read_minibatches(tmp_path)]
    assert steps == [n for n in range(1, 8) for _ in range(2)]
    assert sorted(scalars_of(tmp_path)) == [1, 2, 3, 4, 5, 6, 7]
    assert len(texts_of(tmp_path, "rollouts/with_prefix")) == 7
    assert len(list((tmp_path / "rollouts").iterdir())) == 7
    (message,) = caplog.messages
    assert "after iteration 4" in message
    assert "2 rows of metrics.jsonl, 4 rows of minibatches.jsonl" in message
    assert "2 steps of TensorBoard events, 2 rollouts files" in message


def test_nothing_is_removed_before_the_first_row_is_written(tmp_path):
    # RLlib builds an algorithm at iteration 0 and restores it afterwards.
    run = RunDirectory(tmp_path)
    write_iterations(run, range(1, 4))
    run.close()
    before = files_of(tmp_path)
    built = RunDirectory(tmp_path)
    built.write_config({})
    built.close()
    after = files_of(tmp_path)
    del after["config.json"]
    assert after == before
    restored = RunDirectory(tmp_path, iteration=3)
    write_iterations(restored, range(4, 5))
    restored.close()
    assert [row["training_iteration"] for row in read_metrics(tmp_path)] == [1, 2, 3, 4]


def test_event_files_of_other_writers_are_left_alone(tmp_path):
    other = tmp_path / "events.out.tfevents.1700000000.host"
    other.write_bytes(b"not ours")
    run = RunDirectory(tmp_path)
    run.write_metrics(1, {"a": 1.0})
    run.close()
    RunDirectory(tmp_path, iteration=0).write_minibatches(1, [])
    assert other.read_bytes() == b"not ours"


def test_a_line_that_a_killed_process_left_half_written_is_repaired(tmp_path):
    run = RunDirectory(tmp_path)
    write_iterations(run, range(1, 4))
    run.close()
    for name in ("metrics.jsonl", "minibatches.jsonl"):
        (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:-2])
    # A reader of the run sees whole rows only.
    assert [row["training_iteration"] for row in read_metrics(tmp_path)] == [1, 2]
    again = RunDirectory(tmp_path, iteration=3)
    again.write_minibatches(4, [{"minibatch": 0}])
    again.write_metrics(4, {"a": 1.0})
    again.close()
    assert [row["training_iteration"] for row in read_metrics(tmp_path)] == [1, 2, 4]
    steps = [row["training_iteration"] for row in read_minibatches(tmp_path)]
    assert steps == [1, 1, 2, 2, 3, 4]


@pytest.mark.parametrize("cut", range(1, 45))
def test_a_metrics_file_cut_anywhere_in_its_last_line_goes_on_with_whole_rows(tmp_path, cut):
    lines = [json.dumps({"training_iteration": n, "loss": n / 3}).encode() + b"\n" for n in (1, 2)]
    (tmp_path / "metrics.jsonl").write_bytes(b"".join(lines)[:-cut])
    run = RunDirectory(tmp_path, iteration=2)
    run.write_metrics(3, {"loss": 1.0})
    run.close()
    # Only the line break missing: the row is complete.
    expected = [1, 2, 3] if cut == 1 else [1, 3]
    assert [row["training_iteration"] for row in read_metrics(tmp_path)] == expected


def test_an_event_file_that_ends_in_half_a_record_is_rolled_back(tmp_path):
    run = RunDirectory(tmp_path)
    write_iterations(run, range(1, 5))
    run.close()
    (events,) = tmp_path.glob("events.out.tfevents*")
    events.write_bytes(events.read_bytes()[:-3])
    again = RunDirectory(tmp_path, iteration=2)
    write_iterations(again, range(3, 4))
    again.close()
    assert sorted(scalars_of(tmp_path)) == [1, 2, 3]


def test_a_damaged_line_in_the_middle_is_an_error_that_names_it(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"training_iteration": 1}\nnonsense\n{"training_iteration": 3}\n')
    with pytest.raises(ValueError, match=r"metrics\.jsonl:2: not a row .*'nonsense"):
        read_metrics(tmp_path)
    with pytest.raises(ValueError, match=r"metrics\.jsonl:2"):
        RunDirectory(tmp_path, iteration=3).write_metrics(4, {})
    assert "nonsense" in path.read_text()


def test_samples_are_a_hybrid_and_a_plain_rollout_of_one_group_if_there_is_one():
    hybrids = [record(group_id=group) for group in (1, 2, 3)]
    plain = record(group_id=2, member=1, num_prefix_tokens=0, region=["response"] * 5)
    later = dataclasses.replace(plain, member=2)
    demonstration = record(group_id=1, num_prefix_tokens=0, region=["demonstration"] * 5)
    samples = choose_samples([demonstration, *hybrids, plain, later])
    assert samples == {"rollouts/with_prefix": hybrids[1], "rollouts/plain": plain}
    assert choose_samples([hybrids[0]]) == {"rollouts/with_prefix": hybrids[0]}
    apart = dataclasses.replace(plain, group_id=9)
    assert choose_samples([hybrids[0], apart]) == {
        "rollouts/with_prefix": hybrids[0],
        "rollouts/plain": apart,
    }
    assert choose_samples([demonstration]) == {}


class PageReader(html.parser.HTMLParser):
    """Tags of a page and the texts inside <pre>, as a browser shows them."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.blocks: list[str] = []
        self.is_open = False
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list) -> None:
        self.tags.append(tag)
        self.is_open = tag == "pre"
        if self.is_open:
            self.blocks.append("")

    def handle_endtag(self, tag: str) -> None:
        self.is_open = False

    def handle_data(self, data: str) -> None:
        if self.is_open:
            self.blocks[-1] += data


def visible(text: str) -> str:
    """Independent of the product: control characters and surrogates as escapes."""
    return "".join(
        c.encode("unicode_escape").decode()
        if (ord(c) < 32 and c not in "\t\n") or 127 <= ord(c) < 160 or 0xD800 <= ord(c) <= 0xDFFF
        else c
        for c in text
    )


@settings(max_examples=60, deadline=None)
@given(st.text(st.sampled_from("`*_<>&/-#|[]()!~=:\n\t \\ab1\x02\ud800é"), max_size=60))
def test_tensorboard_shows_any_text_character_by_character(text):
    page = PageReader(markdown_to_safe_html(f"<pre>{shown_text(text)}</pre>"))
    assert page.tags == ["pre"]
    # HTML drops one line break at the start of <pre>; this parser does not.
    assert page.blocks == [visible(text)]


def test_hostile_text_is_written_read_and_shown(tmp_path):
    ids = [ord(character) for character in HOSTILE]
    huge = "x<" * 200_000
    hostile = record(
        problem_id=HOSTILE, prompt_ids=[ord(c) for c in huge], response_ids=ids,
        region=["prefix"] * 10 + ["response"] * (len(ids) - 10), num_prefix_tokens=10,
        entropy=None, old_logp=None, engine_logp=None, weight=None, kept=None,
    )  # fmt: skip
    run = RunDirectory(tmp_path)
    run.write_rollouts(1, [hostile], CharacterTokenizer())
    run.close()
    (again,) = read_rollouts(tmp_path / "rollouts" / "iteration_000001.jsonl.gz")
    assert again.problem_id == HOSTILE
    assert again.prompt_text == huge
    assert again.prefix_text + again.sampled_text == HOSTILE
    with gzip.open(tmp_path / "rollouts" / "iteration_000001.jsonl.gz") as file:
        assert file.read().isascii()
    (text,) = texts_of(tmp_path, "rollouts/with_prefix")
    page = PageReader(markdown_to_safe_html(text))
    assert set(page.tags) <= {"p", "pre", "strong"}
    prompt, prefix, sampled = page.blocks
    assert prefix == visible(HOSTILE[:10])
    assert sampled == visible(HOSTILE[10:])
    half = MAX_SHOWN_CHARACTERS // 2
    note = f"[... {len(huge) - 2 * half} characters not shown ...]"
    assert prompt == f"{huge[:half]}\n{note}\n{huge[-half:]}"


def test_a_sample_names_its_prefix_verdict_reward_and_share():
    text = sample_markdown(record().with_texts(CharacterTokenizer()))
    page = html.unescape(text)
    assert "verdict **CORRECT**" in page
    assert "reward **1**" in page
    assert "u **0.3000 (cut)**" in page
    assert "**Prefix** (GIVEN from the demonstration, 2 tokens):\n\n<pre>ab</pre>" in page
    assert "**Sampled by the policy** (3 tokens):\n\n<pre>cde</pre>" in page


def test_without_a_tokenizer_there_are_no_samples(tmp_path):
    run = RunDirectory(tmp_path)
    run.write_rollouts(1, [record()])
    run.close()
    assert events_of(tmp_path).Tags()["tensors"] == []


def test_plain_data_passes_through_unchanged():
    data = {"a": [1, 2.5, "x", True, None], "b": {"c": []}}
    assert json_value(data) == data


def documented_rows(heading: str) -> dict[str, str]:
    """Name and meaning of every row of the table under a heading."""
    section = DOCS.read_text().split(f"\n## {heading}\n")[1].split("\n## ")[0]
    rows = re.findall(r"^\| `([^`]+)` \| (.*) \|$", section, flags=re.MULTILINE)
    return {name: meaning.replace("\\|", "|") for name, meaning in rows}


def defined_metrics() -> dict[str, str]:
    """Key and docstring of every metric, read from the source."""
    source = Path(metrics.__file__).read_text()
    lines = source.splitlines()
    folder, found = "", {}
    nodes = ast.parse(source).body
    for number, node in enumerate(nodes[:-1]):
        for line in lines[(nodes[number - 1].end_lineno if number else 0) : node.lineno]:
            under = re.match(r"# --- .*under `(.+?)/`", line)
            folder = under[1] if under else folder
        after = nodes[number + 1]
        is_text = isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)
        if is_text and isinstance(after, ast.Expr) and isinstance(node.value.value, str):
            found[f"{folder}/{node.value.value}"] = " ".join(after.value.value.split())
    return found


def test_the_documented_metrics_are_those_of_the_metrics_module():
    assert documented_rows("Metrics") == defined_metrics()
    assert "rollouts/reward_mean" in defined_metrics()
    assert "evaluation/<set>/avg_at_k" in defined_metrics()


def test_the_documented_fields_of_a_rollout_are_those_of_the_record():
    attributes = RolloutRecord.__doc__.split("Attributes:\n")[1]
    entries = re.findall(r"^        (\w+): (.*(?:\n {9,}.*)*)", attributes, flags=re.MULTILINE)
    documented = {name: " ".join(meaning.split()) for name, meaning in entries}
    fields = [field.name for field in dataclasses.fields(RolloutRecord)]
    assert sorted(documented) == sorted(fields)
    rows = documented_rows("Rollouts")
    assert {name: meaning.split(" | ")[0] for name, meaning in rows.items()} == documented
