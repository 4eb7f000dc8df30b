import threading
import time

import pytest

from prefix_rft_rllib.engines import EngineBrokenError
from prefix_rft_rllib.engines.vllm import watched_calls
from prefix_rft_rllib.engines.vllm.watched_calls import WatchedCalls


@pytest.fixture
def calls():
    calls = WatchedCalls("watched")
    yield calls
    calls.stop()


def test_a_function_runs_in_the_other_thread(calls):
    assert calls.run(threading.get_ident, 10) != threading.get_ident()


def test_results_arrive_while_the_function_runs(calls):
    goes_on = threading.Event()

    def function(call):
        call.give(1)
        assert goes_on.wait(10)
        call.give(2)

    stream = calls.stream(function, 10)
    assert next(stream) == 1
    goes_on.set()
    assert list(stream) == [2]


def test_an_error_comes_after_the_results(calls):
    def function(call):
        call.give(1)
        raise KeyError("late")

    stream = calls.stream(function, 10)
    assert next(stream) == 1
    with pytest.raises(KeyError, match="late"):
        next(stream)
    assert calls.run(lambda: 3, 10) == 3


def test_progress_without_results_is_no_timeout(calls):
    def function(call):
        for _ in range(10):
            time.sleep(0.05)
            call.note_progress()
        call.give("done")

    assert list(calls.stream(function, 0.2)) == ["done"]


def endless(call):
    call.give("first")
    while True:
        call.check()
        time.sleep(0.001)


def test_a_call_without_progress_is_given_up(calls):
    with pytest.raises(TimeoutError, match=r"no progress for `timeout_s` \(0.1 s\)"):
        list(calls.stream(endless, 0.1))
    assert not calls.is_stuck
    assert calls.run(lambda: 3, 10) == 3


def test_closing_the_stream_ends_the_function(calls):
    stream = calls.stream(endless, 10)
    assert next(stream) == "first"
    stream.close()
    assert calls.run(lambda: 3, 10) == 3


def test_a_call_that_does_not_end_is_stuck(calls, monkeypatch):
    monkeypatch.setattr(watched_calls, "GRACE_S", 0.05)
    goes_on = threading.Event()
    with pytest.raises(EngineBrokenError, match=r"no progress.*not come back"):
        calls.run(lambda: goes_on.wait(10), 0.1)
    assert calls.is_stuck
    goes_on.set()
