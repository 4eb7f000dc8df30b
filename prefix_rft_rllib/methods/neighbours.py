"""What the page of methods says of methods that are no functions of the package."""

from __future__ import annotations

FITTING = """## Neighbouring methods

Published beside the methods of this page; no functions of their own.

**Made of the same pieces**, and given to `training(method=...)` as a ready `Method`:

```python
@dataclasses.dataclass(frozen=True)
class GroupMeanRatio(GroupMean):  # MaxRL: (reward - mean) / mean
    def divisor(self, rewards):
        return statistics.fmean(rewards)


@dataclasses.dataclass(frozen=True)
class MixedRatio(Value):  # RL-PLUS: A * 2 p / (p_old + (1 + p_old) / 2) * sqrt(1 - p)
    reads = frozenset({"old_logp"})

    def base(self, columns, iteration):
        p_old = columns.old_logp.exp()
        return columns.advantage[:, None] * 2 / (p_old + (1 + p_old) / 2)

    def policy_factor(self, logp):
        return logp.exp() * (-logp.expm1()).clamp(min=0).sqrt()


gspo = dataclasses.replace(methods.grpo(), name="gspo", surrogate=GSPO())
cispo = dataclasses.replace(methods.grpo(), name="cispo", surrogate=CISPO())
maxrl = dataclasses.replace(methods.rft(), name="maxrl", advantage=GroupMeanRatio())
mixed = Rule(region="demonstration", stream="imitation", value=MixedRatio())
rules = (*methods.rft().rules, mixed)
rl_plus = Method(name="rl_plus", rules=rules, demonstration_rows=OneRowPerGroup())
```

They are GSPO (arXiv 2507.18071), CISPO (arXiv 2506.13585), MaxRL (arXiv 2602.02710) and RL-PLUS
(arXiv 2508.00222). SRFT (arXiv 2506.19767) weighs demonstrations by `EntropyScaled(Constant(0.5))`
beside `PolicyShaped`, and rollouts by a value that reads `reward`.

**Not made of these pieces**, and why:"""

UNFITTING = (
    (
        "OTR (arXiv 2509.26313), CurioSFT (arXiv 2602.02244), GIFT (arXiv 2601.09233), ASFT "
        "(arXiv 2509.23753)",
        "a term over the whole vocabulary at each position: a weight knows the probability of the "
        "given token alone",
    ),
    (
        "iw-SFT (arXiv 2507.12856)",
        "the reference model's log probabilities in a weight: they enter the KL term only",
    ),
    (
        "HPT (arXiv 2509.04419), AMPO (arXiv 2510.02227)",
        "a choice between a group's rollouts and its demonstrations by the rewards: the "
        "rows of an iteration are planned before it is sampled, and ReLIFT's separate step is all "
        "that comes later",
    ),
    (
        "TRAPO (arXiv 2512.17636), BREAD (arXiv 2506.17211)",
        "rollouts of a group one after the other, each prefix chosen by the rewards so far: all "
        "are planned at once. TRAPO's weights of demonstration tokens are those of `trsft`",
    ),
    (
        "ExGRPO (arXiv 2510.02245), PrefixRL (arXiv 2601.18795)",
        "demonstrations that the run itself writes: past rollouts are not kept",
    ),
    (
        "QuestA (arXiv 2507.13266), POPE (arXiv 2601.18779)",
        "a hint in the prompt: a prefix is the beginning of the response, though it need not be "
        "trained (`dr_po`, `freeze_prefix`)",
    ),
    (
        "SDFT (arXiv 2601.19897), SDPO (arXiv 2601.20802)",
        "a second scoring of the same tokens in another context",
    ),
)
"""Methods, and what they need that no piece gives."""
