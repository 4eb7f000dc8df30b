"""A Hugging Face causal LM: loaded, split into backbone and head, run padded or packed."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from prefix_rft_rllib.basics.hub_models import model_directory
from prefix_rft_rllib.models.progress_bars import no_progress_bars
from prefix_rft_rllib.models.sent_weights import build_received

FILES_ONLY = {"local_files_only": True, "trust_remote_code": False, "use_safetensors": True}
"""How models are loaded: no look-up in the hub, no code of the author, no pickled weights."""
PACKING_ATTENTION = ("flash_attention_2", "flash_attention_3", "flash_attention_4")
"""Attention implementations that read packed rows without a mask of their product."""


def load_lm(model_path: str, *, attn_implementation: str | None = None) -> Any:
    """Load a causal LM with float32 weights.

    Args:
        model_path: A `save_pretrained` directory or a name of the Hugging Face hub, with the
            revision as "org/name@revision"; not read while this process has received the
            weights (`sent_weights.receive_weights`).
        attn_implementation: Attention of transformers; None for the model's own choice.

    Returns:
        The model.

    Raises:
        ValueError: If the directory lacks weights of its configuration: they would be random. Or
            if the model does not have that attention here.
    """
    from transformers import AutoModelForCausalLM

    # float32 master weights whatever the checkpoint's dtype: steps at lr 1e-6 vanish in bfloat16.
    try:
        received = build_received(model_path, attn_implementation)
        if received is not None:
            return received
        with no_progress_bars():
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                model_directory(model_path),
                dtype=torch.float32,
                output_loading_info=True,
                attn_implementation=attn_implementation,
                **FILES_ONLY,
            )
    except (ImportError, ValueError) as error:
        if attn_implementation is None:
            raise
        raise ValueError(
            f"`attn_implementation` ({attn_implementation!r}) cannot be used with the model at "
            f"{model_path!r}: {error} Leave it out for the model's own choice."
        ) from error
    model, report = loaded
    absent = sorted({*report["missing_keys"], *(key for key, *_ in report["mismatched_keys"])})
    if absent:
        raise ValueError(
            f"`model_path` ({model_path!r}) lacks weights of its configuration: {absent[:3]} and "
            f"{len(absent)} in all. They would be random. Give a complete `save_pretrained` "
            "directory."
        )
    return model


def save_lm(lm: Any, directory: Path, **kwargs: Any) -> None:
    """`save_pretrained`, with the generation settings as they are.

    transformers loads settings that it refuses to save (a temperature without `do_sample`, as some
    published models have it).

    Args:
        lm: A causal LM.
        directory: Where to; made if missing.
        **kwargs: Of the model's `save_pretrained`.
    """
    from transformers import GenerationConfig
    from transformers.utils import GENERATION_CONFIG_NAME

    given = lm.generation_config
    lm.generation_config = GenerationConfig()
    try:
        with no_progress_bars():
            lm.save_pretrained(directory, **kwargs)
    finally:
        lm.generation_config = given
    given.to_json_file(directory / GENERATION_CONFIG_NAME, use_diff=True)


@contextlib.contextmanager
def _portable_attention(lm: Any) -> Iterator[None]:
    """Attention that runs on every device and in every type, whatever the model trains with."""
    chosen = lm.config._attn_implementation
    lm.set_attn_implementation("eager")
    try:
        yield
    finally:
        lm.set_attn_implementation(chosen)


@torch.no_grad()
def has_plain_head(lm: Any) -> bool:
    """Whether the model's logits are its head applied to its backbone's last hidden state.

    Some models scale or cap their logits. Found by comparing both on a few tokens.

    Args:
        lm: A causal LM in evaluation mode.

    Returns:
        True if log probabilities may be computed from hidden states, without the model's logits.
    """
    head = lm.get_output_embeddings()
    if not isinstance(head, torch.nn.Linear) or lm.base_model is lm:
        return False
    input_ids = torch.arange(4, device=head.weight.device)[None] % head.weight.shape[0]
    with _portable_attention(lm):
        logits = lm(input_ids, use_cache=False).logits
        hidden = lm.base_model(input_ids, use_cache=False).last_hidden_state
    return bool(torch.equal(logits, head(hidden)))


def packs_rows(lm: Any) -> bool:
    """Whether the model reads packed rows, and its attention at the cost of the rows apart."""
    attention = getattr(lm.config, "_attn_implementation", None)
    return attention in PACKING_ATTENTION and not numbers_tokens_itself(lm)


def numbers_tokens_itself(lm: Any) -> bool:
    """Whether layers number the tokens of a pass from 0, whatever positions they are given.

    Those of Llama 4 without rotary embeddings do, and scale queries by it (`floor_scale`, 8,192):
    tokens of several rows in one are then taken for later ones of a long row.
    """
    return any(
        getattr(module, "attn_temperature_tuning", False) and not module.use_rope
        for module in lm.modules()
    )


def run_rows(model: Any, input_ids: torch.Tensor, attends: torch.Tensor, *, packed: bool) -> Any:
    """Run a model on right-padded rows.

    Args:
        model: A causal LM or its backbone.
        input_ids: Token ids. Shape (B, T), int64.
        attends: False at padding. Shape (B, T), bool.
        packed: Run all rows as one, one after the other without padding; positions tell the model
            where a row begins.

    Returns:
        The model's output; its tensors have the rows as they were run, (B, T, ...) or, packed,
        (1, number of tokens, ...).
    """
    if not packed:
        # No mask: a token sees only tokens before it, and padding is behind. Attention is faster.
        return model(input_ids, use_cache=False)
    positions = torch.arange(input_ids.shape[1], device=input_ids.device).expand_as(input_ids)
    return model(input_ids[attends][None], position_ids=positions[attends][None], use_cache=False)


@torch.no_grad()
def check_reads_packed_rows(lm: Any) -> None:
    """Check that rows run as one do not see each other, and keep their positions.

    Args:
        lm: A causal LM in evaluation mode.

    Raises:
        ValueError: If they do not.
    """
    if numbers_tokens_itself(lm):
        raise ValueError(
            f"`packing=True`: layers of {type(lm).__name__} number the tokens of a pass, not those "
            "of each row (`attn_temperature_tuning`). Leave it out."
        )
    vocab_size = lm.get_input_embeddings().weight.shape[0]
    input_ids = torch.arange(6, device=lm.device).reshape(2, 3) % vocab_size
    attends = torch.ones_like(input_ids, dtype=torch.bool)
    with _portable_attention(lm):
        apart, packed = (run_rows(lm, input_ids, attends, packed=p).logits for p in (False, True))
    if not torch.allclose(packed.reshape(apart.shape), apart, rtol=1e-3, atol=1e-3):
        raise ValueError(
            f"`packing=True`: rows of {type(lm).__name__} that are run as one see each other. "
            "Leave it out."
        )


def layers_of(lm: Any) -> list[torch.nn.Module]:
    """The layers of a causal LM, first to last; none for a model that does not mark them."""
    from transformers.modeling_layers import GradientCheckpointingLayer

    return [m for m in lm.modules() if isinstance(m, GradientCheckpointingLayer)]


def checkpoint_activations(lm: Any) -> None:
    """Recompute every layer in the backward pass instead of keeping its activations.

    Only the layers themselves are put into training mode, which is what switches recomputation on;
    their parts, dropout among them, stay in evaluation mode.

    Args:
        lm: A causal LM; changed in place.

    Raises:
        ValueError: If the model does not support it.
    """
    layers = layers_of(lm)
    if not layers or not lm.supports_gradient_checkpointing:
        raise ValueError(
            f"`activation_checkpointing=True`: {type(lm).__name__} does not support it. Leave it "
            "out, or lower `max_tokens_per_microbatch`."
        )
    # The newer name is transformers' from 5.23 on. Without arguments both recompute without
    # reentrant autograd.
    getattr(lm, "activation_checkpointing_enable", lm.gradient_checkpointing_enable)()
    for layer in layers:
        layer.training = True
