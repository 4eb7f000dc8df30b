"""Methods whose rollouts start inside a demonstration."""

from __future__ import annotations

from prefix_rft_rllib.basics.ranges import SHARE, one_of, real, whole
from prefix_rft_rllib.core.adaptive_schedule import Adaptive
from prefix_rft_rllib.core.advantages import GroupAdvantage, GroupMean, GroupMeanStd, TwoLevel
from prefix_rft_rllib.core.prefix_sampling import PerGroup, WholeGroup
from prefix_rft_rllib.core.prefix_schedules import BinomialChunks, CosineLow
from prefix_rft_rllib.core.token_selection import All, Keep, TopEntropy
from prefix_rft_rllib.core.token_values import Constant, TrajectoryAdvantage
from prefix_rft_rllib.core.token_weights import Rule, SequenceMean, TokenMean
from prefix_rft_rllib.methods.method import Method

ADVANTAGES: dict[str, GroupAdvantage] = {"group_mean": GroupMean(), "two_level": TwoLevel()}
"""Names of group advantages for `method_config`."""

RESPONSE_RULE = Rule(region="response", stream="policy", value=TrajectoryAdvantage())
"""Sampled tokens are worth their rollout's advantage (Dr.GRPO's constant length)."""

GRPO_RULE = Rule(
    region="response", stream="policy", value=TrajectoryAdvantage(), scale=SequenceMean()
)
"""Sampled tokens are worth their rollout's advantage, divided by its length (GRPO)."""


def prefix_rule(keep: Keep | None = None) -> Rule:
    """Prefix tokens that a selection keeps are worth their rollout's advantage."""
    return Rule(region="prefix", stream="policy", value=TrajectoryAdvantage(), keep=keep or All())


def prefix_rft(
    *,
    entropy_keep_fraction: float = 0.2,
    num_prefix_rollouts: int = 1,
    low_start: float = 0.95,
    low_end: float = 0.05,
    high: float = 0.95,
    num_schedule_iterations: int = 500,
    advantage: str = "group_mean",
) -> Method:
    """Some rollouts of a group continue a demonstration's beginning (Prefix-RFT).

    Their prefix is a share of the demonstration, drawn evenly from a window that opens: its lower
    end falls along half a cosine, its upper end stays. Prefix and sampled tokens alike are worth
    the rollout's reward minus the group's mean; of the prefix tokens, only those at which the
    policy was least certain count.

    Source: arXiv 2507.01679, Sec. 3 and App. A.2.

    Args:
        entropy_keep_fraction: Share of the prefix tokens that keep their weight, those of highest
            entropy, in [0, 1]; 1 updates all, 0 freezes the prefix.
        num_prefix_rollouts: Rollouts of each group that start from a prefix.
        low_start: Lower end of the window in iteration 0, a share of the demonstration.
        low_end: Lower end from `num_schedule_iterations` on.
        high: Upper end of the window in all iterations.
        num_schedule_iterations: Iterations over which the window opens; set it to the length of
            your run.
        advantage: "group_mean": reward minus the mean of the whole group (the paper's);
            "two_level": minus the mean of its plain rollouts (the authors' code, centred).

    Returns:
        The method.

    Raises:
        ValueError: If a setting is out of range.
    """
    SHARE.check("entropy_keep_fraction", entropy_keep_fraction)
    one_of(ADVANTAGES).check("advantage", advantage)
    window = _opening_window(low_start, low_end, high, num_schedule_iterations)
    return Method(
        name="prefix_rft",
        prefix_sampler=PerGroup(num_prefix_rollouts, window),
        advantage=ADVANTAGES[advantage],
        rules=(RESPONSE_RULE, prefix_rule(TopEntropy(entropy_keep_fraction))),
    )


