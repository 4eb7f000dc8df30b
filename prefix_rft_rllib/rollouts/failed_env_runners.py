"""Which env runners of a run have failed, where they were, and why."""

import logging
from collections.abc import Collection, Iterable, Sequence
from typing import Any

from ray.rllib.utils.metrics.metrics_logger import MetricsLogger

from prefix_rft_rllib import metrics
from prefix_rft_rllib.processes.failures import cause_of
from prefix_rft_rllib.processes.places import ActorPlace, place_here

logger = logging.getLogger(__name__)


class FailedEnvRunners:
    """Says and counts failures of remote env runners.

    Args:
        run_metrics: The run's logger.

    Attributes:
        recent: One line for each failure since `start_call`.
    """

    def __init__(self, run_metrics: MetricsLogger) -> None:
        self._metrics = run_metrics
        self._places: dict[int, ActorPlace] = {}
        self.recent: list[str] = []

    def start_call(self) -> None:
        """Forget the failures that did not end the call before; counters start at 0."""
        self.recent = []
        for name in metrics.FAULT_METRICS:
            self.count(name, 0)

    def count(self, name: str, number: int) -> None:
        """Add to a counter of `metrics.FAULT_METRICS`."""
        self._metrics.log_value((metrics.FAULTS, name), number, reduce="sum")

    def without_place(self, runner_ids: Collection[int]) -> list[int]:
        """Those of which it is not known where they are: new ones, and those started again."""
        return [runner_id for runner_id in runner_ids if runner_id not in self._places]

    def note_places(self, results: Iterable[Any]) -> None:
        """Note where env runners are; those that failed to say it have failed.

        Args:
            results: RLlib's results of `place_of`.
        """
        answers = list(results)
        self._places |= {answer.actor_id: answer.get() for answer in answers if answer.ok}
        self.note_failures(answers)

    def note_failures(self, results: Iterable[Any]) -> None:
        """Say why calls have failed.

        Args:
            results: RLlib's results of any call.
        """
        for result in results:
            if not result.ok:
                self.count(metrics.NUM_ENV_RUNNERS_LOST, 1)
                self._say(result.actor_id, cause_of(result.get()))

    def note_silent(self, runner_ids: Sequence[int], limit_s: float | None) -> None:
        """Say that env runners have not answered, and will be ended.

        Args:
            runner_ids: RLlib's numbers of them.
            limit_s: How long the driver has waited, seconds.
        """
        self.count(metrics.NUM_ENV_RUNNERS_SILENT, len(runner_ids))
        for runner_id in runner_ids:
            self._say(runner_id, f"no answer within {limit_s} s")

    def named(self, runner_ids: Iterable[int]) -> str:
        """Env runners with their places, as a text."""
        return "; ".join(
            str(self._places.get(runner_id, f"env runner {runner_id}")) for runner_id in runner_ids
        )

    def _say(self, runner_id: int, cause: str) -> None:
        line = f"{self.named([runner_id])}: {cause}"
        self._places.pop(runner_id, None)  # the next process is elsewhere
        self.recent.append(line)
        logger.error("%s. Ray starts a new one; its rollouts are sampled again.", line)


def place_of(env_runner: Any) -> ActorPlace:
    """Where an env runner is; called there."""
    return place_here(f"env runner {env_runner.worker_index}")
