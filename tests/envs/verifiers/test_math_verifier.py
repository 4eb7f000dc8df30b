"""The verifier and its worker processes: limits, crashes, threads, lifetimes."""

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from prefix_rft_rllib.envs.verifiers import MathVerifier, Verdict, load_verifier
from prefix_rft_rllib.envs.verifiers.math_comparison import grade
from prefix_rft_rllib.envs.workers.worker_pool import PoolWork, WorkerPool

LIMIT_S = 1.0
POWER_TOWER = r"\boxed{9^{9^{9^{9^9}}}}"
MATH_WORK = "prefix_rft_rllib.envs.verifiers.math_worker"
WORKER_MAIN = Path(sys.modules[WorkerPool.__module__].__file__).with_name("worker_main.py")

needs_proc = pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs Linux's /proc")


@pytest.fixture(scope="module")
def verifier():
    with MathVerifier(timeout_s=LIMIT_S, num_workers=2) as verifier:
        yield verifier


@pytest.fixture(scope="module")
def last_verifier():
    with MathVerifier(extract="last", timeout_s=LIMIT_S, num_workers=1) as verifier:
        yield verifier


def children(process_id):
    try:
        text = Path(f"/proc/{process_id}/task/{process_id}/children").read_text()
    except OSError:
        return []
    return [int(one) for one in text.split()]


def is_running(process_id):
    try:
        state = Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def wait_until(condition, seconds=5.0):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.02)
    return condition()


@pytest.mark.parametrize(
    ("response", "answer", "verdict"),
    [
        (r"so $\boxed{\frac{1}{2}}$", "0.5", Verdict.CORRECT),
        (r"\boxed{42}", "42", Verdict.CORRECT),
        (r"\boxed{41}", "42", Verdict.WRONG),
        (r"\boxed{3}", r"3\sqrt{13}", Verdict.WRONG),
        (r"first \boxed{42}, no, \boxed{41}", "42", Verdict.WRONG),
        ("", "42", Verdict.UNPARSEABLE),
        ("42", "42", Verdict.UNPARSEABLE),
        (r"\boxed{42", "42", Verdict.UNPARSEABLE),
        (r"\boxed{\frac{1}{2}??}", "0.5", Verdict.UNPARSEABLE),
        (r"\boxed{" + "1" * 1_000_000 + "}", "42", Verdict.UNPARSEABLE),
        (r"\boxed{42}", "", Verdict.ERROR),
        (r"\boxed{42}", "$ $", Verdict.ERROR),
    ],
)
def test_a_boxed_response_gets_its_verdict(verifier, response, answer, verdict):
    assert verifier.verify(response, answer) is verdict


@pytest.mark.parametrize(
    ("response", "answer", "verdict"),
    [
        ("So the answer is $\\frac{1}{2}$.", "0.5", Verdict.CORRECT),
        ("12 + 30 = 42", "42", Verdict.CORRECT),
        (r"thus \boxed{4t}", "4t", Verdict.CORRECT),
        (r"thus \boxed{4t}", "4", Verdict.WRONG),
        (r"thus \(\boxed{2516}\)", "2516_8", Verdict.WRONG),
        (r"it is $1+\frac{1}{\mathrm{e}}$", r"1-\frac{1}{\mathrm{e}}", Verdict.WRONG),
        ("", "42", Verdict.UNPARSEABLE),
        ("?!", "42", Verdict.UNPARSEABLE),
    ],
)
def test_the_last_expression_is_graded_on_request(last_verifier, response, answer, verdict):
    assert last_verifier.verify(response, answer) is verdict


HOSTILE = [
    POWER_TOWER,
    r"\boxed{(10^9)!}",
    r"\boxed{" + "(" * 4900 + "1" + ")" * 4900 + "}",
    r"\boxed{" + r"\frac{1}{" * 300 + "2" + "}" * 300 + "}",
    r"\boxed{(x+y+z+w)^{200}}",
    r"\boxed{" + "-" * 5000 + "1}",
    r"\boxed{" + "\ud800\x00\u2028" * 50 + "}",
]


@pytest.mark.parametrize("response", HOSTILE)
def test_hostile_answers_get_a_verdict_in_time(verifier, response):
    begin = time.monotonic()
    verdict = verifier.verify(response, "2")
    assert time.monotonic() - begin < LIMIT_S + 0.5
    assert verdict in (Verdict.TIMEOUT, Verdict.UNPARSEABLE, Verdict.WRONG)


@pytest.mark.parametrize(
    "response",
    ["$" * 100_000, "$a" * 50_000, "answer " * 30_000, r"\[ x " * 20_000, "1" * 1_000_000],
)
def test_regex_bombs_and_megabytes_get_a_verdict_in_time(last_verifier, response):
    begin = time.monotonic()
    assert last_verifier.verify(response, "5") is not Verdict.CORRECT
    assert time.monotonic() - begin < LIMIT_S + 0.5


