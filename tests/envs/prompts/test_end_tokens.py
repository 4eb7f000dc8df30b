"""Which tokens end a response, read from a model's files, and demonstrations that end with one."""

import json
import logging

import numpy as np
import pytest

from prefix_rft_rllib.envs.prompts.assistant_turns import AssistantTurn, DemonstrationEncoder
from prefix_rft_rllib.envs.prompts.end_tokens import EndTokens, declared_end_ids, end_tokens
from prefix_rft_rllib.envs.prompts.prompt_renderer import PromptRenderer
from prefix_rft_rllib.envs.prompts.prompting import encode_plain, load_tokenizer
from prefix_rft_rllib.envs.settings import EnvSettings
from prefix_rft_rllib.envs.token_env import TokenEnv
from tests.model_families import FAMILIES, save_family
from tests.small_configs import HALF_RIGHT


def write(directory, **files):
    for name, content in files.items():
        (directory / f"{name}.json").write_text(json.dumps(content))
    return directory


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, ()),
        ({"generation_config": {"eos_token_id": 7}}, (7,)),
        ({"generation_config": {"eos_token_id": [106, 1, 106]}}, (1, 106)),
        # The file that says what ends generation comes first, as in transformers' generate().
        ({"generation_config": {"eos_token_id": 7}, "config": {"eos_token_id": 8}}, (7,)),
        ({"generation_config": {"top_k": 4}, "config": {"eos_token_id": [8, 9]}}, (8, 9)),
        ({"generation_config": {"eos_token_id": None}, "config": {"eos_token_id": 0}}, (0,)),
        ({"generation_config": {"eos_token_id": []}, "config": {}}, ()),
        ({"config": {"eos_token_id": None, "text_config": {"eos_token_id": [1, 106]}}}, (1, 106)),
        ({"config": {"eos_token_id": 5, "text_config": {"eos_token_id": 6}}}, (5, 6)),
    ],
)
def test_declared_ends_are_those_of_the_generation_settings_or_else_of_the_model(
    tmp_path, files, expected
):
    assert declared_end_ids(write(tmp_path, **files)) == expected


@pytest.mark.parametrize("value", [-1, [1, -1], [1, None], "2", [True], True, 2.0, [[1]], {"a": 1}])
@pytest.mark.parametrize("file", ["generation_config", "config"])
def test_what_is_no_token_id_names_the_file_and_the_value(tmp_path, file, value):
    with pytest.raises(ValueError, match="must be a token id, a list of token ids") as caught:
        declared_end_ids(write(tmp_path, **{file: {"eos_token_id": value}}))
    assert f"{file}.json: `eos_token_id` is {value!r}" in str(caught.value)


@pytest.mark.parametrize("text", ["{", "[1]", "\x00"])
def test_a_file_that_is_no_json_object_is_named(tmp_path, text):
    (tmp_path / "generation_config.json").write_text(text)
    with pytest.raises(ValueError, match=r"generation_config\.json"):
        declared_end_ids(tmp_path)


@pytest.fixture(scope="module")
def directories(tmp_path_factory):
    folder = tmp_path_factory.mktemp("families")
    return {name: save_family(name, folder / name) for name in FAMILIES}


@pytest.mark.parametrize("token_id", [10**6, 421])
def test_an_end_token_outside_the_vocabulary_is_an_error(directories, token_id):
    tokenizer = load_tokenizer(str(directories["gemma3"]))
    assert end_tokens(tokenizer, "", [420], 421).ids == (1, 420)
    with pytest.raises(ValueError, match=f"end token {token_id} is outside .* of 421 ids"):
        end_tokens(tokenizer, "", [1, token_id], 421)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_turn_ends_with_the_token_behind_the_text(directories, name):
    tokenizer = load_tokenizer(str(directories[name]))
    settings = {"data": "none", "tokenizer": "none"}
    renderer = PromptRenderer(tokenizer, EnvSettings.from_config(settings))
    turn = AssistantTurn.of(renderer)
    ends = end_tokens(tokenizer, turn.behind, declared_end_ids(directories[name]), 10**5)
    assert tokenizer.convert_ids_to_tokens(ends.of_turn) == FAMILIES[name].turn_end
    expected = {*FAMILIES[name].ends, FAMILIES[name].eos_token}
    assert set(tokenizer.convert_ids_to_tokens(list(ends.ids))) == expected
    plain = PromptRenderer(tokenizer, EnvSettings.from_config({**settings, "chat_template": False}))
    assert AssistantTurn.of(plain) == AssistantTurn()
    without = end_tokens(tokenizer, "", declared_end_ids(directories[name]), 10**5)
    assert without.of_turn == tokenizer.eos_token_id


def test_a_template_that_ends_turns_with_an_undeclared_token_is_said(directories, caplog):
    tokenizer = load_tokenizer(str(directories["gemma3"]))
    assert end_tokens(tokenizer, "<end_of_turn>\n", [1], 500) == EndTokens((1,), 1)
    assert "'<end_of_turn>\\n', which holds no end token (<eos>)" in caplog.text
    caplog.clear()
    caplog.set_level(logging.WARNING)
    assert end_tokens(tokenizer, "<end_of_turn>\n", [1, 6], 500).of_turn == 6
    assert not caplog.text


