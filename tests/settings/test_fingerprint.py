"""What draws and rewards depend on is recognised, and nothing else."""

import json
import re
import shutil
from pathlib import Path

import pytest

from prefix_rft_rllib.basics.declarations import declarations
from prefix_rft_rllib.envs.problems import load_problem_set
from prefix_rft_rllib.envs.settings import ENV_DECLARATIONS
from prefix_rft_rllib.envs.toy.toy_arithmetic import generate_rows
from prefix_rft_rllib.settings.fingerprint import differences, fingerprint
from prefix_rft_rllib.settings.running_settings import FINGERPRINTED, EnvRunnerSettings
from prefix_rft_rllib.settings.training_settings import DebuggingSettings, TrainingSettings
from tests.small_configs import NEVER_RIGHT, small_config


@pytest.fixture
def rows() -> list[dict]:
    return generate_rows(num_problems=6, min_clauses=2, max_clauses=2, seed=0)


def found(model: str, rows: list[dict], place: Path, env_config=None, **training) -> dict:
    """The fingerprint of a run on rows in a file."""
    place.parent.mkdir(exist_ok=True)
    place.write_text("".join(json.dumps(row) + "\n" for row in rows))
    given = {"data": str(place), "data_config": {}, **(env_config or {})}
    settings = {k: training.pop(k) for k in ("seed", "temperature", "top_p") if k in training}
    config = small_config(model, given, **training)
    config.debugging(seed=settings.pop("seed", 3)).env_runners(**settings)
    config.validate()
    problem_set = load_problem_set(config.token_env_config())
    return fingerprint(config, config.build_method(), problem_set)


@pytest.fixture
def changed(tiny_model_dir, rows, tmp_path):
    """Gives the names of what differs after a change."""
    first = found(tiny_model_dir, rows, tmp_path / "a.jsonl")

    def names(rows=rows, model=tiny_model_dir, **changes) -> set[str]:
        return {*differences(first, found(model, rows, tmp_path / "b" / "c.jsonl", **changes))}

    return names


def test_it_is_plain_data_and_does_not_depend_on_where_data_and_model_lie(
    changed, tiny_model_dir, rows, tmp_path
):
    found_here = found(tiny_model_dir, rows, tmp_path / "a.jsonl")
    assert [*found_here] == [*json.loads(json.dumps(found_here))]
    assert {*found_here} == {*FINGERPRINTED}
    moved = str(shutil.copytree(tiny_model_dir, tmp_path / "moved"))
    assert changed(model=moved) == set()


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({"lr": 1.0, "weight_decay": 0.5, "lr_warmup_steps": 3}, set()),
        ({"num_problems_per_minibatch": 4, "clip_param": 0.3, "kl_coeff": 0.1}, set()),
        ({"method_config": {"num_schedule_iterations": 4, "entropy_keep_fraction": 0.5}}, set()),
        ({"method_config": {"num_schedule_iterations": 5}}, {"method"}),
        ({"method": "rft", "method_config": {}}, {"method"}),
        ({"seed": 4}, {"seed"}),
        ({"group_size": 5}, {"group_size"}),
        ({"num_problems_per_iteration": 2}, {"num_problems_per_iteration"}),
        ({"max_resampling_rounds": 1}, {"max_resampling_rounds"}),
        ({"temperature": 0.9, "top_p": 0.9}, {"temperature", "top_p"}),
        ({"env_config": {"verifier": NEVER_RIGHT}}, {"verifier"}),
        ({"env_config": {"rewards": {"CORRECT": 2.0}}}, {"rewards"}),
        ({"env_config": {"max_response_tokens": 47}}, {"max_response_tokens"}),
        ({"env_config": {"prompt_template": "Solve: {prompt}"}}, {"prompts"}),
        ({"env_config": {"demonstration_fraction": 0.5}}, {"demonstrations"}),
    ],
    ids=str,
)
def test_of_settings_those_that_decide_draws_or_rewards_count(changed, changes, names):
    assert changed(**changes) == names


def test_changed_problems_are_recognised(changed, rows):
    assert changed(rows[:-1]) == {"data", "demonstrations", "prompts"}
    assert changed(rows[::-1]) == {"data", "demonstrations", "prompts"}
    other = [*rows[:-1], {**rows[-1], "answer": "999"}]
    assert changed(other) == {"data"}


def test_weights_that_differ_anywhere_are_recognised(changed, tiny_model_dir, tmp_path):
    moved = shutil.copytree(tiny_model_dir, tmp_path / "moved")
    weights = moved / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    assert changed(model=str(moved)) == {"model"}


def test_of_an_entry_with_parts_those_that_differ_are_said():
    theirs = {"method": {"name": "a", "prefix_sampler": "Never()"}, "seed": 0}
    ours = {"method": {"name": "a", "prefix_sampler": "PerGroup(1)"}, "seed": 1}
    assert differences(theirs, ours) == {
        "method": "`method, prefix_sampler` is 'Never()' there and 'PerGroup(1)' here",
        "seed": "`seed` is 0 there and 1 here",
    }
    assert differences(theirs, theirs) == {}


def test_the_page_on_checkpoints_names_every_entry():
    page = Path(__file__).parents[2] / "docs" / "checkpoints.md"
    rows = [line for line in page.read_text().splitlines() if line.startswith("| `")]
    named = {name for row in rows for name in re.findall("`(\\w+)`", row.split(" | ")[0])}
    assert {*FINGERPRINTED} <= named


SEEN_IN_WHAT_THEY_MAKE = (
    *("model_path", "model_revision", "method_config"),
    *("tokenizer", "fields", "extra_fields", "system_prompt", "prompt_template", "chat_template"),
    *("chat_template_kwargs", "drop_template_overlap", "max_prompt_tokens", "held_out_fraction"),
    *("demonstration_fraction", "filters", "eos_token_ids", "data_config"),
)
"""Settings that model, method, problems, token ids or end tokens are made from."""
OF_THE_UPDATE_OR_OF_SPEED = (
    *("num_problems_per_minibatch", "clip_param", "clip_param_high", "dual_clip", "entropy_coeff"),
    *("kl_coeff", "importance_weight_cap", "lr", "num_epochs", "grad_clip", "grad_clip_by"),
    *("weight_decay", "adam_betas", "lr_schedule", "lr_warmup_steps", "lr_schedule_steps"),
    *("max_tokens_per_microbatch", "compute_dtype", "engine_config", "weight_transfer"),
    *("num_envs_per_env_runner", "sample_timeout_s", "held_out_data", "vocab_size"),
    "max_nonfinite_steps",
)
"""Settings that may differ."""


def test_it_is_known_of_every_setting_whether_draws_or_rewards_depend_on_it():
    groups = (TrainingSettings, EnvRunnerSettings, DebuggingSettings)
    declared = [item.name for group in groups for item in declarations(group)]
    declared += [item.name for item in ENV_DECLARATIONS]
    known = {*FINGERPRINTED, *SEEN_IN_WHAT_THEY_MAKE, *OF_THE_UPDATE_OR_OF_SPEED}
    made = {"demonstrations", "prompts", "end_tokens", "model"}
    assert {*declared} == known - made