def test_the_power_tower_is_a_timeout_and_the_next_verdict_is_not_delayed(verifier):
    assert verifier.verify(POWER_TOWER, "2") is Verdict.TIMEOUT
    begin = time.monotonic()
    assert verifier.verify(r"\boxed{3.0}", "3") is Verdict.CORRECT
    assert time.monotonic() - begin < 1.0


def test_a_gold_answer_can_be_hostile_too(verifier):
    assert verifier.verify(r"\boxed{2}", "9^{9^{9^{9^9}}}") is Verdict.TIMEOUT


def test_reaching_the_memory_limit_is_an_error_not_a_wrong_answer():
    with MathVerifier(timeout_s=20, num_workers=1, memory_limit_mb=256) as small:
        assert small.verify(r"\boxed{2^{10^9}}", "2") is Verdict.ERROR
        assert small.verify(r"\boxed{2.0}", "2") is Verdict.CORRECT


@needs_proc
def test_a_killed_worker_is_an_error_not_a_wrong_answer():
    with MathVerifier(timeout_s=20, num_workers=1) as verifier:
        nursery = verifier._pool._nursery.process_id
        with ThreadPoolExecutor(1) as executor:
            future = executor.submit(verifier.verify, POWER_TOWER, "2")
            time.sleep(0.3)
            workers = children(nursery)
            for process_id in workers:
                os.kill(process_id, signal.SIGKILL)
            assert future.result(timeout=5) is Verdict.ERROR
        # The idle worker was killed too; while it is dying it would take a job along.
        assert wait_until(lambda: not any(map(is_running, workers)))
        assert verifier.verify(r"\boxed{2.0}", "2") is Verdict.CORRECT


@needs_proc
def test_a_lost_nursery_is_replaced_and_takes_its_workers_along():
    with MathVerifier(timeout_s=20, num_workers=1) as verifier:
        nursery = verifier._pool._nursery.process_id
        workers = children(nursery)
        os.kill(nursery, signal.SIGKILL)
        assert wait_until(lambda: not any(map(is_running, workers)))
        assert verifier.verify(r"\boxed{2.0}", "2") is Verdict.CORRECT
        assert verifier._pool._nursery.process_id != nursery


def test_many_threads_share_one_verifier(verifier):
    def ask(number):
        return verifier.verify(rf"\boxed{{{number}.0}}", str(number - number % 2))

    with ThreadPoolExecutor(8) as executor:
        verdicts = list(executor.map(ask, range(40)))
    assert verdicts == [Verdict.WRONG if n % 2 else Verdict.CORRECT for n in range(40)]


def test_a_batch_keeps_the_order_and_survives_bombs(verifier):
    responses = [r"\boxed{1.0}", POWER_TOWER, r"\boxed{1.5}", "no box", r"\boxed{1.0}"]
    verdicts = verifier.verify_batch(responses, ["1"] * 5)
    assert [verdict.value for verdict in verdicts] == [
        "CORRECT", "TIMEOUT", "WRONG", "UNPARSEABLE", "CORRECT",
    ]  # fmt: skip


def test_the_answers_decided_without_a_worker_are_the_workers_answers(verifier):
    texts = ["0", "7", "-7", "70", "123456789012345", r"\frac{1}{2}", r"\text{no}", "x", "1,2"]
    for candidate in texts:
        for gold in texts:
            quick = verifier._quick_verdict(candidate, gold)
            for operation in ("compare", "compare_prose"):
                job = {"operation": operation, "candidate": candidate, "gold": gold}
                assert quick is None or quick == grade(job)["verdict"], job


def test_two_answers_are_compared_with_words_around_them(verifier):
    assert verifier.compare("10", "so the answer is 10") is Verdict.CORRECT
    assert verifier.compare(r"3\sqrt{13}", "3") is Verdict.WRONG
    assert verifier.compare("10", "") is Verdict.UNPARSEABLE
    assert verifier.compare("", "10") is Verdict.ERROR


def test_a_gold_answer_can_be_checked_beforehand(verifier):
    assert all(map(verifier.check_answer, ("42", r"3\sqrt{13}", r"\text{Evelyn}", r"\$32,\!348")))
    assert not any(map(verifier.check_answer, ("", "  ", "$$", "...", "1" * 20_000)))


@needs_proc
def test_closing_ends_all_processes():
    verifier = MathVerifier(num_workers=2)
    nursery = verifier._pool._nursery.process_id
    workers = children(nursery)
    assert workers
    verifier.close()
    verifier.close()
    assert wait_until(lambda: not any(map(is_running, [nursery, *workers])))
    with pytest.raises(RuntimeError, match="closed"):
        verifier.verify(r"\boxed{2.0}", "2")


