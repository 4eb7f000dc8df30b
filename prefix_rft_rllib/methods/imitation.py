"""Supervised methods that weigh a demonstration's tokens by the policy, or bound its steps."""

from __future__ import annotations

from prefix_rft_rllib.basics.ranges import SHARE, real, whole
from prefix_rft_rllib.core.demonstration_rows import EveryStep
from prefix_rft_rllib.core.surrogates import PPOClip, Surrogate
from prefix_rft_rllib.core.token_values import Constant, Probability, Value
from prefix_rft_rllib.core.token_weights import Rule, TokenMean
from prefix_rft_rllib.methods.method import Method

_CLIP_HIGH = real(above=0, may_be_infinite=True).advising("It is a distance from 1, such as 0.28.")


def dft(*, num_rows_per_problem: int = 1) -> Method:
    """SFT with each token weighted by the policy's own probability p of it (DFT).

    The gradient of log p has a factor 1 / p, which lets tokens that the policy hardly believes in
    dominate; the weight p undoes it. Nothing is sampled.

    Source: arXiv 2508.05629.

    Args:
        num_rows_per_problem: Demonstrations per problem and iteration, if it has several.

    Returns:
        The method.

    Raises:
        ValueError: If `num_rows_per_problem` is not a positive integer.
    """
    return _supervised("dft", "imitation", Probability(), num_rows_per_problem)


def trsft(*, threshold: float = 0.1, num_rows_per_problem: int = 1) -> Method:
    """SFT that holds back only at tokens that the policy hardly believes in (TrSFT).

    A token weighs min(1, p / threshold), p the policy's probability of it. Nothing is sampled.

    Source: arXiv 2512.17636, there for the prefixes of TRAPO; here for whole demonstrations.

    Args:
        threshold: From this probability on a token has the full weight; in (0, 1], 1 is DFT.
        num_rows_per_problem: Demonstrations per problem and iteration, if it has several.

    Returns:
        The method.

    Raises:
        ValueError: If a setting is out of range.
    """
    SHARE.check("threshold", threshold)
    return _supervised("trsft", "imitation", Probability(threshold), num_rows_per_problem)


def psft(*, clip_high: float = 0.28, num_rows_per_problem: int = 1) -> Method:
    """SFT inside a trust region: the PPO surrogate with the advantage 1 (PSFT).

    A token whose probability has risen by more than the share `clip_high` since the iteration began
    has no gradient. In the first step of an iteration the gradient is that of SFT: it takes several
    minibatches or epochs to differ. The bounds are the method's own, not the config's `clip_param`;
    the lower one, 0.2 in its paper, never acts on positive weights. Nothing is sampled.

    Source: arXiv 2508.17784.

    Args:
        clip_high: No gradient where the ratio to the old policy is above 1 + clip_high.
        num_rows_per_problem: Demonstrations per problem and iteration, if it has several.

    Returns:
        The method.

    Raises:
        ValueError: If a setting is out of range.
    """
    _CLIP_HIGH.check("clip_high", clip_high)
    return _supervised(
        "psft", "policy", Constant(1.0), num_rows_per_problem, PPOClip(0.2, clip_high)
    )


def _supervised(
    name: str,
    stream: str,
    value: Value,
    num_rows_per_problem: int,
    surrogate: Surrogate | None = None,
) -> Method:
    """The mean over all demonstration tokens of the global minibatch, and no rollouts."""
    whole(1).check("num_rows_per_problem", num_rows_per_problem)
    rule = Rule(region="demonstration", stream=stream, value=value, scale=TokenMean())
    return Method(
        name=name,
        rules=(rule,),
        demonstration_rows=EveryStep(num_rows_per_problem),
        num_sampled=0,
        surrogate=surrogate or PPOClip(),
    )
