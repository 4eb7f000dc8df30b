import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from prefix_rft_rllib.core.token_selection import BottomEntropy, Random, TopEntropy
from prefix_rft_rllib.core.token_values import Constant, TrajectoryAdvantage, Value
from prefix_rft_rllib.core.token_weights import (
    Rule,
    SequenceMean,
    TokenMean,
    prepare_weights,
    token_values,
)
from tests.token_batches import batches, make_columns, run_learners

PICTURES = ["xpprr.", "xrrrrr", "xr....", "xddd.."]
ADVANTAGES = [0.5, -0.25, -0.25, 0.0]


def rule(region="response", stream="policy", value=None, **pieces):
    return Rule(region=region, stream=stream, value=value or TrajectoryAdvantage(), **pieces)


def static(a_rule, columns, max_response_tokens=8):
    prepared = prepare_weights((a_rule,), columns, max_response_tokens=max_response_tokens)
    return prepared.rules[0].static


def test_constant_length_divides_by_rollouts_times_longest_response():
    # Three rollouts (the demonstration row is no member), T_max = 8: divisor 24.
    weights = static(rule(), make_columns(PICTURES, ADVANTAGES))
    a, b = 0.5 / 24, -0.25 / 24
    expected = [[0, 0, 0, a, a, 0], [0, b, b, b, b, b], [0, b, 0, 0, 0, 0], [0] * 6]
    torch.testing.assert_close(weights, torch.tensor(expected), rtol=1e-7, atol=0)


def test_constant_length_counts_demonstrations_that_are_group_members():
    columns = make_columns(PICTURES, ADVANTAGES)
    columns = dataclasses.replace(columns, is_member=torch.ones(4, dtype=torch.bool))
    assert static(rule(), columns)[0, 3].item() == pytest.approx(0.5 / 32, rel=1e-7)


def test_constant_length_without_rollouts_is_refused():
    columns = make_columns(["xdd"], [0.0])
    with pytest.raises(ValueError, match="TokenMean"):
        static(rule("demonstration", "imitation", Constant(1.0)), columns)
    # Without such a token there is nothing to divide.
    assert not static(rule(), columns).any()


def test_constant_length_without_rollouts_is_refused_by_every_learner():
    # The second and the third learner have nothing to divide, but would wait for the first.
    columns = make_columns(["xdd", "xx."], [0.0, 0.0])
    columns = dataclasses.replace(columns, is_member=torch.zeros(2, dtype=torch.bool))
    shares = [columns.rows(torch.tensor(rows, dtype=torch.int64)) for rows in ([0], [1], [])]
    a_rule = rule("demonstration", "imitation", Constant(1.0))

    def refusal(share, collectives):
        try:
            return prepare_weights((a_rule,), share, max_response_tokens=8, collectives=collectives)
        except ValueError as error:
            return str(error)

    results = run_learners(shares, refusal)
    assert ["TokenMean" in str(result) for result in results] == [True] * 3


def test_token_mean_divides_by_the_regions_tokens_kept_or_not():
    # Eight response tokens: 2 + 5 + 1. Half of them kept: ceil(4).
    scale = TokenMean()
    weights = static(
        rule(value=Constant(3.0), keep=Random(0.5), scale=scale), make_columns(PICTURES, ADVANTAGES)
    )
    kept = weights[weights != 0]
    assert kept.tolist() == [3.0 / 8] * 4


def test_sequence_mean_gives_every_row_with_tokens_the_same_share():
    # Two rows have prefix tokens (2 and 1); the other two do not count.
    columns = make_columns(["xpprr.", "xprrrr", "xr....", "xddd.."], ADVANTAGES)
    weights = static(
        rule("prefix", "imitation", Constant(1.0), scale=SequenceMean()),
        columns,
    )
    expected = [[0, 0.25, 0.25, 0, 0, 0], [0, 0.5, 0, 0, 0, 0], [0] * 6, [0] * 6]
    assert weights.tolist() == expected


def test_streams_and_rules_add_up_and_other_regions_stay_at_zero():
    columns = make_columns(PICTURES, ADVANTAGES)
    rules = (
        rule(),
        rule(value=Constant(1.0)),
        rule("demonstration", "imitation", Constant(2.0), scale=TokenMean()),
    )
    prepared = prepare_weights(rules, columns, max_response_tokens=8)
    weights = prepared.weights(torch.zeros(4, 6))
    assert weights.policy[0].tolist() == pytest.approx([0, 0, 0, 1.5 / 24, 1.5 / 24, 0], rel=1e-6)
    assert weights.imitation[3].tolist() == pytest.approx([0, 2 / 3, 2 / 3, 2 / 3, 0, 0], rel=1e-6)
    assert not weights.imitation[:3].any()
    assert not weights.policy[3].any()


def test_rows_without_weight_are_not_active():
    # Row 1: no advantage. Row 2: its only prefix token is not kept, and no rule for its response.
    columns = make_columns(
        ["xpr", "xpr", "xpr"], [1.0, 0.0, 1.0], [[0, 2.0, 0], [0, 1.0, 0], [0, 0.5, 0]]
    )
    prepared = prepare_weights(
        (rule("prefix", keep=TopEntropy(0.6)),), columns, max_response_tokens=4
    )
    assert prepared.rules[0].is_kept[:, 1].tolist() == [True, True, False]
    assert prepared.active_rows().tolist() == [True, False, False]
    assert prepared.rows(torch.tensor([2, 0])).active_rows().tolist() == [False, True]
    assert not prepare_weights((), columns, max_response_tokens=4).active_rows().any()


