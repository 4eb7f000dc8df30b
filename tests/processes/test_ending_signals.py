"""Signals end work where nothing is half done."""

import signal
import threading
from functools import partial

import pytest

from prefix_rft_rllib.processes.ending_signals import EndingSignals

INT, TERM = signal.SIGINT, signal.SIGTERM


@pytest.fixture
def ending():
    handlers = {number: signal.getsignal(number) for number in (INT, TERM)}
    yield EndingSignals()
    assert {number: signal.getsignal(number) for number in (INT, TERM)} == handlers


def watched(ending, *steps) -> None:
    """Do steps one after the other while signals are watched; a signal stands for its arrival."""
    with ending.watching():
        for step in steps:
            signal.raise_signal(step) if isinstance(step, signal.Signals) else step()


@pytest.fixture
def done() -> list[str]:
    return []


@pytest.fixture
def more(done):
    return lambda: done.append("more")


def test_work_that_may_be_given_up_ends_at_once(ending, done, more):
    with pytest.raises(KeyboardInterrupt):
        watched(ending, INT, more)
    with pytest.raises(SystemExit) as caught:
        watched(ending, TERM, more)
    assert caught.value.code == 143
    assert done == []


def test_held_work_is_completed_and_then_ended(ending, done, more, caplog):
    with pytest.raises(SystemExit) as caught:
        watched(ending, ending.hold, TERM, more)
    assert caught.value.code == 143
    assert done == ["more"]
    assert "SIGTERM: this iteration is completed first. Once more ends it" in caplog.text
    watched(ending, more)  # nothing is left of it
    assert done == ["more", "more"]


def test_a_second_signal_ends_held_work_at_once(ending, done, more):
    with pytest.raises(KeyboardInterrupt):
        watched(ending, ending.hold, TERM, INT, more)
    assert done == []


def test_a_part_may_be_given_up_inside_held_work(ending, done):
    def evaluation():
        done.append("begun")
        signal.raise_signal(INT)
        return "complete"

    def evaluate(otherwise):
        done.append(ending.unless_asked(evaluation, otherwise))

    with pytest.raises(KeyboardInterrupt):
        watched(ending, ending.hold, partial(evaluate, "given up"), partial(evaluate, "left out"))
    assert done == ["begun", "given up", "left out"]


def test_a_part_may_be_given_up_while_another_thread_holds_the_work(ending, done):
    def evaluation():
        thread = threading.Thread(target=ending.hold)  # its update begins
        thread.start()
        thread.join()
        signal.raise_signal(INT)

    with pytest.raises(KeyboardInterrupt):
        watched(ending, ending.hold, lambda: done.append(ending.unless_asked(evaluation, "left")))
    assert done == ["left"]


def test_a_part_is_done_where_no_signal_comes(ending):
    assert ending.unless_asked(lambda: 1, 0) == 1
    with ending.watching():
        ending.hold()
        assert ending.unless_asked(lambda: 2, 0) == 2
        with pytest.raises(ValueError, match="own"):
            ending.unless_asked(lambda: int("own"), 0)


def test_an_error_comes_before_a_held_signal(ending):
    with pytest.raises(ValueError, match="own"):
        watched(ending, ending.hold, INT, partial(int, "own"))


def test_ignored_signals_stay_ignored(ending):
    before = signal.signal(INT, signal.SIG_IGN)
    try:
        watched(ending, INT)
    finally:
        signal.signal(INT, before)


def test_another_thread_is_left_alone(ending):
    seen = []

    def work():
        with ending.watching():
            ending.hold()
            seen.append(signal.getsignal(INT))
            seen.append(ending.unless_asked(lambda: 1, 0))

    before = signal.getsignal(INT)
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [before, 1]
