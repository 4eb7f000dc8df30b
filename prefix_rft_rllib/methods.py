"""Every training method as a value made of small pieces.

`prefix_rft()`, `rft()` and `sft()` return a `Method`; `build` makes one from the name and the plain
settings of a config. A new method is a new function here, listed in `METHODS`.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Mapping
from typing import Any

from prefix_rft_rllib.core.advantages import GroupAdvantage, GroupMean, TwoLevel
from prefix_rft_rllib.core.demonstration_rows import DemonstrationRows, EveryStep, NoRows
from prefix_rft_rllib.core.prefix_sampling import Never, PerGroup, PrefixSampler
from prefix_rft_rllib.core.prefix_schedules import CosineLow
from prefix_rft_rllib.core.shares import check_at_least, check_fraction
from prefix_rft_rllib.core.token_selection import TopEntropy
from prefix_rft_rllib.core.token_weights import Constant, Rule, TokenMean, TrajectoryAdvantage

ADVANTAGES: dict[str, GroupAdvantage] = {"group_mean": GroupMean(), "two_level": TwoLevel()}
"""Names of group advantages for `method_config`."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImitationStep:
    """A separate optimizer step on demonstrations of problems that no rollout solved.

    Attributes:
        buffer_size: A step follows whenever this many such problems have gathered.
        lr: Learning rate of its own optimizer.
    """

    buffer_size: int = 128
    lr: float = 1e-6


@dataclasses.dataclass(frozen=True, kw_only=True)
class Method:
    """A training method: where rollouts start, and what each token is worth.

    Attributes:
        name: Name for tables and logs.
        prefix_sampler: Which rollouts get a prefix, and how long.
        advantage: Credit for one trajectory.
        rules: Credit for one token.
        demonstration_rows: Whole demonstrations added to the batch.
        num_sampled: Rollouts per group; None for the config's `group_size`, 0 for none at all.
        clip: False to train on the surrogate without the PPO clip.
        after_step: A separate step on failed problems, or None.
        stages: Methods to run one after the other, each from the last one's weights with a fresh
            optimizer; the other pieces are then not used.
    """

    name: str
    prefix_sampler: PrefixSampler = dataclasses.field(default_factory=Never)
    advantage: GroupAdvantage = dataclasses.field(default_factory=GroupMean)
    rules: tuple[Rule, ...] = ()
    demonstration_rows: DemonstrationRows = dataclasses.field(default_factory=NoRows)
    num_sampled: int | None = None
    clip: bool = True
    after_step: ImitationStep | None = None
    stages: tuple[Method, ...] = ()

    def num_rollouts(self, group_size: int) -> int:
        """Rollouts per group.

        Args:
            group_size: The config's number of members of a group.

        Returns:
            `num_sampled` if the method sets it, else `group_size`.
        """
        return group_size if self.num_sampled is None else self.num_sampled

    def check(self, group_size: int) -> None:
        """Check the method against the size of the groups.

        Args:
            group_size: The config's number of members of a group.

        Raises:
            ValueError: If groups are too small for the method.
        """
        for stage in self.stages:
            stage.check(group_size)
        num_rollouts = self.num_rollouts(group_size)
        if num_rollouts == 0 or self.stages:
            return
        if group_size < 2 or num_rollouts > group_size:
            raise ValueError(
                f"`group_size` ({group_size}) must be at least {max(2, num_rollouts)} for method "
                f"{self.name!r}: an advantage compares a rollout with the others of its group. "
                "Try 8."
            )
        self.prefix_sampler.check(num_rollouts)
        has_prefix = [
            self.prefix_sampler.draw_member(member) is not None for member in range(num_rollouts)
        ]
        self.advantage.baseline([0.0] * num_rollouts, has_prefix)

    def __str__(self) -> str:
        """A readable table of the pieces."""
        if self.stages:
            rows = [(f"stage {number}", str(s.name)) for number, s in enumerate(self.stages, 1)]
            blocks = [str(stage) for stage in self.stages]
            return "\n\n".join([_table(self.name, rows), *blocks])
        return _table(self.name, self._table_rows())

    def _table_rows(self) -> list[tuple[str, str]]:
        num_rollouts = "group_size" if self.num_sampled is None else str(self.num_sampled)
        rows = [("rollouts per group", num_rollouts)]
        if self.num_sampled != 0:
            rows.append(("prefix sampler", repr(self.prefix_sampler)))
            rows.append(("advantage", repr(self.advantage)))
        for rule in self.rules:
            rows.append((f"{rule.region} tokens", f"{rule.stream}: {rule.value!r}"))
            rows.append(("", f"keep {rule.keep!r}, scale {rule.scale!r}"))
        rows.append(("demonstration rows", repr(self.demonstration_rows)))
        if any(rule.stream == "policy" for rule in self.rules):
            rows.append(("PPO clip", "on" if self.clip else "off"))
        if self.after_step is not None:
            rows.append(("after each step", repr(self.after_step)))
        return rows


