"""Import paths of the release before: they still work, and say where the module is now.

Pickles name modules too: a checkpoint that was written before a module moved loads by this table.
"""

from __future__ import annotations

import importlib
import sys
import warnings
from collections.abc import Mapping, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

PACKAGE = "prefix_rft_rllib"

_MOVED_INTO = {
    "runs": {
        "user_view": "run_recorder",
        "run_directory": "run_directory",
        "rollout_records": "rollout_records",
        "rollout_report": "rollout_report",
        "tensorboard_events": "tensorboard_events",
        "progress": "progress",
        "user_metrics": "user_metrics",
    },
    "reports": {"rollout_log": "rollout_log"},
    "iterations": {
        "planning": "planning",
        "groups": "groups",
        "samplers": "sampling_ahead",
        "feedback": "carried_over",
    },
    "transfers": {
        "weight_sync": "weight_sync",
        "torch.weight_source": "learner_weights",
        "env_runner_client": "env_runner_client",
        "shared_gpus": "shared_gpus",
    },
    "evaluation": {
        "evaluation_statistics": "statistics",
        "paired_tests": "paired_tests",
        "score_checks": "score_checks",
    },
    "settings": {
        "derived_settings": "settings",
        "config_checks": "config_checks",
        "setup_checks": "setup_checks",
        "gpu_shares": "gpu_shares",
        "placement": "placement",
        "placement_checks": "placement_checks",
        "resource_amounts": "resource_amounts",
        "rllib_settings": "rllib_settings",
        "unused_settings": "unused_settings",
        "ray_start": "ray_start",
    },
    "learners": {
        "prefix_rft_learner": "prefix_rft_learner",
        "learner_group": "learner_group",
    },
    "learners.connectors": {
        "connectors.add_tokens_from_episodes_to_batch": "add_tokens_from_episodes_to_batch",
        "connectors.old_logp_and_entropy": "old_logp_and_entropy",
    },
    "learners.torch": {
        "torch.default_prefix_rft_torch_rl_module": "default_prefix_rft_torch_rl_module",
        "torch.distributed_pool": "collectives",
        "torch.parallelism": "parallelism",
        "torch.prefix_rft_torch_learner": "prefix_rft_torch_learner",
        "torch.torch_optimizers_learner": "objectives_learner",
        "torch.update_report": "update_report",
    },
    "models": {
        "torch.causal_lm": "causal_lm",
        "torch.token_scorer": "token_scorer",
        "torch.trained_weights": "trained_weights",
        "torch.lora": "lora",
        "torch.sent_weights": "sent_weights",
        "torch.progress_bars": "progress_bars",
        "core.state_arrays": "state_arrays",
        "model_export": "export",
    },
    "rollouts": {
        "shared_inputs": "shared_inputs",
        "connectors.episodes": "row_data",
        "token_env_runner": "token_env_runner",
        "runner_engine": "runner_engine",
        "runner_device": "runner_device",
        "engine_failures": "engine_failures",
        "rollout_sampling": "env_runners",
        "weight_transfer_choice": "weight_transfer_choice",
    },
    "engines": {
        "engines.weights": "state_dict_checks",
    },
    "engines.vllm": {
        "engines.vllm_engine": "engine",
        "engines.vllm_options": "options",
        "engines.vllm_requests": "requests",
        "engines.vllm_weight_receiver": "weight_receiver",
        "engines.vllm_weight_sender": "weight_sender",
        "engines.vllm_worker": "worker",
        "engines.watched_calls": "watched_calls",
        "engines.call_thread": "call_thread",
    },
    "engines.transformers": {
        "engines.transformers_engine": "engine",
        "engines.batching": "batching",
        "engines.kv_cache": "kv_cache",
        "engines.sampling": "sampling",
    },
    "basics": {
        "core.random_draws": "random_draws",
        "core.shares": "shares",
        "terminal_text": "text",
        "hub_models": "hub_models",
        "envs.import_paths": "import_paths",
    },
    "envs.problems": {
        "envs.problem": "problem",
        "envs.raw_problems": "raw_problems",
        "envs.packed_problems": "packed_problems",
        "envs.subsets": "subsets",
        "envs.problem_filters": "problem_filters",
        "envs.lossless": "lossless",
    },
    "envs.rows": {
        "envs.problem_rows": "problem_rows",
        "envs.data_sources": "data_sources",
        "envs.file_rows": "file_rows",
        "envs.messages": "messages",
        "envs.plain_values": "plain_values",
        "envs.row_fields": "row_fields",
        "envs.row_forms": "row_forms",
        "envs.row_values": "row_values",
    },
    "envs.prompts": {
        "envs.prompting": "prompting",
        "envs.prompt_renderer": "prompt_renderer",
        "envs.prompt_settings": "prompt_settings",
        "envs.assistant_turns": "assistant_turns",
        "envs.end_tokens": "end_tokens",
        "envs.token_ids": "token_ids",
        "envs.template_overlap": "template_overlap",
    },
    "envs.demonstrations": {
        "envs.answer_cut": "answer_cut",
        "envs.solution_steps": "solution_steps",
        "envs.demonstration_rewards": "demonstration_rewards",
    },
    "envs.verifiers": {
        "envs.grading": "grading",
        "verify_rows": "verify_rows",
    },
    "envs.workers": {
        "envs.verifiers.worker_pool": "worker_pool",
        "envs.verifiers.worker_main": "worker_main",
    },
    "envs.toy": {
        "envs.toy_arithmetic": "toy_arithmetic",
        "envs.toy_code": "toy_code",
        "envs.toy_tokenizer": "tokenizer",
    },
}
MOVED = {
    f"{PACKAGE}.{old}": f"{PACKAGE}.{room}.{new}"
    for room, modules in _MOVED_INTO.items()
    for old, new in modules.items()
}
"""Old import paths of modules, and the present ones."""
OLD_PACKAGES = (f"{PACKAGE}.connectors", f"{PACKAGE}.torch")
"""Packages all of whose modules have moved."""
RENAMED = {
    f"{PACKAGE}.derived_settings": {"DerivedSettings": "Settings"},
    f"{PACKAGE}.feedback": {"Feedback": "CarriedOver"},
    f"{PACKAGE}.samplers": {"OneAhead": "SamplingAhead", "Sampler": "GroupSource"},
    f"{PACKAGE}.torch.torch_optimizers_learner": {"TorchOptimizersLearner": "ObjectivesLearner"},
    f"{PACKAGE}.user_view": {"UserView": "RunRecorder"},
    f"{PACKAGE}.weight_transfer_choice": {"Settings": "TransferFacts"},
}
"""By old import path of a module: names that it had, and what they are called now."""


