"""The loss of a learner's model on given demonstrations, without training on them."""

from collections.abc import Sequence

import numpy as np
import torch
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.learner.learner import Learner

from prefix_rft_rllib.core.microbatches import microbatches
from prefix_rft_rllib.core.tokens import Region, pad_rows


@torch.no_grad()
def demonstration_losses(
    rows: Sequence[tuple[np.ndarray, np.ndarray]], max_tokens: int, learner: Learner
) -> list[float]:
    """Score demonstrations under the weights as they are now.

    Where learners share one model, all of them must call this with the same rows.

    Args:
        rows: Prompt and demonstration of each as token ids. Pairs of shapes (P,) and (R,), int32.
        max_tokens: Padded tokens of one forward pass, at most; a longer row has one of its own.
        learner: With the model; nothing of it changes.

    Returns:
        -log pi of each whole demonstration, nats, of the policy at `temperature`.
    """
    module, device = learner.module[DEFAULT_MODULE_ID].unwrapped(), learner._device
    tokens = [np.concatenate(pair) for pair in rows]
    regions = [
        np.repeat([Region.PROMPT, Region.DEMONSTRATION], [len(prompt), len(demonstration)])
        for prompt, demonstration in rows
    ]
    losses = torch.zeros(len(rows), dtype=torch.float64)
    for numbers, _ in microbatches([len(row) for row in tokens], max_tokens):
        chosen = numbers.tolist()
        input_ids = pad_rows([tokens[i] for i in chosen], pad_value=0, dtype=torch.int64)
        region = pad_rows([regions[i] for i in chosen], pad_value=Region.PADDING, dtype=torch.int8)
        batch = {"input_ids": input_ids.to(device), "region": region.to(device)}
        logp, _ = module.token_logps(batch)
        losses[numbers] = -logp.double().sum(dim=1).cpu()
    return losses.tolist()
