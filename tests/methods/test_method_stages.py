"""Stages and separate steps: which method runs when, and what the learners get to know of it."""

import dataclasses

import pytest

from prefix_rft_rllib import methods
from prefix_rft_rllib.core.demonstration_rows import EveryStep
from prefix_rft_rllib.core.objectives import Objective
from prefix_rft_rllib.core.surrogates import NoClip
from prefix_rft_rllib.core.token_values import Constant
from prefix_rft_rllib.core.token_weights import TokenMean
from prefix_rft_rllib.methods import METHODS, ActiveStage, ImitationStep, Method, Stage, build
from prefix_rft_rllib.methods.method import MAIN, SFT_RULE


def three_stages():
    return Method(
        name="three",
        stages=(
            Stage(method=methods.sft(), num_iterations=3, lr=1e-4, num_warmup_iterations=2),
            Stage(method=methods.relift(imitation_lr=2e-6), num_iterations=4),
            Stage(method=methods.luffy()),
        ),
    )


def test_a_method_without_stages_is_one_stage_for_ever():
    method = methods.rft()
    for iteration in (0, 1, 10_000):
        assert method.stage_at(iteration) == ActiveStage(0, method, 0, MAIN, "imitation")


def test_stages_follow_each_other_by_hand():
    # Iterations 0-2, 3-6, from 7 on.
    method = three_stages()
    numbers = [method.stage_at(iteration).number for iteration in range(10)]
    assert numbers == [0, 0, 0, 1, 1, 1, 1, 2, 2, 2]
    assert [method.stage_at(iteration).start for iteration in (0, 2, 3, 6, 7, 900)] == [
        0,
        0,
        3,
        3,
        7,
        7,
    ]
    second = method.stage_at(4)
    assert second.method == methods.relift(imitation_lr=2e-6)
    assert (second.objective, second.imitation) == ("stage_2", "stage_2_imitation")


def test_a_last_stage_of_some_length_goes_on_to_the_end_too():
    first = Stage(method=methods.sft(), num_iterations=2)
    last = Stage(method=methods.rft(), num_iterations=5)
    method = Method(name="two", stages=(first, last))
    assert [method.stage_at(iteration).number for iteration in (0, 1, 2, 6, 7, 99)] == [0, 0] + [
        1
    ] * 4


def test_sft_rft_by_its_definition():
    # SFT at its own rate with a tenth of warm-up, then RFT at the config's rate, all else anew.
    method = methods.sft_rft(num_sft_iterations=40)
    sft, rft = method.objectives()
    assert sft == Objective(
        name="stage_1", stage=0, rules=(SFT_RULE,), lr=5e-5, num_warmup_iterations=4
    )
    assert rft == Objective(name="stage_2", stage=1, rules=methods.rft().rules)
    assert method.stage_at(39).method == methods.sft()
    assert method.stage_at(40)[:3] == (1, methods.rft(), 40)
    # 3 epochs of 45,792 problems, 128 an iteration.
    assert methods.sft_rft().stages[0].num_iterations == 3 * 45_792 // 128 == 1073


def test_without_a_rate_of_its_own_sft_has_no_warm_up_of_its_own():
    first = methods.sft_rft(num_sft_iterations=40, sft_lr=None).stages[0]
    assert (first.lr, first.num_warmup_iterations) == (None, 0)


def test_relifts_objectives_by_its_definition():
    main, imitation = methods.relift().objectives()
    assert main == Objective(name=MAIN, rules=methods.rft().rules, surrogate=NoClip())
    assert imitation == Objective(name="imitation", rules=(SFT_RULE,), lr=1e-6)
    assert (SFT_RULE.value, SFT_RULE.scale) == (Constant(1.0), TokenMean())
    assert ImitationStep().demonstration_rows == EveryStep(1)


