"""A model that is evaluated and not trained: where it is, and env runners that hold it."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray.rllib.core import COMPONENT_RL_MODULE, DEFAULT_MODULE_ID
from ray.rllib.env.env_runner_group import EnvRunnerGroup
from ray.rllib.utils.metrics import WEIGHTS_SEQ_NO
from ray.rllib.utils.metrics.metrics_logger import MetricsLogger

from prefix_rft_rllib.basics.hub_models import model_directory, pinned, with_revision
from prefix_rft_rllib.basics.whole_directories import checked
from prefix_rft_rllib.envs.problems import ProblemSet
from prefix_rft_rllib.models.causal_lm import load_lm
from prefix_rft_rllib.models.state_arrays import state_to_arrays
from prefix_rft_rllib.rollouts.env_runners import EnvRunners
from prefix_rft_rllib.rollouts.token_env_runner import TokenEnvRunner
from prefix_rft_rllib.settings.ray_start import start_ray
from prefix_rft_rllib.settings.saved_settings import SETTINGS_FILE, saved_settings
from prefix_rft_rllib.settings.settings import Settings
from prefix_rft_rllib.transfers.input_sharing import with_shared_inputs

MODEL_IN_CHECKPOINT = Path("learner_group", "learner", "rl_module", DEFAULT_MODULE_ID, "hf")
"""Where a checkpoint of `PrefixRFT` has the model in Hugging Face form."""


@dataclass(frozen=True)
class EvaluatedModel:
    """A model and its tokenizer.

    Attributes:
        path: Directory in Hugging Face form, or "org/name@commit".
        tokenizer: The same of the tokenizer.
    """

    path: str
    tokenizer: str

    def files_hash(self) -> str:
        """SHA-256 of configuration and weights, whatever the directory is called."""
        directory = Path(model_directory(self.path))
        found = hashlib.sha256()
        for file in (directory / "config.json", *sorted(directory.glob("*.safetensors"))):
            with file.open("rb") as opened:
                found.update(hashlib.file_digest(opened, "sha256").digest())
        return found.hexdigest()


def find_model(source: str, tokenizer: str | None = None) -> EvaluatedModel:
    """Find a model by what a command line says.

    Args:
        source: A directory in Hugging Face form, a name of the hub ("org/name", maybe
            "@revision"), or a checkpoint of `PrefixRFT`. RLlib's settings in a checkpoint are
            pickled: take one from where you trust it, as for `PrefixRFT.from_checkpoint`.
        tokenizer: Another tokenizer than the model's own, or than the checkpoint's run had.

    Returns:
        The model, names of the hub pinned to their commits.

    Raises:
        ValueError: If there is none, or a checkpoint has no whole model, or one whose files are not
            those that were written.
    """
    checkpoint = Path(source)
    in_checkpoint = checkpoint / MODEL_IN_CHECKPOINT
    if not in_checkpoint.parent.is_dir():
        path = pinned(source, "`--model`")
        return EvaluatedModel(path, tokenizer or path)
    if not (in_checkpoint / "config.json").is_file():
        raise ValueError(
            f"`--model`: the checkpoint {source!r} has no whole model in {MODEL_IN_CHECKPOINT}: of "
            "a run with `lora` it is the adapter alone, and on a remote file system it is left "
            "out. Export one with PrefixRFT.from_checkpoint(...).save_pretrained(DIR) and give DIR."
        )
    checked(checkpoint, MODEL_IN_CHECKPOINT.as_posix())
    if tokenizer is None:
        checked(checkpoint, SETTINGS_FILE)
        tokenizer = _tokenizer_of(checkpoint)
    return EvaluatedModel(str(in_checkpoint), tokenizer)


def _tokenizer_of(checkpoint: Path) -> str:
    """The tokenizer of the run that wrote a checkpoint: its own setting, else the model's."""
    try:
        settings = saved_settings(checkpoint)
        source = with_revision(settings["model_path"], settings["model_revision"])
        return str(settings["env_config"].get("tokenizer") or source)
    except (ValueError, LookupError) as error:
        raise ValueError(
            f"`--model`: {error} Its tokenizer is not known. Name it with `--tokenizer`."
        ) from error


@contextlib.contextmanager
def env_runners_of(config: Settings, problem_set: ProblemSet) -> Iterator[EnvRunners]:
    """Start env runners with the model that the settings name, and stop them at the end.

    Args:
        config: Validated settings. With `num_env_runners` 0 everything happens in this process and
            Ray is not started.
        problem_set: The problems, loaded.

    Yields:
        The env runners, with the weights.
    """
    group: Any = _started(config, problem_set)
    try:
        arrays = state_to_arrays(load_lm(config.model_source).state_dict())
        weights: Any = {DEFAULT_MODULE_ID: arrays}
        weights = ray.put(weights) if config.num_env_runners else weights
        state = {COMPONENT_RL_MODULE: weights, WEIGHTS_SEQ_NO: 0}
        env_runners = EnvRunners(
            group,
            MetricsLogger(root=False),
            sample_timeout_s=config.sample_timeout_s,
            may_restart=config.restart_failed_env_runners,
            restore=lambda group: group.probe_unhealthy_env_runners(),
            refresh_weights=lambda: env_runners.set_state(state),
        )
        env_runners.set_state(state)
        yield env_runners
    finally:
        group.stop()


@dataclass(frozen=True)
class _OneEnvRunner:
    """A group of one env runner in this process; RLlib's starts Ray for it too.

    Attributes:
        local_env_runner: The env runner.
    """

    local_env_runner: TokenEnvRunner

    def num_remote_env_runners(self) -> int:
        return 0

    def stop(self) -> None:
        self.local_env_runner.stop()


def _started(config: Settings, problem_set: ProblemSet) -> Any:
    """Env runners without weights."""
    if config.num_env_runners == 0:
        return _OneEnvRunner(TokenEnvRunner(config=config))
    start_ray()
    config = with_shared_inputs(config, problem_set)
    return EnvRunnerGroup(config=config, local_env_runner=False)