def prefix_rft_adaptive(
    *,
    entropy_keep_fraction: float = 0.2,
    num_prefix_rollouts: int = 1,
    target: float = 0.5,
    width: float = 0.2,
    gain: float = 0.5,
    max_step: float = 0.1,
    rest_margin: float = 0.1,
) -> Method:
    """Prefix-RFT with a window that follows the policy instead of the iteration.

    After each iteration the window moves by gain * (target - mean reward of the prefix rollouts):
    to longer prefixes where they earned too little, to shorter ones where they earned too much. A
    problem met at least twice has a window of its own: further up where it earned less than the
    others, further down where it earned more. All of this is part of the checkpoint.

    Source: this project; cf. arXiv 2605.05112, for prefixes of the policy's own trajectories.

    Args:
        entropy_keep_fraction: Share of the prefix tokens that keep their weight, those of highest
            entropy, in [0, 1].
        num_prefix_rollouts: Rollouts of each group that start from a prefix.
        target: Mean reward of the prefix rollouts to hold, in [0, 1].
        width: Distance of the window's ends, a share of the demonstration.
        gain: How far the window moves, as a share of the demonstration, per unit of reward.
        max_step: Largest move after one iteration, a share of the demonstration.
        rest_margin: Once the running mean of the plain rollouts' reward reaches the target less
            this margin, the window goes to the lower end of its range, [0.05, 0.05 + width].

    Returns:
        The method.

    Raises:
        ValueError: If a setting is out of range.
    """
    SHARE.check("entropy_keep_fraction", entropy_keep_fraction)
    window = Adaptive(
        target=target, width=width, gain=gain, max_step=max_step, rest_margin=rest_margin
    )
    return Method(
        name="prefix_rft_adaptive",
        prefix_sampler=PerGroup(num_prefix_rollouts, window),
        rules=(RESPONSE_RULE, prefix_rule(TopEntropy(entropy_keep_fraction))),
    )


def uft(
    *,
    imitation_coeff: float = 0.001,
    start: float = 0.95,
    end: float = 0.05,
    num_schedule_iterations: int = 300,
    max_chunks: int = 5,
) -> Method:
    """All rollouts of a group share a hint of whole solution steps, which is imitated (UFT).

    GRPO on the sampled tokens plus `imitation_coeff` times the mean log probability of the hints'
    tokens. A hint is the first k chunks of a demonstration, k binomial with a probability p that
    falls along half a cosine.

    Source: arXiv 2505.16984, Sec. 3.

    Args:
        imitation_coeff: beta, weight of the mean log probability of the hints' tokens.
        start: p in iteration 0.
        end: p that the fall ends at, in iteration `num_schedule_iterations`.
        num_schedule_iterations: Iterations with hints, then none: 60% of the run in the paper, 300
            of 500.
        max_chunks: Chunks of a demonstration at most; the steps of a longer one are merged.

    Returns:
        The method.

    Raises:
        ValueError: If a setting is out of range.
    """
    real(0).check("imitation_coeff", imitation_coeff)
    whole(1).check("num_schedule_iterations", num_schedule_iterations)
    return Method(
        name="uft",
        prefix_sampler=WholeGroup(BinomialChunks(start, end, num_schedule_iterations, max_chunks)),
        advantage=GroupMeanStd(),
        rules=(
            GRPO_RULE,
            Rule(
                region="prefix",
                stream="imitation",
                value=Constant(imitation_coeff),
                scale=TokenMean(),
            ),
        ),
    )


def dr_po(
    *,
    low_start: float = 0.95,
    low_end: float = 0.05,
    high: float = 0.95,
    num_schedule_iterations: int = 500,
) -> Method:
    """All rollouts of a group start from the same prefix, which carries no weight (DR-PO variant).

    Rewards are compared within the group, so that only what follows the prefix is learned.

    Source: arXiv 2404.08495, in the form that arXiv 2507.01679 compares with.

    Args:
        low_start: Lower end of the window in iteration 0, a share of the demonstration.
        low_end: Lower end from `num_schedule_iterations` on.
        high: Upper end of the window in all iterations.
        num_schedule_iterations: Iterations over which the window opens.

    Returns:
        The method.

    Raises:
        ValueError: If a setting is out of range.
    """
    window = _opening_window(low_start, low_end, high, num_schedule_iterations)
    return Method(name="dr_po", prefix_sampler=WholeGroup(window), rules=(RESPONSE_RULE,))


def _opening_window(
    low_start: float, low_end: float, high: float, num_schedule_iterations: int
) -> CosineLow:
    """The paper's window; errors name the settings of the methods."""
    whole(1).check("num_schedule_iterations", num_schedule_iterations)
    SHARE.check("high", high)
    for name, low in (("low_start", low_start), ("low_end", low_end)):
        SHARE.check(name, low)
        if low > high:
            raise ValueError(f"`{name}` ({low}) must not be above `high` ({high}).")
    return CosineLow(low_start, low_end, high, num_schedule_iterations)
