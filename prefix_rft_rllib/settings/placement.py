"""Whether machines have room for what a run asks for: arithmetic alone, without Ray.

Ray places an actor on one node, with all that it asks for, and counts in ten-thousandths. Of a
fraction of a GPU it gives a share of one single GPU: the fullest that still has room.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

Resources = Mapping[str, float]
"""Amounts by Ray's names: "CPU", "GPU", "memory" in bytes, and names of one's own."""

WHOLE = 10_000
"""Ray's units of one CPU, GPU or other resource."""


@dataclass(frozen=True)
class Part:
    """Processes of one kind.

    Attributes:
        name: What they are called, in the singular.
        suffix: End of the settings that say what each asks for, such as "per_learner".
        num_setting: The setting that says how many they are; empty for the main process.
        count: How many they are.
        resources: What each asks for.
    """

    name: str
    suffix: str
    num_setting: str
    count: int
    resources: Resources

    def setting(self, resource: str) -> str:
        """The setting that asks for a resource."""
        stem = {"CPU": "num_cpus", "GPU": "num_gpus"}.get(resource, "custom_resources")
        return f"{stem}_{self.suffix}"

    def described(self, resource: str) -> str:
        """How many ask for how much of a resource, and by which settings."""
        settings = [name for name in (self.num_setting, self.setting(resource)) if name]
        plural = self.name if self.count == 1 else f"{self.name}s"
        amount = self.resources.get(resource, 0)
        return f"{self.count} {plural} x {amount:g} ({', '.join(f'`{s}`' for s in settings)})"


@dataclass(frozen=True)
class Node:
    """A machine, or a bundle of a trial's placement group.

    Attributes:
        name: What it is called.
        resources: What it has.
    """

    name: str
    resources: Resources


@dataclass(frozen=True, kw_only=True)
class Demand:
    """What a run asks for, in numbers.

    Attributes:
        main: What the main process asks for by itself, if it is an actor (under Tune).
        env_runner: What each env runner asks for.
        num_env_runners: Remote env runners.
        evaluation_env_runner: What each evaluation env runner asks for.
        num_evaluation_env_runners: How many of those there are.
        learner: What each learner asks for.
        num_learners: Remote learners; 0 for one in the main process.
        is_trial: Whether the main process is an actor, as under Tune. Else Ray does not count it.
    """

    main: Resources
    env_runner: Resources
    num_env_runners: int
    learner: Resources
    num_learners: int
    evaluation_env_runner: Resources = field(default_factory=dict)
    num_evaluation_env_runners: int = 0
    is_trial: bool = False

    def parts(self) -> tuple[Part, ...]:
        """All that Ray has to place, in the order in which RLlib starts it."""
        runners, own = self.num_env_runners, self.num_evaluation_env_runners
        rows = [
            ("env runner", "per_env_runner", "num_env_runners", runners, self.env_runner),
            (
                "evaluation env runner",
                "per_env_runner",
                "evaluation_num_env_runners",
                own,
                self.evaluation_env_runner,
            ),
            ("learner", "per_learner", "num_learners", self.num_learners, self.learner),
        ]
        parts = [Part(*row) for row in rows]
        if self.is_trial:
            parts.insert(0, self._main_process())
        return tuple(part for part in parts if part.count)

    def _main_process(self) -> Part:
        if self.num_learners:
            return Part("main process", "for_main_process", "", 1, self.main)
        # The learner in it shares its CPUs, and Ray counts no custom resource of that learner.
        cpus = max(self.main.get("CPU", 0), self.learner.get("CPU", 0))
        asked = {**self.main, "CPU": cpus, "GPU": self.learner.get("GPU", 0)}
        name = "main process with the learner"
        return Part(name, "per_learner", "", 1, asked)

    def smaller(self) -> Iterator[tuple[str, "Demand"]]:
        """Runs that ask for less, the nearest first, with the calls that make them."""
        for count in range(self.num_env_runners - 1, 0, -1):
            yield _runners_call(count), replace(self, num_env_runners=count)
        for count in range(self.num_learners - 1, -1, -1):
            yield _learners_call(count), replace(self, num_learners=count)
        if self.num_learners:
            for count in range(self.num_env_runners - 1, -1, -1):
                calls = f"{_runners_call(count)} with {_learners_call(0)}"
                yield calls, replace(self, num_env_runners=count, num_learners=0)
        elif self.num_env_runners:
            yield _runners_call(0), replace(self, num_env_runners=0)


def _runners_call(count: int) -> str:
    return f"config.env_runners(num_env_runners={count})"


def _learners_call(count: int) -> str:
    return f"config.learners(num_learners={count})"


