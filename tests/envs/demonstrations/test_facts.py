"""Facts about demonstrations are found out once and kept, whatever the verifier says later."""

import logging

import pytest

from prefix_rft_rllib.envs import DemonstrationFacts, load_problem_set
from prefix_rft_rllib.envs.demonstrations.answer_cut import answer_cut
from prefix_rft_rllib.envs.demonstrations.demonstration_rewards import demonstration_reward
from prefix_rft_rllib.envs.demonstrations.solution_steps import step_ends
from tests.envs import fake_verifiers
from tests.envs.problem_data import load

UNDECIDED = "tests.envs.fake_verifiers:undecided"
NAME = DemonstrationFacts.__module__


@pytest.fixture
def undecided(config, write_rows):
    """Four problems: 7 in a box runs out of time, 8 makes the verifier raise."""
    texts = {"a": "2 \\boxed{5}", "b": "3 \\boxed{7}", "c": "3 \\boxed{8}", "d": "2 \\boxed{6}"}
    rows = [
        {"id": name, "prompt": name, "answer": "5", "demonstration": text}
        for name, text in texts.items()
    ]
    data = write_rows(rows, "undecided.jsonl")
    return load_problem_set({**config, "data": data, "verifier": UNDECIDED})


def test_they_are_what_the_functions_of_the_same_names_say(config):
    problems = load(config)
    facts = DemonstrationFacts(problems)
    for key in (("a", 0), ("c", 0), ("c", 1)):
        assert facts.answer_cut(*key) == answer_cut(problems, *key)
        assert facts.step_ends(*key) == step_ends(problems, *key)
        assert facts.reward(*key) == demonstration_reward(problems, *key)


def test_every_fact_is_found_out_once(config, monkeypatch):
    problems = load(config)
    facts = DemonstrationFacts(problems)
    fake_verifiers.calls.clear()
    first = (facts.answer_cut("c", 1), facts.step_ends("c", 1), facts.reward("c", 1))
    assert first == (answer_cut(problems, "c", 1), step_ends(problems, "c", 1), 1.0)
    fake_verifiers.calls.clear()
    monkeypatch.setattr(problems, "tokenizer", None)
    assert (facts.answer_cut("c", 1), facts.step_ends("c", 1), facts.reward("c", 1)) == first
    assert fake_verifiers.calls == []


def test_a_demonstration_without_an_answer_is_graded_once_too(config, write_rows):
    data = write_rows([{"id": "p", "prompt": "?", "answer": "5", "demonstration": "\\boxed{6}"}])
    facts = DemonstrationFacts(load(config, data=data))
    fake_verifiers.calls.clear()
    assert [facts.answer_cut("p", 0), facts.answer_cut("p", 0)] == [None, None]
    assert fake_verifiers.calls == ["\\boxed{6}"]


def test_nothing_is_cut_or_graded_where_the_settings_cut_nothing(config):
    problems = load(config, cut_prefix_before_answer=False)
    fake_verifiers.calls.clear()
    assert DemonstrationFacts(problems).answer_cut("a", 0) is None
    assert fake_verifiers.calls == []
    assert answer_cut(problems, "a", 0) is not None


def test_facts_without_a_verdict_are_kept_and_the_first_is_logged(undecided, caplog):
    facts = DemonstrationFacts(undecided)
    with caplog.at_level(logging.WARNING, NAME):
        cuts = {name: facts.answer_cut(name, 0) for name in "abcd"}
        assert {name: facts.answer_cut(name, 0) for name in "abcd"} == cuts
        assert facts.undecided_cuts == {("b", 0), ("c", 0)}
        assert not facts.undecided_rewards
        rewards = {name: facts.reward(name, 0) for name in "abcd"}
    assert (cuts["b"], cuts["d"]) == (answer_cut(undecided, "b", 0), None)
    assert rewards == {"a": 1.0, "b": 0.0, "c": 0.0, "d": 0.0}
    assert facts.undecided_rewards == {("b", 0), ("c", 0)}
    cut, reward = [r.getMessage() for r in caplog.records if r.name == NAME]
    assert cut.startswith("The verdict of a box in demonstration 0 of problem 'b' is TIMEOUT.")
    assert reward.startswith("The verdict of demonstration 0 of problem 'b' is TIMEOUT.")
    end = "Further such demonstrations are treated in the same way and not logged."
    assert cut.endswith(end)
    assert reward.endswith(end)


def test_an_unknown_demonstration_is_an_error(config):
    facts = DemonstrationFacts(load(config))
    for fact in (facts.answer_cut, facts.step_ends, facts.reward):
        with pytest.raises(ValueError, match=r"\(0\) is out of range: problem 'b' has 0"):
            fact("b", 0)
