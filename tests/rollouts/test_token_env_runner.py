"""The env runner alone, in this process: plans in, finished episodes out."""

import dataclasses
import threading
import time

import gymnasium as gym
import numpy as np
import ray

from prefix_rft_rllib.envs import MathEnv
from prefix_rft_rllib.rollouts import row_data
from prefix_rft_rllib.rollouts.sampling import Sampling
from tests.envs import fake_verifiers
from tests.rollouts.env_runner_plans import plan_of, runner_of, tokens
from tests.small_configs import BROKEN, HOSTILE_TEXT, MAX_RESPONSE_TOKENS, TALKATIVE

pytest_plugins = ("tests.rollouts.env_runner_fixtures",)

GREEDY = Sampling(temperature=0.0)


def test_sampling_needs_no_cluster(runner):
    ray.shutdown()
    runner.sample(rollouts=plan_of(runner, 0))
    assert not ray.is_initialized()


def test_the_runner_and_driving_the_environment_by_hand_give_the_same_episode(runner, make_config):
    plan = plan_of(runner, 0, 5, 20)
    episodes = runner.sample(rollouts=plan)
    config = make_config()
    env = gym.make(config.env, **config.token_env_config())
    for rollout, episode in zip(plan, episodes, strict=True):
        _, info = env.reset(options=rollout.reset_options)
        response = row_data.response_ids_of(episode).tolist()
        state = env.unwrapped.state_ids.tolist()
        assert state == list(info["prompt_ids"]) + response[: rollout.num_prefix_tokens]
        for token in response[rollout.num_prefix_tokens :]:
            observation, reward, terminated, truncated, info = env.step(token)
        assert terminated or truncated
        window = observation[observation >= 0].tolist()
        assert (
            window
            == np.concatenate(
                [row_data.prompt_ids_of(episode), row_data.response_ids_of(episode)]
            ).tolist()
        )
        assert (episode.is_terminated, episode.is_truncated) == (terminated, truncated)
        assert episode.get_return() == reward
        assert episode.custom_data[row_data.VERDICT] == info["verdict"]
        assert episode.custom_data[row_data.VERDICT_DETAILS] == info["verdict_details"]


def test_a_prefix_state_equals_stepping_through_the_prefix(runner):
    # Greedy: the same state must lead to the same continuation.
    (plain,) = runner.sample(rollouts=plan_of(runner, 0), sampling=GREEDY)
    problem = runner.env.unwrapped.problem_set.by_id(plan_of(runner, 0)[0].problem_id)
    (hybrid,) = runner.sample(rollouts=plan_of(runner, 7), sampling=GREEDY)
    assert tokens([hybrid])[0][:7] == list(problem.demonstration_ids[0][:7])
    assert len(hybrid) <= MAX_RESPONSE_TOKENS
    assert tokens([plain]) != tokens([hybrid])


def test_episodes_come_in_the_order_of_the_plan_and_do_not_depend_on_it(runner):
    plan = plan_of(runner, 0, 3, 9, 0, 12)
    episodes = runner.sample(rollouts=plan)
    assert [e.custom_data[row_data.ROLLOUT] for e in episodes] == plan
    backwards = runner.sample(rollouts=plan[::-1])
    assert tokens(backwards[::-1]) == tokens(episodes)
    alone = [runner.sample(rollouts=[rollout])[0] for rollout in plan]
    assert tokens(alone) == tokens(episodes)


def test_another_seed_gives_another_response(runner):
    plan = plan_of(runner, 0)
    other = [dataclasses.replace(plan[0], seed=5)]
    assert tokens(runner.sample(rollouts=plan)) != tokens(runner.sample(rollouts=other))


def test_given_tokens_have_no_logp_and_sampled_ones_have(runner):
    (episode,) = runner.sample(rollouts=plan_of(runner, 6))
    logps = row_data.engine_logps_of(episode)
    assert np.isnan(logps[:6]).all()
    assert (logps[6:] <= 0).all()
    assert len(logps) == len(tokens([episode])[0]) > 6
    assert not np.isnan(logps[6:]).any()


def test_prompt_is_lookback_and_not_part_of_the_episode(runner):
    (episode,) = runner.sample(rollouts=plan_of(runner, 4))
    problem = runner.env.unwrapped.problem_set.train[0]
    assert row_data.prompt_ids_of(episode).tolist() == list(problem.prompt_ids)
    assert len(episode) == len(tokens([episode])[0])
    rewards = episode.get_rewards()
    assert not rewards[:-1].any()


def test_greedy_sampling_depends_on_neither_seed_nor_top_p(make_config, weights):
    runner = runner_of(make_config().env_runners(top_p=0.3), weights)
    plan = plan_of(runner, 0, 0)
    other = [dataclasses.replace(rollout, seed=9) for rollout in plan]
    first = runner.sample(rollouts=plan, sampling=GREEDY)
    assert tokens(first) == tokens(runner.sample(rollouts=other, explore=False))
    assert tokens(first) != tokens(runner.sample(rollouts=plan))


def test_an_empty_plan_gives_no_episodes(runner):
    assert runner.sample(rollouts=[]) == []


def test_an_environment_class_works_like_its_id(runner, make_config, weights):
    plan = plan_of(runner, 0, 3)
    by_class = runner_of(make_config().environment(MathEnv), weights)
    assert tokens(by_class.sample(rollouts=plan)) == tokens(runner.sample(rollouts=plan))


