import json
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import prefix_rft_rllib.envs  # noqa: F401  (registers the ids)
from prefix_rft_rllib.envs import token_env
from prefix_rft_rllib.envs.math_env import MathEnv
from prefix_rft_rllib.envs.token_env import TokenEnv
from prefix_rft_rllib.envs.verifiers.grading import boxed
from tests.envs.problem_data import ROWS, SAME_BOX
from tests.envs.small_tokenizers import save_byte_level_bpe


@pytest.fixture(scope="module")
def shared_env(tmp_path_factory):
    """One environment for all examples of a property; every example resets it."""
    directory = tmp_path_factory.mktemp("shared")
    path = directory / "data.jsonl"
    path.write_text("".join(f"{json.dumps(row)}\n" for row in ROWS))
    return TokenEnv(
        data=str(path),
        tokenizer=save_byte_level_bpe(directory / "bpe"),
        max_prompt_tokens=24,
        max_response_tokens=32,
        verifier=SAME_BOX,
    )


def steps(env, token_ids):
    """Step through token ids; returns the list of step results."""
    return [env.step(int(token)) for token in token_ids]


def encode(env, text):
    return env.problem_set.tokenizer.encode(text, add_special_tokens=False)


def section(doc: str, heading: str) -> str:
    return re.search(rf"## {heading}\n(.*?)(?:\n\s*## |\Z)", doc, re.DOTALL).group(1)


@pytest.mark.parametrize("environment", [TokenEnv, MathEnv])
def test_the_docstring_has_gymnasiums_headings(environment):
    assert re.findall(r"## (.*)", environment.__doc__) == [
        "Description",
        "Action Space",
        "Observation Space",
        "Rewards",
        "Starting State",
        "Episode End",
        "Arguments",
        "Reset Options",
        "Info Keys",
        "Version History",
    ]


def test_documented_keys_equal_generated_ones(config):
    env = TokenEnv(**config)
    _, reset_info = env.reset(options={"problem_id": "a"})
    final_info = env.step(env.problem_set.end_tokens.of_turn)[4]
    assert tuple(reset_info) == token_env.RESET_INFO_KEYS
    assert tuple(final_info) == token_env.FINAL_INFO_KEYS
    bullets = re.findall(r"- `(\w+)`:", section(TokenEnv.__doc__, "Info Keys"))
    assert bullets == [*reset_info, *final_info]
    options = re.findall(r"- `(\w+)`:", section(TokenEnv.__doc__, "Reset Options"))
    assert tuple(options) == token_env.RESET_OPTIONS


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_resetting_to_a_prefix_equals_stepping_it(shared_env, data):
    """Invariant 7: same state, and the same end for the same continuation."""
    env = shared_env
    problem_id, index = data.draw(st.sampled_from([("a", 0), ("c", 0), ("c", 1)]))
    demonstration = env.problem_set.by_id(problem_id).demonstration_ids[index]
    num_prefix = data.draw(st.integers(0, len(demonstration) - 1))
    rest = data.draw(
        st.one_of(
            st.just(list(demonstration[num_prefix:])),
            st.lists(st.integers(0, env.vocab_size - 1), min_size=1, max_size=40),
        )
    )

    def finish(observation):
        trace = [observation.tolist()]
        for token in rest:
            observation, *outcome = env.step(token)
            trace.append((observation.tolist(), outcome, env.state_ids.tolist()))
            if outcome[1] or outcome[2]:
                break
        return trace

    options = {"problem_id": problem_id, "demonstration_index": index}
    observation, info = env.reset(options={**options, "num_prefix_tokens": num_prefix})
    assert info["num_prefix_tokens"] == num_prefix
    from_prefix = finish(observation)
    observation, _ = env.reset(options=options)
    for token in demonstration[:num_prefix]:
        observation, *outcome = env.step(token)
        assert outcome == [0.0, False, False, {}]
    assert finish(observation) == from_prefix


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
def test_every_gold_answer_is_correct_and_an_empty_response_is_not(config, kind, request):
    """Invariant 9, through the environment and with the math verifier."""
    changes = {"tokenizer": request.getfixturevalue(kind), "verifier": "math"}
    env = TokenEnv(**{**config, **changes})
    for problem in env.problem_set.train:
        env.reset(options={"problem_id": problem.problem_id})
        last = steps(
            env, [*encode(env, boxed(problem.answer)), env.problem_set.end_tokens.of_turn]
        )[-1]
        assert last[1:] == (1.0, True, False, {"verdict": "CORRECT", "verdict_details": {}})
        env.reset(options={"problem_id": problem.problem_id})
        assert env.step(env.problem_set.end_tokens.of_turn)[1:] == (
            0.0,
            True,
            False,
            {"verdict": "UNPARSEABLE", "verdict_details": {}},
        )
