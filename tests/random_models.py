"""Small random causal LMs: a test writes the configuration's family, the sizes are here."""

import torch
from transformers import AutoModelForCausalLM, PretrainedConfig, PreTrainedModel

SIZES = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
"""Of all families with Llama's names, beside a vocabulary."""


def random_lm(
    config: PretrainedConfig, *, seed: int = 0, dtype: torch.dtype | None = None
) -> PreTrainedModel:
    """A model in evaluation mode whose weights, in its own random order, are the seed's."""
    torch.manual_seed(seed)
    return AutoModelForCausalLM.from_config(config, dtype=dtype).eval()


@torch.no_grad()
def vary_vectors(lm: PreTrainedModel, scale: float) -> PreTrainedModel:
    """Add noise to biases and norms, which begin alike: a mix-up would not show.

    Args:
        lm: A model, changed in place; the noise comes from torch's global generator.
        scale: Standard deviation of the noise.
    """
    for parameter in lm.parameters():
        if parameter.dim() == 1:
            parameter += scale * torch.randn_like(parameter)
    return lm