def test_a_verifier_that_raises_gives_error_verdicts(make_config, weights):
    runner = runner_of(make_config({"verifier": BROKEN}), weights)
    episodes = runner.sample(rollouts=plan_of(runner, 0, 3))
    assert [e.custom_data[row_data.VERDICT] for e in episodes] == ["ERROR", "ERROR"]
    assert [e.get_return() for e in episodes] == [0.0, 0.0]


def test_what_a_verifier_says_beside_its_verdict_travels_with_the_episode(make_config, weights):
    runner = runner_of(make_config({"verifier": TALKATIVE}), weights)
    episodes = runner.sample(rollouts=plan_of(runner, 0, 3))
    assert [e.custom_data[row_data.VERDICT] for e in episodes] == ["WRONG", "WRONG"]
    # Half a pair of surrogates is written as an escape.
    got = HOSTILE_TEXT.replace("\ud800", "\\ud800")
    details = {"test": "assert f(1) == 2", "got": got, "isolation": "none"}
    assert [e.custom_data[row_data.VERDICT_DETAILS] for e in episodes] == [details] * 2


def test_a_users_verifier_is_called_in_the_thread_that_samples(make_config, weights):
    # This verifier raises in any other thread than the main one.
    config = make_config({"verifier": "tests.envs.fake_verifiers:by_signal"})
    runner = runner_of(config.env_runners(num_envs_per_env_runner=4), weights)
    fake_verifiers.calling_threads.clear()
    episodes = runner.sample(rollouts=plan_of(runner, 0, 3, 5, 7))
    assert "ERROR" not in [e.custom_data[row_data.VERDICT] for e in episodes]
    assert fake_verifiers.calling_threads == [threading.current_thread()] * 4


def test_finished_responses_are_graded_while_others_are_generated(
    make_config, weights, monkeypatch
):
    config = make_config({"verifier": "math"}).env_runners(num_envs_per_env_runner=4)
    runner = runner_of(config, weights)
    plan = plan_of(runner, 0, 3, 20, 0, 12)
    expected = runner.sample(rollouts=plan)
    played, seen = [], []

    stream = runner.engine.generate_stream

    def slow_stream(requests):
        for index, generation in sorted(stream(requests), key=lambda row: row[0]):
            yield index, generation
            deadline = time.monotonic() + 5
            while len(played) <= index and time.monotonic() < deadline:
                time.sleep(0.001)
            seen.append(len(played))

    play = runner._play

    def noted(*args):
        episode = play(*args)
        played.append(episode)
        return episode

    monkeypatch.setattr(runner.engine, "generate_stream", slow_stream)
    monkeypatch.setattr(runner, "_play", noted)
    episodes = runner.sample(rollouts=plan)
    assert seen == [1, 2, 3, 4, 5]  # each was graded before the next one arrived
    assert tokens(episodes) == tokens(expected)
    assert [e.custom_data for e in episodes] == [e.custom_data for e in expected]
    assert [e.get_return() for e in episodes] == [e.get_return() for e in expected]


def test_a_smaller_budget_ends_responses_earlier_and_changes_nothing_before(runner):
    plan = plan_of(runner, 0, 3, 5)
    whole = runner.sample(rollouts=plan)
    short = runner.sample(rollouts=plan, sampling=Sampling(max_response_tokens=6))
    for response, cut in zip(tokens(whole), tokens(short), strict=True):
        assert cut == response[:6]
    assert [e.is_truncated for e in short] == [
        len(response) > 6 or e.is_truncated
        for response, e in zip(tokens(whole), whole, strict=True)
    ]
    assert tokens(runner.sample(rollouts=plan)) == tokens(whole), "the budget is the next call's"


def test_the_nucleus_and_temperature_of_a_call_are_its_own(runner, make_config, weights):
    plan = plan_of(runner, 0, 0, 0)
    narrow = Sampling(temperature=0.7, top_p=0.3)
    once = tokens(runner.sample(rollouts=plan, sampling=narrow))
    other = runner_of(make_config().env_runners(temperature=0.7, top_p=0.3), weights)
    assert tokens(other.sample(rollouts=plan)) == once
    assert once != tokens(runner.sample(rollouts=plan))


def test_problems_of_an_evaluation_have_environments_of_their_own(runner, tmp_path):
    file = tmp_path / "others.jsonl"
    file.write_text('{"id": "other", "prompt": "2 + 3 ?", "answer": "5"}\n')
    own = runner.config.token_env_config()
    names = ("tokenizer", "vocab_size", "eos_token_ids", "max_prompt_tokens", "max_response_tokens")
    others = Sampling(
        temperature=0.0,
        env_config={"data": str(file), "verifier": "math", **{name: own[name] for name in names}},
    )
    rollout = dataclasses.replace(plan_of(runner, 0)[0], problem_id="other")
    before = tokens(runner.sample(rollouts=plan_of(runner, 0)))
    for _ in range(2):
        (episode,) = runner.sample(rollouts=[rollout], sampling=others)
        assert episode.custom_data[row_data.VERDICT] in ("WRONG", "UNPARSEABLE", "CORRECT")
    assert tokens(runner.sample(rollouts=plan_of(runner, 0))) == before
    assert len(runner._envs) == 2
