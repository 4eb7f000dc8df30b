"""How several learners share one model: each holds all of it (DDP) or a share of it (FSDP2)."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.tensor import DTensor, distribute_tensor

from prefix_rft_rllib.learners.torch.collectives import LearnerCollectives
from prefix_rft_rllib.models.causal_lm import layers_of


class Parallelism:
    """A learner alone, or several of which each holds the whole model."""

    replicates: bool = True
    """Whether RLlib shall wrap the modules for the exchange of gradients (DDP)."""

    def place(self, module: Any, device: torch.device) -> None:
        """Put a module where it is trained.

        Args:
            module: A `DefaultPrefixRFTTorchRLModule`; changed in place.
            device: The learner's device.
        """
        module.parallelism = self
        module.to(device)

    def gradient_sync(
        self, module: Any, *, is_last: bool
    ) -> contextlib.AbstractContextManager[Any]:
        """Around one backward pass of an optimizer step: exchange gradients in the last one only.

        Args:
            module: The module as RLlib wrapped it.
            is_last: Whether this is the last pass before the step.
        """
        if is_last or not isinstance(module, torch.nn.parallel.DistributedDataParallel):
            return contextlib.nullcontext()
        return module.no_sync()

    def num_forward_passes(self, own: int, collectives: LearnerCollectives) -> int:
        """How many passes without gradients a learner makes that needs `own`."""
        return own

    def total_norm(self, gradients: Iterable[Tensor]) -> float:
        """Euclidean norm of all gradients together."""
        return float(torch.nn.utils.get_total_norm(list(gradients)))

    def gathered(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Whole tensors from those that this learner holds.

        Args:
            tensors: By name; the same names on every learner.

        Returns:
            By name. Of shared models only the first learner has them, the others an empty dict.
        """
        return dict(tensors)

    def spread(self, tensors: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """This learner's part of whole tensors.

        Args:
            tensors: Whole tensors by name, the same on every learner.
            own: The tensors that this learner holds, by name; names that are not there are kept.

        Returns:
            By name, on the device of `own`.
        """
        return dict(tensors)


class Sharded(Parallelism):
    """Several learners of which each holds a share of weights, gradients and optimizer state.

    PyTorch's `fully_shard`: every layer's weights are collected for its computation and given back
    after it, so all learners must make the same passes, those without gradients too.
    """

    replicates = False

    def place(self, module: Any, device: torch.device) -> None:
        """Shard every layer, then what is left; weights move to the device share by share."""
        from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

        module.parallelism = self
        mesh = dist.init_device_mesh(device.type, (dist.get_world_size(),))
        for scorer in module.scorers:
            # float32 weights and sums of gradients, whatever the computation's type.
            is_bfloat16 = scorer.compute_dtype == "bfloat16"
            policy = MixedPrecisionPolicy(
                param_dtype=torch.bfloat16 if is_bfloat16 else None, reduce_dtype=torch.float32
            )
            for part in (*layers_of(scorer.lm), scorer):
                fully_shard(part, mesh=mesh, mp_policy=policy, reshard_after_forward=True)
        module.to(device)

    def gradient_sync(
        self, module: Any, *, is_last: bool
    ) -> contextlib.AbstractContextManager[Any]:
        """Every pass adds to the shares; whole gradients never exist."""
        return contextlib.nullcontext()

    def num_forward_passes(self, own: int, collectives: LearnerCollectives) -> int:
        """As many as the learner that needs most."""
        return collectives.max(own)

    def total_norm(self, gradients: Iterable[Tensor]) -> float:
        """Over the shares of all learners."""
        norm: Any = torch.nn.utils.get_total_norm(list(gradients))
        return float(norm.full_tensor() if isinstance(norm, DTensor) else norm)

    def gathered(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Collected one by one; the first learner keeps them, in main memory."""
        whole = {}
        for name, tensor in tensors.items():
            full = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
            if dist.get_rank() == 0:
                whole[name] = full.detach().cpu()
        return whole

    def spread(self, tensors: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Sharded as `own` is."""
        return {name: _like(tensor, own.get(name)) for name, tensor in tensors.items()}


def parallelism_of(name: str, num_learners: int) -> Parallelism:
    """The parallelism of a setting.

    Args:
        name: "ddp" or "fsdp".
        num_learners: A learner alone holds the whole model in any case.

    Returns:
        The object that knows how.
    """
    return Sharded() if name == "fsdp" and num_learners > 1 else Parallelism()


def gathered_optimizer_state(parallelism: Parallelism, state: dict[str, Any]) -> dict[str, Any]:
    """An optimizer's `state_dict` with whole tensors, as a learner alone has it.

    Args:
        parallelism: Of the module.
        state: What `state_dict` returned.

    Returns:
        The same structure; empty of tensors where `Parallelism.gathered` is.
    """
    flat = {
        f"{index}/{key}": value
        for index, values in state["state"].items()
        for key, value in values.items()
    }
    whole: dict[int, dict[str, Tensor]] = {}
    for name, value in parallelism.gathered(flat).items():
        index, key = name.split("/")
        whole.setdefault(int(index), {})[key] = value
    return {**state, "state": whole}


def spread_optimizer_state(parallelism: Parallelism, optimizer: torch.optim.Optimizer) -> None:
    """Replace whole tensors in an optimizer's state by this learner's share.

    Args:
        parallelism: Of the module.
        optimizer: Has just loaded a state with whole tensors.
    """
    for parameter, values in optimizer.state.items():
        own = {key: parameter for key, value in values.items() if value.shape == parameter.shape}
        values.update(parallelism.spread(values, own))


def _like(tensor: Tensor, own: Tensor | None) -> Tensor:
    if not isinstance(own, DTensor):
        return tensor
    on_device = tensor.to(device=own.device, dtype=own.dtype)
    return distribute_tensor(on_device, own.device_mesh, own.placements)
