import logging
import threading
import time
from types import SimpleNamespace

import pytest

from prefix_rft_rllib.envs.verifiers.grading import Grader, is_undecided, map_in_threads
from prefix_rft_rllib.envs.verifiers.verdict import Graded, Verdict
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


def grader_of(answer) -> Grader:
    return Grader("tests.envs.fake_verifiers:as_told", {"answer": answer})


@pytest.mark.parametrize(
    ("answer", "outcome", "details"),
    [
        (Verdict.WRONG, Verdict.WRONG, {}),
        (1, 1.0, {}),
        (Graded(Verdict.WRONG), Verdict.WRONG, {}),
        (
            Graded(0.5, {"got": "é\0\x1b", "tries": 2, "share": 0.5, "is_late": False}),
            0.5,
            {"got": "é\0\x1b", "tries": 2, "share": 0.5, "is_late": False},
        ),
        # Half of a pair of surrogates is no text in UTF-8, nor is it as a name.
        (Graded(0.0, {"a\ud800": "b\udfff"}), 0.0, {"a\\ud800": "b\\udfff"}),
    ],
)
def test_a_verifier_may_give_details_with_its_verdict_or_number(answer, outcome, details):
    grader = grader_of(answer)
    assert grader.grade_with_details("text", None) == Graded(outcome, details)
    assert grader.grade("text", None) == outcome
    assert grader.grade_many(["text"] * 2, [None] * 2) == [outcome] * 2


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (Graded("CORRECT"), "returned 'CORRECT' .* must return a Verdict or a finite number"),
        (Graded(Graded(1.0)), "returned Graded.* must return a Verdict or a finite number"),
        (Graded(1.0, "why"), "details 'why'. They must be a dict from names to texts"),
        (Graded(1.0, {1: "why"}), "must be a dict"),
        (Graded(1.0, {"why": ["a", "b"]}), "must be a dict"),
        (Graded(1.0, {"why": None}), "must be a dict"),
    ],
)
def test_other_details_and_other_outcomes_are_clear_errors(answer, message):
    with pytest.raises(ValueError, match=f"'tests.envs.fake_verifiers:as_told' .*{message}"):
        grader_of(answer).grade("text", None)


def test_a_failure_of_the_verifier_has_no_details():
    graded = Grader("tests.envs.fake_verifiers:broken", {}).grade_with_details(
        "text", SimpleNamespace(problem_id="p")
    )
    assert graded == Graded(Verdict.ERROR, {})


@pytest.mark.parametrize("share_reward", [False, True])
def test_code_has_one_pool_of_workers_and_says_once_that_it_is_not_isolated(caplog, share_reward):
    # A limit of its own: no other test shares this pool.
    limits = {"timeout_s": 7.0 + share_reward, "num_workers": 2, "isolation": "none"}
    with caplog.at_level(logging.WARNING):
        grader = Grader("code", {**limits, "share_reward": share_reward})
    assert grader.max_threads == 2
    (record,) = caplog.records
    assert "run without isolation" in record.message
