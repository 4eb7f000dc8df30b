"""What `VLLMEngine` adds to vLLM's workers, in whatever process they run.

vLLM makes this class a base of its worker class, and calls the methods by name in every worker.
"""

from typing import Any

import torch
from vllm.model_executor.layers.logits_processor import LogitsProcessor


class VLLMWorkerExtension:
    """Methods for `collective_rpc`; `self` is vLLM's worker."""

    model_runner: Any

    def set_logit_scale(self, scale: float) -> int:
        """Multiply the model's logits by `scale` from now on, on top of its own scale.

        This is how the engine applies a temperature: vLLM's "raw" log-probabilities are those of
        the scaled logits then, before top-p.

        Args:
            scale: 1 / temperature.

        Returns:
            How many layers of this worker compute logits; 1 unless the model is out of the
            ordinary.
        """
        layers = [
            layer
            for layer in self.model_runner.get_model().modules()
            if isinstance(layer, LogitsProcessor)
        ]
        for layer in layers:
            own_scale = layer.__dict__.setdefault("prefix_rft_own_scale", layer.scale)
            layer.scale = own_scale * scale
        return len(layers)

    def load_weights_file(self, path: str) -> None:
        """Replace the weights by those of a file that `torch.save` wrote.

        Args:
            path: State dict with Hugging Face names, on a disk that this worker can read.
        """
        weights = torch.load(path, mmap=True, weights_only=True)
        self.model_runner.reload_weights(weights_iterator=iter(weights.items()))