# Without the package's own imports, which take seconds.
ORPHAN_SCRIPT = f"""
import runpy, threading, time
runpy.run_path({str(WORKER_MAIN)!r})["import_work"]({MATH_WORK!r})
from prefix_rft_rllib.envs.verifiers.math_verifier import MathVerifier
verifier = MathVerifier(timeout_s=300, num_workers=1)
threading.Thread(target=verifier.verify, args=({POWER_TOWER!r}, "2"), daemon=True).start()
time.sleep(0.3)
print(verifier._pool._nursery.process_id, flush=True)
time.sleep(300)
"""


@needs_proc
@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGINT])
def test_no_worker_outlives_the_process_that_asked(end):
    caller = subprocess.Popen(
        [sys.executable, "-c", ORPHAN_SCRIPT], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    nursery = int(caller.stdout.readline())
    workers = children(nursery)
    assert workers
    caller.send_signal(end)
    caller.wait(timeout=20)
    caller.stdout.close()
    assert wait_until(lambda: not any(map(is_running, [nursery, *workers])))


def grade_in_daemon(verifier, connection):
    own = MathVerifier(timeout_s=5, num_workers=1)
    connection.send(
        [own.verify(r"\boxed{2.0}", "2").value, verifier.verify(r"\boxed{3.0}", "3").value]
    )
    own.close()


def test_a_forked_daemonic_process_can_verify_with_its_own_and_an_inherited_verifier(verifier):
    # multiprocessing forbids daemonic processes to have children of its own kind; and the
    # copy must not talk to the original's workers.
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    process = context.Process(target=grade_in_daemon, args=(verifier, theirs), daemon=True)
    process.start()
    assert ours.poll(60)
    assert ours.recv() == ["CORRECT", "CORRECT"]
    process.join(20)
    assert verifier.verify(r"\boxed{2.0}", "2") is Verdict.CORRECT


def test_a_verifier_works_in_a_thread_that_ends_before_the_next_call():
    made = []
    maker = threading.Thread(target=lambda: made.append(MathVerifier(num_workers=1)))
    maker.start()
    maker.join()
    with made[0] as verifier:
        assert verifier.verify(r"\boxed{2.0}", "2") is Verdict.CORRECT


def test_a_worker_is_replaced_after_its_share_of_jobs():
    settings = {"memory_limit_mb": 1024}
    work = PoolWork(module=MATH_WORK, settings=settings, max_jobs_per_worker=2)
    pool = WorkerPool(num_workers=1, work=work)
    job = {"operation": "compare", "candidate": "2.0", "gold": "2"}
    first = {worker.process_id for worker in pool._idle.queue}
    assert [pool.run(job, 5.0).value["verdict"] for _ in range(9)] == ["CORRECT"] * 9
    assert wait_until(lambda: len(pool._idle.queue) == 2)
    assert not first & {worker.process_id for worker in pool._idle.queue}
    pool.close()


def test_workers_import_neither_torch_nor_ray():
    script = (
        "import sys; sys.argv = ['x']; import runpy;"
        "module = runpy.run_path(sys.orig_argv[-1]);"
        f"module['import_work']({MATH_WORK!r});"
        "print(sorted({'torch', 'ray', 'transformers', 'gymnasium'} & set(sys.modules)))"
    )
    output = subprocess.run(
        [sys.executable, "-c", script, str(WORKER_MAIN)], capture_output=True, text=True, check=True
    )
    assert output.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"extract": "first"}, "extract"),
        ({"timeout_s": 0}, "timeout_s"),
        ({"timeout_s": "5"}, "timeout_s"),
        ({"num_workers": 0}, "num_workers"),
        ({"memory_limit_mb": 10}, "memory_limit_mb"),
    ],
)
def test_a_wrong_setting_is_a_clear_error(settings, name):
    with pytest.raises(ValueError, match=f"`{name}` must be"):
        MathVerifier(**settings)


def test_arguments_that_are_no_text_are_a_clear_error(verifier):
    with pytest.raises(ValueError, match="`answer` must be a string, got int 42"):
        verifier.verify(r"\boxed{42}", 42)
    with pytest.raises(ValueError, match="same length"):
        verifier.verify_batch(["a"], ["1", "2"])


@pytest.mark.slow
def test_a_ray_actor_can_verify():
    import ray

    class Grader:
        def grade(self, response, answer):
            problem = type("Problem", (), {"answer": answer})()
            return load_verifier("math", {"timeout_s": LIMIT_S})(response, problem).value

    ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False)
    try:
        grader = ray.remote(Grader).options(max_concurrency=4).remote()
        calls = [(r"\boxed{2.0}", "2"), (POWER_TOWER, "2"), (r"\boxed{2.5}", "2")]
        verdicts = ray.get([grader.grade.remote(*call) for call in calls])
        assert verdicts == ["CORRECT", "TIMEOUT", "WRONG"]
    finally:
        ray.shutdown()