def test_demonstrations_are_closed_once_and_never_inside():
    ends = EndTokens((1, 6), 6)
    assert ends.ended(np.array([4, 5], np.int32), "f:1") == (4, 5, 6)
    assert ends.ended(np.array([4, 5, 1], np.int32), "f:1") == (4, 5, 1)
    assert ends.ended(np.array([], np.int32), "f:1") == (6,)
    for inside in ([1, 5], [4, 6, 1], [6, 6], [1, 4, 6]):
        with pytest.raises(ValueError, match=r"f:1: .*holds an end token .*inside the text"):
            ends.ended(np.array(inside, np.int32), "f:1")
    assert ends.without((4, 5, 1)) == (4, 5) and ends.without((1, 4)) == (1, 4)
    assert ends.without(()) == ()


def encoded(directory, prompt, demonstration, turn):
    tokenizer = load_tokenizer(str(directory))
    ends = end_tokens(tokenizer, turn.behind, declared_end_ids(directory), 10**5)
    prompt_ids = encode_plain(tokenizer, [prompt])[0]
    encoder = DemonstrationEncoder(tokenizer, turn, ends)
    (ids,) = encoder.encode([(prompt, prompt_ids, demonstration, "f:1")])
    return tokenizer.convert_ids_to_tokens(list(ids))


def test_a_text_in_the_middle_gets_no_blank_unless_the_template_writes_one(directories):
    # Older templates of Mistral write nothing before the answer, Llama 2's a blank on both sides.
    prompt = "<s>[INST] 1 [/INST]"
    bare = encoded(directories["llama2"], prompt, "We add", AssistantTurn("", "</s>"))
    assert bare[0] != "▁We" and bare[-2:] == ["▁add", "</s>"]
    spaced = encoded(directories["llama2"], prompt, "We add", AssistantTurn(" ", " </s>"))
    assert spaced == ["▁We", "▁add", "▁", "</s>"]


def test_a_demonstration_that_would_merge_into_the_prompt_is_encoded_alone(directories):
    # The prompt keeps the ids that it has alone, which "the answer" does not begin with.
    tokenizer = load_tokenizer(str(directories["gemma3"]))
    alone, together = encode_plain(tokenizer, ["the an", "the answer"])
    assert together[: len(alone)] != alone
    turn = AssistantTurn("", "<end_of_turn>\n")
    tokens = encoded(directories["gemma3"], "the an", "swer", turn)
    assert "".join(tokens) == "swer<end_of_turn>"


def test_an_end_of_the_text_itself_is_kept(directories):
    turn = AssistantTurn("", "<end_of_turn>\n")
    assert encoded(directories["gemma3"], "1", "2<eos>", turn)[-2:] == ["2", "<eos>"]
    assert encoded(directories["gemma3"], "1", "2<end_of_turn>", turn)[-2:] == [
        "2",
        "<end_of_turn>",
    ]


@pytest.fixture
def rows(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"prompt": "1 + 1?", "answer": "2", "demonstration": "so 2."}))
    return str(path)


def make_env(directory, rows, **settings):
    return TokenEnv(data=rows, tokenizer=str(directory), verifier=HALF_RIGHT, **settings)


@pytest.mark.parametrize("name", ["gemma3", "phi3", "llama3", "qwen3"])
def test_the_environment_terminates_at_each_end_token_also_one_of_the_prompt(
    directories, rows, name
):
    env = make_env(directories[name], rows, max_response_tokens=8)
    tokenizer = env.problem_set.tokenizer
    for token in FAMILIES[name].ends:
        env.reset()
        assert not env.step(7)[2]
        _, _, terminated, truncated, info = env.step(tokenizer.convert_tokens_to_ids(token))
        assert terminated and not truncated and info["verdict"] in ("CORRECT", "WRONG")


def test_the_verifier_never_sees_an_end_token_even_one_that_is_text_to_the_tokenizer(
    directories, rows
):
    (sign,) = encode_plain(load_tokenizer(str(directories["qwen3"])), ["#"])[0]
    env = make_env(directories["qwen3"], rows, eos_token_ids=[sign], chat_template=False)
    assert env.problem_set.end_tokens.ids == (sign, 342)  # the user's in place of the files' ids
    problem_set = env.problem_set
    words = encode_plain(problem_set.tokenizer, ["It is 2"])[0]
    assert problem_set.tokenizer.decode([sign]) == "#"
    assert problem_set.response_text([*words, sign]) == "It is 2"
    assert problem_set.train[0].demonstration_ids[0][-1] == 342


@pytest.mark.parametrize("value", [5, [1.0], [True], [-1], "1", [None], {"a": 1}])
def test_wrong_end_tokens_of_a_user_are_one_clear_error(directories, rows, value):
    with pytest.raises(ValueError, match=r"env_config\['eos_token_ids'\] must be a list"):
        make_env(directories["qwen3"], rows, eos_token_ids=value)


def test_a_text_with_its_own_begin_token_gets_no_second_one(directories, rows):
    env = make_env(directories["llama2"], rows, chat_template=False, prompt_template="<s>{prompt}")
    ids = env.problem_set.train[0].prompt_ids
    assert ids[0] == 1 and ids.count(1) == 1
    plain = make_env(directories["llama2"], rows, chat_template=False)
    assert plain.problem_set.train[0].prompt_ids == tuple(ids)


def test_a_prompt_may_hold_end_tokens(directories, rows):
    turns = "<s>[INST] 0 [/INST] 1 </s><s>[INST] {prompt} [/INST]"
    env = make_env(directories["llama2"], rows, chat_template=False, prompt_template=turns)
    problem = env.problem_set.train[0]
    assert 2 in problem.prompt_ids
    _, info = env.reset(options={"problem_id": problem.problem_id, "num_prefix_tokens": 2})
    assert info["num_prefix_tokens"] == 2
    assert not env.step(9)[2] and env.step(2)[2]