def _table(title: str, rows: list[tuple[str, str]]) -> str:
    width = max(len(name) for name, _ in rows)
    return "\n".join([title, *(f"  {name:<{width}}  {text}" for name, text in rows)])


_RESPONSE_RULE = Rule(region="response", stream="policy", value=TrajectoryAdvantage())


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
    """Prefix-RFT (arXiv 2507.01679, Sec. 3): some rollouts continue a demonstration's beginning.

    Args:
        entropy_keep_fraction: Share of the prefix tokens that keep their weight, those of highest
            entropy, in [0, 1] (0.2 in App. A.2).
        num_prefix_rollouts: Rollouts of each group that start from a prefix.
        low_start: Lower end of the prefix window in iteration 0, as a share of the demonstration.
        low_end: Lower end from `num_schedule_iterations` on.
        high: Upper end of the window.
        num_schedule_iterations: Iterations over which the window opens.
        advantage: "group_mean" (the paper's) or "two_level".

    Returns:
        The method.

    Raises:
        ValueError: If a setting is out of range.
    """
    check_fraction("entropy_keep_fraction", entropy_keep_fraction)
    check_at_least("num_schedule_iterations", num_schedule_iterations, 1)
    for name, low in (("low_start", low_start), ("low_end", low_end), ("high", high)):
        check_fraction(name, low)
        if low > high:
            raise ValueError(f"`{name}` ({low}) must not be above `high` ({high}).")
    if advantage not in ADVANTAGES:
        raise ValueError(f"`advantage` must be one of {_names(ADVANTAGES)}, got {advantage!r}.")
    window = CosineLow(low_start, low_end, high, num_schedule_iterations)
    prefix_rule = Rule(
        region="prefix",
        stream="policy",
        value=TrajectoryAdvantage(),
        keep=TopEntropy(entropy_keep_fraction),
    )
    return Method(
        name="prefix_rft",
        prefix_sampler=PerGroup(num_prefix_rollouts, window),
        advantage=ADVANTAGES[advantage],
        rules=(_RESPONSE_RULE, prefix_rule),
    )


def rft() -> Method:
    """Reinforcement fine-tuning without demonstrations: Dr.GRPO with the PPO clip.

    Returns:
        The method.
    """
    return Method(name="rft", rules=(_RESPONSE_RULE,))


def sft(*, num_rows_per_problem: int = 1) -> Method:
    """Supervised fine-tuning: the mean log probability of all demonstration tokens of the batch.

    A mean over tokens of the global minibatch, never a mean of per-row means (arXiv 2604.23747
    shows what that bug does to baselines).

    Args:
        num_rows_per_problem: Demonstrations per problem and iteration, if it has several.

    Returns:
        The method.

    Raises:
        ValueError: If `num_rows_per_problem` is not a positive integer.
    """
    check_at_least("num_rows_per_problem", num_rows_per_problem, 1)
    rule = Rule(region="demonstration", stream="imitation", value=Constant(1.0), scale=TokenMean())
    return Method(
        name="sft",
        rules=(rule,),
        demonstration_rows=EveryStep(num_rows_per_problem),
        num_sampled=0,
    )


METHODS: dict[str, Callable[..., Method]] = {"prefix_rft": prefix_rft, "rft": rft, "sft": sft}
"""All methods by name. The keyword arguments of a function are its `method_config`."""


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
