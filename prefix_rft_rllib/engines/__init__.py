"""Generation engines: token ids in; token ids, log-probabilities and finish reasons out."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from prefix_rft_rllib.engines.engine import (
    Engine,
    EngineBrokenError,
    Generation,
    GenerationRequest,
)

if TYPE_CHECKING:
    from transformers import PretrainedConfig

__all__ = [
    "ENGINES",
    "Engine",
    "EngineBrokenError",
    "Generation",
    "GenerationRequest",
    "build_engine",
    "check_engine_config",
]


def _transformers(
    model_config: "PretrainedConfig", eos_token_ids: Sequence[int], **engine_config: Any
) -> Engine:
    # Imported here: an engine's library is loaded only when that engine is chosen.
    from prefix_rft_rllib.engines.transformers.engine import TransformersEngine

    return TransformersEngine(model_config, eos_token_ids=eos_token_ids, **engine_config)


def _transformers_options(engine_config: Mapping[str, Any], has_gpu: bool) -> None:
    from prefix_rft_rllib.engines.transformers.engine import TransformersEngineOptions

    TransformersEngineOptions.from_config(engine_config)


def _vllm(
    model_config: "PretrainedConfig", eos_token_ids: Sequence[int], **engine_config: Any
) -> Engine:
    from prefix_rft_rllib.engines.vllm.engine import VLLMEngine

    return VLLMEngine(model_config, eos_token_ids=eos_token_ids, **engine_config)


def _vllm_options(engine_config: Mapping[str, Any], has_gpu: bool) -> None:
    from prefix_rft_rllib.engines.vllm.options import VLLMEngineOptions, check_device

    VLLMEngineOptions.from_config(engine_config)
    check_device(has_gpu=has_gpu)


ENGINES: dict[str, Callable[..., Engine]] = {"transformers": _transformers, "vllm": _vllm}
_OPTION_CHECKS: dict[str, Callable[..., None]] = {
    "transformers": _transformers_options,
    "vllm": _vllm_options,
}


def check_engine_config(
    name: str, engine_config: Mapping[str, Any], *, has_gpu: bool = True
) -> None:
    """Check the options of an engine without building it.

    Args:
        name: A key of `ENGINES`.
        engine_config: Options of that engine.
        has_gpu: Whether its process will have a GPU.

    Raises:
        ValueError: For an option or value the engine does not accept, or without a GPU that its
            library was built for.
        ImportError: If the engine's library is not installed.
    """
    _OPTION_CHECKS[name](engine_config, has_gpu)


def build_engine(
    name: str,
    model_config: "PretrainedConfig",
    *,
    eos_token_ids: Sequence[int],
    **engine_config: Any,
) -> Engine:
    """Build the engine of that name; it has no weights until `load_weights`.

    Args:
        name: A key of `ENGINES`.
        model_config: Hugging Face configuration of the causal language model.
        eos_token_ids: Ids that end a sequence.
        **engine_config: Options of that engine, for "transformers" those of
            `TransformersEngineOptions`, for "vllm" those of `VLLMEngineOptions`.

    Raises:
        ValueError: For an unknown name, or an option or value the engine does not accept.
        ImportError: If the engine's library is not installed.
    """
    if name not in ENGINES:
        raise ValueError(f"Unknown engine {name!r}. Known engines: {', '.join(sorted(ENGINES))}.")
    return ENGINES[name](model_config, eos_token_ids, **engine_config)
