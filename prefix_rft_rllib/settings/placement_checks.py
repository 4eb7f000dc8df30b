"""Whether Ray has room for a run: asked before anything starts, said while something waits."""

import contextlib
import logging
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import ray
from ray.autoscaler.v2.sdk import get_cluster_resource_state
from ray.util.placement_group import placement_group, remove_placement_group

from prefix_rft_rllib.settings.placement import Demand, Node, Part, advice, obstacles, too_little
from prefix_rft_rllib.settings.ray_start import start_ray
from prefix_rft_rllib.settings.settings import Settings

logger = logging.getLogger(__name__)

FIRST_MESSAGE_S = 5.0
"""Seconds after which a wait for machines is said."""
FIRST_PENDING_S = 10.0
"""Seconds after which processes that Ray has no place for are named."""
NEXT_MESSAGE_S = 60.0
"""Seconds from one message to the next."""


def demand_of(config: Settings, *, is_trial: bool) -> Demand:
    """What a run asks Ray for.

    Args:
        config: Its settings.
        is_trial: Whether the main process is an actor too, as under Tune.
    """
    cpus = config.num_cpus_per_learner
    if cpus == "auto":
        cpus = int(config.num_gpus_per_learner == 0)
    num_evaluation = config.evaluation_num_env_runners
    evaluation = config.get_evaluation_config_object() if num_evaluation else None
    return Demand(
        main={
            "CPU": config.num_cpus_for_main_process,
            **config.custom_resources_for_main_process,
        },
        env_runner=_of_env_runner(config),
        num_env_runners=config.num_env_runners,
        evaluation_env_runner={} if evaluation is None else _of_env_runner(evaluation),
        num_evaluation_env_runners=num_evaluation,
        learner={
            "CPU": cpus,
            "GPU": config.num_gpus_per_learner,
            **(config.custom_resources_per_learner or {}),
        },
        num_learners=config.num_learners,
        is_trial=is_trial,
    )


def _of_env_runner(config: Any) -> dict[str, float]:
    return {
        "CPU": config.num_cpus_per_env_runner,
        "GPU": config.num_gpus_per_env_runner,
        **config.custom_resources_per_env_runner,
    }


def check_placement(config: Settings) -> None:
    """See that Ray has room for env runners and learners, before any of them starts.

    What a cluster that cannot grow does not have is an error at once. For nodes that may still
    join, and for what others use, it waits: `placement_timeout_s` seconds, without limit if that is
    None, with a message every minute.

    Args:
        config: Validated settings.

    Raises:
        ValueError: Naming what is missing and settings that ask for less.
    """
    group = ray.util.get_current_placement_group() if ray.is_initialized() else None
    demand = demand_of(config, is_trial=group is not None)
    if not demand.parts():
        return
    if group is not None:
        reserved = [Node("bundle", bundle) for bundle in group.bundle_specs]
        reasons = obstacles(demand.parts(), reserved)
        if reasons:
            raise ValueError(
                f"The trial's own resources have no room for it: {'; '.join(reasons)}. Leave "
                "`tune.with_resources` out: the trial then asks for what its settings need."
            )
        return
    start_ray()
    nodes = _nodes()
    reasons = obstacles(demand.parts(), nodes)
    if reasons and not _can_grow():
        raise ValueError(_no_room(demand, nodes, reasons))
    if reasons or too_little(demand.parts(), _free()):
        _wait_for_room(demand, config.placement_timeout_s)


def check_known_placement(config: Settings) -> None:
    """`check_placement` before data are read, as far as Ray need not be started for it.

    Ray is started early only if this machine has too few CPUs: only a cluster can help then.

    Args:
        config: Validated settings.

    Raises:
        ValueError: As `check_placement`.
    """
    here = Node("this machine", {"CPU": ray._private.utils.get_num_cpus()})
    cpus = [
        replace(part, resources={"CPU": part.resources.get("CPU", 0)})
        for part in demand_of(config, is_trial=False).parts()
    ]
    if ray.is_initialized() or too_little(cpus, [here]):
        check_placement(config)


def check_trial(config: Settings) -> None:
    """See that Ray has room for a trial, where Tune asks what it needs.

    A cluster that may grow is watched in the background, with a message every minute.

    Args:
        config: Validated settings of the trial.

    Raises:
        ValueError: If a cluster that cannot grow lacks something.
    """
    if not ray.is_initialized():
        return
    demand, nodes = demand_of(config, is_trial=True), _nodes()
    reasons = obstacles(demand.parts(), nodes)
    if not reasons:
        return
    if not _can_grow() or config.placement_timeout_s == 0:
        raise ValueError(_no_room(demand, nodes, reasons))
    name = f"room for {demand}"
    if all(thread.name != name for thread in threading.enumerate()):  # once for equal trials
        threading.Thread(target=_say_until_room, args=(demand,), name=name, daemon=True).start()


@contextlib.contextmanager
def pending_said(config: Settings) -> Iterator[None]:
    """While env runners and learners start, name those that Ray finds no place for.

    Several machines may have room for all together and still none for the last: what started before
    left gaps that are too small.

    Args:
        config: Validated settings.
    """
    is_placed = ray.is_initialized() and ray.util.get_current_placement_group() is not None
    parts = demand_of(config, is_trial=False).parts()
    if is_placed or not parts:
        yield
        return
    is_over = threading.Event()
    threading.Thread(target=_say_pending, args=(parts, is_over), daemon=True).start()
    try:
        yield
    finally:
        is_over.set()


