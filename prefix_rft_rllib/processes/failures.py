"""What became of a call of another process, in a line."""

from collections.abc import Mapping

from ray.exceptions import ActorUnavailableError, RayActorError, RayTaskError

from prefix_rft_rllib.processes.places import ActorPlace

MAX_CAUSE_CHARACTERS = 500
"""A longer cause is cut: the log of the process has all of it."""


def has_ended(error: BaseException) -> bool:
    """Whether an error says that the process is gone, or seems so, not that the call raised."""
    return isinstance(error, RayActorError)


def cause_of(error: BaseException) -> str:
    """Why a call of an actor failed, in one line.

    Args:
        error: What `ray.get` raised.

    Returns:
        Type and text of what the call raised in its process; or that the process has ended or
        cannot be reached, with what Ray knows of the reason.
    """
    if isinstance(error, RayTaskError):
        cause = error.cause
        text = f"{type(cause).__name__}: {cause}"
    elif has_ended(error):
        # Ray's message: names and numbers in lines with a tab, then what it knows of the reason.
        lines = [line for line in str(error).splitlines() if not line.startswith("\t")]
        is_unknown = isinstance(error, ActorUnavailableError)  # it may have ended, or start again
        what = "it cannot be reached" if is_unknown else "its process has ended"
        text = f"{what}: {' '.join(lines[1:] or lines)}"
    else:
        text = f"{type(error).__name__}: {error}"
    text = " ".join(text.split())
    is_long = len(text) > MAX_CAUSE_CHARACTERS
    return f"{text[:MAX_CAUSE_CHARACTERS]} ..." if is_long else text


def described(errors: Mapping[int, BaseException], places: Mapping[int, ActorPlace]) -> list[str]:
    """One line for each failed process: where it is, and why it failed.

    Args:
        errors: By number of the actor, in the order in which they came.
        places: By number of the actor.

    Returns:
        Those whose process has ended first: what others then came upon follows from it.
    """
    numbers = sorted(errors, key=lambda number: not has_ended(errors[number]))
    return [f"{places[number]}: {cause_of(errors[number])}" for number in numbers]
