"""What one optimizer minimises: all that a learner needs to know of a method."""

from __future__ import annotations

import dataclasses

from prefix_rft_rllib.core.surrogates import PPOClip, Surrogate
from prefix_rft_rllib.core.token_weights import Rule


@dataclasses.dataclass(frozen=True, kw_only=True)
class Objective:
    """Rules, surrogate and learning rate of one optimizer.

    Attributes:
        name: Name of the optimizer, different for each of a method's objectives.
        stage: Number of the stage it belongs to, from 0. When a later stage begins, the
            optimizer's state is dropped.
        rules: Credit for one token.
        surrogate: What policy weights are multiplied by once the policy has moved.
        lr: Constant learning rate; None for the config's `lr` with its schedule and warm-up.
        num_warmup_iterations: Iterations over which `lr` rises linearly.
    """

    name: str
    stage: int = 0
    rules: tuple[Rule, ...] = ()
    surrogate: Surrogate = dataclasses.field(default_factory=PPOClip)
    lr: float | None = None
    num_warmup_iterations: int = 0
