"""The env runner alone, in this process: plans in, finished episodes out."""

import dataclasses
import threading
import time

import gymnasium as gym
import numpy as np
import pytest
import ray
from ray.rllib.callbacks.callbacks import RLlibCallback
from ray.rllib.core import COMPONENT_RL_MODULE, DEFAULT_MODULE_ID
from ray.rllib.env import INPUT_ENV_SINGLE_SPACES, INPUT_ENV_SPACES
from ray.rllib.utils.metrics import (
    EPISODE_RETURN_MEAN,
    NUM_ENV_STEPS_SAMPLED,
    NUM_ENV_STEPS_SAMPLED_LIFETIME,
    NUM_EPISODES,
    WEIGHTS_SEQ_NO,
)

from prefix_rft_rllib.connectors import episodes as row_data
from prefix_rft_rllib.core.prefix_sampling import Rollout
from prefix_rft_rllib.envs import MathEnv
from prefix_rft_rllib.token_env_runner import TokenEnvRunner
from prefix_rft_rllib.torch.default_prefix_rft_torch_rl_module import DefaultPrefixRFTTorchRLModule
from tests.envs import fake_verifiers
from tests.small_configs import BROKEN, MAX_RESPONSE_TOKENS

pytest_plugins = ("tests.algorithm_fixtures",)


@pytest.fixture(scope="module")
def weights(make_config) -> dict:
    """The tiny model's weights, as the learner's module gives them."""
    module = DefaultPrefixRFTTorchRLModule(
        observation_space=gym.spaces.Discrete(4),
        action_space=gym.spaces.Discrete(4),
        model_config=make_config().model_config,
    )
    return module.get_state(inference_only=True)


def runner_of(config, weights) -> TokenEnvRunner:
    config.validate()
    runner = TokenEnvRunner(config=config, worker_index=0)
    give(runner, weights, number=1)
    return runner


def give(runner, weights, number) -> None:
    runner.set_state({COMPONENT_RL_MODULE: {DEFAULT_MODULE_ID: weights}, WEIGHTS_SEQ_NO: number})


def scaled(weights, factor) -> dict:
    return {name: value * np.float32(factor) for name, value in weights.items()}


@pytest.fixture
def runner(make_config, weights) -> TokenEnvRunner:
    return runner_of(make_config(), weights)


def plan_of(runner, *num_prefix_tokens: int) -> list[Rollout]:
    """One rollout per prefix length, each of another problem."""
    problems = runner.env.unwrapped.problem_set.train
    return [
        Rollout(
            problem_id=problems[number].problem_id,
            group_id=number,
            member=0,
            seed=1000 + number,
            num_prefix_tokens=length,
        )
        for number, length in enumerate(num_prefix_tokens)
    ]


def tokens(episodes) -> list[list[int]]:
    return [row_data.response_ids_of(episode).tolist() for episode in episodes]


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


def test_a_prefix_state_equals_stepping_through_the_prefix(runner):
    # Greedy: the same state must lead to the same continuation.
    (plain,) = runner.sample(rollouts=plan_of(runner, 0), temperature=0.0)
    problem = runner.env.unwrapped.problem_set.by_id(plan_of(runner, 0)[0].problem_id)
    (hybrid,) = runner.sample(rollouts=plan_of(runner, 7), temperature=0.0)
    assert tokens([hybrid])[0][:7] == list(problem.demonstrations[0][:7])
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
    first = runner.sample(rollouts=plan, temperature=0.0)
    assert tokens(first) == tokens(runner.sample(rollouts=other, explore=False))
    assert tokens(first) != tokens(runner.sample(rollouts=plan))


def test_random_actions_are_refused(runner):
    with pytest.raises(ValueError, match="random_actions"):
        runner.sample(num_episodes=1, random_actions=True)


def test_sampling_without_a_plan_draws_training_problems(runner):
    train = {problem.problem_id for problem in runner.env.unwrapped.problem_set.train}
    episodes = runner.sample(num_episodes=5)
    ids = [episode.custom_data[row_data.ROLLOUT].problem_id for episode in episodes]
    assert len(ids) == 5
    assert len(set(ids)) > 1
    assert set(ids) <= train
    assert all(e.custom_data[row_data.NUM_PREFIX_TOKENS] == 0 for e in episodes)
    assert len(runner.sample()) == 1


def test_unplanned_sampling_is_reproducible_and_goes_on_drawing(make_config, weights):
    first = runner_of(make_config(), weights)
    second = runner_of(make_config(), weights)
    episodes = first.sample(num_episodes=2) + first.sample(num_episodes=2)
    again = second.sample(num_episodes=4)
    assert tokens(episodes) == tokens(again)
    assert tokens(episodes[:2]) != tokens(episodes[2:])


def test_num_timesteps_asks_for_at_least_so_many_tokens(runner):
    episodes = runner.sample(num_timesteps=3 * MAX_RESPONSE_TOKENS)
    lengths = [len(episode) for episode in episodes]
    assert sum(lengths) >= 3 * MAX_RESPONSE_TOKENS > sum(lengths[:-1])


def test_default_evaluation_can_count_episodes_and_steps(runner):
    episodes = runner.sample(num_timesteps=None, num_episodes=3, force_reset=True)
    reduced = runner.get_metrics()
    num_steps = sum(map(len, episodes))
    assert reduced[NUM_EPISODES].peek() == 3
    assert reduced[NUM_ENV_STEPS_SAMPLED].peek() == num_steps
    assert sum(episode.env_steps() for episode in episodes) == num_steps
    assert EPISODE_RETURN_MEAN not in reduced  # of training rollouts the driver logs it


