"""Methods that train on rollouts from the prompt, on whole demonstrations, or on both."""

from __future__ import annotations

from prefix_rft_rllib.basics.ranges import FLAG, SHARE, real, whole
from prefix_rft_rllib.core.advantages import GroupMeanStd
from prefix_rft_rllib.core.coefficients import Complement, WarmupCosine
from prefix_rft_rllib.core.demonstration_rows import EveryStep, OneRowPerGroup
from prefix_rft_rllib.core.surrogates import NoClip, PPOClip
from prefix_rft_rllib.core.token_values import (
    Constant,
    PolicyShaped,
    Scheduled,
    TrajectoryAdvantage,
    Uncertainty,
)
from prefix_rft_rllib.core.token_weights import Rule, SequenceMean, TokenMean
from prefix_rft_rllib.methods.method import SFT_RULE, ImitationStep, Method, Stage
from prefix_rft_rllib.methods.prefix import GRPO_RULE, RESPONSE_RULE


def rft() -> Method:
    """Reinforcement fine-tuning without demonstrations: Dr.GRPO with the PPO clip.

    Prefix-RFT with every prefix length at 0 is this method, bit for bit.

    Source: arXiv 2503.20783; the baseline of arXiv 2507.01679.

    Returns:
        The method.
    """
    return Method(name="rft", rules=(RESPONSE_RULE,))


def grpo() -> Method:
    """GRPO in its classic form: rewards standardised in the group, per-sequence token means.

    The KL term of its paper is the config's `kl_coeff`, 0 by default.

    Source: arXiv 2402.03300, Sec. 4.1.

    Returns:
        The method.
    """
    return Method(name="grpo", advantage=GroupMeanStd(), rules=(GRPO_RULE,))


def sft(*, num_rows_per_problem: int = 1) -> Method:
    """Supervised fine-tuning: the mean log probability of all demonstration tokens of the batch.

    A mean over the tokens of the global minibatch, end tokens included, never a mean of per-row
    means (arXiv 2604.23747 shows what that bug does to baselines). Nothing is sampled.

    Source: the baseline SFT of arXiv 2507.01679, there at lr 5e-5 with 10% warm-up for 3 epochs.

    Args:
        num_rows_per_problem: Demonstrations per problem and iteration, if it has several.

    Returns:
        The method.

    Raises:
        ValueError: If `num_rows_per_problem` is not a positive integer.
    """
    whole(1).check("num_rows_per_problem", num_rows_per_problem)
    return Method(
        name="sft",
        rules=(SFT_RULE,),
        demonstration_rows=EveryStep(num_rows_per_problem),
        num_sampled=0,
    )


def sft_rft(
    *,
    num_sft_iterations: int = 1073,
    sft_lr: float | None = 5e-5,
    sft_warmup_fraction: float = 0.1,
) -> Method:
    """SFT to its end, then RFT from its weights with a fresh optimizer at the config's `lr`.

    One run of two stages; `num_sft_iterations` says when the second one begins.

    Source: the baseline SFT+RFT of arXiv 2507.01679.

    Args:
        num_sft_iterations: Iterations of SFT. The default is 3 epochs of the paper's 45,792
            problems, 128 an iteration.
        sft_lr: Constant learning rate of SFT; None for the config's `lr`, schedule and warm-up.
        sft_warmup_fraction: Share of SFT's iterations over which `sft_lr` rises linearly; of no
            effect where `sft_lr` is None.

    Returns:
        The method.

    Raises:
        ValueError: If a setting is out of range.
    """
    whole(1).check("num_sft_iterations", num_sft_iterations)
    SHARE.check("sft_warmup_fraction", sft_warmup_fraction)
    if sft_lr is not None:
        real(0).check("sft_lr", sft_lr)
    num_warmup = 0 if sft_lr is None else round(sft_warmup_fraction * num_sft_iterations)
    first = Stage(
        method=sft(), num_iterations=num_sft_iterations, lr=sft_lr, num_warmup_iterations=num_warmup
    )
    return Method(name="sft_rft", stages=(first, Stage(method=rft())))


def rl_with_sft_loss(*, sft_coeff: float = 1.0) -> Method:
    """RFT plus the SFT loss on the same problems' demonstrations.

    Source: the baseline "RL w/ SFT loss" of arXiv 2507.01679.

    Args:
        sft_coeff: Weight of the mean log probability of the demonstrations' tokens.

    Returns:
        The method.
    """
    real(0).check("sft_coeff", sft_coeff)
    sft_rule = Rule(
        region="demonstration", stream="imitation", value=Constant(sft_coeff), scale=TokenMean()
    )
    return Method(
        name="rl_with_sft_loss", rules=(RESPONSE_RULE, sft_rule), demonstration_rows=EveryStep(1)
    )


