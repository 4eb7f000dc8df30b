"""The engine's end of a direct weight transfer, through vLLM's own interface for it."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from transformers import PreTrainedModel

from prefix_rft_rllib.engines.engine import WeightReceiver
from prefix_rft_rllib.engines.state_dict_checks import check_shapes


class VLLMWeightReceiver(WeightReceiver):
    """Steps of vLLM's weight transfer, each in the engine's thread and within its deadline.

    Args:
        llm_engine: `vllm.LLM.llm_engine`, built with a `weight_transfer_config`.
        outline: The model without values.
        run: Runs a function in the engine's thread; if it fails the engine is broken.
        wake: Gives a sleeping engine its "weights" or its "kv_cache" back; in its thread.
        set_version: Tells the engine that it has the weights of a version.
    """

    def __init__(
        self,
        llm_engine: Any,
        outline: PreTrainedModel,
        run: Callable[[Callable[[], Any]], Any],
        wake: Callable[[str], None],
        set_version: Callable[[int], None],
    ) -> None:
        self._llm_engine = llm_engine
        self._outline = outline
        self._run = run
        self._wake = wake
        self._set_version = set_version
        self._connection: str | None = None

    @property
    def connection(self) -> str | None:
        """Name of the sender that this engine is connected with; None if there is none."""
        return self._connection

    @property
    def num_workers(self) -> int:
        """Processes of vLLM that receive weights."""
        return self._llm_engine.vllm_config.parallel_config.world_size

    def check(self, shapes: Mapping[str, Sequence[int]]) -> int:
        """Check names and shapes of all weights that the sender will send.

        Args:
            shapes: By Hugging Face name.

        Returns:
            `num_workers`.

        Raises:
            ValueError: If they do not fit; vLLM itself would take some that do not.
        """
        check_shapes(self._outline, {name: tuple(shape) for name, shape in shapes.items()})
        return self.num_workers

    def connect(self, connection: str, init_info: dict[str, Any]) -> None:
        """Leave the sender before, if any, and meet a new one.

        Args:
            connection: The new sender's name.
            init_info: What vLLM's sender wants its workers to know.
        """
        if self._connection is not None:
            self._connection = None
            self._rpc("shutdown_weight_transfer_engine")
        self._rpc("init_weight_transfer_engine", init_info=init_info)
        self._connection = connection

    def start(self) -> None:
        """Get ready for new weights; no request may be under way."""
        self._run(partial(self._wake, "weights"))
        self._rpc("start_weight_update")

    def receive(self, update_info: dict[str, Any]) -> None:
        """Take weights; returns when they are there.

        Args:
            update_info: What vLLM's sender says of them.
        """
        self._rpc("update_weights", update_info=update_info)

    def finish(self, version: int) -> None:
        """End the update and forget keys and values of the weights before.

        Args:
            version: The new weights' number.
        """
        self._run(self._finish)
        self._set_version(version)

    def _finish(self) -> None:
        self._llm_engine.collective_rpc("finish_weight_update")
        self._wake("kv_cache")
        if not self._llm_engine.reset_prefix_cache():
            raise RuntimeError("vLLM kept keys and values of the old weights")

    def _rpc(self, method: str, **kwargs: Any) -> None:
        self._run(partial(self._llm_engine.collective_rpc, method, kwargs=kwargs))
