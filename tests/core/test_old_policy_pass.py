"""Pieces say what they read: what they are shown, and which rows need the old-policy pass."""

import dataclasses
from typing import ClassVar

import pytest
import torch

from prefix_rft_rllib.core.old_policy_pass import rows_without_old_policy_pass
from prefix_rft_rllib.core.token_selection import All, Keep, Random, TopEntropy, select_tokens
from prefix_rft_rllib.core.token_values import (
    Constant,
    EntropyScaled,
    Scheduled,
    TrajectoryAdvantage,
    Value,
)
from prefix_rft_rllib.core.token_weights import Rule, prepare_weights, token_values
from prefix_rft_rllib.methods import METHODS, build
from tests.core.test_token_values import MU
from tests.token_batches import make_columns

PICTURES = ["xpprr", "xrrr", "xrr", "xdd", "xDD"]
COLUMNS = make_columns(PICTURES, [0.5, -0.5, 0.0, 0.0, 0.25], rewards=[1.0, 0.0, 0.0, None, 1.0])
BEFORE_THE_PASS = dataclasses.replace(COLUMNS, old_logp=None, entropy=None)


@dataclasses.dataclass(frozen=True)
class Reading(Value):
    """Worth what one column says."""

    column: str
    reads: frozenset[str] = frozenset()

    def base(self, columns, iteration):
        return getattr(columns, self.column) * 1.0


@dataclasses.dataclass(frozen=True)
class ReadingKeep(Keep):
    """A selection by one column."""

    column: str
    reads: frozenset[str] = frozenset()
    keep_fraction: ClassVar[float] = 0.5

    def priority(self, columns):
        return getattr(columns, self.column)


def rule(value, region="demonstration", keep=None):
    return Rule(region=region, stream="imitation", value=value, keep=keep or All())


def without_pass(*rules, iteration=0):
    found = rows_without_old_policy_pass(rules, BEFORE_THE_PASS, iteration)
    return found.nonzero()[:, 0].tolist()


@pytest.mark.parametrize("column", ["old_logp", "entropy"])
def test_rows_of_a_value_that_reads_the_old_policy_need_the_pass(column):
    reading = rule(Reading(column, frozenset({column})))
    sampled = rule(TrajectoryAdvantage(), "response")
    # Row 2 has no advantage; rows 3 and 4 are demonstrations.
    assert without_pass(sampled) == [0, 1]
    assert without_pass(sampled, reading) == [0, 1]
    assert without_pass(sampled, rule(Constant(1.0))) == [0, 1, 3, 4]
    # Row 0 has prefix tokens: what they are worth is read from its pass.
    assert without_pass(sampled, dataclasses.replace(reading, region="prefix")) == [1]
    assert without_pass(rule(Reading(column, frozenset({column})), "response")) == []


def test_a_value_that_reads_rewards_alone_needs_no_pass():
    # Rewards 1, 0, 0 of the rollouts: rows of worth 0 are not trained for sure.
    assert without_pass(rule(Reading("reward", frozenset({"reward"})), "response")) == [0]


def test_a_value_around_another_reads_what_that_one_reads():
    for value in (
        EntropyScaled(Constant(0.5)),
        Scheduled(EntropyScaled(TrajectoryAdvantage(), 1.0), MU),
        Scheduled(Reading("old_logp", frozenset({"old_logp"})), MU),
        EntropyScaled(Reading("reward", frozenset({"reward"}))),
    ):
        a_rule = rule(value)
        assert without_pass(a_rule, iteration=15) == []
        token_values(a_rule, COLUMNS, 15)
    assert rule(EntropyScaled(Reading("reward", frozenset({"reward"})))).reads == {
        "entropy",
        "reward",
    }


def test_rows_among_whose_tokens_a_selection_chooses_need_the_pass():
    sampled = rule(TrajectoryAdvantage(), "response")
    for keep in (TopEntropy(0.2), Random(0.2), ReadingKeep("old_logp", frozenset({"old_logp"}))):
        assert without_pass(sampled, rule(TrajectoryAdvantage(), "prefix", keep)) == [1]


@pytest.mark.parametrize("name", METHODS)
def test_no_method_reads_what_it_does_not_declare(name):
    for objective in build(name).objectives():
        rows_without_old_policy_pass(objective.rules, BEFORE_THE_PASS, 3)
        prepare_weights(objective.rules, COLUMNS, max_response_tokens=8, iteration=3)


@pytest.mark.parametrize("columns", [COLUMNS, BEFORE_THE_PASS])
@pytest.mark.parametrize("column", ["old_logp", "entropy", "reward"])
def test_reading_without_saying_so_is_refused_whenever_it_happens(columns, column):
    # With two epochs too, where all rows have the pass: else it would fail with one epoch only.
    message = rf"reads `{column}` without saying so\. Add the name to its `reads`"
    a_rule = rule(Reading(column))
    with pytest.raises(ValueError, match=rf"Reading\(column='{column}'.*{message}"):
        prepare_weights((a_rule,), columns, max_response_tokens=8)
    with pytest.raises(ValueError, match=message):
        rows_without_old_policy_pass((a_rule,), columns, 0)
    with pytest.raises(ValueError, match=message):
        select_tokens(ReadingKeep(column), columns, columns.is_prefix)
    # Around it, too: the outer value does not say it.
    with pytest.raises(ValueError, match=message):
        token_values(rule(Scheduled(Reading(column), MU)), columns, 5)


@pytest.mark.parametrize("column", ["old_logp", "entropy"])
def test_reading_before_the_pass_is_refused(column):
    reads = frozenset({column})
    for call in (
        lambda: prepare_weights(
            (rule(Reading(column, reads)),), BEFORE_THE_PASS, max_response_tokens=8
        ),
        lambda: select_tokens(
            ReadingKeep(column, reads), BEFORE_THE_PASS, BEFORE_THE_PASS.is_prefix
        ),
    ):
        with pytest.raises(ValueError, match=f"reads `{column}`, which the old-policy pass writes"):
            call()


def test_columns_that_are_always_there_need_no_mention():
    for column in ("advantage", "row_index", "is_member", "input_ids", "is_response", "is_answer"):
        assert token_values(rule(Reading(column)), BEFORE_THE_PASS, 0).shape[0] == len(PICTURES)


@pytest.mark.parametrize("reads", ["entropy", {"entropies"}, {"entropy", "logp"}, {"advantage"}])
def test_a_declaration_of_unknown_names_is_refused(reads):
    known = "'entropy', 'old_logp', 'reward'"
    with pytest.raises(ValueError, match=rf"`reads` of .* must be a set of names among {known}"):
        rule(Reading("advantage", reads))
    with pytest.raises(ValueError, match="`reads` of ReadingKeep"):
        rule(Constant(1.0), keep=ReadingKeep("advantage", reads))


def test_what_is_shown_is_what_is_there():
    value = Reading("entropy", frozenset({"entropy"}))
    shown = token_values(rule(value), COLUMNS, 0)
    assert torch.equal(shown, COLUMNS.entropy.double())
