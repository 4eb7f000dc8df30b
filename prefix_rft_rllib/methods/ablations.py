"""The ablations of Prefix-RFT (arXiv 2507.01679): one piece exchanged in each.

Those that only change a number are settings of `prefix_rft`; `PAPER_ROWS` lists all of them.
"""

from __future__ import annotations

import dataclasses

from prefix_rft_rllib.basics.ranges import SHARE, real, whole
from prefix_rft_rllib.core.prefix_sampling import PerGroup
from prefix_rft_rllib.core.prefix_schedules import CosineLow, Uniform
from prefix_rft_rllib.core.token_selection import BottomEntropy, Random, TopEntropy
from prefix_rft_rllib.core.token_values import Constant
from prefix_rft_rllib.core.token_weights import Rule
from prefix_rft_rllib.methods.method import Method
from prefix_rft_rllib.methods.prefix import RESPONSE_RULE, prefix_rule

PAPER_ROWS: dict[str, tuple[str, dict[str, float]]] = {
    "entropy top 50%": ("prefix_rft", {"entropy_keep_fraction": 0.5}),
    "entropy top 80%": ("prefix_rft", {"entropy_keep_fraction": 0.8}),
    "random 20%": ("random_prefix", {}),
    "bottom 20%": ("bottom_entropy", {}),
    "freeze prefix": ("freeze_prefix", {}),
    "update all": ("update_all", {}),
    "static prefix weight": ("static_prefix_weight", {}),
    "RFT + on-policy clip": ("rft_on_policy_clip", {}),
    "uniform schedule": ("uniform_schedule", {}),
    "several prefixes per problem": ("prefix_rft", {"num_prefix_rollouts": 4}),
}
"""The paper's ablations by their row: method and `method_config`. Fewer and flawed demonstrations
are settings of the data."""


def random_prefix(*, keep_fraction: float = 0.2, num_schedule_iterations: int = 500) -> Method:
    """Prefix-RFT that keeps prefix tokens at random instead of by entropy.

    Sampled tokens all keep their weight.

    Source: arXiv 2507.01679, the ablation "random 20%".

    Args:
        keep_fraction: Share of the prefix tokens that keep their weight, in [0, 1].
        num_schedule_iterations: Iterations over which the window opens.

    Returns:
        The method.

    Raises:
        ValueError: If a setting is out of range.
    """
    rule = prefix_rule(Random(keep_fraction))
    return _ablation("random_prefix", num_schedule_iterations, rule)


def bottom_entropy(*, keep_fraction: float = 0.2, num_schedule_iterations: int = 500) -> Method:
    """Prefix-RFT that keeps the prefix tokens of lowest entropy.

    Sampled tokens all keep their weight.

    Source: arXiv 2507.01679, the ablation "bottom 20%".

    Args:
        keep_fraction: Share of the prefix tokens that keep their weight, in [0, 1].
        num_schedule_iterations: Iterations over which the window opens.

    Returns:
        The method.

    Raises:
        ValueError: If a setting is out of range.
    """
    rule = prefix_rule(BottomEntropy(keep_fraction))
    return _ablation("bottom_entropy", num_schedule_iterations, rule)


def freeze_prefix(*, num_schedule_iterations: int = 500) -> Method:
    """Prefix-RFT in which no prefix token carries weight.

    Source: arXiv 2507.01679, the ablation "freeze prefix".

    Args:
        num_schedule_iterations: Iterations over which the window opens.

    Returns:
        The method.

    Raises:
        ValueError: If a setting is out of range.
    """
    return _ablation("freeze_prefix", num_schedule_iterations)


def update_all(*, num_schedule_iterations: int = 500) -> Method:
    """Prefix-RFT in which every prefix token carries weight.

    Source: arXiv 2507.01679, the ablation "update all".

    Args:
        num_schedule_iterations: Iterations over which the window opens.

    Returns:
        The method.

    Raises:
        ValueError: If a setting is out of range.
    """
    return _ablation("update_all", num_schedule_iterations, prefix_rule())


def static_prefix_weight(*, weight: float = 0.001, num_schedule_iterations: int = 500) -> Method:
    """Prefix-RFT whose prefix tokens are imitated with a constant weight instead of the advantage.

    Source: arXiv 2507.01679, the ablation "static prefix weight".

    Args:
        weight: Weight of every prefix token, in the place of the advantage.
        num_schedule_iterations: Iterations over which the window opens.

    Returns:
        The method.

    Raises:
        ValueError: If a setting is out of range.
    """
    real(0).check("weight", weight)
    rule = Rule(region="prefix", stream="imitation", value=Constant(weight))
    return _ablation("static_prefix_weight", num_schedule_iterations, rule)


def rft_on_policy_clip(*, entropy_keep_fraction: float = 0.2) -> Method:
    """RFT that trains only the sampled tokens of highest entropy.

    Source: arXiv 2507.01679, the ablation "RFT + on-policy clip".

    Args:
        entropy_keep_fraction: Share of the sampled tokens that keep their weight, in [0, 1].

    Returns:
        The method.

    Raises:
        ValueError: If a setting is out of range.
    """
    SHARE.check("entropy_keep_fraction", entropy_keep_fraction)
    keep = TopEntropy(entropy_keep_fraction)
    return Method(name="rft_on_policy_clip", rules=(dataclasses.replace(RESPONSE_RULE, keep=keep),))


def uniform_schedule(
    *, low: float = 0.05, high: float = 0.95, entropy_keep_fraction: float = 0.2
) -> Method:
    """Prefix-RFT whose window is wide from the start.

    Source: arXiv 2507.01679, the ablation "uniform schedule".

    Args:
        low: Lower end of the window in all iterations, a share of the demonstration.
        high: Upper end of the window.
        entropy_keep_fraction: Share of the prefix tokens that keep their weight, those of highest
            entropy, in [0, 1].

    Returns:
        The method.

    Raises:
        ValueError: If a setting is out of range.
    """
    SHARE.check("entropy_keep_fraction", entropy_keep_fraction)
    return Method(
        name="uniform_schedule",
        prefix_sampler=PerGroup(1, Uniform(low, high)),
        rules=(RESPONSE_RULE, prefix_rule(TopEntropy(entropy_keep_fraction))),
    )


def _ablation(name: str, num_schedule_iterations: int, *rules: Rule) -> Method:
    """Prefix-RFT with other rules for the prefix."""
    whole(1).check("num_schedule_iterations", num_schedule_iterations)
    window = CosineLow(num_iterations=num_schedule_iterations)
    return Method(name=name, prefix_sampler=PerGroup(1, window), rules=(RESPONSE_RULE, *rules))
