"""Prefix-RFT (arXiv 2507.01679) as an RLlib algorithm."""

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import ray
from pyarrow.fs import LocalFileSystem
from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.core import COMPONENT_RL_MODULE, DEFAULT_MODULE_ID
from ray.rllib.core.learner import Learner
from ray.rllib.env.single_agent_episode import SingleAgentEpisode
from ray.rllib.utils.annotations import override
from ray.rllib.utils.metrics import (
    ENV_RUNNER_RESULTS,
    ENV_RUNNER_SAMPLING_TIMER,
    EPISODE_LEN_MEAN,
    EPISODE_RETURN_MEAN,
    LEARNER_RESULTS,
    LEARNER_UPDATE_TIMER,
    NUM_ENV_STEPS_SAMPLED_LIFETIME,
    SYNCH_WORKER_WEIGHTS_TIMER,
    TIMERS,
    WEIGHTS_SEQ_NO,
)

from prefix_rft_rllib import metrics
from prefix_rft_rllib.connectors.episodes import ROLLOUT, WholeSequences
from prefix_rft_rllib.core.prefix_sampling import Rollout
from prefix_rft_rllib.envs.answer_cut import answer_cut
from prefix_rft_rllib.envs.problems import load_problem_set
from prefix_rft_rllib.groups import Group, in_groups, learner_rows, plan_groups
from prefix_rft_rllib.model_export import save_pretrained
from prefix_rft_rllib.prefix_rft_config import PrefixRFTConfig
from prefix_rft_rllib.rollout_report import rollout_metrics, rollout_records, window_low_of
from prefix_rft_rllib.setup_checks import check_setup
from prefix_rft_rllib.user_view import UserView

TRAINING_STEP_TIMER = "prefix_rft_training_step"
NUM_SAMPLING_ROUNDS = 3
"""How often rollouts lost with a failed env runner are sampled again."""
RESTART_TIMEOUT_S = 180.0
"""How long to wait for a restarted env runner when none is left, seconds."""


