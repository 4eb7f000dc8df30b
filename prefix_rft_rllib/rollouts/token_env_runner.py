"""The env runner: plans in, finished episodes out."""

import itertools
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, SupportsFloat

import gymnasium as gym
import numpy as np
import ray
from ray.rllib.callbacks.utils import make_callback
from ray.rllib.core import COMPONENT_RL_MODULE, DEFAULT_MODULE_ID
from ray.rllib.env import INPUT_ENV_SINGLE_SPACES, INPUT_ENV_SPACES
from ray.rllib.env.env_runner import EnvRunner
from ray.rllib.env.single_agent_episode import SingleAgentEpisode
from ray.rllib.utils import force_list
from ray.rllib.utils.actor_manager import FaultAwareApply
from ray.rllib.utils.annotations import DeveloperAPI, override
from ray.rllib.utils.checkpoints import Checkpointable
from ray.rllib.utils.metrics import (
    EPISODE_LEN_MEAN,
    EPISODE_RETURN_MEAN,
    NUM_ENV_STEPS_SAMPLED,
    NUM_ENV_STEPS_SAMPLED_LIFETIME,
    NUM_EPISODES,
    NUM_EPISODES_LIFETIME,
    WEIGHTS_SEQ_NO,
)

from prefix_rft_rllib.basics.random_draws import stable_hash
from prefix_rft_rllib.core.prefix_sampling import PlannedRollout
from prefix_rft_rllib.engines.engine import Engine, Generation, GenerationRequest
from prefix_rft_rllib.envs.token_env import make_token_env
from prefix_rft_rllib.envs.verifiers.grading import map_in_threads
from prefix_rft_rllib.metrics import GENERATION_TIME, VERIFICATION_TIME
from prefix_rft_rllib.rollouts import row_data
from prefix_rft_rllib.rollouts.engine_failures import call_or_end_process, ends_process_if_broken
from prefix_rft_rllib.rollouts.runner_engine import RunnerEngine
from prefix_rft_rllib.rollouts.sampling import AS_SET, EVALUATION_ENV, Sampling


