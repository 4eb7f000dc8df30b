"""A training method as a value: where rollouts start, and what each token is worth."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

from prefix_rft_rllib.basics.ranges import real, whole
from prefix_rft_rllib.core.advantages import GroupAdvantage, GroupMean
from prefix_rft_rllib.core.demonstration_rows import DemonstrationRows, EveryStep, NoRows
from prefix_rft_rllib.core.objectives import Objective
from prefix_rft_rllib.core.prefix_sampling import Never, PrefixSampler
from prefix_rft_rllib.core.surrogates import NoClip, PPOClip, Surrogate
from prefix_rft_rllib.core.token_values import Constant
from prefix_rft_rllib.core.token_weights import Rule, TokenMean
from prefix_rft_rllib.methods.tables import table

MAIN = "default_optimizer"
"""Name of a method's first objective. It is RLlib's name, the same for all methods, so that a run
may change its method between checkpoints and keep the optimizer's state."""

SFT_RULE = Rule(region="demonstration", stream="imitation", value=Constant(1.0), scale=TokenMean())
"""The mean log probability of all demonstration tokens of the global minibatch."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImitationStep:
    """A separate optimizer step on demonstrations of problems that no rollout solved (ReLIFT).

    Attributes:
        buffer_size: A step on that many problems follows an iteration after which at least as many
            wait. The newest are taken; a problem that fails again becomes the newest.
        lr: Learning rate of its own optimizer.
    """

    buffer_size: int = 128
    lr: float = 1e-6

    def __post_init__(self) -> None:
        whole(1).check("buffer_size", self.buffer_size)
        real(0).check("lr", self.lr)

    @property
    def demonstration_rows(self) -> DemonstrationRows:
        """One demonstration of each problem."""
        return EveryStep(1)

    @property
    def rules(self) -> tuple[Rule, ...]:
        """Credit for one token: that of supervised fine-tuning."""
        return (SFT_RULE,)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stage:
    """A part of a run with a method of its own.

    Schedules, warm-up and optimizer of the method start anew with the stage.

    Attributes:
        method: What is run; a method without stages.
        num_iterations: Iterations of the stage; None for all that are left, in the last stage.
        lr: Constant learning rate of the stage; None for the config's `lr` and schedule.
        num_warmup_iterations: Iterations over which `lr` rises linearly.
    """

    method: Method
    num_iterations: int | None = None
    lr: float | None = None
    num_warmup_iterations: int = 0

    def __post_init__(self) -> None:
        if self.num_iterations is not None:
            whole(1).check("num_iterations", self.num_iterations)
        if self.lr is not None:
            real(0).check("lr", self.lr)
        whole(0).check("num_warmup_iterations", self.num_warmup_iterations)
        if self.lr is None and self.num_warmup_iterations:
            raise ValueError(
                f"`num_warmup_iterations` ({self.num_warmup_iterations}) belongs to a stage's own "
                "`lr`, which is not set. For the config's `lr` set `lr_warmup_steps`."
            )

    def __str__(self) -> str:
        """One line: method, length, learning rate."""
        length = (
            "to the end" if self.num_iterations is None else f"{self.num_iterations} iterations"
        )
        lr = "the config's lr" if self.lr is None else f"lr {self.lr:g}"
        if self.num_warmup_iterations:
            lr += f" after a warm-up of {self.num_warmup_iterations} iterations"
        return f"{self.method.name}, {length}, {lr}"


class ActiveStage(NamedTuple):
    """The stage of one iteration.

    Attributes:
        number: Number of the stage, from 0.
        method: Its method, without stages.
        start: Its first iteration.
        objective: Name of the objective of its iterations.
        imitation: Name of the objective of its `after_step`.
    """

    number: int
    method: Method
    start: int
    objective: str
    imitation: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Method:
    """A training method: where rollouts start, and what each token is worth.

    Attributes:
        name: Name for tables and logs.
        prefix_sampler: Which rollouts get a prefix, and how long.
        advantage: Credit for one trajectory.
        rules: Credit for one token.
        demonstration_rows: Whole demonstrations added to the batch.
        num_sampled: Rollouts per group; None for all members of the group that are no
            demonstrations, 0 for none at all.
        surrogate: What policy weights are multiplied by once the policy has moved. A `PPOClip()`
            without bounds has the config's.
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
    surrogate: Surrogate = dataclasses.field(default_factory=PPOClip)
    after_step: ImitationStep | None = None
    stages: tuple[Stage, ...] = ()

    def __post_init__(self) -> None:
        for number, stage in enumerate(self.stages, 1):
            is_last = number == len(self.stages)
            if stage.method.stages:
                raise ValueError(f"Stage {number} of {self.name!r} has stages of its own.")
            if stage.num_iterations is None and not is_last:
                raise ValueError(
                    f"Stage {number} of {self.name!r} needs `num_iterations`: only the last of "
                    f"the {len(self.stages)} stages runs to the end."
                )

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        """Unpickle. In older checkpoints a method has a flag `clip` in the place of a surrogate."""
        pieces = dict(state)
        if "clip" in pieces:
            pieces["surrogate"] = PPOClip() if pieces.pop("clip") else NoClip()
        self.__dict__.update(pieces)

    def num_rollouts(self, group_size: int, num_demonstrations: int = 1) -> int:
        """Rollouts per group.

        Args:
            group_size: The config's number of members of a group.
            num_demonstrations: How many usable demonstrations the problem has.

        Returns:
            `num_sampled` if the method sets it, else `group_size` less the demonstrations that are
            members.
        """
        if self.num_sampled is not None:
            return self.num_sampled
        rows = self.demonstration_rows
        num_members = min(rows.num_rows, num_demonstrations) if rows.is_member else 0
        return group_size - num_members

    def stage_at(self, iteration: int) -> ActiveStage:
        """The stage of an iteration; a method without stages is one stage.

        Args:
            iteration: Training iteration, from 0.

        Returns:
            The stage.
        """
        if not self.stages:
            return ActiveStage(0, self, 0, MAIN, "imitation")
        number, start = 0, 0
        for stage in self.stages[:-1]:
            assert stage.num_iterations is not None
            if iteration < start + stage.num_iterations:
                break
            number, start = number + 1, start + stage.num_iterations
        name = f"stage_{number + 1}"
        return ActiveStage(number, self.stages[number].method, start, name, f"{name}_imitation")

    def objectives(self) -> tuple[Objective, ...]:
        """What the learners need to know: one objective per optimizer, stage after stage."""
        objectives = []
        start = 0
        for stage in self.all_stages:
            active = self.stage_at(start)
            start += stage.num_iterations or 0
            objectives.append(
                Objective(
                    name=active.objective,
                    stage=active.number,
                    rules=active.method.rules,
                    surrogate=active.method.surrogate,
                    lr=stage.lr,
                    num_warmup_iterations=stage.num_warmup_iterations,
                )
            )
            step = active.method.after_step
            if step is not None:
                objectives.append(
                    Objective(
                        name=active.imitation, stage=active.number, rules=step.rules, lr=step.lr
                    )
                )
        return tuple(objectives)

    @property
    def all_stages(self) -> tuple[Stage, ...]:
        """The stages; a method without stages is one."""
        return self.stages or (Stage(method=self),)

    @property
    def surrogates(self) -> tuple[Surrogate, ...]:
        """The surrogates that policy weights meet, stage after stage; none of imitation alone."""
        used = (o for o in self.objectives() if any(rule.stream == "policy" for rule in o.rules))
        return tuple(objective.surrogate for objective in used)

    @property
    def has_rollouts(self) -> bool:
        """Whether anything is sampled, in any stage."""
        return any(stage.method.num_sampled != 0 for stage in self.all_stages)

    @property
    def needs_demonstrations(self) -> bool:
        """Whether it trains on whole demonstrations, rows or imitation steps."""
        is_used = not isinstance(self.demonstration_rows, NoRows) or self.after_step is not None
        return is_used or any(stage.method.needs_demonstrations for stage in self.stages)

    def check(self, group_size: int) -> None:
        """Check the method against the size of the groups.

        Args:
            group_size: The config's number of members of a group.

        Raises:
            ValueError: If groups are too small for the method, or a rule reads rewards that no one
                gives.
        """
        for stage in self.stages:
            stage.method.check(group_size)
        self._check_rewards_read()
        if self.num_sampled == 0 or self.stages:
            return
        num_rollouts = self.num_rollouts(group_size)
        if group_size < 2 or not 0 < num_rollouts <= group_size:
            raise ValueError(
                f"`group_size` ({group_size}) must be at least {max(2, num_rollouts)} for method "
                f"{self.name!r}: an advantage compares a rollout with the others of its group. "
                "Try 8."
            )
        self.prefix_sampler.check(num_rollouts)
        has_prefix = [
            self.prefix_sampler.draw_member(member) is not None for member in range(num_rollouts)
        ]
        num_others = group_size - num_rollouts
        self.advantage.baseline([0.0] * group_size, [*has_prefix, *[True] * num_others])

    def _check_rewards_read(self) -> None:
        for rule in self.rules:
            is_graded = rule.region != "demonstration" or self.demonstration_rows.is_member
            if "reward" in rule.reads and not is_graded:
                raise ValueError(
                    f"A rule of method {self.name!r} for demonstrations reads `reward`, but its "
                    f"demonstrations are not graded: they are rows of {self.demonstration_rows!r}. "
                    "Use `OneRowPerGroup()`, which makes them members of their groups."
                )

    def __str__(self) -> str:
        """A readable table of the pieces; one block per stage for a method of stages."""
        if not self.stages:
            return table(self.name, self._pieces())
        rows = [(f"stage {number}", str(stage)) for number, stage in enumerate(self.stages, 1)]
        blocks = [str(stage.method) for stage in self.stages]
        return "\n\n".join([table(self.name, rows), *blocks])

    def _pieces(self) -> list[tuple[str, str]]:
        """Name and text of every piece that is used."""
        num_rollouts = "group_size" if self.num_sampled is None else str(self.num_sampled)
        if self.num_sampled is None and self.demonstration_rows.is_member:
            num_rollouts += f" - {self.demonstration_rows.num_rows}"
        rows = [("rollouts per group", num_rollouts)]
        if self.num_sampled != 0:
            rows.append(("prefix sampler", repr(self.prefix_sampler)))
            rows.append(("advantage", repr(self.advantage)))
        for rule in self.rules:
            rows.append((f"{rule.region} tokens", f"{rule.stream}: {rule.value!r}"))
            rows.append(("", f"keep {rule.keep!r}, scale {rule.scale!r}"))
        rows.append(("demonstration rows", repr(self.demonstration_rows)))
        if self.surrogates:
            is_configs = self.surrogate == PPOClip()
            text = "PPOClip with the config's bounds" if is_configs else repr(self.surrogate)
            rows.append(("surrogate", text))
        if self.after_step is not None:
            rows.append(("after each step", repr(self.after_step)))
        return rows
