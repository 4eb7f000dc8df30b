"""Why a call of another process failed, in a line."""

from ray.exceptions import ActorUnavailableError, RayActorError, RayTaskError

from prefix_rft_rllib.processes.failures import MAX_CAUSE_CHARACTERS, cause_of, described
from prefix_rft_rllib.processes.places import ActorPlace

PLACES = {
    number: ActorPlace(f"learner {number}", f"a{number}", 100 + number, "n (10.0.0.1)", "/l.err")
    for number in range(2)
}
DIED = RayActorError(
    "a1",
    "The actor died unexpectedly before finishing this task.\n\tclass_name: Learner\n\tpid: 101\n"
    "The actor is dead because its worker process has died. Worker exit type: SYSTEM_ERROR",
)


def raised(error: Exception) -> RayTaskError:
    return RayTaskError("apply", "the traceback", error)


def test_what_a_call_raised_is_named_by_type_and_text():
    assert cause_of(raised(MemoryError("2 GiB\n  are too much"))) == (
        "MemoryError: 2 GiB are too much"
    )
    assert cause_of(KeyError("a")) == "KeyError: 'a'"


def test_of_an_ended_process_the_reason_is_told_and_not_its_numbers():
    assert cause_of(DIED) == (
        "its process has ended: The actor is dead because its worker process has died. "
        "Worker exit type: SYSTEM_ERROR"
    )
    unavailable = ActorUnavailableError("Worker exits. It raised ValueError: no", b"\0" * 16)
    assert cause_of(unavailable).startswith("it cannot be reached: The actor 00")
    assert "It raised ValueError: no." in cause_of(unavailable)


def test_a_long_cause_is_cut():
    cause = cause_of(raised(ValueError("x" * 10_000)))
    assert cause == f"ValueError: {'x' * (MAX_CAUSE_CHARACTERS - 12)} ..."


def test_ended_processes_come_first():
    errors = {0: raised(RuntimeError("Connection closed by peer")), 1: DIED}
    first, second = described(errors, PLACES)
    assert first.startswith(
        "learner 1 (actor a1, process 101 on node n (10.0.0.1), log /l.err): its process has ended"
    )
    assert second.endswith(": RuntimeError: Connection closed by peer")
