"""What is asked: options and their ranges, plans, and draws that depend on nothing else."""

import pytest

from prefix_rft_rllib.evaluation.options import EvaluationOptions
from prefix_rft_rllib.evaluation.questions import Question, calls, plan, rollouts, spread_evenly


def test_a_plan_has_the_greedy_attempts_first_and_then_those_of_each_seed():
    assert plan(["a", "b"], num_samples=2, seeds=(5, 7), greedy=True) == [
        [Question("a", None, 0), Question("b", None, 0)],
        [Question("a", 5, 0), Question("a", 5, 1), Question("b", 5, 0), Question("b", 5, 1)],
        [Question("a", 7, 0), Question("a", 7, 1), Question("b", 7, 0), Question("b", 7, 1)],
    ]
    assert plan(["a"], num_samples=0, seeds=(0,), greedy=True) == [[Question("a", None, 0)]]
    assert plan(["a"], num_samples=1, seeds=(0,), greedy=False) == [[Question("a", 0, 0)]]


def test_draws_are_functions_of_seed_problem_and_member():
    questions = [Question(p, s, m) for p in "ab" for s in (0, 1) for m in range(3)]
    planned = rollouts(questions)
    assert len({rollout.seed for rollout in planned}) == 12
    assert [r.seed for r in rollouts(questions[::-1])] == [r.seed for r in planned][::-1]
    assert all(r.num_prefix_tokens == 0 for r in planned)
    # The groups of a call are told apart by problem and seed.
    assert len({(r.group_id, r.member) for r in planned}) == 12


def test_calls_cut_the_plan_at_fixed_places():
    questions = [Question("a", 0, m) for m in range(5)]
    assert [len(call) for call in calls(questions, 2)] == [2, 2, 1]


def test_fewer_problems_are_spread_over_the_file():
    assert spread_evenly("abcdefgh", 4) == ["a", "c", "e", "g"]
    assert spread_evenly("abcde", 2) == ["a", "c"]  # 0 * 5 // 2, 1 * 5 // 2
    assert spread_evenly("abc", 3) == spread_evenly("abc", None) == spread_evenly("abc", 9)


def test_the_protocol_fills_in_what_is_not_given():
    assert EvaluationOptions().of_protocol(32).ks == (1, 2, 4, 8, 16, 32)
    assert EvaluationOptions(num_samples=6).of_protocol(32).ks == (1, 2, 4, 6)
    assert EvaluationOptions(num_samples=3000).of_protocol(1).ks[-2:] == (1024, 2048)
    assert EvaluationOptions(num_samples=0).of_protocol(32).ks == ()
    assert EvaluationOptions(num_samples=8, ks=(3, 1)).of_protocol(1).ks == (1, 3)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"ks": (0,)}, r"`ks` must be a list of whole numbers of at least 1, got \(0,\)"),
        ({"num_samples": -1}, "`num_samples` must be a whole number of at least 0"),
        ({"num_problems": 0}, "`num_problems` must be a whole number of at least 1"),
        ({"temperature": 0.0}, "`temperature` must be a finite number above 0.*num_samples=0"),
        ({"seeds": ()}, "`seeds` must hold one or more different seeds"),
        ({"seeds": (1, 1)}, "`seeds` must hold one or more different seeds"),
        ({"engine": "llama"}, "`engine` must be 'transformers' or 'vllm'"),
        ({"top_p": 95}, "`top_p` must be in .0, 1., got 95"),
        ({"breakdown": "domain"}, "`breakdown` must be a list of names"),
    ],
)
def test_a_wrong_option_is_a_clear_error(values, message):
    with pytest.raises(ValueError, match=message):
        EvaluationOptions(**values)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"ks": (8,), "num_samples": 4}, "`ks` has 8, but there are 4 sampled attempts"),
        ({"ks": (4096,), "num_samples": 5000}, "given up to 2048"),
        ({"num_samples": 0, "greedy": False}, "Nothing to ask"),
    ],
)
def test_options_that_do_not_fit_the_protocol_are_a_clear_error(values, message):
    with pytest.raises(ValueError, match=message):
        EvaluationOptions(**values).of_protocol(1)
