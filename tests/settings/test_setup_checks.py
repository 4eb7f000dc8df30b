"""Wrong data, model or tokenizer: one clear error from `build_algo()`, before any actor starts."""

import json
import shutil
from pathlib import Path

import pytest
import ray
from transformers import AutoTokenizer

from prefix_rft_rllib.envs.problems import load_problem_set
from prefix_rft_rllib.envs.toy.toy_arithmetic import generate_rows
from prefix_rft_rllib.settings import setup_checks
from tests.envs.small_tokenizers import save_byte_level_bpe
from tests.small_configs import MAX_PROMPT_TOKENS

pytest_plugins = ("tests.algorithm_fixtures",)


@pytest.fixture(autouse=True)
def _no_cluster():
    ray.shutdown()


@pytest.fixture(autouse=True)
def _logs_in_a_temporary_directory(monkeypatch, tmp_path):
    monkeypatch.setenv("RAY_AIR_LOCAL_CACHE_DIR", str(tmp_path / "ray_results"))


def error_of(config) -> str:
    """The error of building an algorithm; no Ray cluster, so no actor, may have been started."""
    with pytest.raises(ValueError) as caught:
        config.build_algo()
    assert not ray.is_initialized()
    return str(caught.value)


def write_rows(path: Path, *changes: dict) -> str:
    """Write generated problems, a row for each change."""
    rows = generate_rows(num_problems=len(changes), min_clauses=2, max_clauses=2, seed=0)
    lines = [json.dumps({**row, **change}) for row, change in zip(rows, changes, strict=True)]
    path.write_text("\n".join(lines) + "\n")
    return str(path)


def on_file(make_config, data: str, *, method: str = "prefix_rft", **changes):
    config = make_config({"data": data, "data_config": {}, **changes})
    return config.training(method=method, method_config={})


@pytest.fixture
def model_copy(tiny_model_dir, tmp_path) -> Path:
    """A copy of the tiny model that a test may spoil."""
    return Path(shutil.copytree(tiny_model_dir, tmp_path / "model"))


def edit_json(path: Path, **changes) -> None:
    values = json.loads(path.read_text())
    path.write_text(json.dumps({**values, **changes}))


def test_problem_without_answer_names_file_line_and_field(make_config, tmp_path):
    data = write_rows(tmp_path / "rows.jsonl", {}, {"answer": None})
    message = error_of(on_file(make_config, data))
    assert f"{data}:2" in message
    assert "field 'answer" in message


def test_prompt_over_budget_names_file_line_and_budget(make_config, tmp_path):
    data = write_rows(tmp_path / "rows.jsonl", {}, {}, {"prompt": "one " * 100})
    message = error_of(on_file(make_config, data))
    assert f"{data}:3: field 'prompt' has" in message
    assert f"more than max_prompt_tokens ({MAX_PROMPT_TOKENS})" in message
    assert "filters=['prompt_too_long']" in message


def test_missing_data_file_is_named(make_config, tmp_path):
    missing = str(tmp_path / "no.jsonl")
    assert missing in error_of(on_file(make_config, missing))


@pytest.mark.parametrize("path", ["/no/such/model", "no_such/model", "./model"])
def test_missing_model_directory_is_named(make_config, path):
    message = error_of(make_config(model_path=path))
    assert f"`model_path` ('{path}')" in message
    assert "save_pretrained" in message


def test_configuration_without_weights_is_named(make_config, model_copy):
    (model_copy / "model.safetensors").unlink()
    message = error_of(make_config(model_path=str(model_copy)))
    assert f"`model_path` ('{model_copy}') holds a configuration but no weights" in message
    assert "*.safetensors or *.bin" in message


def test_tokenizer_without_end_token_is_named(make_config, model_copy):
    directory = model_copy / "tokenizer"
    save_byte_level_bpe(directory, end=None)
    message = error_of(make_config({"tokenizer": str(directory)}))
    assert f"The tokenizer in '{directory}' has no end token (eos_token)" in message


def test_directory_without_tokenizer_is_named(make_config, model_copy):
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (model_copy / name).unlink()
    message = error_of(make_config(model_path=str(model_copy)))
    assert str(model_copy) in message
    assert "tokenizer" in message


def test_tokenizer_of_a_larger_model_is_named(make_config, model_copy):
    tokenizer = AutoTokenizer.from_pretrained(model_copy)
    size = len(tokenizer)
    tokenizer.add_tokens(["apple", "pear"])
    tokenizer.save_pretrained(model_copy / "tokenizer")
    message = error_of(make_config({"tokenizer": str(model_copy / "tokenizer")}))
    assert f"has ids up to {size + 1}, the model only {size} tokens" in message
    assert "env_config['tokenizer']" in message


def test_context_smaller_than_the_budgets_is_named(make_config):
    # The tiny model has 128 positions.
    message = error_of(make_config({"max_response_tokens": 65}))
    assert "`max_prompt_tokens` (64) + `max_response_tokens` (65) = 129 exceeds" in message
    assert "context of 128 tokens" in message


def test_budgets_that_just_fit_the_context_are_accepted(make_config):
    config = make_config({"max_response_tokens": 64})
    problem_set = load_problem_set(config.token_env_config())
    setup_checks.check_setup(config, config.build_method(), problem_set)


