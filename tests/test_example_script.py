"""Options of the example scripts: each has its effect or is an error; the scripts' docstrings."""

import argparse
import ast
from pathlib import Path

import pytest
from ray.rllib.examples.utils import add_rllib_example_script_args

from tests.small_configs import config

# The example scripts, as they import each other.
import example_script as example  # isort: skip
import math_prefix_rft  # isort: skip
import toy_arithmetic_methods  # isort: skip
from toy_arithmetic_prefix_rft import MIN_ACCURACY, argument_parser, build_config  # isort: skip

EXAMPLES = Path(example.__file__).parent
LIBRARIES = {"example_script.py", "method_styles.py", "resumable_run.py"}
SCRIPTS = sorted({path.name for path in EXAMPLES.glob("*.py")} - LIBRARIES)


def options_of(*arguments: str) -> argparse.Namespace:
    parser = argument_parser("Train.", 80)
    parser.set_defaults(min_accuracy=MIN_ACCURACY)
    return example.parse_options(parser, arguments)


def error_of(capsys, parse, *arguments: str) -> str:
    with pytest.raises(SystemExit) as ended:
        parse(*arguments)
    assert ended.value.code == 2
    return " ".join(capsys.readouterr().err.split("error: ")[-1].split())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--algo", "PPO"), "argument --algo: invalid choice: 'PPO' (choose from"),
        (("--framework", "tf2"), "argument --framework: invalid choice: 'tf2' (choose from"),
        (("--num-agents", "2"), "--num-agents has no effect: one language model is trained"),
        (("--num-agents=2",), "--num-agents has no effect"),
        (("--env", "CartPole-v1"), "--env has no effect: each script has problems of its own"),
        (("--evaluation-duration", "3"), "--evaluation-duration has no effect: the env runners"),
        (("--evaluation-parallel-to-training",), "--evaluation-parallel-to-training has no effect"),
        (("--output", "rows"), "--output has no effect: the run directory holds the rollouts"),
        (("--num-gpus", "1"), "--num-gpus belongs to RLlib's old API stack. Use --num-gpus-per"),
        (("--old-api-stack",), "--old-api-stack belongs to RLlib's old API stack"),
        (("--local-mode",), "--local-mode is no more in Ray. With --num-env-runners 0"),
        (("--wandb-key", "k"), "--wandb-key has no effect without Ray Tune: add --tune"),
        (("--num-samples", "2"), "--num-samples has no effect without Ray Tune: add --tune"),
        (("--tune", "--log"), "--log has no effect with --tune: look into the trial's directory"),
        (("--tune", "--run-dir", "r"), "--run-dir has no effect with --tune"),
        (("--tune", "--resume"), "--resume has no effect with --tune"),
        (("--tune", "--wandb-project", "p"), "--wandb-project has no effect without --wandb-key"),
        (("--tune", "--as-test"), "--as-test needs --stop-reward"),
        (("--stop-iters", "0"), "--stop-iters must be at least 1, got 0"),
        (("--num-iterations", "0"), "--stop-iters must be at least 1, got 0"),
        (("--stop-reward", "nan"), "--stop-reward must be a finite number, got nan"),
        (("--stop-timesteps", "0"), "--stop-timesteps must be at least 1, got 0"),
        (("--checkpoint-freq=-1",), "--checkpoint-freq must be at least 0, got -1"),
        (("--evaluation-interval=-1",), "--evaluation-interval must be at least 0"),
        (("--num-cpus=-1",), "--num-cpus must be at least 0, got -1"),
        (("--num-held-out", "0"), "--num-held-out must be at least 1, got 0"),
        (("--tune", "--num-samples=-1"), "--num-samples must be at least 1"),
        (("--tune", "--max-concurrent-trials=-1"), "--max-concurrent-trials must be at least 0"),
        (("--stop-rew", "1"), "unrecognized arguments: --stop-rew 1"),
    ],
)
def test_an_option_without_effect_is_an_error_with_the_reason(
    arguments, message, capsys, monkeypatch
):
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    assert message in error_of(capsys, options_of, *arguments)


def test_all_options_of_rllibs_examples_are_known_and_stay_at_rllibs_defaults_where_refused():
    own, rllib = options_of(), add_rllib_example_script_args().parse_args([])
    assert vars(rllib).keys() <= vars(own).keys(), "RLlib's frame reads them"
    for option in example.NO_EFFECT:
        name = option.lstrip("-").replace("-", "_")
        assert getattr(own, name) == getattr(rllib, name)


