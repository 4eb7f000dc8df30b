"""The learner's end of a direct weight transfer: the one place that calls vLLM's sender."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch

from prefix_rft_rllib.engines.vllm.options import import_vllm

Backend = Literal["nccl", "ipc"]
"""How weights go: between GPUs ("nccl"), or to another process on the same GPU ("ipc")."""
BACKENDS: tuple[Backend, ...] = ("nccl", "ipc")


class WeightSource(Protocol):
    """A learner's weights under their Hugging Face names, always in the same order.

    Where learners share a model all of them iterate at the same time, since each weight is
    collected from all.
    """

    def metadata(self) -> list[Any]:
        """`name`, `dtype` and `shape` of all weights."""

    def __iter__(self) -> Iterator[tuple[str, torch.Tensor]]:
        """Name and value of all weights, in the order of `metadata`."""


class EngineClient(Protocol):
    """What the sender calls in the engines, each method in all of them at the same time."""

    def init_weight_transfer_engine(self, init_info: dict[str, Any]) -> None:
        """Meet the sender."""

    def start_weight_update(self) -> None:
        """Get ready for new weights."""

    def update_weights(self, update_info: Any) -> None:
        """Take weights."""

    def finish_weight_update(self, weight_version: str | None = None) -> None:
        """End the update."""


class Sender(Protocol):
    """vLLM's `TrainerWeightTransferEngine`."""

    def send_weights(self) -> None:
        """Send all weights of the source; returns when the engines have them."""

    def shutdown(self) -> None:
        """Leave the engines."""


@dataclass(frozen=True)
class Meeting:
    """Where sender and engines meet.

    Attributes:
        rank: The learner's number; 0 sends, the others only help to collect shared weights.
        address: Of the first learner's machine. Like `port` and `num_workers` for "nccl" only.
        port: A free one there.
        num_workers: Processes that receive, over all engines.
    """

    rank: int
    address: str
    port: int
    num_workers: int


def open_sender(
    backend: Backend, meeting: Meeting, client: EngineClient, source: WeightSource
) -> Sender:
    """Meet the engines. To be called in every learner.

    Args:
        backend: How weights go.
        meeting: Where.
        client: Used by the first learner alone.
        source: This learner's weights.

    Returns:
        What sends the source's weights, as often as wanted.

    Raises:
        ImportError: If vLLM is not installed here.
    """
    import_vllm()
    from vllm.distributed.weight_transfer import WeightTransferTrainerFactory
    from vllm.distributed.weight_transfer.ipc_engine import IPCTrainerInitInfo
    from vllm.distributed.weight_transfer.nccl_engine import NCCLTrainerInitInfo

    init_info: Any
    if backend == "ipc":
        init_info = IPCTrainerInitInfo(rank=meeting.rank)
    else:
        init_info = NCCLTrainerInitInfo(
            rank=meeting.rank,
            master_address=meeting.address,
            master_port=meeting.port,
            world_size=1 + meeting.num_workers,
            # One broadcast per weight: vLLM's packing needs two buffers of a gigabyte each.
            packed=False,
        )
    return WeightTransferTrainerFactory.trainer_init(init_info, client=client, source=source)