def luffy(*, gamma: float = 0.1, clip: bool = False) -> Method:
    """One member of each group is a whole demonstration, shaped by the policy's p (LUFFY).

    The demonstration takes the place of one rollout: it has its own reward and advantage A and
    counts in the group's mean. Its tokens maximize A * p / (p + gamma), p the policy's probability
    of the token, without ratio or clip.

    Source: arXiv 2504.14945, Sec. 3.

    Args:
        gamma: Probability p at which a demonstration's token weighs most.
        clip: Whether sampled tokens have the PPO clip; its paper writes one, its code removes it.

    Returns:
        The method.

    Raises:
        ValueError: If `gamma` is not above 0.
    """
    FLAG.check("clip", clip)
    shaped = Rule(region="demonstration", stream="imitation", value=PolicyShaped(gamma))
    return Method(
        name="luffy",
        rules=(RESPONSE_RULE, shaped),
        demonstration_rows=OneRowPerGroup(),
        surrogate=PPOClip() if clip else NoClip(),
    )


def relift(*, buffer_size: int = 128, imitation_lr: float = 1e-6, clip: bool = False) -> Method:
    """RFT, and now and then an SFT step on problems that no rollout solved (ReLIFT).

    Such problems wait until there are enough of them; the step has an optimizer of its own. The
    code of its first release clips gradients at 0.7: the config's `grad_clip`.

    Source: arXiv 2506.07527; constants of its first release.

    Args:
        buffer_size: Problems of one SFT step. It follows the RL steps of an iteration after which
            at least so many wait, and takes the newest.
        imitation_lr: Learning rate of the SFT step's own optimizer.
        clip: Whether sampled tokens have the PPO clip; its first release has none.

    Returns:
        The method.

    Raises:
        ValueError: If a setting is out of range.
    """
    real(0).check("imitation_lr", imitation_lr)
    FLAG.check("clip", clip)
    return Method(
        name="relift",
        rules=(RESPONSE_RULE,),
        surrogate=PPOClip() if clip else NoClip(),
        after_step=ImitationStep(buffer_size=buffer_size, lr=imitation_lr),
    )


def chord(
    *,
    phi: bool = True,
    mu_peak: float = 0.5,
    mu_valley: float = 0.02,
    num_warmup_iterations: int = 200,
    num_decay_iterations: int = 400,
) -> Method:
    """(1 - mu) * GRPO + mu * SFT with each demonstration token weighted by phi (CHORD).

    The defaults combine both controls. CHORD-mu of its paper leaves phi out: `phi=False`, mu from
    0.9 to 0.05 over 200 iterations without warm-up. Its CHORD-phi has a constant mu: `mu_peak` and
    `mu_valley` 0.1 without warm-up.

    Source: arXiv 2508.11408, Sec. 3.2 and 3.3; defaults of the example in Trinity-RFT.

    Args:
        phi: Whether demonstration tokens are weighted by p * (1 - p), p the policy's probability.
        mu_peak: mu at the end of the warm-up, in [0, 1].
        mu_valley: mu from the end of the fall on, in [0, 1].
        num_warmup_iterations: Iterations over which mu rises from 0.
        num_decay_iterations: Iterations over which mu falls along half a cosine.

    Returns:
        The method.

    Raises:
        ValueError: If a setting is out of range.
    """
    FLAG.check("phi", phi)
    SHARE.check("mu_peak", mu_peak)
    SHARE.check("mu_valley", mu_valley)
    mu = WarmupCosine(mu_peak, mu_valley, num_warmup_iterations, num_decay_iterations)
    grpo_rule = Rule(
        region="response",
        stream="policy",
        value=Scheduled(TrajectoryAdvantage(), Complement(mu)),
        scale=SequenceMean(),
    )
    sft_rule = Rule(
        region="demonstration",
        stream="imitation",
        value=Scheduled(Uncertainty() if phi else Constant(1.0), mu),
        scale=TokenMean(),
    )
    return Method(
        name="chord",
        advantage=GroupMeanStd(),
        rules=(grpo_rule, sft_rule),
        demonstration_rows=EveryStep(1),
    )