def test_every_optimizer_of_a_method_of_stages_has_a_name_of_its_own():
    names = [(o.name, o.stage, o.lr) for o in three_stages().objectives()]
    assert names == [
        ("stage_1", 0, 1e-4),
        ("stage_2", 1, None),
        ("stage_2_imitation", 1, 2e-6),
        ("stage_3", 2, None),
    ]


@pytest.mark.parametrize("name", sorted(METHODS))
def test_the_objectives_are_those_that_the_iterations_ask_for(name):
    method = build(name)
    objectives = {objective.name: objective for objective in method.objectives()}
    asked = set()
    for iteration in range(2000):
        stage = method.stage_at(iteration)
        objective = objectives[stage.objective]
        assert (objective.stage, objective.rules) == (stage.number, stage.method.rules)
        assert objective.surrogate == stage.method.surrogate
        asked.add(stage.objective)
        if stage.method.after_step is not None:
            assert objectives[stage.imitation].rules == stage.method.after_step.rules
            asked.add(stage.imitation)
    assert asked == set(objectives)
    if not method.stages:
        # One name for all methods: a run may change its method and keep the optimizer.
        assert method.objectives()[0].name == MAIN == "default_optimizer"


@pytest.mark.parametrize("name", sorted(METHODS))
def test_what_a_method_needs_follows_from_its_pieces(name):
    method = build(name)
    assert method.has_rollouts == (name not in ("sft", "dft", "trsft", "psft"))
    needs = {
        "sft",
        "sft_rft",
        "rl_with_sft_loss",
        "luffy",
        "relift",
        "chord",
        "dft",
        "trsft",
        "psft",
    }
    assert method.needs_demonstrations == (name in needs)


def test_all_stages_are_checked_against_the_size_of_the_groups():
    with pytest.raises(ValueError, match="'relift'"):
        three_stages().check(1)
    three_stages().check(2)
    first = Stage(method=methods.prefix_rft(num_prefix_rollouts=5), num_iterations=1)
    with pytest.raises(ValueError, match="`num_prefix_rollouts`"):
        Method(name="two", stages=(first, Stage(method=methods.rft()))).check(4)


def test_a_stage_without_a_length_has_to_be_the_last():
    endless = Stage(method=methods.sft())
    with pytest.raises(ValueError, match=r"Stage 1 of 'two' needs `num_iterations`.* 2 stages"):
        Method(name="two", stages=(endless, Stage(method=methods.rft())))


def test_stages_have_no_stages():
    inner = Stage(method=methods.sft_rft(), num_iterations=3)
    with pytest.raises(ValueError, match="Stage 2 of 'nested' has stages of its own"):
        Method(
            name="nested",
            stages=(Stage(method=methods.sft(), num_iterations=1), inner),
        )


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_iterations": 0}, "`num_iterations` must be a whole number of at least 1, got 0"),
        ({"num_iterations": 2.5}, "`num_iterations` must be a whole number"),
        ({"lr": -1e-5}, "`lr` must be .*at least 0, got -1e-05"),
        ({"lr": float("nan")}, "`lr` must be"),
        ({"lr": "1e-5"}, "`lr` must be"),
        (
            {"lr": 1e-5, "num_warmup_iterations": -1},
            "`num_warmup_iterations` must be a whole number",
        ),
        ({"num_warmup_iterations": 3}, r"`num_warmup_iterations` \(3\).*`lr_warmup_steps`"),
    ],
)
def test_stages_that_make_no_sense_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        Stage(method=methods.sft(), **settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"buffer_size": 0}, "`buffer_size` must be a whole number of at least 1"),
        ({"buffer_size": 1.5}, "`buffer_size` must be a whole number"),
        ({"lr": -1.0}, "`lr` must be"),
        ({"lr": None}, "`lr` must be"),
    ],
)
def test_separate_steps_that_make_no_sense_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        ImitationStep(**settings)


def test_pieces_of_methods_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        methods.rft().surrogate = NoClip()
    with pytest.raises(dataclasses.FrozenInstanceError):
        methods.sft_rft().stages[0].lr = 1.0
