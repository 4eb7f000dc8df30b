import logging

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

import prefix_rft_rllib.envs  # noqa: F401  (registers the ids)
from prefix_rft_rllib.envs.math_env import MathEnv
from prefix_rft_rllib.envs.token_env import TokenEnv
from tests.envs import fake_verifiers

KINDS = ["bpe", "chat_bpe", "unigram", "lossy"]


def steps(env, token_ids):
    """Step through token ids; returns the list of step results."""
    return [env.step(int(token)) for token in token_ids]


def encode(env, text):
    return env.problem_set.tokenizer.encode(text, add_special_tokens=False)


# --- contract


@pytest.mark.parametrize("kind", KINDS)
def test_gymnasiums_checker_passes_with_every_kind_of_tokenizer(config, kind, request):
    directory = request.getfixturevalue(kind)
    env = TokenEnv(**{**config, "tokenizer": directory, "max_prompt_tokens": 90})
    check_env(env, skip_render_check=True)


def test_the_registered_math_environment_has_the_math_verifier(config):
    del config["verifier"]
    env = gym.make("PrefixRFT/Math-v0", **config)
    assert isinstance(env.unwrapped, MathEnv)
    check_env(env.unwrapped, skip_render_check=True)
    # 10/2 equals 5 for the math verifier; as text they differ.
    env.reset(options={"problem_id": "a"})
    tokens = [*encode(env.unwrapped, "\\boxed{10/2}"), env.unwrapped.problem_set.end_tokens.of_turn]
    assert steps(env, tokens)[-1][1:] == (
        1.0,
        True,
        False,
        {"verdict": "CORRECT", "verdict_details": {}},
    )


def test_the_toy_environment_runs_with_its_own_data_and_tokenizer():
    env = gym.make("PrefixRFT/ToyArithmetic-v0").unwrapped
    check_env(env, skip_render_check=True)
    problem = env.problem_set.train[0]
    demonstration = problem.demonstration_ids[0]
    env.reset(options={"problem_id": problem.problem_id, "num_prefix_tokens": 5})
    assert steps(env, demonstration[5:])[-1][1:] == (
        1.0,
        True,
        False,
        {"verdict": "CORRECT", "verdict_details": {}},
    )
    assert env.problem_set.counts["demonstrations_set_aside"] == 0


def test_spaces_cover_every_token_and_the_padding(config, bpe):
    env = TokenEnv(**config)
    assert env.action_space.n == len(env.problem_set.tokenizer)
    assert env.observation_space.shape == (24 + 32,)
    assert env.observation_space.dtype == np.int32
    assert (env.observation_space.low == -1).all()
    assert (env.observation_space.high == env.action_space.n - 1).all()
    larger = TokenEnv(**config, vocab_size=1000)
    assert larger.action_space.n == 1000
    with pytest.raises(ValueError, match=r"'vocab_size'\] \(3\) is smaller than the tokenizer's"):
        TokenEnv(**config, vocab_size=3)


def test_the_observation_is_prompt_and_response_right_padded_by_minus_one(config):
    env = TokenEnv(**config)
    observation, info = env.reset(options={"problem_id": "a"})
    prompt = list(env.problem_set.by_id("a").prompt_ids)
    assert observation.tolist() == prompt + [-1] * (56 - len(prompt))
    assert info == {"problem_id": "a", "prompt_ids": tuple(prompt), "num_prefix_tokens": 0}
    assert env.state_ids.tolist() == prompt
    after, reward, terminated, truncated, info = env.step(7)
    assert after.tolist() == [*prompt, 7] + [-1] * (55 - len(prompt))
    assert (reward, terminated, truncated, info) == (0.0, False, False, {})
    assert env.state_ids.tolist() == [*prompt, 7]
    # Observations are copies: later steps do not reach into earlier ones.
    env.step(8)
    assert after[len(prompt) + 1] == -1


def test_a_reset_leaves_nothing_of_the_episode_before(config):
    env = TokenEnv(**config)
    env.reset(options={"problem_id": "b"})
    steps(env, [5] * 20)
    observation, _ = env.reset(options={"problem_id": "c"})
    assert observation.tolist() == TokenEnv(**config).reset(options={"problem_id": "c"})[0].tolist()


