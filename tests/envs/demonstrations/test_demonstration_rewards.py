import logging

import pytest

from prefix_rft_rllib.envs.demonstrations.demonstration_rewards import demonstration_reward
from prefix_rft_rllib.envs.token_env import TokenEnv
from prefix_rft_rllib.envs.verifiers.grading import reward_of
from prefix_rft_rllib.envs.verifiers.verdict import Verdict
from tests.envs import fake_verifiers
from tests.envs.problem_data import ROWS, load
from tests.envs.small_tokenizers import END

REWARDS = {"CORRECT": 1.0, "WRONG": -0.5, "UNPARSEABLE": -1.0, "TIMEOUT": 0.125, "ERROR": 0.25}
DEMONSTRATIONS = {
    "2 \\boxed{5}": "CORRECT",
    "2 \\boxed{6}": "WRONG",
    "2 + 3": "UNPARSEABLE",
    "2 \\boxed{7}": "TIMEOUT",
    "2 \\boxed{8}": "ERROR",
    f"\\boxed{{5}}{END}": "CORRECT",
}
UNDECIDED = "tests.envs.fake_verifiers:undecided"


@pytest.fixture
def graded(config, write_rows) -> dict:
    """An env_config with a demonstration for every verdict."""
    row = {**ROWS[0], "demonstration": list(DEMONSTRATIONS)}
    return {**config, "data": write_rows([row, ROWS[1]], "graded.jsonl"), "verifier": UNDECIDED}


def test_every_verdict_pays_what_the_settings_say(graded):
    problems = load(graded, rewards=REWARDS)
    rewards = [demonstration_reward(problems, "a", i) for i in range(len(DEMONSTRATIONS))]
    assert rewards == [1.0, -0.5, -1.0, 0.125, 0.25, 1.0]
    # Verdicts that are not listed give 0.
    problems = load(graded)
    rewards = [demonstration_reward(problems, "a", i) for i in range(len(DEMONSTRATIONS))]
    assert rewards == [1.0, 0.0, 0.0, 0.0, 0.0, 1.0]


def test_a_number_is_its_own_reward(graded):
    verifier = "tests.envs.fake_verifiers:share_of_length"
    problems = load(graded, verifier=verifier, rewards={"CORRECT": 9.0})
    assert [demonstration_reward(problems, "a", i) for i in (0, 1)] == [0.25, -0.5]
    assert reward_of(0.75, REWARDS) == 0.75
    assert reward_of(Verdict.WRONG, {}) == 0.0


@pytest.mark.parametrize("kind", ["bpe", "chat_bpe", "unigram"])
@pytest.mark.parametrize("verifier", [UNDECIDED, "tests.envs.fake_verifiers:share_of_length"])
def test_it_is_what_the_environment_pays(graded, kind, verifier, request):
    """Independent: step every token of the demonstration through the environment."""
    directory = request.getfixturevalue(kind)
    changes = {"tokenizer": directory, "verifier": verifier, "rewards": REWARDS}
    env = TokenEnv(**{**graded, **changes, "max_prompt_tokens": 90})
    for index, token_ids in enumerate(env.problem_set.by_id("a").demonstration_ids):
        env.reset(options={"problem_id": "a"})
        *_, (_, paid, terminated, _, _) = [env.step(token) for token in token_ids]
        assert terminated
        assert demonstration_reward(env.problem_set, "a", index) == paid


def test_a_demonstration_is_graded_as_its_decoded_tokens(config):
    problems = load(config)
    fake_verifiers.calls.clear()
    assert demonstration_reward(problems, "c", 1) == 1.0
    assert fake_verifiers.calls == ["é = \\boxed{34} ."]


@pytest.mark.parametrize(
    ("index", "verdict", "reward"), [(3, "TIMEOUT", 0.125), (4, "ERROR", 0.25)]
)
def test_a_missing_verdict_is_logged(graded, caplog, index, verdict, reward):
    problems = load(graded, rewards=REWARDS)
    name = "prefix_rft_rllib.envs.demonstrations.demonstration_rewards"
    with caplog.at_level(logging.WARNING, name):
        demonstration_reward(problems, "a", 1)
        assert not [r for r in caplog.records if r.name == name]
        demonstration_reward(problems, "a", index)
    (record,) = [r for r in caplog.records if r.name == name]
    assert f"demonstration {index} of problem 'a' is {verdict}. Its reward is {reward}" in (
        record.getMessage()
    )


def test_an_unknown_demonstration_is_an_error(config):
    with pytest.raises(ValueError, match=r"\(0\) is out of range: problem 'b' has 0"):
        demonstration_reward(load(config), "b", 0)
    with pytest.raises(ValueError, match=r"\(2\) is out of range: problem 'c' has 2"):
        demonstration_reward(load(config), "c", 2)
    with pytest.raises(ValueError, match="no problem with the id 'z'"):
        demonstration_reward(load(config), "z", 0)


def test_a_verifier_that_returns_anything_else_is_an_error(config):
    problems = load(config, verifier="tests.envs.fake_verifiers:wordy")
    with pytest.raises(ValueError, match="must return a Verdict or a finite number"):
        demonstration_reward(problems, "a", 0)
