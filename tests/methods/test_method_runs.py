"""Every method in a run: it trains, and what is particular to it happens."""

import math

import numpy as np
import pytest
from ray.rllib.core import DEFAULT_MODULE_ID

from prefix_rft_rllib import methods
from prefix_rft_rllib.methods import METHODS
from prefix_rft_rllib.runs.run_directory import read_metrics, read_minibatches, read_rollouts
from tests.algorithm_runs import ROLLOUT_FIELDS, weights_of
from tests.method_runs import NUM_ITERATIONS, method_config

pytest_plugins = ("tests.algorithm_fixtures",)
pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("cluster")]

NUM_MINIBATCHES = 2
WINDOW_LOW = "rollouts/prefix_window_low"
DEMONSTRATION_LOSS = "learner/demonstration_loss"
NUM_TRAINED_ROWS = "learner/num_trained_rows"


def minibatches_of(run) -> dict[int, list[dict]]:
    """The optimizer steps by iteration."""
    found: dict[int, list[dict]] = {}
    for row in read_minibatches(run.run_dir):
        found.setdefault(row["training_iteration"], []).append(row)
    return found


def records_of(run, iteration: int) -> list:
    return read_rollouts(run.run_dir / "rollouts" / f"iteration_{iteration:06d}.jsonl.gz")


@pytest.mark.parametrize("name", METHODS)
def test_every_method_takes_finite_steps_that_move_the_weights(method_run, name):
    run = method_run(name)
    steps = minibatches_of(run)
    assert sorted(steps) == list(range(1, NUM_ITERATIONS + 1))
    for iteration, numbers in run.numbers.items():
        own = [step for step in steps[iteration] if not step["objective"].endswith("imitation")]
        assert len(own) == NUM_MINIBATCHES == numbers["learner/num_optimizer_steps"]
        assert numbers["learner/num_nonfinite_steps"] == 0
        assert numbers["rollouts/num_groups"] == 4
        for step in steps[iteration]:
            assert math.isfinite(step["loss"])
            assert 0 <= step["grad_norm"] < math.inf
        assert numbers["learner/grad_norm"] > 0
        # What every method reports, in every iteration: `flatten` leaves NaN out.
        assert {"learner/loss", "learner/grad_norm", "learner/lr"} <= numbers.keys()
        weights = run.weights[iteration]
        assert all(np.isfinite(value).all() for value in weights.values())
        if iteration > 1:
            before = run.weights[iteration - 1]
            assert any((weights[key] != before[key]).any() for key in weights)


@pytest.mark.parametrize("name", METHODS)
def test_the_gap_between_engine_and_learner_is_logged_whenever_tokens_are_sampled(method_run, name):
    for numbers in method_run(name).numbers.values():
        is_sampled = numbers["rollouts/num_sampled_tokens"] > 0
        for key in ("learner/engine_logp_gap_mean", "learner/engine_logp_gap_max"):
            assert (key in numbers) == is_sampled
            assert numbers.get(key, 0.0) < 1e-3
        assert "learner/importance_weight_mean" not in numbers


def test_importance_weights_are_logged_with_their_cap_only(method_run):
    for numbers in method_run("prefix_rft", importance_weight_cap=2.0).numbers.values():
        # Engine and learner are the same numbers up to rounding.
        assert numbers["learner/importance_weight_mean"] == pytest.approx(1.0, abs=1e-4)


def test_prefix_rft_without_any_share_is_rft_bit_for_bit(method_run):
    nothing = {"low_start": 0.0, "low_end": 0.0, "high": 0.0}
    run, rft = method_run("prefix_rft", method_config=nothing), method_run("rft")
    for iteration, weights in rft.weights.items():
        assert run.rollouts[iteration] == rft.rollouts[iteration]
        for key, value in weights.items():
            assert (run.weights[iteration][key] == value).all(), key


def test_the_adaptive_window_moves_with_the_rewards_and_the_draws_follow(method_run):
    run = method_run("prefix_rft_adaptive")
    low, plain = 0.75, None
    for iteration, numbers in run.numbers.items():
        assert numbers["rollouts/prefix_window_low"] == pytest.approx(low, abs=1e-9)
        assert numbers["rollouts/prefix_window_high"] == pytest.approx(low + 0.2, abs=1e-9)
        hybrids = [record for record in records_of(run, iteration) if record.prefix_fraction]
        assert len(hybrids) == 4
        for hybrid in hybrids:
            assert hybrid.window_low <= hybrid.prefix_fraction <= hybrid.window_high
        # The first meeting of the 12 problems: nobody has an offset from the run's window.
        if iteration <= 3:
            assert {hybrid.window_low for hybrid in hybrids} == {numbers[WINDOW_LOW]}
        # By hand: half the distance from 0.5, at most 0.1; down where plain rollouts earn 0.4.
        earned = numbers["rollouts/reward_plain_mean"]
        plain = earned if plain is None else 0.8 * plain + 0.2 * earned
        step = 0.5 * (0.5 - numbers["rollouts/reward_prefix_mean"]) if plain < 0.4 else -0.1
        low = min(max(low + min(max(step, -0.1), 0.1), 0.05), 0.75)
    assert low < 0.75