def test_without_options_the_settings_are_the_scripts_own():
    own = build_config("rft", seed=1, num_iterations=80, num_held_out=64).to_dict()
    applied = build_config("rft", seed=1, num_iterations=80, num_held_out=64)
    assert example.apply_options(applied, options_of()).to_dict() == own
    assert example.stop_criteria(options_of()) == {"training_iteration": 80}


def test_options_change_the_config_and_end_the_run():
    scale = ("--num-env-runners=3", "--num-envs-per-env-runner=5", "--num-learners=2")
    learners = ("--num-cpus-per-learner=2", "--num-gpus-per-learner=0.5", "--log-level=INFO")
    stop = ("--stop-iters=7", "--stop-reward=0.9", "--stop-timesteps=1000")
    args = options_of(*scale, *learners, *stop, "--evaluation-interval=4")
    changed = example.apply_options(config(), options_of(*scale, *learners, "--checkpoint-freq=3"))
    assert changed.every == 3
    tuned = example.apply_options(config(), options_of("--tune", "--checkpoint-freq=3"))
    assert tuned.every is None, "Tune writes them"
    changed = example.apply_options(config(), args)
    assert (changed.num_env_runners, changed.num_envs_per_env_runner) == (3, 5)
    assert (changed.num_learners, changed.num_cpus_per_learner) == (2, 2)
    assert (changed.num_gpus_per_learner, changed.log_level) == (0.5, "INFO")
    assert changed.evaluation_interval == 4
    never = example.apply_options(changed, options_of("--evaluation-interval=0"))
    assert never.evaluation_interval is None
    assert example.stop_criteria(args) == {
        "training_iteration": 7,
        "env_runners/episode_return_mean": 0.9,
        "env_runners/num_env_steps_sampled_lifetime": 1000,
    }
    assert options_of("--num-iterations", "7").stop_iters == 7


def test_as_test_compares_the_reward_or_else_the_accuracy():
    result = {"env_runners": {"episode_return_mean": 0.5}}
    held_out = {"new": {"avg_at_k": 0.8}, "harder": {"avg_at_k": 0.39}}
    missed = example.shortfalls(options_of("--as-test"), result, held_out)
    assert missed == ["--as-test: harder is 0.390, expected at least 0.4.\n"]
    assert example.shortfalls(options_of(), result, held_out) == []
    for reward, expected in (("0.5", []), ("0.6", ["--as-test: mean reward is 0.500, expected"])):
        args = options_of("--as-test", "--stop-reward", reward)
        found = example.shortfalls(args, result, held_out)
        assert [text[: len("--as-test: mean reward is 0.500, expected")] for text in found] == (
            expected
        )
    # Without rollouts (SFT) there is no reward.
    assert example.shortfalls(args, {}, held_out)[0].startswith("--as-test: mean reward is nan")


def test_the_methods_example_leaves_tune_to_another(capsys):
    def parse(*arguments: str):
        return toy_arithmetic_methods.parse_arguments(["--method=sft", "--seeds=1", *arguments])

    for option in (("--tune",), ("--num-samples", "2"), ("--wandb-key", "k")):
        assert f"{option[0]} has no effect: runs follow one another" in error_of(
            capsys, parse, *option
        )
    assert parse("--no-tune").tune is False
    assert "unrecognized arguments: --seed 3" in error_of(capsys, parse, "--seed", "3")


def test_the_math_example_refuses_what_contradicts_its_own_options(capsys, monkeypatch):
    def parse(*arguments: str):
        monkeypatch.setattr("sys.argv", ["example", "--data=x.jsonl", "--small", *arguments])
        return math_prefix_rft.parse_arguments()

    assert "one learner per GPU" in error_of(capsys, parse, "--gpus=1", "--num-learners=1")
    assert "no held-out problems" in error_of(capsys, parse, "--evaluation-interval=5")
    assert parse("--tune", "--wandb-key=k", "--wandb-project=p").wandb_project == "p"


@pytest.mark.parametrize("script", SCRIPTS)
def test_every_scripts_docstring_has_the_shape_of_rllibs_examples(script):
    text = ast.get_docstring(ast.parse((EXAMPLES / script).read_text()))
    places = [text.index("\n\nThis example shows:\n    - ")]
    for title in ("How to run this script", "What to expect", "Results to expect"):
        places.append(text.index(f"\n\n{title}\n{'-' * len(title)}\n"))
    assert places == sorted(places)
    assert "`python [script file name].py" in text