class _OldModule(ModuleType):
    """An old import path: every attribute is one of the module's new place."""

    def __init__(self, name: str, module: ModuleType, renamed: Mapping[str, str]) -> None:
        super().__init__(name, f"Moved to `{module.__name__}`.")
        self._module, self._renamed = module, dict(renamed)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, self._renamed.get(name, name))

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function of the module's name.

        Importing `envs.answer_cut` puts this module over the function of that name in `envs`.
        """
        return getattr(self._module, self.__name__.rpartition(".")[2])(*args, **kwargs)


class _OldNames(MetaPathFinder, Loader):
    """Finds modules at their old import paths; asked only for names that nothing else knows."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname in OLD_PACKAGES:
            return ModuleSpec(fullname, self, is_package=True)
        return ModuleSpec(fullname, self) if fullname in MOVED else None

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        new = MOVED.get(spec.name)
        if new is None:
            return None
        warnings.warn(
            f"`{spec.name}` has moved to `{new}`. The old import path goes with the next release.",
            DeprecationWarning,
            stacklevel=2,
        )
        return _OldModule(spec.name, importlib.import_module(new), RENAMED.get(spec.name, {}))

    def exec_module(self, module: ModuleType) -> None:
        """Nothing: the module at the new place has been executed."""


def install() -> None:
    """Let old import paths work in this process; a second call changes nothing."""
    if not any(isinstance(finder, _OldNames) for finder in sys.meta_path):
        sys.meta_path.append(_OldNames())


def renamed(module: str, names: Mapping[str, str], name: str) -> Any:
    """An attribute of a module under an older name; for the module's own `__getattr__`.

    Args:
        module: Import path of the module.
        names: Older names and what they are called now.
        name: The attribute that was asked for.

    Returns:
        The attribute under its present name.

    Raises:
        AttributeError: If it is no older name.
    """
    if name not in names:
        raise AttributeError(f"module {module!r} has no attribute {name!r}")
    warnings.warn(
        f"`{module}.{name}` is called `{names[name]}` now. The older name goes with the next "
        "release.",
        DeprecationWarning,
        stacklevel=3,
    )
    return getattr(sys.modules[module], names[name])