def test_uft_gives_each_group_one_hint_and_none_after_its_schedule(method_run):
    run = method_run("uft")
    for iteration in (1, 2, 3):
        hints = {
            (record.group_id, record.num_prefix_tokens) for record in records_of(run, iteration)
        }
        assert len(hints) == 4
        num_given = sum(4 for _, num_prefix_tokens in hints if num_prefix_tokens)
        assert run.numbers[iteration]["rollouts/num_prefix_rollouts"] == num_given >= 4
    assert run.numbers[4]["rollouts/num_prefix_rollouts"] == 0
    assert run.numbers[4]["rollouts/prefix_window_high"] == 0.0


def test_luffys_demonstration_is_the_last_member_with_reward_advantage_and_shaped_weight(
    method_run,
):
    run = method_run("luffy")
    num_with_signal = 0
    for iteration, numbers in run.numbers.items():
        records = records_of(run, iteration)
        assert [record.member for record in records] == [0, 1, 2, 3] * 4
        assert numbers["rollouts/num_rollouts"] == 12
        groups = [records[start : start + 4] for start in range(0, 16, 4)]
        rewards = [group[3].reward for group in groups]
        assert numbers["rollouts/reward_demonstration_mean"] == sum(rewards) / 4
        for group in groups:
            assert set(group[3].region) == {"demonstration"}
            assert set(group[0].region) == {"response"}
            mean = sum(member.reward for member in group) / 4
            for member in group:
                assert member.advantage == pytest.approx(member.reward - mean, abs=1e-7)
            num_with_signal += group[3].advantage != 0
            # The gradient of A * p / (p + 0.1): A * 0.1 * p / (p + 0.1)^2, p at the old policy.
            p = np.exp(np.array(group[3].old_logp))
            expected = group[3].advantage * 0.1 * p / (p + 0.1) ** 2
            assert group[3].weight == pytest.approx(expected.tolist(), rel=1e-4, abs=1e-9)
    assert num_with_signal > 4


def test_chords_demonstrations_weigh_mu_times_phi_and_its_rollouts_the_rest(method_run):
    run = method_run("chord")
    # A warm-up of one iteration, then 0.02 + 0.48 * (1 + cos(pi t / 3)) / 2 for t = 0, 1, 2.
    mus = [0.0] + [0.02 + 0.24 * (1 + math.cos(math.pi * t / 3)) for t in range(3)]
    for iteration, mu in enumerate(mus, 1):
        rows = records_of(run, iteration)
        demonstrations = [record for record in rows if record.member is None]
        assert len(demonstrations) == 4
        assert len(rows) == 20
        for record in demonstrations:
            p = np.exp(np.array(record.old_logp))
            assert record.weight == pytest.approx((mu * p * (1 - p)).tolist(), rel=1e-3, abs=1e-7)
        for record in rows:
            if record.member is not None:
                expected = (1 - mu) * record.advantage
                assert record.weight == pytest.approx([expected] * len(record.weight), rel=1e-5)


def test_chord_is_grpo_while_mu_is_0_and_no_longer(method_run):
    run, grpo = method_run("chord"), method_run("grpo")
    assert run.numbers[1]["learner/grad_norm"] == grpo.numbers[1]["learner/grad_norm"]
    for key, value in grpo.weights[1].items():
        assert (run.weights[1][key] == value).all(), key
    # The same rollouts in the second iteration, and now demonstrations beside them.
    member = ROLLOUT_FIELDS.index("member")
    rollouts = [rollout for rollout in run.rollouts[2] if rollout[member] is not None]
    assert rollouts == grpo.rollouts[2]
    assert run.numbers[2]["learner/num_trained_rows"] >= grpo.numbers[2][NUM_TRAINED_ROWS] + 4
    assert any((run.weights[2][key] != value).any() for key, value in grpo.weights[2].items())


def test_relift_takes_a_step_on_failed_problems_when_enough_wait(method_run):
    run = method_run("relift")
    waiting, with_step = 0, []
    for iteration, numbers in run.numbers.items():
        records = records_of(run, iteration)
        solved = {record.group_id for record in records if record.verdict == "CORRECT"}
        waiting += 4 - len(solved)
        steps = [s for s in minibatches_of(run)[iteration] if s["objective"] == "imitation"]
        assert len(steps) == (waiting >= 3)
        own = {key: value for key, value in numbers.items() if key.startswith("imitation_step/")}
        if not steps:
            assert own == {}
            continue
        waiting -= 3
        with_step.append(iteration)
        assert own == {
            "imitation_step/num_rows": 3,
            "imitation_step/loss": steps[0]["loss"],
            "imitation_step/grad_norm": steps[0]["grad_norm"],
            "imitation_step/lr": 5e-3,
        }
        assert steps[0]["minibatch"] == 0
        # The update's own metrics are those of the other steps.
        assert numbers["learner/num_optimizer_steps"] == NUM_MINIBATCHES
        assert numbers["learner/lr"] == 1e-2
    assert 0 < len(with_step) < NUM_ITERATIONS