def test_given_tokens_are_no_env_steps(runner):
    (episode,) = runner.sample(rollouts=plan_of(runner, 10))
    assert runner.get_metrics()[NUM_ENV_STEPS_SAMPLED].peek() == len(episode) - 10
    assert runner.get_state()[NUM_ENV_STEPS_SAMPLED_LIFETIME] == len(episode) - 10


def test_an_empty_plan_gives_no_episodes(runner):
    assert runner.sample(rollouts=[]) == []


def test_sampling_before_any_weights_is_an_error(make_config):
    runner = TokenEnvRunner(config=make_config(), worker_index=0)
    with pytest.raises(RuntimeError, match="no weights yet"):
        runner.sample(num_episodes=1)


def test_weights_are_taken_whatever_their_number(runner, weights):
    plan = plan_of(runner, 0, 0, 0)
    first = tokens(runner.sample(rollouts=plan))
    others = {}
    # A larger, a smaller and the same number; each time other weights.
    for number, factor in ((5, 0.5), (2, 0.25), (2, 0.1)):
        give(runner, scaled(weights, factor), number)
        episodes = runner.sample(rollouts=plan)
        others[factor] = tokens(episodes)
        assert {e.custom_data[row_data.WEIGHTS_SEQ_NO] for e in episodes} == {number}
    assert len({str(first), *map(str, others.values())}) == 4
    give(runner, weights, number=1)
    assert tokens(runner.sample(rollouts=plan)) == first


def test_state_without_weights_leaves_them_alone(runner):
    plan = plan_of(runner, 0)
    before = tokens(runner.sample(rollouts=plan))
    runner.set_state({NUM_ENV_STEPS_SAMPLED_LIFETIME: 77})
    assert tokens(runner.sample(rollouts=plan)) == before
    state = runner.get_state(components=["env_to_module_connector"])
    assert list(state) == [NUM_ENV_STEPS_SAMPLED_LIFETIME]
    assert state[NUM_ENV_STEPS_SAMPLED_LIFETIME] >= 77


def test_the_engine_is_built_at_its_first_use(make_config, weights):
    runner = runner_of(make_config(), weights)
    assert runner._engine is None
    runner.sample(rollouts=plan_of(runner, 0))
    assert runner._engine is not None
    runner.stop()


def test_engine_options_reach_the_engine(make_config, weights):
    plan = plan_of(runner_of(make_config(), weights), 0, 0, 0)
    one_by_one = make_config().env_runners(engine_config={"max_batch_size": 1})
    runner = runner_of(one_by_one, weights)
    episodes = runner.sample(rollouts=plan)
    assert tokens(episodes) == tokens(runner_of(make_config(), weights).sample(rollouts=plan))
    with pytest.raises(ValueError, match="max_batch"):
        runner_of(make_config().env_runners(engine_config={"max_batch": 1}), weights).sample()


def test_spaces_are_those_of_the_environment(runner):
    spaces = runner.get_spaces()
    assert set(spaces) == {INPUT_ENV_SPACES, INPUT_ENV_SINGLE_SPACES, DEFAULT_MODULE_ID}
    assert spaces[DEFAULT_MODULE_ID] == (runner.env.observation_space, runner.env.action_space)
    assert runner.assert_healthy() is None


def test_an_environment_class_works_like_its_id(runner, make_config, weights):
    plan = plan_of(runner, 0, 3)
    by_class = runner_of(make_config().environment(MathEnv), weights)
    assert tokens(by_class.sample(rollouts=plan)) == tokens(runner.sample(rollouts=plan))


def test_a_verifier_that_raises_gives_error_verdicts(make_config, weights):
    runner = runner_of(make_config({"verifier": BROKEN}), weights)
    episodes = runner.sample(rollouts=plan_of(runner, 0, 3))
    assert [e.custom_data[row_data.VERDICT] for e in episodes] == ["ERROR", "ERROR"]
    assert [e.get_return() for e in episodes] == [0.0, 0.0]


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


class Recorder(RLlibCallback):
    """Notes the runner's callbacks."""

    seen: list = []  # noqa: RUF012 one list for all instances: RLlib makes its own instance

    def on_environment_created(self, *, env, env_context, **kwargs):
        self.seen.append(("created", env_context["max_response_tokens"]))

    def on_episode_end(self, *, episode, env, env_index, metrics_logger, **kwargs):
        assert env.unwrapped.state_ids[-1] == row_data.response_ids_of(episode)[-1]
        metrics_logger.log_value("my_length", len(episode), reduce="max")
        self.seen.append(("end", env_index))

    def on_sample_end(self, *, env_runner, samples, **kwargs):
        self.seen.append(("sample", len(samples)))


def test_callbacks_fire_and_may_log_metrics(make_config, weights):
    Recorder.seen.clear()
    functions_saw = []
    config = make_config().callbacks(
        Recorder, on_sample_end=lambda samples, **kwargs: functions_saw.append(len(samples))
    )
    runner = runner_of(config, weights)
    episodes = runner.sample(rollouts=plan_of(runner, 0, 4))
    assert Recorder.seen == [
        ("created", MAX_RESPONSE_TOKENS),
        ("end", 0),
        ("end", 1),
        ("sample", 2),
    ]
    assert functions_saw == [2]
    assert runner.get_metrics()["my_length"].peek() == max(map(len, episodes))
