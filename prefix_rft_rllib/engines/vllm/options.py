"""Options of the vLLM engine: the few that are ours, and which arguments vLLM may be given."""

import difflib
import importlib.util
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from prefix_rft_rllib.basics.ranges import real
from prefix_rft_rllib.engines.sampling_options import refuse_here

WORKER_EXTENSION = "prefix_rft_rllib.engines.vllm.worker.VLLMWorkerExtension"

_REASONS = {
    "the model is the one of `model_path`": (
        "model model_weights hf_config_path config_format revision code_revision runner convert "
        "served_model_name"
    ),
    "the engine takes and gives token ids": (
        "tokenizer tokenizer_mode tokenizer_revision skip_tokenizer_init"
    ),
    "weights come from the learner": "load_format model_loader_extra_config download_dir",
    "a token's draw depends on the rollout's seed, temperature and top_p alone "
    "(config.env_runners(temperature=..., top_p=...)); under other settings its log-probability "
    "would not be the one that is trained": (
        "seed logits_processors generation_config override_generation_config speculative_config "
        "spec_method spec_model spec_tokens watermark watermark_config"
    ),
    "the engine needs its own for exact log-probabilities": (
        "logprobs_mode max_logprobs worker_extension_cls"
    ),
    "set config.env_runners(weight_transfer=...)": "weight_transfer_config",
    "every env runner has its own engine: raise `num_env_runners`": (
        "data_parallel_size data_parallel_size_local data_parallel_rank"
    ),
}
RESERVED = {name: reason for reason, names in _REASONS.items() for name in names.split()}
"""Arguments of `vllm.LLM` that are the engine's own, and why."""

_OWN = ("timeout_s", "weight_transfer")

CPU_DEFAULTS: dict[str, Any] = {
    "dtype": "float32",
    "enforce_eager": True,
    # All of it is resident, so vLLM's own choice (most of the memory) is no default for several
    # engines on one machine. The context is cut to what fits.
    "kv_cache_memory_bytes": 256 * 2**20,
    "max_model_len": -1,
    # Prompts share whole blocks only; vLLM's 128 tokens leave short prompts unshared.
    "block_size": 32,
    # vLLM cannot rewind a CPU generator after a partial prefill: it raises.
    "enable_chunked_prefill": False,
}
GPU_DEFAULTS: dict[str, Any] = {"dtype": "bfloat16"}

INSTALL_ADVICE = (
    "engine='vllm' needs vLLM, which is not installed. With NVIDIA GPUs: "
    "pip install 'prefix_rft_rllib[vllm]'. Without: the two commands at the top of "
    "requirements-cpu.txt. Or use engine='transformers'."
)


@dataclass(frozen=True, kw_only=True)
class VLLMEngineOptions:
    """Settings of `VLLMEngine`.

    Attributes:
        timeout_s: Seconds without a single new token after which a call fails; loading weights
            as a whole must be done in this time.
        weight_transfer: vLLM's backend for weights that learners send directly: "nccl" or "ipc";
            None if they come by `load_weights` only.
        llm_arguments: Arguments of `vllm.LLM`, all but `RESERVED`.
    """

    timeout_s: float = 600.0
    weight_transfer: str | None = None
    llm_arguments: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        real(above=0, may_be_infinite=True).check("timeout_s", self.timeout_s)

    @classmethod
    def from_config(cls, options: Mapping[str, Any]) -> "VLLMEngineOptions":
        """Make the options from plain data: the fields of this class, all others are vLLM's.

        Raises:
            ValueError: For a reserved or unknown argument, or a wrong value of ours.
            ImportError: If vLLM is not installed.
        """
        arguments = {name: value for name, value in options.items() if name not in _OWN}
        own = {name: options[name] for name in options if name in _OWN}
        for name in arguments:
            if name in RESERVED:
                raise ValueError(
                    f"`{name}` of vLLM cannot be set in engine_config: {RESERVED[name]}."
                )
        refuse_here(arguments)
        allowed = _llm_argument_names()
        for name in arguments:
            if name not in allowed:
                raise ValueError(_unknown(name, allowed))
        return cls(**own, llm_arguments=arguments)

    def arguments_for(self, *, is_cpu: bool) -> dict[str, Any]:
        """The arguments with the defaults of a device.

        Raises:
            ValueError: For a value that vLLM's build for CPUs cannot run.
        """
        arguments = {**(CPU_DEFAULTS if is_cpu else GPU_DEFAULTS), **self.llm_arguments}
        if is_cpu and arguments["enable_chunked_prefill"]:
            raise ValueError(
                "`enable_chunked_prefill=True` is not possible on a CPU: vLLM fails as soon as a "
                "prompt with a seed is prefilled in parts. Leave it out."
            )
        if self.weight_transfer is not None:
            arguments["weight_transfer_config"] = {"backend": self.weight_transfer}
        num_workers = 1
        for name in ("tensor_parallel_size", "pipeline_parallel_size"):
            num_workers *= arguments.get(name) or 1
        if num_workers > 1:
            # Inside a Ray actor vLLM may choose Ray, and wait for resources the actor holds.
            arguments.setdefault("distributed_executor_backend", "mp")
        return arguments


def import_vllm() -> Any:
    """Import vLLM, with those of its settings that it takes from the environment only.

    Returns:
        The module `vllm`.

    Raises:
        ImportError: If vLLM is not installed.
    """
    if importlib.util.find_spec("vllm") is None:
        raise ImportError(INSTALL_ADVICE)
    # The engine's core runs in this process: tensors and sampling parameters are passed as they
    # are, and nothing is left behind when the process is killed.
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    # With several workers each would bind its threads to the first cores, in every engine.
    os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    import vllm

    return vllm


def check_device(*, has_gpu: bool) -> None:
    """Check that an engine without a GPU is of vLLM's build for CPUs.

    Args:
        has_gpu: Whether the engine's process will have a GPU.

    Raises:
        ValueError: If vLLM would take a GPU that its process was not given.
    """
    import_vllm()
    from vllm.platforms import current_platform

    if not has_gpu and not current_platform.is_cpu():
        raise ValueError(
            "`engine='vllm'` is installed as its build for GPUs, but `num_gpus_per_env_runner` is "
            "0: use config.env_runners(num_gpus_per_env_runner=1), engine='transformers', or "
            "vLLM's build for CPUs (requirements-cpu.txt)."
        )


def _llm_argument_names() -> list[str]:
    import_vllm()
    from vllm.engine.arg_utils import EngineArgs

    names = [argument.name for argument in fields(EngineArgs)]
    return sorted(n for n in names if n not in RESERVED and not n.startswith("_"))


def _unknown(name: str, allowed: list[str]) -> str:
    similar = difflib.get_close_matches(name, ["timeout_s", *allowed], n=3)
    hint = f"Did you mean {' or '.join(map(repr, similar))}? " if similar else ""
    return (
        f"Unknown option {name!r} of the vllm engine. {hint}Known options: timeout_s, and these "
        f"arguments of vllm.LLM: {', '.join(allowed)}."
    )
