"""Names of the Hugging Face hub in place of directories: one commit, cached or fetched.

The cache is laid out here as the hub's client lays it out; nothing is asked over a network.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM

from prefix_rft_rllib import PrefixRFT
from prefix_rft_rllib.basics.hub_models import model_directory, pinned, with_revision
from prefix_rft_rllib.envs.problems import load_problem_set
from prefix_rft_rllib.preflight import main as preflight_command
from tests.small_configs import small_config, toy_rows

FIRST, SECOND = "1" * 40, "2" * 40
NAME = "org/tiny"


def add_commit(cache: Path, commit: str, files: Path, *refs: str) -> Path:
    """Lay a commit into a cache: files are links to blobs, refs name the commit."""
    repository = cache / "models--org--tiny"
    snapshot = repository / "snapshots" / commit
    snapshot.mkdir(parents=True)
    (repository / "blobs").mkdir(exist_ok=True)
    for file in files.iterdir():
        blob = shutil.copy(file, repository / "blobs" / f"{commit}-{file.name}")
        (snapshot / file.name).symlink_to(os.path.relpath(blob, snapshot))
    (repository / "refs").mkdir(exist_ok=True)
    for ref in refs:
        (repository / "refs" / ref).write_text(commit)
    return snapshot


@pytest.fixture
def cache(tmp_path, tiny_model_dir, monkeypatch) -> Path:
    """A cache with a first and a second commit, and no network."""
    folder = tmp_path / "hub"
    add_commit(folder, FIRST, Path(tiny_model_dir), "v1")
    model = AutoModelForCausalLM.from_pretrained(tiny_model_dir)
    model.generation_config.eos_token_id = [301, 5]
    other = Path(shutil.copytree(tiny_model_dir, tmp_path / "other"))
    model.save_pretrained(other)
    add_commit(folder, SECOND, other, "main")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(folder))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    return folder


@pytest.mark.parametrize(
    ("source", "commit"),
    [
        (NAME, SECOND),
        (f"{NAME}@main", SECOND),
        (f"{NAME}@v1", FIRST),
        (f"{NAME}@{FIRST}", FIRST),
    ],
)
def test_a_name_is_pinned_to_the_commit_of_its_revision(cache, source, commit):
    assert pinned(source) == f"{NAME}@{commit}"
    expected = cache / "models--org--tiny" / "snapshots" / commit
    assert model_directory(source) == str(expected)


def test_a_directory_stays_itself_even_one_with_a_sign_for_revisions_in_it(tmp_path):
    for folder in (tmp_path / "org", tmp_path / "a@b"):
        folder.mkdir()
        assert pinned(str(folder)) == model_directory(str(folder)) == str(folder)


@pytest.mark.parametrize("source", ["models/tiny/", "/no/model", "a/b/c", "org/", "org/m@", "../m"])
def test_what_is_no_directory_and_no_name_is_an_error_that_says_both(source):
    with pytest.raises(ValueError, match="not a directory on this machine, and no name") as caught:
        pinned(source)
    assert f"`model_path` ({source!r})" in str(caught.value)


@pytest.mark.parametrize("source", ["org/absent", "absent", f"{NAME}@v9", f"{NAME}@{'3' * 40}"])
def test_what_the_cache_lacks_is_an_error_in_seconds_that_says_what_to_do(cache, source):
    started = time.perf_counter()
    with pytest.raises(ValueError, match="neither a directory here nor a model") as caught:
        pinned(source)
    assert time.perf_counter() - started < 5
    message = str(caught.value)
    name, _, revision = source.partition("@")
    assert f"hf download {name}{f' --revision {revision}' if revision else ''}`" in message
    assert "HF_HUB_OFFLINE is set" in message and "HF_HOME" in message


def test_a_hub_that_does_not_answer_leaves_the_cache(cache, monkeypatch, caplog):
    def fail(*args, **kwargs):
        raise ConnectionError("no route")

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.HfApi.model_info", fail)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    assert pinned(NAME) == f"{NAME}@{SECOND}"
    assert "hub does not answer" in caplog.text
    started = time.perf_counter()
    for source in ("org/absent", f"{NAME}@{'3' * 40}"):
        with pytest.raises(ValueError, match="the hub does not answer"):
            pinned(source)
    assert time.perf_counter() - started < 5  # its client alone tries for half a minute


def test_a_hub_without_such_a_model_is_an_error_whatever_is_cached(cache, monkeypatch):
    from huggingface_hub.errors import RepositoryNotFoundError

    def fail(*args, **kwargs):
        error = RepositoryNotFoundError.__new__(RepositoryNotFoundError)
        error.args = ("404 Client Error",)
        raise error

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.HfApi.model_info", fail)
    with pytest.raises(ValueError, match="no such model or revision for you"):
        pinned(NAME)


def test_two_revisions_or_one_of_a_directory_are_errors(tmp_path):
    assert with_revision(NAME, "v1") == f"{NAME}@v1"
    assert with_revision(f"{NAME}@v1", None) == f"{NAME}@v1"
    with pytest.raises(ValueError, match=r"\('org/tiny@v1'\) has a revision already, and 'v2'"):
        with_revision(f"{NAME}@v1", "v2")
    with pytest.raises(ValueError, match=r"'v1'.* is a directory"):
        with_revision(str(tmp_path), "v1")


def test_a_run_keeps_the_commit_of_its_start_when_the_branch_moves_on(cache, tmp_path):
    config = small_config(NAME, {"held_out_fraction": 0.25}, model_revision="v1")
    algo = config.reporting(run_dir=str(tmp_path / "run")).build_algo()
    (cache / "models--org--tiny" / "refs" / "v1").write_text(SECOND)
    algo.train()
    assert algo.problem_set.end_tokens.ids == (301,)  # the second commit names another one too
    exported = algo.save_pretrained(tmp_path / "trained")
    saved = algo.save_to_path(str(tmp_path / "checkpoint"))
    algo.stop()
    restored = PrefixRFT.from_checkpoint(saved)
    assert (restored.config.model_source, restored.iteration) == (f"{NAME}@{FIRST}", 1)
    restored.stop()
    assert json.loads((exported / "generation_config.json").read_text())["eos_token_id"] == 301
    written = json.loads((tmp_path / "run" / "config.json").read_text())
    assert (written["model_path"], written["model_revision"]) == (NAME, FIRST)
    assert config.model_revision == "v1"  # the user's settings stay as they are


def test_environment_and_preflight_take_names(cache, capsys):
    settings = {"max_prompt_tokens": 64, "max_response_tokens": 48}
    rows = load_problem_set({**toy_rows(2), **settings, "tokenizer": f"{NAME}@v1"})
    assert rows.end_tokens.ids == (301,)
    assert load_problem_set({**toy_rows(2), **settings, "tokenizer": NAME}).end_tokens.ids == (
        5,
        301,
    )
    limits = ["--max-prompt-tokens", "64", "--max-response-tokens", "400"]
    arguments = ["--data", "toy_arithmetic", *limits, "--env-config"]
    arguments.append(
        '{"data_config": {"num_problems": 3, "seed": 0, "min_clauses": 1, "max_clauses": 2}}'
    )
    assert preflight_command([*arguments, "--tokenizer", f"{NAME}@v1"]) == 0
    assert preflight_command([*arguments, "--tokenizer", "org/absent"]) == 1
    assert "env_config['tokenizer'] ('org/absent') is neither" in capsys.readouterr().err


def test_a_directory_with_pickled_weights_alone_is_refused(tiny_model_dir, tmp_path):
    directory = Path(shutil.copytree(tiny_model_dir, tmp_path / "pickled"))
    (directory / "model.safetensors").rename(directory / "pytorch_model.bin")
    with pytest.raises(ValueError, match="pickled weights only, which could run code"):
        small_config(str(directory)).build_algo()


@pytest.mark.parametrize("content", ['{"weight_map": {"a": "two.safetensors"}}', "{}", "half"])
def test_a_directory_without_all_of_its_weights_is_refused(tiny_model_dir, tmp_path, content):
    directory = Path(shutil.copytree(tiny_model_dir, tmp_path / "half"))
    (directory / "model.safetensors").rename(directory / "one.safetensors")
    (directory / "model.safetensors.index.json").write_text(content)
    expected = "lacks 1 of the 1 files" if "two" in content else "is no index of weights"
    with pytest.raises(ValueError, match=expected):
        small_config(str(directory)).build_algo()


@pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json"])
def test_code_of_a_models_author_is_never_run(tiny_model_dir, tmp_path, file):
    directory = Path(shutil.copytree(tiny_model_dir, tmp_path / "custom"))
    ran = tmp_path / "ran"
    (directory / "own.py").write_text(f"open({str(ran)!r}, 'w')\nclass Own: pass\n")
    content = json.loads((directory / file).read_text()) | {
        "auto_map": {"AutoConfig": "own.Own", "AutoTokenizer": ["own.Own", "own.Own"]}
    }
    content |= {"model_type": "own"} if file == "config.json" else {"tokenizer_class": "Own"}
    (directory / file).write_text(json.dumps(content))
    started = time.perf_counter()
    with pytest.raises(ValueError):
        small_config(str(directory)).build_algo()
    assert time.perf_counter() - started < 10 and not ran.exists()


REMOTE_RUN = """
import sys
from tests.small_configs import small_config

config = small_config("org/tiny@v1").env_runners(num_env_runners=1).learners(num_learners=1)
algo = config.reporting(run_dir=sys.argv[1]).build_algo()
print("trained", algo.train()["training_iteration"], algo.config.model_source)
"""


@pytest.mark.integration
def test_remote_processes_need_no_more_than_the_environments_variables(cache, tmp_path):
    """In a process of its own: the hub's client reads its environment variables at import."""
    home = tmp_path / "home"
    home.mkdir()
    shutil.move(cache, home / "hub")
    root = str(Path(__file__).parents[2])
    ours = {"HF_HOME": str(home), "HF_HUB_OFFLINE": "1", "PYTHONPATH": root}
    done = subprocess.run(
        [sys.executable, "-c", REMOTE_RUN, str(tmp_path / "run")],
        capture_output=True,
        text=True,
        check=False,
        cwd=root,
        env={k: v for k, v in os.environ.items() if k != "HF_HUB_CACHE"} | ours,
    )
    assert f"trained 1 {NAME}@{FIRST}" in done.stdout, done.stderr[-3000:]
    written = json.loads((tmp_path / "run" / "config.json").read_text())
    assert written["model_revision"] == FIRST