@pytest.mark.parametrize(("method", "advice"), [("prefix_rft", "method='rft'"), ("sft", "Counts")])
def test_methods_that_need_demonstrations_say_so(make_config, tmp_path, method, advice):
    data = write_rows(tmp_path / "rows.jsonl", {"demonstration": None}, {"demonstration": None})
    config = on_file(make_config, data).training(method=method, method_config={})
    message = error_of(config)
    assert f"'{method}'" in message
    assert "fits `max_response_tokens`" in message
    assert advice in message


@pytest.mark.parametrize(
    ("method", "stage", "use"),
    [
        ("luffy", "luffy", "trains on"),
        ("chord", "chord", "trains on"),
        ("rl_with_sft_loss", "rl_with_sft_loss", "trains on"),
        ("relift", "relift", "trains on"),
        ("uft", "uft", "starts rollouts from"),
        ("dr_po", "dr_po", "starts rollouts from"),
        ("prefix_rft_adaptive", "prefix_rft_adaptive", "starts rollouts from"),
        ("sft_rft", "sft", "No training problem is left"),
    ],
)
def test_methods_name_what_they_need_demonstrations_for(make_config, tmp_path, method, stage, use):
    data = write_rows(tmp_path / "rows.jsonl", {"demonstration": None}, {"demonstration": None})
    message = error_of(on_file(make_config, data, method=method))
    assert f"ethod {stage!r}" in message
    assert use in message
    assert "fits `max_response_tokens`" in message


@pytest.mark.parametrize("method", ["rft", "grpo", "rft_on_policy_clip"])
def test_methods_without_demonstrations_ask_for_none(make_config, tmp_path, method):
    data = write_rows(tmp_path / "rows.jsonl", {"demonstration": None}, {"demonstration": None})
    config = on_file(make_config, data, method=method)
    problem_set = load_problem_set(config.token_env_config())
    setup_checks.check_setup(config, config.build_method(), problem_set)


def test_a_buffer_that_can_never_be_full_is_an_error_with_its_range(make_config, tmp_path):
    data = write_rows(tmp_path / "rows.jsonl", {}, {"demonstration": None}, {})

    def config_of(buffer_size, num_learners=0):
        config = on_file(make_config, data, method="relift")
        config.training(method_config={"buffer_size": buffer_size})
        return config.learners(num_learners=num_learners)

    message = error_of(config_of(3))
    assert "`buffer_size` (3) of method 'relift' must be from 1 (one row per learner)" in message
    assert "to 2 (training problems with a demonstration)" in message
    assert "must be from 2 (one row per learner)" in error_of(config_of(1, num_learners=2))
    for buffer_size in (1, 2):
        config = config_of(buffer_size)
        problem_set = load_problem_set(config.token_env_config())
        setup_checks.check_setup(config, config.build_method(), problem_set)


def test_demonstrations_over_budget_do_not_count(make_config):
    message = error_of(make_config({"max_response_tokens": 8}))
    assert "starts rollouts from demonstrations, but none of the 12 training problems" in message


def test_unknown_engine_option_lists_the_known_ones(make_config):
    config = make_config().env_runners(engine_config={"max_batch": 8})
    message = error_of(config)
    assert "Unknown option 'max_batch' of the transformers engine" in message
    assert "max_batch_size" in message


def test_wrong_engine_option_is_named(make_config):
    config = make_config().env_runners(engine_config={"dtype": "int4"})
    assert "`dtype` must be one of 'float32'" in error_of(config)


def test_environment_whose_steps_are_no_tokens_is_refused(make_config):
    config = make_config().environment("CartPole-v1")
    assert "The environment 'CartPole-v1' is no `TokenEnv`" in error_of(config)


def test_more_learners_than_rows_of_a_minibatch_is_an_error(make_config):
    config = make_config(num_problems_per_minibatch=1, method="sft", method_config={})
    message = error_of(config.learners(num_learners=2))
    assert "A minibatch has 1 rows for 2 learners" in message
    assert "`num_problems_per_minibatch`" in message


def test_verifier_that_cannot_be_imported_is_named(make_config):
    message = error_of(make_config({"verifier": "no.such:verifier"}))
    assert "no.such" in message


def test_wrong_settings_are_found_by_build_algo_too(make_config):
    message = error_of(make_config(method_config={"entropy_keep_fraction": 20}))
    assert "use 0.2 for 20%" in message


def test_preflight_error_comes_before_any_actor(make_config, tmp_path):
    data = write_rows(tmp_path / "rows.jsonl", {}, {"answer": "?"})
    config = on_file(make_config, data, verifier="math").reporting(
        preflight=True, run_dir=str(tmp_path / "run")
    )
    assert "gold answers cannot be graded" in error_of(config)


def test_problems_without_demonstration_stay_in_except_for_sft(make_config, tmp_path):
    data = write_rows(tmp_path / "rows.jsonl", {}, {"demonstration": None}, {})
    for method, count in (("prefix_rft", 3), ("rft", 3), ("sft", 2)):
        config = on_file(make_config, data).training(method=method, method_config={})
        problem_set = load_problem_set(config.token_env_config())
        setup_checks.check_setup(config, config.build_method(), problem_set)
        problems = setup_checks.trainable_problems(config.build_method(), problem_set)
        assert len(problems) == count, method
