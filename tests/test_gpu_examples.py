"""GPU settings that the example and the pages show: they are valid, and place one of each."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from prefix_rft_rllib import PrefixRFTConfig
from prefix_rft_rllib.settings.placement import Node, gpus_of, obstacles
from prefix_rft_rllib.settings.placement_checks import demand_of
from tests.small_configs import config
from tuned_examples import math_prefix_rft

ROOT = Path(__file__).parents[1]
EXAMPLE = math_prefix_rft.config


def assert_one_of_each(settings: PrefixRFTConfig, num_gpus: int) -> None:
    settings.validate()
    parts = demand_of(settings, is_trial=False).parts()
    machine = Node("here", {"CPU": 64, "GPU": num_gpus})
    assert obstacles(parts, [machine]) == []
    given = gpus_of(parts)
    assert given["env runner"] == given["learner"] == list(range(num_gpus))


@pytest.fixture
def example(monkeypatch) -> Callable[..., PrefixRFTConfig]:
    """Gives the example's settings for a command line."""

    def settings_of(*arguments: str) -> PrefixRFTConfig:
        fresh = EXAMPLE.copy(copy_frozen=False)
        monkeypatch.setattr(math_prefix_rft, "config", fresh)
        monkeypatch.setattr("sys.argv", ["example", "--data", "x.jsonl", "--small", *arguments])
        monkeypatch.setattr(math_prefix_rft, "run_example", lambda *args: 0)
        math_prefix_rft.main()
        return fresh

    return settings_of


@pytest.mark.parametrize("num_gpus", [1, 8])
@pytest.mark.parametrize("engine", ["vllm", "transformers"])
def test_the_example_puts_one_engine_and_one_learner_on_each_gpu(example, num_gpus, engine):
    settings = example("--gpus", str(num_gpus), "--engine", engine)
    assert_one_of_each(settings, num_gpus)
    assert (settings.engine, settings.compute_dtype) == (engine, "bfloat16")
    assert settings.activation_checkpointing


def test_the_example_is_in_one_process_or_on_cpus_if_asked(example):
    one_process = example("--gpus", "1", "--num-env-runners", "0", "--engine", "transformers")
    one_process.validate()
    assert (one_process.num_learners, one_process.num_gpus_per_learner) == (0, 1)
    on_cpus = example()
    on_cpus.validate()
    assert (on_cpus.num_env_runners, on_cpus.engine) == (2, "transformers")
    assert on_cpus.num_gpus_per_learner == on_cpus.num_gpus_per_env_runner == 0


@pytest.mark.parametrize(
    "arguments",
    [("--gpus", "2", "--num-env-runners", "1"), ("--gpus", "2", "--num-env-runners", "0")],
)
def test_the_example_refuses_env_runners_that_do_not_match_the_gpus(example, arguments, capsys):
    with pytest.raises(SystemExit):
        example(*arguments)
    assert "--num-env-runners" in capsys.readouterr().err


@pytest.mark.parametrize(("page", "num_gpus"), [("README.md", 1), ("docs/cluster.md", 8)])
def test_the_gpu_settings_of_a_page_are_valid(page, num_gpus):
    text = (ROOT / page).read_text()
    (block,) = [
        code
        for code in re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
        if "num_gpus_per_learner=0.49" in code
    ]
    settings = config()
    exec(block, {"config": settings})
    assert_one_of_each(settings, num_gpus)