def obstacles(parts: Sequence[Part], nodes: Sequence[Node]) -> list[str]:
    """Why machines certainly have no room.

    Args:
        parts: What has to be placed, in the order of starting.
        nodes: The machines, with all that they have.

    Returns:
        One phrase per reason. Empty if there may be room: on several machines what is placed first
        may still leave gaps that are too small for the rest.
    """
    reasons = too_little(parts, nodes) or _too_large(parts, nodes)
    if reasons or len(nodes) != 1:
        return reasons
    return _gaps(parts, nodes[0])


def too_little(parts: Sequence[Part], nodes: Sequence[Node]) -> list[str]:
    """Resources of which all machines together have less than is asked for, a phrase each."""
    reasons = []
    names = {name for part in parts for name, amount in part.resources.items() if amount}
    for name in sorted(names):
        asking = [part for part in parts if part.resources.get(name)]
        asked = sum(part.count * _units(part.resources[name]) for part in asking)
        had = sum(_units(node.resources.get(name, 0)) for node in nodes)
        if asked > had:
            by = ", ".join(part.described(name) for part in asking)
            reasons.append(f"{asked / WHOLE:g} {name} asked for by {by}, {had / WHOLE:g} there")
    return reasons


def _too_large(parts: Sequence[Part], nodes: Sequence[Node]) -> list[str]:
    """Parts whose processes do not all find a machine, even if each part were alone."""
    reasons = []
    for part in parts:
        room = sum(_room(part.resources, node.resources) for node in nodes)
        if room < part.count:
            asked = " and ".join(
                f"{amount:g} {name} (`{part.setting(name)}`)"
                for name, amount in part.resources.items()
                if amount
            )
            reasons.append(
                f"each {part.name} needs {asked} on one node: there is room for {room} of "
                f"{part.count}"
            )
    return reasons


def _room(asked: Resources, had: Resources) -> float:
    """How many processes that ask for the same fit one machine."""
    counts = [math.inf]
    for name, amount in asked.items():
        need, units = _units(amount), _units(had.get(name, 0))
        if need == 0:
            continue
        if name == "GPU" and need < WHOLE:
            counts.append(units // WHOLE * (WHOLE // need) + units % WHOLE // need)
        else:
            counts.append(units // need)
    return min(counts)


def _gaps(parts: Sequence[Part], node: Node) -> list[str]:
    """The first part that finds no GPU with enough room on one machine, placed as Ray does."""
    units = _units(node.resources.get("GPU", 0))
    free = [WHOLE] * (units // WHOLE) + [units % WHOLE] * (units % WHOLE > 0)
    for part in parts:
        need = _units(part.resources.get("GPU", 0))
        for placed in range(part.count if need else 0):
            if _take(free, need) is None:
                left = ", ".join(f"{room / WHOLE:g}" for room in free)
                return [
                    f"room on the GPUs for {placed} of {part.described('GPU')}: those that start "
                    f"before leave {left}"
                ]
    return []


def _take(free: list[int], need: int) -> list[int] | None:
    """Take a share of the fullest GPU that has room for it, or whole GPUs; None without room."""
    if need < WHOLE:
        fitting = [(room, index) for index, room in enumerate(free) if room >= need]
        taken = [index for _, index in sorted(fitting)[:1]]
    else:
        taken = [index for index, room in enumerate(free) if room == WHOLE][: need // WHOLE]
        if len(taken) < need // WHOLE:
            return None
    for index in taken:
        free[index] -= min(need, WHOLE)
    return taken or None


def gpus_of(parts: Sequence[Part]) -> dict[str, list[int]]:
    """Which GPUs Ray gives to each process, on one machine that has enough of them.

    Args:
        parts: What is placed, in the order of starting.

    Returns:
        By name of the part the number of each process's (first) GPU, none for those without.
    """
    needs = {part.name: _units(part.resources.get("GPU", 0)) for part in parts}
    free = [WHOLE] * sum(part.count * math.ceil(needs[part.name] / WHOLE) for part in parts)
    given: dict[str, list[int]] = {}
    for part in parts:
        taken = [_take(free, needs[part.name]) for _ in range(part.count) if needs[part.name]]
        given[part.name] = [numbers[0] for numbers in taken if numbers]
    return given


def advice(demand: Demand, nodes: Sequence[Node]) -> list[str]:
    """Calls that make a run small enough for the machines, those that change least first.

    Args:
        demand: What the run asks for.
        nodes: The machines.
    """
    found: dict[tuple[bool, bool], str] = {}
    for calls, smaller in demand.smaller():
        changed = (
            smaller.num_env_runners != demand.num_env_runners,
            smaller.num_learners != demand.num_learners,
        )
        if changed not in found and not obstacles(smaller.parts(), nodes):
            found[changed] = calls
    if len(found) > 1:
        found.pop((True, True), None)  # changing one of the two is enough
    return list(found.values())


def _units(amount: float) -> int:
    return round(amount * WHOLE)