class PrefixRFT(Algorithm):
    """Fine-tunes a causal LM on demonstrations and its own verified attempts at once.

    `training_step` is the path of the data: plan, sample, update, sync. Everything method-specific
    is in the `Method` value that `config.build_method()` returns.
    """

    @classmethod
    @override(Algorithm)
    def get_default_config(cls) -> PrefixRFTConfig:
        return PrefixRFTConfig()

    @override(Algorithm)
    def setup(self, config: PrefixRFTConfig) -> None:
        """Check data, model and tokenizer; only then start env runners and learners."""
        self.method = self.config.build_method()
        self.problem_set = load_problem_set(self.config.token_env_config())
        self._problems = check_setup(self.config, self.method, self.problem_set)
        is_trial = self._storage is not None  # Tune's; `_trial_info` is lost in RLlib's configs
        self._view = UserView(
            self.config, self._run_path(is_trial), self.problem_set, is_trial=is_trial
        )
        if self.config.preflight:
            self._view.preflight()
        super().setup(config)
        self._sync_weights()

    @override(Algorithm)
    def training_step(self) -> None:
        """One iteration; the rows of the house plan's table, in their order."""
        with self._timed(TRAINING_STEP_TIMER, metrics.ITERATION_TIME):
            groups = self._plan_step()  # problems, prefix lengths, demonstration rows
            self._sample_groups(groups)  # reset, roll out, reward
            self._update_learners(groups)  # credit, columns, look back, weigh, loss, step
            self._sync_weights()  # new weights to the env runners

    def _run_path(self, is_trial: bool) -> str:
        """The run directory: the trial's results under Tune, else `run_dir` or RLlib's choice.

        Tune's `logdir` is a scratch directory; results on remote storage are reached from there by
        `RunConfig(sync_config=SyncConfig(sync_artifacts=True))`.
        """
        if not is_trial:
            return self.config.run_dir or self.logdir
        storage = self._storage
        if storage is not None and isinstance(storage.storage_filesystem, LocalFileSystem):
            return storage.trial_fs_path
        return self.logdir

    def _plan_step(self) -> list[Group]:
        cut = self._answer_cut if self.problem_set.settings.cut_prefix_before_answer else _no_cut
        return plan_groups(self.config, self.method, self._problems, cut, self.iteration)

    def _answer_cut(self, problem_id: str, demonstration_index: int) -> int | None:
        return answer_cut(self.problem_set, problem_id, demonstration_index)

    def _sample_groups(self, groups: list[Group]) -> None:
        """Sample all planned rollouts and put the episodes into their groups."""
        with self._timed(ENV_RUNNER_SAMPLING_TIMER, metrics.SAMPLING_TIME):
            rollouts = [rollout for group in groups for rollout in group.rollouts]
            in_groups(groups, self.sample_rollouts(rollouts, key=ENV_RUNNER_RESULTS))
        window_low = window_low_of(self.method, self.iteration)
        for name, value in rollout_metrics(groups, window_low).items():
            self.metrics.log_value((metrics.ROLLOUTS, *name.split("/")), value, reduce="mean")
        if rollouts:
            episodes = [episode for group in groups for episode in group.episodes]
            for name, values in (
                (EPISODE_RETURN_MEAN, [e.get_return() for e in episodes]),
                (EPISODE_LEN_MEAN, [len(e) for e in episodes]),
            ):
                mean = sum(values) / len(values)
                self.metrics.log_value((ENV_RUNNER_RESULTS, name), mean, reduce="mean")

    def sample_rollouts(
        self,
        rollouts: Sequence[Rollout],
        *,
        temperature: float | None = None,
        key: str | tuple[str, ...] | None = None,
    ) -> list[SingleAgentEpisode]:
        """Sample planned rollouts on all env runners.

        Groups stay whole on one runner, so that their prompt is prefilled once. Rollouts lost with
        a failed runner are sampled again on the others: draws depend on the plan alone.

        Args:
            rollouts: The plan.
            temperature: Sampling temperature; default the config's. 0 is greedy.
            key: Where to put the runners' metrics; None leaves them out of the results.

        Returns:
            One finished episode per rollout, in the plan's order.

        Raises:
            RuntimeError: If rollouts are still missing after several rounds.
        """
        finished: dict[tuple[int, int], SingleAgentEpisode] = {}
        for _ in range(NUM_SAMPLING_ROUNDS):
            missing = [r for r in rollouts if (r.group_id, r.member) not in finished]
            if not missing:
                break
            for episodes, runner_metrics in self._sample_once(missing, temperature):
                if key is not None:
                    self.metrics.aggregate([runner_metrics], key=key)
                for episode in episodes:
                    rollout = episode.custom_data[ROLLOUT]
                    finished[rollout.group_id, rollout.member] = episode
        lost = len(rollouts) - len(finished)
        if lost:
            raise RuntimeError(
                f"{lost} of {len(rollouts)} rollouts could not be sampled in {NUM_SAMPLING_ROUNDS} "
                "rounds: the env runners failed each time. Their logs have the reason; with "
                "`num_env_runners=0` the error is raised here."
            )
        return [finished[rollout.group_id, rollout.member] for rollout in rollouts]

    def _sample_once(
        self, rollouts: list[Rollout], temperature: float | None
    ) -> list[tuple[list[SingleAgentEpisode], Any]]:
        """One call of `sample` on every healthy runner."""
        group = self.env_runner_group
        if group.num_remote_env_runners() == 0:
            runner = group.local_env_runner
            return [runner.sample_and_get_metrics(rollouts=rollouts, temperature=temperature)]
        if not group.healthy_worker_ids():
            self._wait_for_env_runners()
        runner_ids = group.healthy_worker_ids()
        shares = _deal(rollouts, len(runner_ids))
        busy = [(i, share) for i, share in zip(runner_ids, shares, strict=True) if share]
        if not busy:
            return []
        return group.foreach_env_runner(
            "sample_and_get_metrics",
            kwargs=[{"rollouts": share, "temperature": temperature} for _, share in busy],
            remote_worker_ids=[runner_id for runner_id, _ in busy],
            local_env_runner=False,
        )

    def _wait_for_env_runners(self) -> None:
        """All env runners have failed: wait until Ray has restarted one, and give it the weights.

        Raises:
            RuntimeError: If none comes back in time.
        """
        deadline = time.monotonic() + RESTART_TIMEOUT_S
        while not self.restore_env_runners(self.env_runner_group):
            if time.monotonic() > deadline:
                raise RuntimeError(
                    f"All env runners have failed and none came back within {RESTART_TIMEOUT_S} s. "
                    "Their logs have the reason; with `num_env_runners=0` the error is raised here."
                )
            time.sleep(1.0)
        self._sync_weights()

    def _update_learners(self, groups: list[Group]) -> None:
        """Credit the groups and take the optimizer steps of all epochs."""
        rows = learner_rows(self.config, self.method, groups, self.iteration)
        with self._timed(LEARNER_UPDATE_TIMER, metrics.LEARNING_TIME):
            results = self.learner_group.update(
                training_data=WholeSequences(episodes=rows),
                timesteps={
                    NUM_ENV_STEPS_SAMPLED_LIFETIME: self.metrics.peek(
                        (ENV_RUNNER_RESULTS, NUM_ENV_STEPS_SAMPLED_LIFETIME), default=0
                    )
                },
                num_epochs=self.config.num_epochs,
                iteration=self.iteration,
            )
        self.metrics.aggregate(results, key=LEARNER_RESULTS)
        reports = [r.get() for r in self.learner_group.foreach_learner(_take_report)]
        token_values = {i: values for _, by_row in reports for i, values in by_row.items()}
        records = rollout_records(
            rows,
            token_values,
            iteration=self.iteration + 1,
            window_low=window_low_of(self.method, self.iteration),
        )
        self._view.add_update(self.iteration + 1, records, minibatches=reports[0][0])

    def _sync_weights(self) -> None:
        """Give the learners' weights to all env runners and wait until they have them.

        RLlib's own sync returns before the runners have the weights and drops an update while an
        earlier one is in flight.
        """
        with self._timed(SYNCH_WORKER_WEIGHTS_TIMER, metrics.SYNC_TIME):
            group = self.env_runner_group
            if group.num_remote_env_runners() == 0:
                group.local_env_runner.set_state(self._first_learner(_weights))
                return
            state = self._first_learner(_put_weights)
            group.foreach_env_runner("set_state", kwargs={"state": state}, local_env_runner=False)

    @override(Algorithm)
    def restore_from_path(self, path: str | Path, *args: Any, **kwargs: Any) -> None:
        """Restore, then give the runners the restored weights, older ones too."""
        super().restore_from_path(path, *args, **kwargs)
        self._sync_weights()
        self._view.reopen(self.iteration)

    @override(Algorithm)
    def log_result(self, result: dict[str, Any]) -> None:
        super().log_result(result)
        self._view.add_result(result)

    @override(Algorithm)
    def cleanup(self) -> None:
        super().cleanup()
        if hasattr(self, "_view"):
            self._view.close()

    def save_pretrained(self, path: str | Path) -> Path:
        """Write the trained model and its tokenizer in Hugging Face form.

        Args:
            path: Directory to write to; made if missing.

        Returns:
            The directory, for `AutoModelForCausalLM.from_pretrained` and
            `AutoTokenizer.from_pretrained`.
        """
        weights = self._first_learner(_weights)[COMPONENT_RL_MODULE][DEFAULT_MODULE_ID]
        return save_pretrained(self.config.model_path, weights, self.problem_set.tokenizer, path)

    @contextlib.contextmanager
    def _timed(self, timer: str, name: str) -> Iterator[None]:
        """Log a wall time twice: RLlib's smoothed timer, and this iteration's seconds."""
        started = time.perf_counter()
        with self.metrics.log_time((TIMERS, timer)):
            yield
        seconds = time.perf_counter() - started
        self.metrics.log_value((metrics.TIME, name), seconds, reduce="sum")

    def _first_learner(self, function: Callable[[Learner], Any]) -> Any:
        """Call a function with the first learner, where that learner is."""
        results = self.learner_group.foreach_learner(function, remote_actor_ids=[0])
        return next(iter(results)).get()


