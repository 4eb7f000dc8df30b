import threading
import weakref

import pytest

from prefix_rft_rllib.engines.vllm.call_thread import CallThread


@pytest.fixture
def thread():
    thread = CallThread("calls")
    yield thread
    thread.stop()


def test_calls_run_in_order_in_one_other_thread(thread):
    order: list[int] = []
    futures = [
        thread.submit(lambda n=n: order.append(n) or threading.get_ident()) for n in range(9)
    ]
    assert len({future.result(10) for future in futures} - {threading.get_ident()}) == 1
    assert order == list(range(9))


def test_an_error_reaches_the_caller_and_the_thread_goes_on(thread):
    def fail():
        raise SystemExit("bye")

    with pytest.raises(SystemExit, match="bye"):
        thread.submit(fail).result(10)
    assert thread.submit(lambda: 3).result(10) == 3


def test_what_was_submitted_before_the_stop_still_runs():
    thread = CallThread("stopping")
    future = thread.submit(lambda: 5)
    thread.stop()
    assert future.result(10) == 5
    for other in threading.enumerate():
        if other.name == "stopping":
            other.join(10)
    assert "stopping" not in {other.name for other in threading.enumerate()}


def test_nothing_of_a_finished_call_is_kept(thread):
    class Weights:
        pass

    weights = Weights()
    alive = weakref.ref(weights)
    thread.submit(lambda held=weights: None).result(10)
    thread.submit(lambda: None).result(10)
    del weights
    assert alive() is None