def _nodes() -> list[Node]:
    """The living nodes, with all that they have."""
    return [Node(node["NodeName"], node["Resources"]) for node in ray.nodes() if node.get("Alive")]


def _free() -> list[Node]:
    """What nobody uses, as if it were one node."""
    return [Node("free", ray.available_resources())]


def _can_grow() -> bool:
    """Whether nodes may still join: not if this process has started Ray for itself."""
    node = ray._private.worker._global_node
    return node is None or not node.is_head()


def _no_room(demand: Demand, nodes: Sequence[Node], reasons: Sequence[str]) -> str:
    calls = advice(demand, nodes)
    if not _can_grow() and not demand.is_trial and _lacks_only_cpus(demand, nodes):
        needed = sum(part.count * part.resources.get("CPU", 0) for part in demand.parts())
        calls.append(f"ray.init(num_cpus={needed:g}) before (processes then share the cores)")
    what = "this trial" if demand.is_trial else "this run"
    less = f" Try {', or '.join(calls)}." if calls else " Lower the settings named here."
    return f"Ray has no room for {what}: {'; '.join(reasons)}.{less}"


def _lacks_only_cpus(demand: Demand, nodes: Sequence[Node]) -> bool:
    cpus = sum(part.count * part.resources.get("CPU", 0) for part in demand.parts())
    (first, *others) = nodes
    raised = Node(first.name, {**first.resources, "CPU": cpus})
    return not obstacles(demand.parts(), [raised, *others])


def _wait_for_room(demand: Demand, timeout_s: float | None) -> None:
    """Wait until everything can be placed at once.

    The placement group tells an autoscaler what is needed. It is given back as soon as it is
    there, for the env runners and learners.
    """
    bundles = [
        {name: amount for name, amount in part.resources.items() if amount}
        for part in demand.parts()
        for _ in range(part.count)
    ]
    group = placement_group([bundle for bundle in bundles if bundle], strategy="PACK")
    started = time.monotonic()
    due = FIRST_MESSAGE_S
    try:
        while not group.wait(1):
            waited = time.monotonic() - started
            if timeout_s is not None and waited >= timeout_s:
                raise ValueError(
                    f"{_why_waiting(demand)} Waited {waited:.0f} seconds "
                    f"(`placement_timeout_s` is {timeout_s:g})."
                )
            if waited >= due:
                logger.warning("Waiting since %.0f seconds. %s", waited, _why_waiting(demand))
                due = waited + NEXT_MESSAGE_S
    finally:
        remove_placement_group(group)


def _why_waiting(demand: Demand) -> str:
    nodes = _nodes()
    reasons = obstacles(demand.parts(), nodes)
    if reasons:
        return _no_room(demand, nodes, reasons)
    used = too_little(demand.parts(), _free()) or ["free shares on single nodes are too small"]
    return (
        f"Ray has room for this run, but others use it: {'; '.join(used)} now. An earlier "
        "algorithm of your own is ended by algo.stop()."
    )


def _say_until_room(demand: Demand) -> None:
    cluster = ray.get_runtime_context().gcs_address
    time.sleep(FIRST_MESSAGE_S)
    while ray.is_initialized() and ray.get_runtime_context().gcs_address == cluster:
        nodes = _nodes()
        reasons = obstacles(demand.parts(), nodes)
        if not reasons:
            return
        logger.warning("Waiting for machines. %s", _no_room(demand, nodes, reasons))
        time.sleep(NEXT_MESSAGE_S)


def _say_pending(parts: Sequence[Part], is_over: threading.Event) -> None:
    pause = FIRST_PENDING_S
    while not is_over.wait(pause):
        pause = NEXT_MESSAGE_S
        counts = _pending()
        waiting = [(part, counts.get(_shape(part.resources), 0)) for part in parts]
        named = [f"{count} of {part.count} {part.name}s" for part, count in waiting if count]
        if named and not is_over.is_set():
            logger.warning(
                "Ray has not yet found a place for processes that ask for as much as %s. Free on "
                "the nodes: %s.",
                ", ".join(named),
                "; ".join(_free_per_node()),
            )


def _pending() -> dict[frozenset[tuple[str, float]], int]:
    """How many actors wait for a place, by what they ask for."""
    state = get_cluster_resource_state(ray._private.worker.global_worker.gcs_client)
    counts: dict[frozenset[tuple[str, float]], int] = {}
    for entry in state.pending_resource_requests:
        shape = _shape(dict(entry.request.resources_bundle))
        counts[shape] = counts.get(shape, 0) + entry.count
    return counts


def _shape(resources: Any) -> frozenset[tuple[str, float]]:
    return frozenset((name, round(amount, 4)) for name, amount in resources.items() if amount)


def _free_per_node() -> list[str]:
    shown = []
    for resources in ray._private.state.available_resources_per_node().values():
        known = {name: amount for name, amount in resources.items() if not _is_internal(name)}
        shown.append(", ".join(f"{amount:g} {name}" for name, amount in known.items()) or "nothing")
    return shown


def _is_internal(name: str) -> bool:
    return name in ("memory", "object_store_memory") or name.startswith("node:")
