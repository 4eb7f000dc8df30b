"""The driver's handle on the env runners, over env runners that are made up."""

import time
from types import SimpleNamespace

import pytest
from ray.rllib.utils.actor_manager import RemoteCallResults, ResultOrError
from ray.rllib.utils.metrics.metrics_logger import MetricsLogger

from prefix_rft_rllib import metrics
from prefix_rft_rllib.core.prefix_sampling import PlannedRollout
from prefix_rft_rllib.rollouts import env_runners, row_data
from prefix_rft_rllib.rollouts.dealing import deal
from prefix_rft_rllib.rollouts.env_runners import EnvRunners
from prefix_rft_rllib.rollouts.row_data import build_episode
from prefix_rft_rllib.rollouts.sampling import Sampling


def planned(*members: tuple[int, int]) -> list[PlannedRollout]:
    """A plan of (group, member) pairs."""
    return [
        PlannedRollout(problem_id=f"p{group}", group_id=group, member=member, seed=0)
        for group, member in members
    ]


PLAN = planned((0, 0), (0, 1), (1, 0), (1, 1), (2, 0), (2, 1))


def members(rollouts) -> list[tuple[int, int]]:
    return [(rollout.group_id, rollout.member) for rollout in rollouts]


def members_of(episodes) -> list[tuple[int, int]]:
    return members(episode.custom_data[row_data.ROLLOUT] for episode in episodes)


def answer(rollouts) -> tuple[list, dict]:
    """What an env runner returns: the episodes in any order, and its metrics."""
    logger = MetricsLogger()
    logger.log_value("num_sampled", len(rollouts), reduce="sum")
    episodes = [build_episode([1], [2], custom_data={row_data.ROLLOUT: r}) for r in rollouts]
    return episodes[::-1], logger.reduce()


def results_of(answers: dict[int, object]) -> RemoteCallResults:
    """RLlib's results of a call, by number of the env runner; an exception is a failed one."""
    results = RemoteCallResults()
    for number, value in answers.items():
        is_error = isinstance(value, Exception)
        outcome = ResultOrError(error=value) if is_error else ResultOrError(result=value)
        results.add_result(number, outcome, None)
    return results


class RemoteGroup:
    """RLlib's group of remote env runners, and its manager; those that are lost fail every call."""

    def __init__(self, healthy: list[int]):
        self._worker_manager = self
        self.healthy = healthy
        self.lost: set[int] = set()
        self.given: list[dict[int, object]] = []
        self.calls: list[tuple[dict[int, list], float | None]] = []
        self.waiting: dict[str, dict[int, list]] = {}

    def num_remote_env_runners(self):
        return 2

    def healthy_worker_ids(self):
        return list(self.healthy)

    def foreach_env_runner_async(self, func, tag, *, kwargs, remote_worker_ids):
        assert func == "sample_and_get_metrics"
        shares = [call["rollouts"] for call in kwargs]
        self.waiting[tag] = dict(zip(remote_worker_ids, shares, strict=True))
        (temperature,) = {call["sampling"].temperature for call in kwargs}
        self.calls.append((self.waiting[tag], temperature))

    def fetch_ready_async_reqs(self, *, tags, timeout_seconds):
        assert timeout_seconds == pytest.approx(5.0, abs=1.0)
        shares = self.waiting.pop(tags)
        return self._results({i: answer(share) for i, share in shares.items()})

    def foreach_actor(self, func, *, kwargs=None, remote_actor_ids=None, timeout_seconds):
        assert timeout_seconds == env_runners.SYNC_TIMEOUT_S
        asked = remote_actor_ids or self.healthy
        if func == "set_state":
            self.given.append(dict.fromkeys(asked, kwargs["state"]))
        return self._results({i: f"env runner {i} on node n, log l{i}" for i in asked})

    def _results(self, answers):
        self.healthy = [i for i in self.healthy if i not in self.lost]
        error = RuntimeError("out of order")
        return results_of({i: error if i in self.lost else a for i, a in answers.items()})


def faults_of(runners) -> dict[str, float]:
    return {n: runners.metrics.peek((metrics.FAULTS, n)) for n in metrics.FAULT_METRICS}


class LocalGroup:
    """RLlib's group of an env runner in the driver, which loses the last rollouts of a call."""

    def __init__(self, num_lost: int):
        self.local_env_runner = self
        self.num_lost = num_lost
        self.calls: list[tuple[list, float | None]] = []

    def num_remote_env_runners(self):
        return 0

    def sample_and_get_metrics(self, *, rollouts, sampling):
        self.calls.append((members(rollouts), sampling.temperature))
        return answer(rollouts[: len(rollouts) - self.num_lost])