@DeveloperAPI
class TokenEnvRunner(EnvRunner, Checkpointable):
    """Samples whole responses with a generation engine and grades them in the env.

    Every rollout has its own environment: `reset` with the rollout's options, one batched engine
    call for all rollouts, then the sampled tokens are played through `env.step`, so that reward
    and episode end are the environment's. `num_envs_per_env_runner` environments are played (and
    verified) at the same time, while the engine still generates others, or fewer if the verifier
    allows fewer threads. With a verifier of the user's own it is one, in the thread that called
    `sample`, after the last response.
    """

    @override(EnvRunner)
    def __init__(self, *, config: Any, **kwargs: Any) -> None:
        super().__init__(config=config, **kwargs)
        self._callbacks = [cls() for cls in force_list(self.config.callbacks_class)]
        self._envs: dict[str | None, list[Any]] = {None: []}  # None: the run's own
        self._num_unplanned = 0
        self._generated_at = 0.0
        self.module = None
        if self.worker_index and self.config.shared_inputs:
            self.config.shared_inputs.receive_problem_sets()
        self.make_env()
        end_tokens = self.env.unwrapped.problem_set.end_tokens
        self._engine = RunnerEngine(self.config, eos_token_ids=end_tokens.ids)

    @override(EnvRunner)
    def make_env(self) -> None:
        """Make the first environment; further ones are made as rollouts need them."""
        self._env_config = self.config.token_env_config()
        (self.env,) = self._environments(1, AS_SET)
        self._make_callback("on_environment_created", env=self.env, env_context=self._env_config)

    @override(EnvRunner)
    def make_module(self) -> None:
        """Weights live in the engine: there is no module here."""

    @override(EnvRunner)
    def assert_healthy(self) -> None:
        assert self._envs[None], "the environment was not made"

    @override(FaultAwareApply)
    def apply(self, func: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Run a function for the driver: RLlib's way into a remote env runner.

        As in RLlib the process ends if the function raises, so that Ray starts a new one. The
        driver gets the cause, and a thread that hangs in an engine does not keep the process alive.
        """
        return call_or_end_process(func, self, *args, **kwargs)

    @override(EnvRunner)
    def get_spaces(self) -> dict[str, tuple[gym.Space, gym.Space]]:
        spaces = (self.env.observation_space, self.env.action_space)
        return dict.fromkeys((INPUT_ENV_SPACES, INPUT_ENV_SINGLE_SPACES, DEFAULT_MODULE_ID), spaces)

    @override(EnvRunner)
    def sample(
        self,
        *,
        rollouts: Sequence[PlannedRollout] | None = None,
        sampling: Sampling = AS_SET,
        num_timesteps: int | None = None,
        num_episodes: int | None = None,
        explore: bool | None = None,
        random_actions: bool = False,
        force_reset: bool = False,
    ) -> list[SingleAgentEpisode]:
        """Roll out the plan; without a plan, problems drawn by the environment and no prefix.

        Args:
            rollouts: What to sample, in this order.
            sampling: How, where it is not as the config says.
            num_timesteps: Without a plan: sample episodes until this many tokens.
            num_episodes: Without a plan: how many episodes (default 1).
            explore: False samples greedily, unless `sampling` has a temperature.
            random_actions: Not supported: tokens come from the engine.
            force_reset: Ignored; every call starts fresh episodes.

        Returns:
            One finished episode per rollout, in the plan's order.
        """
        if random_actions:
            raise ValueError("`random_actions=True` is not supported: tokens come from the engine.")
        explore = self.config.explore if explore is None else explore
        temperature = sampling.temperature
        if temperature is None:
            temperature = self.config.temperature if explore else 0.0
        if rollouts is not None:
            sampled = self._roll_out(rollouts, sampling, temperature)
        else:
            sampled, wanted = [], num_episodes or 1
            while len(sampled) < wanted or sum(map(len, sampled)) < (num_timesteps or 0):
                missing = max(wanted - len(sampled), 1)
                sampled += self._roll_out([None] * missing, sampling, temperature)
        self._log_metrics(sampled)
        self._make_callback("on_sample_end", samples=sampled)
        return sampled

    def sample_and_get_metrics(self, **kwargs: Any) -> tuple[list[SingleAgentEpisode], Any]:
        """`sample` and then `get_metrics`, in one remote call."""
        return self.sample(**kwargs), self.get_metrics()

    def _roll_out(
        self,
        rollouts: Sequence[PlannedRollout | None],
        sampling: Sampling,
        temperature: float,
    ) -> list[SingleAgentEpisode]:
        """Reset, generate, play: stops 3 to 5 of the path of the data."""
        envs = self._environments(len(rollouts), sampling)
        budget = sampling.max_response_tokens
        planned = [self._reset(*pair, budget) for pair in zip(envs, rollouts, strict=True)]
        states = [np.asarray(env.unwrapped.state_ids) for env in envs]
        requests = [
            GenerationRequest(
                prompt_ids=state.tolist(),
                max_new_tokens=env.unwrapped.num_tokens_left,
                temperature=temperature,
                top_p=self.config.top_p if sampling.top_p is None else sampling.top_p,
                seed=rollout.seed,
            )
            for env, state, rollout in zip(envs, states, planned, strict=True)
        ]
        threads = [env.unwrapped.problem_set.grader.max_threads for env in envs[:1]]
        num_threads = min([self.config.num_envs_per_env_runner, *threads])

        def play(finished: tuple[int, Generation]) -> tuple[int, SingleAgentEpisode]:
            index, generation = finished
            return index, self._play(envs[index], planned[index], states[index], generation)

        played = dict(map_in_threads(num_threads, play, self._generate(requests)))
        self.metrics.log_value(
            VERIFICATION_TIME, time.perf_counter() - self._generated_at, reduce="max"
        )
        sampled = [played[index] for index in range(len(envs))]
        for index, episode in enumerate(sampled):
            self._make_callback(
                "on_episode_end",
                episode=episode,
                env=envs[index],
                env_index=index,
                rl_module=None,
                prev_episode_chunks=[],
            )
        return sampled

    def _generate(self, requests: list[GenerationRequest]) -> Iterator[tuple[int, Generation]]:
        """Responses as the engine finishes them, each with the number of its request."""
        started = time.perf_counter()
        yield from self.engine.generate_stream(requests)
        self._generated_at = time.perf_counter()
        self.metrics.log_value(GENERATION_TIME, self._generated_at - started, reduce="max")

    def _reset(
        self, env: gym.Env, rollout: PlannedRollout | None, budget: int | None
    ) -> PlannedRollout:
        """Reset one environment; an unplanned rollout is one of a problem the env draws."""
        if rollout is not None:
            own = {} if budget is None else {"max_response_tokens": budget}
            env.reset(options=rollout.reset_options | own)
            return rollout
        seed = stable_hash(self._seed or 0, "unplanned", self._num_unplanned)
        _, info = env.reset(seed=seed % 2**31)
        self._num_unplanned += 1
        return PlannedRollout(problem_id=info["problem_id"], group_id=0, member=0, seed=seed)

    def _play(
        self, env: gym.Env, rollout: PlannedRollout, state: np.ndarray, generation: Generation
    ) -> SingleAgentEpisode:
        """Play the sampled tokens through the environment, which grades the response."""
        reward: SupportsFloat = 0.0
        terminated, truncated = False, False
        info: dict[str, Any] = {}
        for token in generation.token_ids:
            assert not (terminated or truncated), "the environment ended before the response"
            _, reward, terminated, truncated, info = env.step(token)
        assert terminated or truncated, "the response ended before the environment"
        num_prompt = len(state) - rollout.num_prefix_tokens
        given = [np.nan] * rollout.num_prefix_tokens
        return row_data.build_episode(
            state[:num_prompt].tolist(),
            [*state[num_prompt:].tolist(), *generation.token_ids],
            reward=float(reward),
            logps=[*given, *generation.logps],
            terminated=terminated,
            custom_data={
                row_data.ROLLOUT: rollout,
                row_data.IS_DEMONSTRATION: False,
                row_data.VERDICT: info["verdict"],
                row_data.VERDICT_DETAILS: info["verdict_details"],
                row_data.FINISH_REASON: generation.finish_reason,
                row_data.WEIGHTS_SEQ_NO: self._engine.weights_seq_no,
            },
        )

    @property
    def engine(self) -> Engine:
        """The engine, built and loaded at its first use."""
        return self._engine.loaded

    @property
    def connection(self) -> str | None:
        """Name of the sender of weights that the engine is connected with, if any."""
        return self._engine.connection

    # The five steps of a direct transfer of weights, called by the learners.

    @ends_process_if_broken
    def check_weights(self, shapes: Mapping[str, Sequence[int]]) -> int:
        """Check the weights to come; see `WeightReceiver.check`."""
        return self._engine.receiver.check(shapes)

    @ends_process_if_broken
    def connect_with_sender(self, connection: str, init_info: dict[str, Any]) -> None:
        """Meet the sender; see `WeightReceiver.connect`."""
        self._engine.receiver.connect(connection, init_info)

    @ends_process_if_broken
    def start_weights(self) -> None:
        """Get ready for new weights; see `WeightReceiver.start`."""
        self._engine.receiver.start()

    @ends_process_if_broken
    def receive_weights(self, update_info: dict[str, Any]) -> None:
        """Take weights while the sender sends them; see `WeightReceiver.receive`."""
        self._engine.receiver.receive(update_info)

    @ends_process_if_broken
    def finish_weights(self, number: int) -> None:
        """Use the new weights; see `WeightReceiver.finish`."""
        self._engine.finish_weights(number)

    def sleep(self) -> None:
        """Let the engine give its memory to others until the next weights come."""
        self._engine.sleep()

    @override(Checkpointable)
    def get_state(
        self, components: Any = None, *, not_components: Any = None, **kwargs: Any
    ) -> dict:
        """Counters only: weights belong to the learner, draws are functions of the plan."""
        return {NUM_ENV_STEPS_SAMPLED_LIFETIME: self.num_env_steps_sampled_lifetime}

    @override(Checkpointable)
    def set_state(self, state: dict[str, Any]) -> None:
        """Take weights and counters.

        Weights are taken whatever their number: after a restore they may be older ones, or others
        of the same number.
        """
        if NUM_ENV_STEPS_SAMPLED_LIFETIME in state:
            self.num_env_steps_sampled_lifetime = state[NUM_ENV_STEPS_SAMPLED_LIFETIME]
        weights = state.get(COMPONENT_RL_MODULE)
        if weights is None:
            return
        if isinstance(weights, ray.ObjectRef):
            weights = ray.get(weights)
        self._engine.take(weights.get(DEFAULT_MODULE_ID, weights), state.get(WEIGHTS_SEQ_NO, 0))

    @override(Checkpointable)
    def get_ctor_args_and_kwargs(self) -> tuple[tuple, dict[str, Any]]:
        return (), {"config": self.config}

    @override(EnvRunner)
    def get_metrics(self) -> dict[str, Any]:
        return self.metrics.reduce()

    @override(EnvRunner)
    def stop(self) -> None:
        """Close the environments and the engine."""
        for env in itertools.chain(*self._envs.values()):
            env.close()
        self._engine.close()

    def _environments(self, count: int, sampling: Sampling) -> list[Any]:
        """So many environments of the run, or of the problems that `sampling` names."""
        name, env, env_config = None, self.config.env, self._env_config
        if sampling.env_config is not None:
            name = json.dumps(sampling.env_config, sort_keys=True, default=repr)
            env, env_config = EVALUATION_ENV, sampling.env_config
        made = self._envs.setdefault(name, [])
        while len(made) < count:
            made.append(make_token_env(env, env_config))
        return made[:count]

    def _make_callback(self, which: str, **kwargs: Any) -> None:
        make_callback(
            which,
            callbacks_objects=self._callbacks,
            callbacks_functions=getattr(self.config, f"callbacks_{which}"),
            kwargs={"env_runner": self, "metrics_logger": self.metrics, **kwargs},
        )

    def _log_metrics(self, sampled: list[SingleAgentEpisode]) -> None:
        """Counters under RLlib's own keys; a sampled token is an env step, a given one is not."""
        num_steps = sum(len(e) - row_data.num_prefix_tokens_of(e) for e in sampled)
        self.num_env_steps_sampled_lifetime += num_steps
        log = self.metrics.log_value
        log(NUM_ENV_STEPS_SAMPLED, num_steps, reduce="sum", with_throughput=True)
        log(NUM_ENV_STEPS_SAMPLED_LIFETIME, num_steps, reduce="lifetime_sum", with_throughput=True)
        log(NUM_EPISODES, len(sampled), reduce="sum")
        log(NUM_EPISODES_LIFETIME, len(sampled), reduce="lifetime_sum")
        if self.config.in_evaluation:
            # Of training rollouts the driver logs exact means over all runners.
            log(EPISODE_RETURN_MEAN, np.mean([e.get_return() for e in sampled]), reduce="mean")
            log(EPISODE_LEN_MEAN, np.mean([len(e) for e in sampled]), reduce="mean")