def test_problems_are_drawn_with_the_seed_and_from_training_only(config):
    config = {**config, "held_out_data": {"test": config["data"]}}
    env = TokenEnv(**config)

    def draws():
        return [env.reset(seed=3)[1]["problem_id"]] + [
            env.reset(options=options)[1]["problem_id"] for options in [None, {}] * 15
        ]

    first = draws()
    assert first == draws()
    assert set(first) == {"a", "b", "c"}
    assert env.reset(options={"problem_id": "test/b"})[1]["problem_id"] == "test/b"


# --- rewards and endings, worked by hand


def test_the_reward_comes_on_the_last_token_only(config):
    env = TokenEnv(**config)
    env.reset(options={"problem_id": "a"})
    tokens = [*encode(env, "so \\boxed{5} ."), env.problem_set.end_tokens.of_turn]
    results = steps(env, tokens)
    assert [r[1] for r in results] == [0.0] * (len(tokens) - 1) + [1.0]
    assert [r[2] for r in results] == [False] * (len(tokens) - 1) + [True]
    assert not any(r[3] for r in results)
    assert [r[4] for r in results] == [{}] * (len(tokens) - 1) + [
        {"verdict": "CORRECT", "verdict_details": {}}
    ]


@pytest.mark.parametrize(
    ("text", "verdict", "reward"),
    [("\\boxed{5}", "CORRECT", 2.0), ("\\boxed{6}", "WRONG", -1.0), ("5", "UNPARSEABLE", 0.0)],
)
def test_rewards_follow_the_table_of_verdicts(config, text, verdict, reward):
    env = TokenEnv(**config, rewards={"CORRECT": 2.0, "WRONG": -1.0})
    env.reset(options={"problem_id": "a"})
    last = steps(env, [*encode(env, text), env.problem_set.end_tokens.of_turn])[-1]
    assert (last[1], last[4]) == (reward, {"verdict": verdict, "verdict_details": {}})


def test_a_spent_budget_truncates_and_is_graded(config):
    env = TokenEnv(**config)
    env.reset(options={"problem_id": "a"})
    tokens = encode(env, "\\boxed{5}")
    tokens += [encode(env, ".")[0]] * (32 - len(tokens))
    results = steps(env, tokens)
    assert [r[3] for r in results] == [False] * 31 + [True]
    assert results[-1][1:] == (1.0, False, True, {"verdict": "CORRECT", "verdict_details": {}})


def test_the_end_token_at_the_last_place_of_the_budget_terminates(config):
    env = TokenEnv(**config)
    env.reset(options={"problem_id": "a"})
    last = steps(env, [5] * 31 + [env.problem_set.end_tokens.of_turn])[-1]
    assert last[2:4] == (True, False)


def test_the_prefix_counts_towards_the_budget(config):
    env = TokenEnv(**config)
    env.reset(options={"problem_id": "a", "num_prefix_tokens": 4})
    results = steps(env, [5] * 28)
    assert [r[3] for r in results] == [False] * 27 + [True]


def test_the_verifier_sees_prefix_and_response_and_neither_prompt_nor_end_token(config):
    env = TokenEnv(**config)
    demonstration = env.problem_set.by_id("a").demonstration_ids[0]
    env.reset(options={"problem_id": "a", "num_prefix_tokens": 3})
    fake_verifiers.calls.clear()
    steps(env, demonstration[3:])
    assert fake_verifiers.calls == ["2 + 3 = 5 so \\boxed{5}"]


def test_the_second_demonstration_can_be_chosen(config):
    env = TokenEnv(**config)
    problem = env.problem_set.by_id("c")
    options = {"problem_id": "c", "demonstration_index": 1, "num_prefix_tokens": 2}
    env.reset(options=options)
    assert env.state_ids.tolist() == [*problem.prompt_ids, *problem.demonstration_ids[1][:2]]


# --- the verifier's results


def at_the_end(config, verifier):
    env = TokenEnv(**{**config, "verifier": f"tests.envs.fake_verifiers:{verifier}"})
    env.reset(options={"problem_id": "a"})
    return steps(env, [*encode(env, "\\boxed{5}"), env.problem_set.end_tokens.of_turn])[-1]


def test_a_number_from_the_verifier_is_the_reward(config):
    assert at_the_end(config, "share_of_length")[1:] == (
        0.25,
        True,
        False,
        {"verdict": "SCORED", "verdict_details": {}},
    )