@settings(max_examples=40)
@given(batches(), st.randoms(use_true_random=False), st.integers(1, 4))
def test_micro_batches_cut_the_weights_and_change_nothing(columns, random, size):
    rules = (
        rule(),
        rule("prefix", keep=TopEntropy(0.3)),
        rule("demonstration", "imitation", Constant(1.0), scale=TokenMean()),
    )
    prepared = prepare_weights(rules, columns, max_response_tokens=9)
    whole = prepared.weights(columns.old_logp)
    order = list(range(columns.num_rows))
    random.shuffle(order)
    for start in range(0, len(order), size):
        indices = torch.tensor(order[start : start + size])
        part = prepared.rows(indices)
        weights = part.weights(columns.old_logp[indices])
        assert torch.equal(weights.policy, whole.policy[indices])
        assert torch.equal(weights.imitation, whole.imitation[indices])
        assert part.rules[1].num_kept_tokens == prepared.rules[1].num_kept_tokens


@settings(max_examples=20, deadline=None)
@given(batches(), st.data())
def test_learners_prepare_the_weights_of_one_learner(columns, data):
    rules = (
        rule(keep=BottomEntropy(0.5)),
        rule("prefix", scale=SequenceMean(), keep=Random(0.4)),
        rule("demonstration", "imitation", Constant(1.0), scale=TokenMean()),
    )
    alone = prepare_weights(rules, columns, max_response_tokens=9)
    rows = st.lists(st.integers(0, 2), min_size=columns.num_rows, max_size=columns.num_rows)
    owner = torch.tensor(data.draw(rows))
    shares = [columns.rows(owner == learner) for learner in range(3)]
    results = run_learners(
        shares,
        lambda share, collectives: prepare_weights(
            rules, share, max_response_tokens=9, collectives=collectives
        ),
    )
    for learner, result in enumerate(results):
        for own, reference in zip(result.rules, alone.rules, strict=True):
            assert torch.equal(own.static, reference.static[owner == learner])
            assert own.num_region_tokens == reference.num_region_tokens
            assert own.num_kept_tokens == reference.num_kept_tokens


@dataclasses.dataclass(frozen=True)
class _TwiceTheProbability(Value):
    """A value with a factor that depends on the current policy, and on the iteration."""

    reads = frozenset({"entropy"})

    def base(self, columns, iteration):
        return columns.advantage[:, None] * (columns.entropy + iteration)

    def policy_factor(self, logp):
        return 2 * logp.exp()


def test_a_value_may_depend_on_token_iteration_and_current_policy():
    columns = make_columns(["xpr"], [3.0], [[0.0, 0.5, 1.0]])
    prepared = prepare_weights(
        (rule(value=_TwiceTheProbability()),), columns, max_response_tokens=4, iteration=7
    )
    logp = torch.tensor([[-1.0, float("inf"), -2.0]], requires_grad=True)
    weights = prepared.weights(logp)
    # 3 * (1 + 7) / (1 row * 4) * 2 * exp(-2) at the response token; the infinite factor of the
    # prefix token, which has no rule, leaves no trace.
    expected = 3 * 8 / 4 * 2 * torch.tensor(-2.0).exp().item()
    assert weights.policy[0].tolist() == pytest.approx([0, 0, expected], rel=1e-6)
    assert not weights.policy.requires_grad
    later = prepared.weights(logp.detach() - 1).policy
    assert later[0, 2].item() == pytest.approx(expected * torch.tensor(-1.0).exp().item(), rel=1e-6)


def test_the_values_of_a_rule_have_the_importance_weights_of_the_policy_stream():
    # Before selection and scale: advantage times weight, or the constant alone.
    columns = make_columns(["xr", "xd"], [3.0, 0.0])
    columns = dataclasses.replace(columns, importance_weight=torch.tensor([[1.0, 0.5], [1.0, 1.0]]))
    assert token_values(rule(), columns, 0).tolist() == [[3.0, 1.5], [0.0, 0.0]]
    imitation = rule("demonstration", "imitation", Constant(2.0))
    assert token_values(imitation, columns, 0).tolist() == [[2.0], [2.0]]
    plain = dataclasses.replace(columns, importance_weight=None)
    assert token_values(rule(), plain, 0).tolist() == [[3.0], [0.0]]
    assert token_values(rule(), plain, 0).dtype == torch.float64


def test_unknown_names_list_the_known_ones():
    with pytest.raises(ValueError, match="`region` must be one of 'prefix', 'response', 'demonst"):
        rule("padding")
    with pytest.raises(ValueError, match="`stream` must be one of 'policy', 'imitation'"):
        rule(stream="supervised")


def test_rows_of_one_global_minibatch_have_different_indices():
    columns = make_columns(["xr", "xr"], [1.0, 1.0])
    twice = columns.rows(torch.tensor([0, 0]))
    with pytest.raises(AssertionError, match="row_index"):
        prepare_weights((rule(),), twice, max_response_tokens=4)


def test_a_row_without_a_prompt_is_refused():
    with pytest.raises(AssertionError, match="position 0"):
        prepare_weights((rule(),), make_columns(["rr"], [1.0]), max_response_tokens=4)
