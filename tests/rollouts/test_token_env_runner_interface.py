"""The env runner as RLlib sees it: weights and state, sampling without a plan, callbacks."""

import pytest
from ray.rllib.callbacks.callbacks import RLlibCallback
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.env import INPUT_ENV_SINGLE_SPACES, INPUT_ENV_SPACES
from ray.rllib.utils.metrics import (
    EPISODE_RETURN_MEAN,
    NUM_ENV_STEPS_SAMPLED,
    NUM_ENV_STEPS_SAMPLED_LIFETIME,
    NUM_EPISODES,
)

from prefix_rft_rllib.rollouts import row_data
from prefix_rft_rllib.rollouts.token_env_runner import TokenEnvRunner
from tests.rollouts.env_runner_plans import give, plan_of, runner_of, scaled, tokens
from tests.small_configs import MAX_RESPONSE_TOKENS

pytest_plugins = ("tests.rollouts.env_runner_fixtures",)


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
    assert all(row_data.num_prefix_tokens_of(e) == 0 for e in episodes)
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
    assert not runner._engine.is_built
    runner.sample(rollouts=plan_of(runner, 0))
    assert runner._engine.is_built
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
