"""Actors that RLlib calls as it calls learners; without a model, and quick to import."""

import os
import time

from prefix_rft_rllib.processes.places import place_here

WAIT_S = 300.0
"""How long a learner waits for one that never comes; as good as for ever."""


class SmallLearner:
    """RLlib's way into a learner, without a model."""

    def __init__(self, number):
        self.number = number

    def apply(self, func, **kwargs):
        return func(self, **kwargs)


def raise_or_wait(learner) -> None:
    if learner.number == 1:
        raise MemoryError("2 GiB are too much")
    time.sleep(WAIT_S)


def die_or_wait(learner) -> None:
    if learner.number == 1:
        os._exit(9)
    time.sleep(WAIT_S)


def die_or_raise(learner) -> None:
    """What learners on gloo do: the others notice that one has gone before Ray does."""
    if learner.number == 0:
        raise RuntimeError("Connection closed by peer")
    time.sleep(0.2)
    os._exit(9)


def wait_or_answer(learner) -> int:
    time.sleep(WAIT_S * (1 - learner.number))
    return learner.number


def last_one_first(learner) -> int:
    time.sleep(0.3 * (1 - learner.number))
    return learner.number


def do_nothing(learner) -> None:
    pass


def place_of(learner):
    return place_here(f"learner {learner.number}")
