import threading
import time

import pytest

from prefix_rft_rllib.envs.grading import Grader, is_undecided, map_in_threads
from prefix_rft_rllib.envs.verifiers.verdict import Verdict
from tests.envs import fake_verifiers
from tests.envs.problem_data import load


def test_a_users_function_is_called_one_at_a_time_in_the_calling_thread(config):
    (problem, *_) = load(config).train
    grader = Grader("tests.envs.fake_verifiers:by_signal", {})
    assert grader.max_threads == 1
    fake_verifiers.calling_threads.clear()
    outcomes = grader.grade_many(["\\boxed{5}"] * 6, [problem] * 6)
    assert outcomes == [Verdict.CORRECT] * 6
    assert fake_verifiers.calling_threads == [threading.current_thread()] * 6


def test_the_math_verifier_may_be_called_by_as_many_threads_as_it_has_workers():
    assert Grader("math", {"num_workers": 3}).max_threads == 3


@pytest.mark.parametrize("num_threads", [1, 3])
def test_results_come_in_order_and_at_most_so_many_calls_overlap(num_threads):
    running, most, lock = 0, 0, threading.Lock()

    def sum_of(first: int, second: int) -> int:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        time.sleep(0.01)
        with lock:
            running -= 1
        return first + second

    assert list(map_in_threads(num_threads, sum_of, range(9), range(9))) == list(range(0, 18, 2))
    assert most == num_threads


@pytest.mark.parametrize("num_threads", [1, 2])
def test_calls_begin_while_arguments_arrive_in_several_threads_and_after_the_last_in_one(
    num_threads,
):
    begun, seen = threading.Event(), []

    def arguments():
        yield 1
        # With several threads the first call begins now, before the second argument.
        seen.append(begun.wait(timeout=5 if num_threads > 1 else 0.05))
        yield 2

    def call(number):
        begun.set()
        return number

    assert list(map_in_threads(num_threads, call, arguments())) == [1, 2]
    assert seen == [num_threads > 1]


def test_only_a_timeout_and_a_failure_decide_nothing():
    assert [v for v in Verdict if is_undecided(v)] == [Verdict.TIMEOUT, Verdict.ERROR]
    assert not is_undecided(0.0)