def test_the_metrics_of_an_imitation_step_are_in_the_rows_of_its_iterations(method_run):
    run = method_run("relift")
    for row in read_metrics(run.run_dir):
        numbers = run.numbers[row["training_iteration"]]
        own = {key for key in numbers if key.startswith("imitation_step/")}
        assert own == {key for key in row if key.startswith("imitation_step/")}
        assert {key: row[key] for key in own} == {key: numbers[key] for key in own}


def test_the_stages_of_sft_rft_follow_each_other(method_run):
    run = method_run("sft_rft")
    steps = minibatches_of(run)
    objectives = [step["objective"] for iteration in steps for step in steps[iteration]]
    assert objectives == ["stage_1"] * 4 + ["stage_2"] * 4
    # Two iterations of two steps each; the warm-up of half of them ends with the second step.
    assert [step["lr"] for i in (1, 2) for step in steps[i]] == [5e-4, 1e-3, 1e-3, 1e-3]
    assert [step["lr"] for i in (3, 4) for step in steps[i]] == [1e-2] * 4
    assert [step["step"] for iteration in steps for step in steps[iteration]] == [0, 1, 2, 3] * 2
    num_rollouts = [numbers["rollouts/num_rollouts"] for numbers in run.numbers.values()]
    assert num_rollouts == [0, 0, 16, 16]
    assert run.numbers[1]["learner/demonstration_loss"] > run.numbers[2][DEMONSTRATION_LOSS]
    assert DEMONSTRATION_LOSS not in run.numbers[3]


def test_the_second_stage_starts_from_the_firsts_weights_with_a_fresh_optimizer(
    method_run, make_config, tmp_path
):
    run = method_run("sft_rft")
    # The control: plain RFT in its first iteration, with the weights of SFT's end.
    config = method_config(make_config, "rft").reporting(run_dir=str(tmp_path))
    algo = config.build_algo()
    component = f"learner_group/learner/rl_module/{DEFAULT_MODULE_ID}"
    algo.restore_from_path(f"{run.checkpoints[2]}/{component}", component=component)
    algo._iteration = 2  # the same problems and draws
    algo.train()
    for key, value in weights_of(algo).items():
        assert (value == run.weights[3][key]).all(), key
    algo.stop()


def test_the_config_schedule_of_a_second_stage_starts_with_it(method_run):
    run = method_run("sft_rft", lr_warmup_steps=4, lr_schedule="constant")
    steps = minibatches_of(run)
    # The first stage has a rate of its own; the second one counts from its own first step.
    rates = [step["lr"] for i in (3, 4) for step in steps[i]]
    assert rates == pytest.approx([2.5e-3, 5e-3, 7.5e-3, 1e-2], rel=1e-12)


def test_a_finished_stage_leaves_no_optimizer_state_behind(make_config, tmp_path):
    config = method_config(make_config, "sft_rft").reporting(run_dir=str(tmp_path))
    algo = config.build_algo()
    num_states = []
    for _ in range(3):
        algo.train()
        learner = algo.learner_group._learner
        num_states.append(
            [
                len(learner.get_optimizer(DEFAULT_MODULE_ID, name).state)
                for name in ("stage_1", "stage_2")
            ]
        )
    num_parameters = len(list(learner.module[DEFAULT_MODULE_ID].parameters()))
    assert num_states == [[num_parameters, 0], [num_parameters, 0], [0, num_parameters]]
    algo.stop()


def test_a_ready_method_of_own_pieces_trains_in_stages_with_imitation_steps(make_config, tmp_path):
    relift = methods.relift(buffer_size=1, imitation_lr=1e-3)
    stages = (
        methods.Stage(method=relift, num_iterations=2),
        methods.Stage(method=relift, lr=1e-3),
    )
    method = methods.Method(name="relift_twice", stages=stages)
    config = method_config(make_config, "relift", method=method, method_config={})
    algo = config.reporting(run_dir=str(tmp_path)).build_algo()
    for _ in range(NUM_ITERATIONS):
        algo.train()
    algo.stop()
    names = [(row["training_iteration"], row["objective"]) for row in read_minibatches(tmp_path)]
    assert {name for iteration, name in names if iteration <= 2} == {
        "stage_1",
        "stage_1_imitation",
    }
    assert {name for iteration, name in names if iteration > 2} == {
        "stage_2",
        "stage_2_imitation",
    }
