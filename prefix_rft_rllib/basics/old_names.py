"""Import paths of the release before: they still work, and say where the module is now.

Pickles name modules too: a checkpoint that was written before a module moved loads by this table.
"""

from __future__ import annotations

import importlib
import sys
import warnings
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from operator import attrgetter
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
_NAMES_IN = {
    "config_checks": {
        "COMPUTE_DTYPES": "settings.training_settings:COMPUTE_DTYPES",
        "PARALLELISMS": "settings.running_settings:PARALLELISMS",
    },
    "connectors.episodes": {"NUM_PREFIX_TOKENS": "metrics:NUM_PREFIX_TOKENS"},
    "core.prefix_sampling": {"Rollout": "PlannedRollout"},
    "core.random_draws": {"hash_uniform": "core.token_draws:hash_uniform"},
    "core.shares": {
        "check_flag": "basics.ranges:FLAG.check",
        "check_fraction": "basics.ranges:SHARE.check",
    },
    "core.token_selection": {"Pool": "Collectives"},
    "derived_settings": {"DerivedSettings": "Settings"},
    "envs.row_values": {"shortened": "basics.text:short_repr"},
    "envs.verifiers": {
        "shared_choice_verifier": "ChoiceVerifier.shared",
        "shared_code_verifier": "CodeVerifier.shared",
        "shared_math_verifier": "MathVerifier.shared",
    },
    "envs.verifiers.choice_verifier": {"shared_choice_verifier": "ChoiceVerifier.shared"},
    "envs.verifiers.code_tests": {
        "KINDS": "envs.sandbox.jobs:KINDS",
        "job_of": "envs.sandbox.jobs:job_of",
    },
    "envs.verifiers.code_verifier": {
        "ISOLATIONS": "envs.sandbox.sandbox:ISOLATIONS",
        "shared_code_verifier": "CodeVerifier.shared",
    },
    "envs.verifiers.math_verifier": {"shared_math_verifier": "MathVerifier.shared"},
    "feedback": {"Feedback": "CarriedOver"},
    "groups": {
        "imitation_rows": "iterations.credit:imitation_rows",
        "learner_rows": "iterations.credit:learner_rows",
    },
    "ray_start": {
        "TOKEN": "basics.ray_token:TOKEN",
        "USER_SETTINGS": "basics.ray_token:USER_SETTINGS",
        "provide_token": "basics.ray_token:provide_token",
    },
    "rollout_sampling": {"KILL_TIMEOUT_S": "processes.killing:KILL_TIMEOUT_S"},
    "samplers": {"OneAhead": "SamplingAhead", "Sampler": "GroupSource"},
    "shared_inputs": {"with_shared_inputs": "transfers.input_sharing:with_shared_inputs"},
    "torch.distributed_pool": {
        "DistributedPool": "DistributedCollectives",
        "LearnerPool": "LearnerCollectives",
    },
    "torch.torch_optimizers_learner": {"TorchOptimizersLearner": "ObjectivesLearner"},
    "user_view": {"UserView": "RunRecorder"},
    "weight_transfer_choice": {"Settings": "TransferFacts"},
}
RENAMED = {
    f"{PACKAGE}.{module}": {
        name: f"{PACKAGE}.{place}" if ":" in place else place for name, place in names.items()
    }
    for module, names in _NAMES_IN.items()
}
"""By old import path of a module: names that it had, and what they are called now.

A name in another module is "module:name"; one without a module is in the module's new place.
"""


def _look_up(old: str, present: ModuleType, name: str) -> Any:
    """What a name of the module at an old import path means now.

    Args:
        old: The old import path.
        present: The module in its new place.
        name: The name as it was.
    """
    module, _, attribute = RENAMED.get(old, {}).get(name, name).rpartition(":")
    return attrgetter(attribute)(importlib.import_module(module) if module else present)


class _OldModule(ModuleType):
    """An old import path: every attribute, read or set, is one of the module's new place.

    It has the name of the new module, so that `inspect` finds that one by its file.
    """

    def __init__(self, old: str, module: ModuleType) -> None:
        super().__init__(module.__name__, f"Moved to `{module.__name__}`.")
        vars(self).update(_old=old, _module=module)

    def __getattr__(self, name: str) -> Any:
        if name == "__all__" and not hasattr(self._module, name):
            return [public for public in dir(self) if not public.startswith("_")]
        return _look_up(self._old, self._module, name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name.startswith("__"):  # what the import system writes on this module
            super().__setattr__(name, value)
        else:
            setattr(self._module, name, value)

    def __delattr__(self, name: str) -> None:
        delattr(self._module, name)

    def __dir__(self) -> list[str]:
        return sorted({*dir(self._module), *RENAMED.get(self._old, {})})

    def __reduce__(self) -> tuple[Any, ...]:
        """By its import path, as a function that uses it travels to a worker."""
        return importlib.import_module, (self._old,)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function of the module's name.

        Importing `envs.answer_cut` puts this module over the function of that name in `envs`.
        """
        return getattr(self._module, self._old.rpartition(".")[2])(*args, **kwargs)


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
        return _OldModule(spec.name, importlib.import_module(new))

    def exec_module(self, module: ModuleType) -> None:
        """Nothing: the module at the new place has been executed."""


def install() -> None:
    """Let old import paths work in this process; a second call changes nothing."""
    if not any(isinstance(finder, _OldNames) for finder in sys.meta_path):
        sys.meta_path.append(_OldNames())


def renamed(module: str, name: str) -> Any:
    """An attribute of a module under an older name.

    A module that stayed where it was has `__getattr__ = partial(renamed, __name__)`.

    Args:
        module: Import path of the module, a key of `RENAMED`.
        name: The attribute that was asked for.

    Returns:
        The attribute under its present name.

    Raises:
        AttributeError: If it is no older name.
    """
    if name not in RENAMED[module]:
        raise AttributeError(f"module {module!r} has no attribute {name!r}")
    warnings.warn(
        f"`{module}.{name}` is called `{RENAMED[module][name]}` now. The older name goes with the "
        "next release.",
        DeprecationWarning,
        stacklevel=2,
    )
    return _look_up(module, sys.modules[module], name)
