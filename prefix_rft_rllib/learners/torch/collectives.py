"""Pooling over learners: what selections and scales need to be the same on each of them."""

import torch
import torch.distributed as dist
from ray.rllib.utils.annotations import override

from prefix_rft_rllib.core.token_selection import Collectives


class LearnerCollectives(Collectives):
    """A learner that is alone, with the reductions that the update needs."""

    size: int = 1
    """Number of learners."""

    def max(self, count: int) -> int:
        """Largest count of any learner."""
        return count

    def sum_values(self, values: torch.Tensor) -> torch.Tensor:
        """Elementwise sum over learners, a new tensor."""
        return values.detach().clone()

    def max_values(self, values: torch.Tensor) -> torch.Tensor:
        """Elementwise maximum over learners, a new tensor."""
        return values.detach().clone()


class DistributedCollectives(LearnerCollectives):
    """The learners of the default process group.

    Args:
        device: Device the collectives run on (the learner's own).
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self.size = dist.get_world_size()

    @override(Collectives)
    def all_gather_1d(self, values: torch.Tensor) -> torch.Tensor:
        lengths = [torch.zeros(1, dtype=torch.int64, device=self._device) for _ in range(self.size)]
        dist.all_gather(lengths, torch.tensor([len(values)], device=self._device))
        longest = max(int(n) for n in lengths)
        padded = torch.zeros(longest, dtype=values.dtype, device=self._device)
        padded[: len(values)] = values.to(self._device)
        gathered = [torch.zeros_like(padded) for _ in range(self.size)]
        dist.all_gather(gathered, padded)
        parts = [row[: int(n)] for row, n in zip(gathered, lengths, strict=True)]
        return torch.cat(parts).to(values.device)

    @override(Collectives)
    def sum(self, count: int) -> int:
        return int(self.sum_values(torch.tensor(count, dtype=torch.int64)))

    @override(LearnerCollectives)
    def max(self, count: int) -> int:
        return int(self.max_values(torch.tensor(count, dtype=torch.int64)))

    @override(LearnerCollectives)
    def sum_values(self, values: torch.Tensor) -> torch.Tensor:
        return self._reduced(values, dist.ReduceOp.SUM)

    @override(LearnerCollectives)
    def max_values(self, values: torch.Tensor) -> torch.Tensor:
        return self._reduced(values, dist.ReduceOp.MAX)

    def _reduced(self, values: torch.Tensor, op: dist.ReduceOp.RedOpType) -> torch.Tensor:
        reduced = values.detach().clone().to(self._device)
        dist.all_reduce(reduced, op=op)
        return reduced
