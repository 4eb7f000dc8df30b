"""An algorithm that evaluates sets of problems: with which weights, on which env runners."""

import abc
import contextlib
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property, partial
from typing import Any

from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.callbacks.utils import make_callback
from ray.rllib.env.env_runner_group import EnvRunnerGroup
from ray.rllib.utils.annotations import override

from prefix_rft_rllib.envs.problems import ProblemSet
from prefix_rft_rllib.evaluation.demonstration_probes import (
    Probe,
    chosen_probes,
    probe_results,
)
from prefix_rft_rllib.evaluation.held_out import AskedSet, evaluate_held_out
from prefix_rft_rllib.learners.demonstration_losses import demonstration_losses
from prefix_rft_rllib.rollouts.env_runners import EnvRunners
from prefix_rft_rllib.settings.asked_sets import asked_sets
from prefix_rft_rllib.settings.settings import Settings
from prefix_rft_rllib.transfers.weight_sync import put_weights


class EvaluatingAlgorithm(Algorithm):
    """RLlib's `Algorithm`, whose `evaluate` asks sets of problems.

    The training env runners answer, or env runners of their own (`evaluation_num_env_runners`),
    which get their weights through Ray's object store. In parallel to training the weights are
    those before the iteration. With another `custom_evaluation_function` all is RLlib's.

    Attributes:
        problem_set: The run's problems.
        asked_sets: What is asked.
        probes: Demonstrations whose loss is watched.
    """

    config: Settings
    problem_set: ProblemSet
    asked_sets: Sequence[AskedSet] = ()
    probes: Sequence[Probe] = ()
    _taken: dict[str, Any] | None = None
    """Weights that were taken for an evaluation in parallel to training."""
    _losses: dict[str, dict[str, float]] | None = None
    """Results of the probes under these weights."""
    _given: dict[str, Any] | None = None
    """Weights that the evaluation env runners have, while they answer."""

    @property
    @abc.abstractmethod
    def env_runners(self) -> EnvRunners:
        """The training env runners."""

    @property
    def problem_sets(self) -> list[ProblemSet]:
        """The run's problems, then those of the benchmarks that are asked."""
        asked = [asked.problem_set for asked in self.asked_sets]
        return [self.problem_set, *(other for other in asked if other is not self.problem_set)]

    def load_sets(self) -> None:
        """Load what evaluations ask.

        Raises:
            ValueError: If a benchmark cannot be loaded, or there are too few problems.
        """
        counts = self.config.demonstration_probes
        self.asked_sets = asked_sets(self.config, self.problem_set)
        self.probes = chosen_probes(self.problem_set, counts, self.config.seed)

    @override(Algorithm)
    def evaluate(self, parallel_train_future: Any = None) -> dict[str, Any]:
        """Evaluate the sets of the settings.

        Args:
            parallel_train_future: RLlib's, if an iteration is trained meanwhile.

        Returns:
            By set, numbers by name (`metrics.py`, "Sets of problems").
        """
        if not self.config.evaluates_sets:
            return super().evaluate(parallel_train_future)
        is_parallel = parallel_train_future is not None
        assert not is_parallel or self._taken, "the weights were taken before the iteration"
        self._before_evaluate()
        self._call_back("on_evaluate_start")
        losses = self._probe_losses() if self._losses is None else self._losses
        results, _, _ = evaluate_held_out(self)
        for name, values in losses.items():
            results[name] = results.get(name, {}) | values
        self._call_back("on_evaluate_end", evaluation_metrics=results)
        return results

    @contextlib.contextmanager
    def evaluating_env_runners(self) -> Iterator[EnvRunners]:
        """Who attempt the problems of evaluations, with the weights to evaluate.

        Yields:
            The env runners.
        """
        if self.eval_env_runner_group is None:
            yield self.env_runners
            return
        self._given = self._take_weights() if self._taken is None else self._taken
        self._give_weights()
        try:
            yield self._evaluation_env_runners
        finally:
            self._given = None

    @cached_property
    def _evaluation_env_runners(self) -> EnvRunners:
        return self._handle_of(
            self.eval_env_runner_group, self.evaluation_config, self._give_weights
        )

    def _give_weights(self) -> None:
        assert self._given is not None
        self._evaluation_env_runners.set_state(self._given)

    def _handle_of(
        self, group: EnvRunnerGroup, config: Any, refresh_weights: Callable[[], None]
    ) -> EnvRunners:
        """A handle on env runners that are replaced if they fail."""
        return EnvRunners(
            group,
            self.metrics,
            sample_timeout_s=config.sample_timeout_s,
            may_restart=config.restart_failed_env_runners,
            restore=self.restore_env_runners,
            refresh_weights=refresh_weights,
        )

    @override(Algorithm)
    def restore_env_runners(self, env_runner_group: EnvRunnerGroup) -> list[int]:
        """Take back env runners that Ray has started again; evaluations give theirs the weights."""
        is_ours = self.config.evaluates_sets and env_runner_group is self.eval_env_runner_group
        if is_ours:
            return list(env_runner_group.probe_unhealthy_env_runners())
        return super().restore_env_runners(env_runner_group)

    @override(Algorithm)
    def _run_one_training_iteration_and_evaluation_in_parallel(self) -> Any:
        """Take what an evaluation needs of the learners before they go on."""
        if self.config.evaluates_sets:
            self._taken, self._losses = self._take_weights(), self._probe_losses()
        try:
            return super()._run_one_training_iteration_and_evaluation_in_parallel()
        finally:
            self._taken = self._losses = None  # of an evaluation that was left out, too

    @classmethod
    @override(Algorithm)
    def _should_create_evaluation_env_runners(cls, eval_config: Any) -> bool:
        """RLlib makes an env runner in this process too, where the training env runners answer."""
        if eval_config.evaluates_sets and not eval_config.evaluation_num_env_runners:
            return False
        return bool(super()._should_create_evaluation_env_runners(eval_config))

    def _take_weights(self) -> dict[str, Any]:
        return self.learner_group.first_learner(put_weights)

    def _probe_losses(self) -> dict[str, dict[str, float]]:
        """Results of the probes, by set."""
        return {
            probe.name: probe_results(
                probe,
                self.learner_group.first_learner(
                    partial(demonstration_losses, probe.rows, self.config.max_tokens_per_microbatch)
                ),
            )
            for probe in self.probes
        }

    def _call_back(self, which: str, **kwargs: Any) -> None:
        """Call what the user wants to be called at this moment."""
        make_callback(
            which,
            callbacks_objects=self.callbacks,
            callbacks_functions=getattr(self.config, f"callbacks_{which}"),
            kwargs={"algorithm": self, "metrics_logger": self.metrics, **kwargs},
        )