def _weights(learner: Learner) -> dict[str, Any]:
    """A learner's weights as an env runner's state."""
    state = learner.module[DEFAULT_MODULE_ID].unwrapped().get_state(inference_only=True)
    return {
        COMPONENT_RL_MODULE: {DEFAULT_MODULE_ID: state},
        WEIGHTS_SEQ_NO: learner._weights_seq_no,
    }


def _put_weights(learner: Learner) -> dict[str, Any]:
    """The same with the weights in the object store: they cross Ray once per node."""
    state = _weights(learner)
    return {**state, COMPONENT_RL_MODULE: ray.put(state[COMPONENT_RL_MODULE])}


def _take_report(learner: Learner) -> Any:
    return learner.take_report()


def _no_cut(problem_id: str, demonstration_index: int) -> None:
    """A demonstration is not cut before its answer."""


def _deal(rollouts: Sequence[Rollout], num_shares: int) -> list[list[Rollout]]:
    """Deal whole groups to runners in turn."""
    groups: dict[int, list[Rollout]] = {}
    for rollout in rollouts:
        groups.setdefault(rollout.group_id, []).append(rollout)
    shares: list[list[Rollout]] = [[] for _ in range(num_shares)]
    for number, group in enumerate(groups.values()):
        shares[number % num_shares] += group
    return shares