@pytest.fixture
def events() -> list[str]:
    return []


@pytest.fixture
def runners_of(events):
    """Env runners over a group; `restored` says what each look for restarted ones finds."""

    def build(group, restored=()) -> EnvRunners:
        found = iter(restored)

        def restore(restored_group):
            assert restored_group is group
            events.append("restore")
            group.healthy = next(found, [])
            return group.healthy

        return EnvRunners(
            group,
            MetricsLogger(root=True),
            sample_timeout_s=5.0,
            may_restart=True,
            restore=restore,
            refresh_weights=lambda: events.append("refresh"),
        )

    return build


def test_groups_are_dealt_whole_and_in_turn():
    plan = planned((7, 0), (7, 1), (7, 2), (3, 0), (3, 1), (9, 0), (9, 1), (4, 0))
    first, second = deal(plan, 2)
    # 7 to the first, 3 to the second, 9 to the first, 4 to the second.
    assert members(first) == [(7, 0), (7, 1), (7, 2), (9, 0), (9, 1)]
    assert members(second) == [(3, 0), (3, 1), (4, 0)]


def test_the_rollouts_of_a_group_need_not_stand_together():
    first, second = deal(planned((0, 0), (1, 0), (0, 1), (1, 1), (2, 0)), 2)
    assert members(first) == [(0, 0), (0, 1), (2, 0)]
    assert members(second) == [(1, 0), (1, 1)]


def test_more_env_runners_than_groups_leave_some_without_work(runners_of):
    assert [members(share) for share in deal(PLAN[:2], 3)] == [[(0, 0), (0, 1)], [], []]
    group = RemoteGroup([1, 2])
    assert members_of(runners_of(group).sample(PLAN[:2])) == [(0, 0), (0, 1)]
    assert [list(shares) for shares, _ in group.calls] == [[1]]


def test_episodes_come_in_the_order_of_the_plan_and_metrics_under_the_key(runners_of):
    group = RemoteGroup([1, 2])
    runners = runners_of(group)
    assert members_of(
        runners.sample(PLAN, sampling=Sampling(temperature=0.0), key="here")
    ) == members(PLAN)
    ((shares, temperature),) = group.calls
    assert {i: members(share) for i, share in shares.items()} == {
        1: [(0, 0), (0, 1), (2, 0), (2, 1)],
        2: [(1, 0), (1, 1)],
    }
    assert temperature == 0.0
    assert runners.metrics.peek(("here", "num_sampled")) == 6


def test_without_a_key_the_metrics_are_left_out(runners_of):
    runners = runners_of(RemoteGroup([1, 2]))
    runners.sample(PLAN)
    assert list(runners.metrics.reduce()) == [metrics.FAULTS]


def test_a_lost_env_runners_rollouts_go_to_the_others(runners_of, caplog):
    group = RemoteGroup([1, 2])
    runners = runners_of(group)
    in_flight = runners.start(PLAN, sampling=Sampling(temperature=0.5))
    assert (in_flight.runner_ids, members(in_flight.rollouts)) == ([1, 2], members(PLAN))
    group.lost = {1}
    assert members_of(runners.finish(in_flight, key="here")) == members(PLAN)
    _, (again, temperature) = group.calls
    assert {i: members(share) for i, share in again.items()} == {
        2: [(0, 0), (0, 1), (2, 0), (2, 1)]
    }
    assert temperature == 0.5
    assert runners.metrics.peek(("here", "num_sampled")) == 2 + 4
    assert faults_of(runners) == {
        metrics.NUM_ENV_RUNNERS_LOST: 1,
        metrics.NUM_ENV_RUNNERS_SILENT: 0,
        metrics.NUM_ROLLOUTS_SAMPLED_AGAIN: 4,
    }
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.startswith("env runner 1 on node n, log l1: RuntimeError: out of order. ")


def test_a_silent_env_runner_is_ended_and_a_failed_one_is_not(runners_of, monkeypatch):
    group = RemoteGroup([1, 2, 3])
    runners = runners_of(group)
    ended = []
    monkeypatch.setattr(runners, "end", ended.extend)
    group.lost = {3}
    answers = group.fetch_ready_async_reqs

    def without_the_second(**kwargs):
        results = answers(**kwargs).result_or_errors
        left = RemoteCallResults()
        left.result_or_errors = [r for r in results if r.actor_id != 2 or ended]
        return left

    monkeypatch.setattr(group, "fetch_ready_async_reqs", without_the_second)
    assert members_of(runners.sample(PLAN)) == members(PLAN)
    assert ended == [2]
    assert faults_of(runners)[metrics.NUM_ENV_RUNNERS_SILENT] == 1
    assert faults_of(runners)[metrics.NUM_ENV_RUNNERS_LOST] == 1
    assert faults_of(runners)[metrics.NUM_ROLLOUTS_SAMPLED_AGAIN] == 2  # the third was lost before


