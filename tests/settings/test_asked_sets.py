"""From `evaluation_sets` to loaded problems and the way in which they are asked."""

import json
import logging

import pytest

from prefix_rft_rllib.envs import load_problem_set
from prefix_rft_rllib.rollouts.sampling import AS_SET, Sampling
from prefix_rft_rllib.settings.asked_sets import asked_sets
from tests.small_configs import HELD_OUT, small_config


@pytest.fixture
def file(tmp_path) -> str:
    """Four problems, the last with an answer that nobody can give."""
    path = tmp_path / "sums.jsonl"
    answers = ["3", "4", "5", "no number \\frac{"]
    rows = [{"prompt": f"{i} + 3 ?", "answer": answer} for i, answer in enumerate(answers)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.fixture
def asked(tiny_model_dir):
    """Gives what a config with these settings asks."""

    def asked_by(env_config=None, *, preflight=False, **evaluation):
        config = small_config(tiny_model_dir, {"held_out_data": HELD_OUT, **(env_config or {})})
        config.evaluation(evaluation_interval=1, **evaluation).reporting(preflight=preflight)
        config.validate()
        return asked_sets(config, load_problem_set(config.token_env_config()))

    return asked_by


def test_held_out_sets_are_asked_as_the_settings_of_training_say(asked):
    (new,) = asked(held_out_num_samples=5)
    assert (new.name, len(new.problems), new.sampling) == ("new", 3, AS_SET)
    assert (new.options.num_samples, new.options.greedy, new.options.ks) == (5, True, (5,))
    assert new.options.seeds == (3,), "the run's"


def test_a_benchmark_has_the_runs_budgets_and_system_prompt_and_the_recipes_prompt(asked, file):
    sets = {"sums": {"benchmark": f"gsm8k={file}", "num_problems": 2, "greedy": False}}
    long = {"system_prompt": "sum", "max_prompt_tokens": 80}
    (sums,) = asked(long, evaluation_sets=sets)
    settings = sums.problem_set.settings
    assert (settings.system_prompt, settings.max_prompt_tokens) == ("sum", 80)
    assert (settings.max_response_tokens, settings.verifier) == (48, "math")
    assert "Please reason step by step" in settings.prompt_template
    assert [p.prompt for p in sums.problems] == ["0 + 3 ?", "2 + 3 ?"]
    assert (sums.options.num_samples, sums.options.greedy) == (1, False), "the recipe's pass@1"
    assert sums.sampling.env_config["data"] == file


def test_a_set_is_sampled_by_its_own_settings_else_by_those_of_evaluations(asked):
    own = {"new": {"temperature": 0.6, "max_response_tokens": 9}}
    overrides = {"temperature": 0.8, "top_p": 0.9}
    (new,) = asked(evaluation_sets=own, evaluation_config=overrides)
    assert new.sampling == Sampling(temperature=0.6, top_p=0.9, max_response_tokens=9)
    (new,) = asked(evaluation_config=overrides)
    assert new.sampling == Sampling(temperature=0.8, top_p=0.9)


@pytest.mark.parametrize(
    ("own", "message"),
    [
        ({"benchmark": "/nowhere/x.jsonl"}, r"`evaluation_sets\['sums'\]`: .*/nowhere/x.jsonl"),
        (
            {"env_config": {"max_prompt_tokens": 2}},
            r"'sums'\]`: .*more than max_prompt_tokens \(2\)",
        ),
        ({"env_config": {"max_response_tokens": 999}}, r"'sums'\]`: .* exceeds the context of 128"),
        ({"env_config": {"verifer": "math"}}, r"'sums'\]`: Unknown env_config key 'verifer'"),
    ],
)
def test_a_benchmark_that_cannot_be_asked_is_named(own, message, asked, file):
    with pytest.raises(ValueError, match=message):
        asked(evaluation_sets={"sums": {"benchmark": file, **own}})


def test_a_share_too_small_to_hold_out_a_problem_is_an_error(asked):
    nothing = {"held_out_data": {}, "held_out_fraction": 1e-9}
    with pytest.raises(ValueError, match=r"no problem fell into .*held_out_fraction.* \(1e-09\)"):
        asked(nothing)
    with pytest.raises(ValueError, match=r"`evaluation_sets\['held_out'\]` has no problem"):
        asked(nothing, evaluation_sets={"held_out": {}})


def test_answers_that_nobody_can_give_are_said_with_the_preflight(asked, file, caplog):
    caplog.set_level(logging.WARNING)
    sets = {"sums": {"benchmark": file}}
    asked(evaluation_sets=sets)
    assert not caplog.text
    asked(evaluation_sets=sets, preflight=True)
    assert "Evaluation set 'sums': the verifier refuses the gold answers of 1 of 4" in caplog.text
