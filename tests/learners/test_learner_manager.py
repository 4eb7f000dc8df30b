"""One learner fails: all end at once, and the error says which one and why."""

import time

import pytest
import ray
from ray.exceptions import RayActorError, RayTaskError

from prefix_rft_rllib.learners import learner_manager
from prefix_rft_rllib.learners.learner_manager import LearnerManager, LearnersFailedError
from tests.learners.small_learners import (
    SmallLearner,
    die_or_raise,
    die_or_wait,
    do_nothing,
    last_one_first,
    place_of,
    raise_or_wait,
    wait_or_answer,
)

pytest_plugins = ("tests.algorithm_fixtures",)
pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("cluster")]


@pytest.fixture
def manager(monkeypatch):
    """Two learners; the second fails in what follows, the first waits for it."""
    monkeypatch.setattr(learner_manager, "GRACE_S", 0.5)
    actor = ray.remote(num_cpus=0)(SmallLearner)
    learners = [actor.remote(number) for number in range(2)]
    places = [learner.apply.remote(place_of) for learner in learners]
    return LearnerManager(learners, ray.get(places), 2)


def has_gone(manager, number) -> bool:
    with pytest.raises(RayActorError):
        ray.get(manager.actors()[number].apply.remote(do_nothing), timeout=10)
    return True


def test_answers_come_in_the_order_of_the_learners(manager):
    assert [result.get() for result in manager.foreach_actor(last_one_first)] == [0, 1]
    assert [r.get() for r in manager.foreach_actor(last_one_first, remote_actor_ids=[1])] == [1]


def test_all_learners_end_when_one_raises(manager, caplog):
    started = time.monotonic()
    with pytest.raises(LearnersFailedError) as caught:
        manager.foreach_actor(raise_or_wait)
    assert time.monotonic() - started < 30
    place = str(manager._places[1])
    assert f"{place}: MemoryError: 2 GiB are too much\n" in str(caught.value)
    assert "newest checkpoint" in str(caught.value)
    assert isinstance(caught.value.__cause__, RayTaskError)
    assert "2 GiB are too much" in caplog.text
    assert place.startswith("learner 1 (actor ") and place.endswith(".err)")
    assert has_gone(manager, 0) and has_gone(manager, 1)


def test_a_killed_learner_is_named_before_those_that_lost_it(manager):
    started = time.monotonic()
    with pytest.raises(LearnersFailedError) as caught:
        manager.foreach_actor(die_or_raise)
    assert time.monotonic() - started < 30
    first, second = str(caught.value).splitlines()[1:3]
    assert first.startswith("learner 1 (") and "its process has ended" in first
    assert second.startswith("learner 0 (") and second.endswith("Connection closed by peer")
    assert isinstance(caught.value.__cause__, RayActorError)
    assert has_gone(manager, 0)


def test_ended_learners_are_an_error_in_every_later_call(manager):
    with pytest.raises(LearnersFailedError):
        manager.foreach_actor(die_or_wait)
    with pytest.raises(LearnersFailedError, match=r"have ended[^$]*its process has ended"):
        manager.foreach_actor(do_nothing)


def test_a_time_limit_leaves_out_who_has_not_answered(manager):
    results = manager.foreach_actor(wait_or_answer, timeout_seconds=1.0)
    assert [result.get() for result in results] == [1]
