"""Every training method as a value made of small pieces.

Each function named in `METHODS` returns a `Method`; `build` makes one from the name and the plain
settings of a config. A new method is a new function, listed there. The pieces that it is made of
can be imported from here too (`docs/pieces.md` says what each does).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from prefix_rft_rllib.core.adaptive_schedule import Adaptive
from prefix_rft_rllib.core.advantages import GroupAdvantage, GroupMean, GroupMeanStd, TwoLevel
from prefix_rft_rllib.core.coefficients import Coefficient, Complement, WarmupCosine
from prefix_rft_rllib.core.demonstration_rows import (
    DemonstrationRows,
    EveryStep,
    NoRows,
    OneRowPerGroup,
)
from prefix_rft_rllib.core.prefix_sampling import Never, PerGroup, PrefixSampler, WholeGroup
from prefix_rft_rllib.core.prefix_schedules import (
    BinomialChunks,
    ChunkWindow,
    CosineLow,
    Fixed,
    Schedule,
    TimedSchedule,
    Uniform,
    UniformWindow,
    Window,
)
from prefix_rft_rllib.core.surrogates import CISPO, GSPO, NoClip, PPOClip, Surrogate
from prefix_rft_rllib.core.token_selection import All, BottomEntropy, Keep, Random, TopEntropy
from prefix_rft_rllib.core.token_values import (
    Constant,
    EntropyScaled,
    PolicyShaped,
    Probability,
    Scheduled,
    TrajectoryAdvantage,
    Uncertainty,
    Value,
)
from prefix_rft_rllib.core.token_weights import ConstantLength, Rule, Scale, SequenceMean, TokenMean
from prefix_rft_rllib.methods.ablations import (
    PAPER_ROWS,
    bottom_entropy,
    freeze_prefix,
    random_prefix,
    rft_on_policy_clip,
    static_prefix_weight,
    uniform_schedule,
    update_all,
)
from prefix_rft_rllib.methods.baselines import (
    chord,
    grpo,
    luffy,
    relift,
    rft,
    rl_with_sft_loss,
    sft,
    sft_rft,
)
from prefix_rft_rllib.methods.imitation import dft, psft, trsft
from prefix_rft_rllib.methods.method import SFT_RULE, ActiveStage, ImitationStep, Method, Stage
from prefix_rft_rllib.methods.prefix import (
    GRPO_RULE,
    RESPONSE_RULE,
    dr_po,
    prefix_rft,
    prefix_rft_adaptive,
    prefix_rule,
    uft,
)

METHODS: dict[str, Callable[..., Method]] = {
    function.__name__: function
    for function in (
        prefix_rft,
        prefix_rft_adaptive,
        rft,
        grpo,
        sft,
        sft_rft,
        rl_with_sft_loss,
        uft,
        luffy,
        relift,
        chord,
        dr_po,
        dft,
        trsft,
        psft,
        random_prefix,
        bottom_entropy,
        freeze_prefix,
        update_all,
        static_prefix_weight,
        rft_on_policy_clip,
        uniform_schedule,
    )
}
"""All methods by name. The keyword arguments of a function are its `method_config`."""

__all__ = [
    "METHODS",
    "CISPO",
    "GRPO_RULE",
    "GSPO",
    "PAPER_ROWS",
    "RESPONSE_RULE",
    "SFT_RULE",
    "ActiveStage",
    "Adaptive",
    "All",
    "BinomialChunks",
    "BottomEntropy",
    "ChunkWindow",
    "Coefficient",
    "Complement",
    "Constant",
    "ConstantLength",
    "CosineLow",
    "DemonstrationRows",
    "EntropyScaled",
    "EveryStep",
    "Fixed",
    "GroupAdvantage",
    "GroupMean",
    "GroupMeanStd",
    "ImitationStep",
    "Keep",
    "Method",
    "Never",
    "NoClip",
    "NoRows",
    "OneRowPerGroup",
    "PPOClip",
    "PerGroup",
    "PolicyShaped",
    "PrefixSampler",
    "Probability",
    "Random",
    "Rule",
    "Scale",
    "Schedule",
    "Scheduled",
    "SequenceMean",
    "Stage",
    "Surrogate",
    "TimedSchedule",
    "TokenMean",
    "TopEntropy",
    "TrajectoryAdvantage",
    "TwoLevel",
    "Uncertainty",
    "Uniform",
    "UniformWindow",
    "Value",
    "WarmupCosine",
    "WholeGroup",
    "Window",
    "build",
    "by_name",
    "prefix_rule",
    *METHODS,
]


def by_name(name: str, /, **settings: Any) -> Method:
    """Make a method from its name.

    Args:
        name: A key of `METHODS`.
        **settings: Keyword arguments of the function of that name.

    Returns:
        The method.

    Raises:
        ValueError: If the name or a setting is unknown, or a value is out of range.
    """
    if name not in METHODS:
        raise ValueError(f"Unknown method {name!r}. Known methods: {_names(METHODS)}.")
    known = inspect.signature(METHODS[name]).parameters
    for key in settings:
        if key not in known:
            raise ValueError(
                f"Unknown key {key!r} in `method_config` of method {name!r}. Known keys: "
                f"{_names(known) or 'none'}."
            )
    return METHODS[name](**settings)


def build(method: str | Method, method_config: Mapping[str, Any] | None = None) -> Method:
    """Make the method of a config.

    Args:
        method: A name, or a ready method.
        method_config: Keyword arguments of the function of that name, as plain data.

    Returns:
        The method.

    Raises:
        ValueError: If the name or a key is unknown, a value is out of range, or settings come with
            a ready method.
    """
    settings = dict(method_config or {})
    if isinstance(method, str):
        return by_name(method, **settings)
    if not isinstance(method, Method):
        raise ValueError(
            f"`method` must be a name ({_names(METHODS)}) or a `Method`, got {method!r}."
        )
    if settings:
        raise ValueError(
            f"`method_config` ({_names(settings)}) has no effect on a ready method. Give the "
            "method's name, or set these values when making it."
        )
    return method


def _names(names: Mapping[str, Any]) -> str:
    return ", ".join(repr(name) for name in names)
