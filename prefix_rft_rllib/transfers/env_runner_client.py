"""Remote env runners as vLLM's sender of weights sees them."""

from collections.abc import Mapping, Sequence
from typing import Any

import ray


class EnvRunnerClient:
    """Calls the weight receivers of all env runners at the same time and waits for all.

    vLLM's own client tells all engines the same, which gives workers of different engines the same
    rank: it is made for one engine.

    Args:
        env_runners: Actor handles.
        connection: Name of the sender.
    """

    def __init__(self, env_runners: Sequence[Any], connection: str) -> None:
        self._env_runners = list(env_runners)
        self._connection = connection
        self._num_workers = [0] * len(self._env_runners)
        self.version = 0
        """Number of the weights that are sent."""

    def check(self, shapes: Mapping[str, Sequence[int]]) -> int:
        """Let all engines check names and shapes; returns how many processes receive in all.

        Raises:
            ValueError: If the weights do not fit an engine.
        """
        checks = [runner.check_weights.remote(dict(shapes)) for runner in self._env_runners]
        self._num_workers = ray.get(checks)
        return sum(self._num_workers)

    def init_weight_transfer_engine(self, init_info: dict[str, Any]) -> None:
        """Let all engines meet the sender, each worker with a rank of its own."""
        calls = []
        num_before = 0
        for runner, num_workers in zip(self._env_runners, self._num_workers, strict=True):
            own = dict(init_info)
            if "rank_offset" in own:
                own["rank_offset"] += num_before
            num_before += num_workers
            calls.append(runner.connect_with_sender.remote(self._connection, own))
        ray.get(calls)

    def start_weight_update(self) -> None:
        """Let all engines get ready."""
        ray.get([runner.start_weights.remote() for runner in self._env_runners])

    def update_weights(self, update_info: Any) -> None:
        """Let all engines take weights; returns when they have them."""
        ray.get([runner.receive_weights.remote(update_info) for runner in self._env_runners])

    def finish_weight_update(self, weight_version: str | None = None) -> None:
        """Let all engines use the weights under the number `version`."""
        ray.get([runner.finish_weights.remote(self.version) for runner in self._env_runners])