def test_a_crash_of_the_verifier_is_an_error_logged_once_and_never_wrong(config, caplog):
    config = {**config, "rewards": {"ERROR": -3.0}, "verifier": "tests.envs.fake_verifiers:broken"}
    env = TokenEnv(**config)
    with caplog.at_level(logging.ERROR):
        for _ in range(2):
            env.reset(options={"problem_id": "a"})
            assert env.step(env.problem_set.end_tokens.of_turn)[1:] == (
                -3.0,
                True,
                False,
                {"verdict": "ERROR", "verdict_details": {}},
            )
    (record,) = caplog.records
    assert (
        "'tests.envs.fake_verifiers:broken' raised RuntimeError for problem 'a'" in record.message
    )


@pytest.mark.parametrize("verifier", ["wordy", "truthy", "not_a_number"])
def test_any_other_result_of_a_verifier_is_a_clear_error(config, verifier):
    with pytest.raises(ValueError, match=r"must return a Verdict or a finite number"):
        at_the_end(config, verifier)


# --- misuse


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"problem": "a"}, "Unknown reset option 'problem'. Known options: problem_id"),
        ({"num_prefix_tokens": 2}, "lack 'problem_id'"),
        ({"problem_id": "z"}, "no problem with the id 'z'"),
        ({"problem_id": "a", "demonstration_index": 1}, "(1) is out of range: problem 'a' has 1"),
        ({"problem_id": "a", "demonstration_index": -1}, "(-1) is out of range"),
        ({"problem_id": "a", "num_prefix_tokens": 0.5}, "must be a whole number, got 0.5"),
        ({"problem_id": "a", "num_prefix_tokens": True}, "must be a whole number, got True"),
        ({"problem_id": "a", "num_prefix_tokens": -1}, "must be in [0, "),
        ({"problem_id": "b", "num_prefix_tokens": 1}, "'b' has no demonstration: only 0"),
        ({"problem_id": "b", "demonstration_index": 1}, "'b' has 0 demonstrations"),
        ({"problem_id": "b", "max_response_tokens": 0}, "'max_response_tokens' must be in [1, "),
        ({"problem_id": "b", "max_response_tokens": 10**6}, "the environment's own, got 1000000"),
    ],
)
def test_a_wrong_reset_option_is_one_clear_error(config, options, expected):
    with pytest.raises(ValueError) as caught:
        TokenEnv(**config).reset(options=options)
    assert expected in str(caught.value)


def test_the_longest_prefix_leaves_one_token_to_write(config):
    env = TokenEnv(**config)
    length = len(env.problem_set.by_id("a").demonstration_ids[0])
    env.reset(options={"problem_id": "a", "num_prefix_tokens": length - 1})
    with pytest.raises(ValueError, match=rf"\[0, {length - 1}\], got {length}: .* {length} tokens"):
        env.reset(options={"problem_id": "a", "num_prefix_tokens": length})
    tight = TokenEnv(**{**config, "max_response_tokens": length})
    tight.reset(options={"problem_id": "a", "num_prefix_tokens": np.int64(length - 1)})


def test_a_smaller_budget_holds_for_one_episode(config):
    env = TokenEnv(**config)

    def steps_until_the_end(**options):
        env.reset(options={"problem_id": "a", **options})
        token, count, truncated = env.problem_set.tokenizer.encode("7")[0], 0, False
        while not truncated:
            _, _, terminated, truncated, _ = env.step(token)
            count += 1
            assert not terminated
            assert env.num_tokens_left == (options.get("max_response_tokens") or whole) - count - (
                options.get("num_prefix_tokens", 0)
            )
        return count

    whole = env.max_response_tokens
    assert steps_until_the_end(max_response_tokens=3) == 3
    assert steps_until_the_end(max_response_tokens=3, num_prefix_tokens=2) == 1
    assert steps_until_the_end() == whole
    with pytest.raises(ValueError, match=r"'num_prefix_tokens' must be in \[0, 2\], got 3"):
        env.reset(options={"problem_id": "a", "num_prefix_tokens": 3, "max_response_tokens": 3})


def test_stepping_outside_of_an_episode_is_an_error(config):
    env = TokenEnv(**config)
    with pytest.raises(ValueError, match="call reset"):
        env.step(1)
    env.reset()
    env.step(env.problem_set.end_tokens.of_turn)
    with pytest.raises(ValueError, match="call reset"):
        env.step(1)


@pytest.mark.parametrize("action", [-1, 10**6, 1.0, "5", None])
def test_an_action_that_is_no_token_id_is_an_error(config, action):
    env = TokenEnv(**config)
    env.reset()
    with pytest.raises(ValueError, match=r"must be a token id, a whole number in \[0, "):
        env.step(action)