def test_silent_env_runners_are_named_while_the_driver_waits(runners_of, monkeypatch, caplog):
    group = RemoteGroup([1, 2])
    runners = runners_of(group)
    runners.sample_timeout_s = None
    monkeypatch.setattr(env_runners, "SILENCE_SAID_S", 0.1)
    answers, empty = group.fetch_ready_async_reqs, [RemoteCallResults(), RemoteCallResults()]
    monkeypatch.setattr(group, "foreach_actor", lambda *args, **kwargs: results_of({}))

    def late(*, tags, timeout_seconds):
        assert timeout_seconds == pytest.approx(0.1)
        time.sleep(timeout_seconds)
        return empty.pop() if empty else answers(tags=tags, timeout_seconds=5.0)

    monkeypatch.setattr(group, "fetch_ready_async_reqs", late)
    assert members_of(runners.sample(PLAN)) == members(PLAN)
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 2
    assert all("env runner 1; env runner 2. They may be busy" in line for line in said)


def test_an_error_names_what_the_env_runners_failed_of(runners_of, monkeypatch):
    group = RemoteGroup([1, 2])
    monkeypatch.setattr(group, "foreach_actor", lambda *args, **kwargs: results_of({}))
    group.lost = {1, 2}
    with pytest.raises(RuntimeError, match=r"6 of 6 rollouts could not be sampled") as caught:
        runners_of(group, [[1], [1]]).sample(PLAN)
    # Both in the first round, the one that came back in the two others.
    lines = str(caught.value).splitlines()[1:]
    assert lines == [f"env runner {i}: RuntimeError: out of order" for i in (1, 2, 1, 1)]


def test_without_any_env_runner_one_is_waited_for_and_given_the_weights(
    runners_of, events, monkeypatch
):
    monkeypatch.setattr(env_runners.time, "sleep", lambda seconds: events.append("sleep"))
    group = RemoteGroup([])
    assert members_of(runners_of(group, [[], [2]]).sample(PLAN)) == members(PLAN)
    assert events == ["restore", "sleep", "restore", "refresh"]
    assert [list(shares) for shares, _ in group.calls] == [[2]]


def test_an_error_says_that_no_env_runner_came_back(runners_of, events, monkeypatch):
    monkeypatch.setattr(env_runners, "RESTART_TIMEOUT_S", -1.0)
    with pytest.raises(RuntimeError, match=r"All env runners have failed and none came back"):
        runners_of(RemoteGroup([])).start(PLAN)
    assert events == ["restore"]


def test_rollouts_lost_in_the_driver_are_sampled_again_in_three_rounds_at_most(runners_of):
    group = LocalGroup(num_lost=1)
    with pytest.raises(RuntimeError, match=r"1 of 6 rollouts could not be sampled in 3 rounds"):
        runners_of(group).sample(PLAN, sampling=Sampling(temperature=0.25))
    # Each call loses its last rollout.
    assert group.calls == [(members(PLAN), 0.25), ([(2, 1)], 0.25), ([(2, 1)], 0.25)]


def test_an_empty_plan_asks_no_env_runner(runners_of):
    local, remote = LocalGroup(num_lost=0), RemoteGroup([1, 2])
    assert runners_of(local).sample([]) == []
    runners = runners_of(remote)
    assert runners.finish(runners.start([])) == []
    assert local.calls == remote.calls == []


def test_a_state_goes_to_the_local_env_runner_or_to_all_remote_ones(runners_of):
    given = []
    local = SimpleNamespace(
        num_remote_env_runners=lambda: 0,
        local_env_runner=SimpleNamespace(set_state=lambda state: given.append(("local", state))),
    )
    runners = runners_of(local)
    assert runners.is_local
    runners.set_state({"a": 1})
    remote = RemoteGroup([1, 2])
    runners_of(remote).set_state({"b": 2})
    assert given == [("local", {"a": 1})]
    assert remote.given == [{1: {"b": 2}, 2: {"b": 2}}]


def test_an_env_runner_that_never_takes_its_weights_is_ended(runners_of, monkeypatch):
    group = RemoteGroup([1, 2])
    runners = runners_of(group)
    ended = []
    monkeypatch.setattr(runners, "end", ended.extend)
    monkeypatch.setattr(group, "foreach_actor", lambda *args, **kwargs: results_of({2: None}))
    runners.set_state({"c": 3})
    assert ended == [1]
    assert runners.metrics.peek((metrics.FAULTS, metrics.NUM_ENV_RUNNERS_SILENT)) == 1
