"""Ray's object store without shared memory, and a run without home and shared memory."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import ray

from prefix_rft_rllib.basics.ray_token import USER_SETTINGS
from prefix_rft_rllib.envs.toy.toy_arithmetic import generate_rows
from prefix_rft_rllib.settings import ray_start

ROOT = Path(__file__).parents[2]


@pytest.fixture
def starts(monkeypatch) -> list[dict]:
    """Records the arguments of `ray.init` instead of starting anything."""
    calls: list[dict] = []
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(ray, "is_initialized", lambda: bool(calls))
    monkeypatch.setattr(ray, "init", lambda **options: calls.append(options))
    monkeypatch.setattr(sys, "platform", "linux")
    return calls


def test_with_shared_memory_ray_starts_as_usual_and_once(starts, monkeypatch, tmp_path):
    monkeypatch.setattr(ray_start, "SHARED_MEMORY", tmp_path)
    ray_start.start_ray(num_cpus=1)
    ray_start.start_ray(num_cpus=2)
    assert starts == [{"num_cpus": 1}]


@pytest.mark.parametrize("memory", ["/nowhere", "/proc"])
def test_without_shared_memory_the_object_store_is_on_disk(memory, starts, monkeypatch, caplog):
    monkeypatch.setattr(ray_start, "SHARED_MEMORY", Path(memory))
    ray_start.start_ray(num_cpus=1)
    (options,) = starts
    size = options.pop("object_store_memory")
    assert 0 < size < os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    directory = tempfile.gettempdir()
    assert options == {"address": "local", "_plasma_directory": directory, "num_cpus": 1}
    assert f"{memory} cannot be written" in caplog.text


def test_a_cluster_or_store_that_the_user_names_is_taken(starts, monkeypatch):
    monkeypatch.setattr(ray_start, "SHARED_MEMORY", Path("/nowhere"))
    for options in ({"address": "10.0.0.1:6379"}, {"_plasma_directory": "/data"}):
        starts.clear()
        ray_start.start_ray(**options)
        assert starts == [options]
    starts.clear()
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    ray_start.start_ray()
    assert starts == [{}]


RUN = """
import sys
from pathlib import Path
from prefix_rft_rllib import PrefixRFTConfig
from prefix_rft_rllib.envs import TOY_BASE_MODEL
from prefix_rft_rllib.settings import ray_start

ray_start.SHARED_MEMORY = Path("/nowhere")
config = (
    PrefixRFTConfig()
    .environment(
        "PrefixRFT/Math-v0",
        env_config={"data": "read only/some rows.jsonl", "max_prompt_tokens": 64,
                    "max_response_tokens": 40},
    )
    .env_runners(num_env_runners=1)
    .training(model_path=str(TOY_BASE_MODEL), group_size=2, num_problems_per_iteration=2,
              num_problems_per_minibatch=1)
    .reporting(run_dir="a run/of mine")
)
algo = config.build_algo()
algo.train()
algo.save_to_path(str(Path("a run/of mine/checkpoint").resolve()))
algo.save_pretrained("a run/of mine/model")
algo.stop()
"""


@pytest.mark.integration
def test_a_run_needs_no_home_no_shared_memory_and_no_path_without_blanks(tmp_path):
    folder = tmp_path / "a folder"
    (folder / "read only").mkdir(parents=True)
    rows = generate_rows(num_problems=4, min_clauses=1, max_clauses=2, seed=0)
    text = "".join(f"{json.dumps(row)}\n" for row in rows)
    (folder / "read only" / "some rows.jsonl").write_text(text, encoding="utf-8")
    (folder / "read only").chmod(0o555)
    home = folder / "home is a file"
    home.touch()
    kept = {k: v for k, v in os.environ.items() if k not in USER_SETTINGS}
    unset = [name for name in kept if name.startswith(("HF_", "XDG_", "TORCH"))]
    environment = {k: v for k, v in kept.items() if k not in unset}
    environment |= {"HOME": str(home), "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", RUN],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "1 " in done.stdout
    run_dir = folder / "a run" / "of mine"
    assert (run_dir / "metrics.jsonl").read_text().count("\n") == 1
    assert (run_dir / "checkpoint" / "learner_group").is_dir()
    assert (run_dir / "model" / "model.safetensors").is_file()
    assert sorted(path.name for path in folder.iterdir()) == [
        "a run",
        "home is a file",
        "read only",
    ]
