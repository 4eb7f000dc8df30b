"""Where a process of a run is, so that an error can name it."""

import os
import socket
from dataclasses import dataclass

import ray
from ray._private.worker import global_worker


@dataclass(frozen=True)
class ActorPlace:
    """An actor and its process.

    Attributes:
        name: What it is in the run, "learner 1".
        actor_id: Ray's id of the actor.
        process_id: Of the process, on its node.
        node: Name and address of the node.
        log_file: The file on that node which has what the process prints and logs.
    """

    name: str
    actor_id: str
    process_id: int
    node: str
    log_file: str

    def __str__(self) -> str:
        return (
            f"{self.name} (actor {self.actor_id}, process {self.process_id} on node {self.node}, "
            f"log {self.log_file})"
        )


def is_actor() -> bool:
    """Whether this process is an actor of Ray, not a driver."""
    return ray.is_initialized() and ray.get_runtime_context().get_actor_id() is not None


def place_here(name: str) -> ActorPlace:
    """The place of the calling process.

    Args:
        name: What it is in the run.

    Returns:
        Its place; outside an actor with "none" as the actor's id.
    """
    return ActorPlace(
        name=name,
        actor_id=ray.get_runtime_context().get_actor_id() or "none",
        process_id=os.getpid(),
        node=f"{socket.gethostname()} ({ray.util.get_node_ip_address()})",
        log_file=global_worker.get_err_file_path() or "the driver's output",
    )
