"""Attention over a prefix tree: each row sees its own path, and no token is computed twice.

transformers lets attention be registered by name, and with it what makes its mask. A model that is
switched to `PREFIX_TREE` runs padded rows by PyTorch's attention as before; while `run_tree` runs
it, attention goes row by row: the queries are the nodes that a row adds to the rows before it, keys
and values are those of its whole path.
"""

from __future__ import annotations

import contextlib
import contextvars
import itertools
from typing import Any

import torch
from torch import Tensor

from prefix_rft_rllib.core.prefix_tree import PrefixTree, prefix_tree
from prefix_rft_rllib.core.tokens import Region
from prefix_rft_rllib.models.causal_lm import numbers_tokens_itself

PREFIX_TREE = "prefix_tree"
"""Name of this attention in transformers."""
SHARING_ATTENTION = "sdpa"
"""The attention of transformers that it is made of: PyTorch's."""
_MIN_QUERIES, _MAX_CALLS = 256, 8
"""A row's queries are cut into calls, each with the keys up to its last query: that many of that
many queries, or of more."""

_running: contextvars.ContextVar[PrefixTree | None] = contextvars.ContextVar(
    "prefix_tree", default=None
)


class TreeMask:
    """The tree, and what a token of a row may see; the mask that layers are given.

    Args:
        tree: What is run.
        sees: Shape (W, W), bool, W the longest row: True where the token at the first position of a
            row sees the one at the second. None for all tokens up to itself.
    """

    def __init__(self, tree: PrefixTree, sees: Tensor | None) -> None:
        self.paths = tree.paths
        self.branches = tree.branches
        self.is_causal = sees is None
        width = max(branch.stop for branch in tree.branches)
        self.sees = torch.ones(width, width, dtype=torch.bool, device=tree.place.device).tril()
        if sees is not None:
            self.sees = sees[0, 0]

    def calls(self, start: int, stop: int) -> list[tuple[int, int, Tensor | None]]:
        """Calls of the attention for the own nodes of one row.

        Args:
            start: Position of the first of them.
            stop: Length of the row.

        Returns:
            First position, position behind the last, and mask (queries, keys up to that position);
            None for a call that is causal as it is.
        """
        if start == 0 and self.is_causal:
            return [(0, stop, None)]
        num_queries = max(_MIN_QUERIES, -(-(stop - start) // _MAX_CALLS))
        edges = [*range(start, stop, num_queries), stop]
        return [
            (first, last, self.sees[first:last, :last]) for first, last in itertools.pairwise(edges)
        ]


def _attend(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Any,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """PyTorch's attention as transformers calls it; row by row under a `TreeMask`.

    Shapes (1, heads, N, D) of query, key and value, (1, N, heads, D) of the result.
    """
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    if not isinstance(attention_mask, TreeMask):
        return sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)
    lengths = [branch.stop for branch in attention_mask.branches]
    keys = key.index_select(2, attention_mask.paths).split(lengths, dim=2)
    values = value.index_select(2, attention_mask.paths).split(lengths, dim=2)
    outputs, own = [], 0
    for (_, start, stop), k, v in zip(attention_mask.branches, keys, values, strict=True):
        for first, last, sees in attention_mask.calls(start, stop):
            own, begin = own + last - first, own
            mask = None if sees is None else sees[None, None]
            q = query[:, :, begin:own]
            output, _ = sdpa_attention_forward(
                module, q, k[:, :, :last], v[:, :, :last], mask, **kwargs
            )
            outputs.append(output)
    return torch.cat(outputs, dim=1), None


def _make_mask(**kwargs: Any) -> Any:
    """The mask that PyTorch's attention gets; of a tree that of its longest row, as `TreeMask`."""
    from transformers.masking_utils import sdpa_mask

    tree = _running.get()
    if tree is None:
        return sdpa_mask(**kwargs)
    width = max(branch.stop for branch in tree.branches)
    row = {"batch_size": 1, "q_length": width, "kv_length": width, "attention_mask": None}
    return TreeMask(tree, sdpa_mask(**{**kwargs, **row}))


def run_tree(model: Any, input_ids: Tensor, tree: PrefixTree) -> Any:
    """Run a model on the nodes of a tree.

    Args:
        model: A causal LM or its backbone, after `switch_to_trees`.
        input_ids: Token ids of the rows. Shape (B, T), int64.
        tree: Of these rows.

    Returns:
        The model's output; its tensors have the nodes as one row, (1, N, ...).
    """
    nodes = input_ids.flatten()[tree.place][None]
    token = _running.set(tree)
    try:
        # A mask of ones: without one, transformers takes positions that go back for packed rows.
        return model(
            nodes,
            attention_mask=torch.ones_like(nodes, dtype=torch.bool),
            position_ids=tree.positions[None],
            use_cache=False,
        )
    finally:
        _running.reset(token)


def switch_to_trees(lm: Any) -> None:
    """Let a model run trees by `run_tree`, beside padded rows.

    Args:
        lm: A causal LM in evaluation mode; changed in place.

    Raises:
        ValueError: If it cannot, with the reason; the model is as before then.
    """
    from transformers import AttentionInterface, AttentionMaskInterface

    chosen = lm.config._attn_implementation
    if chosen != SHARING_ATTENTION:
        raise ValueError(
            f"the attention of {type(lm).__name__} is {chosen!r} here, and {SHARING_ATTENTION!r} "
            "alone can do that."
        )
    if numbers_tokens_itself(lm):
        raise ValueError(
            f"layers of {type(lm).__name__} number the tokens of a pass, not those of each row "
            "(`attn_temperature_tuning`)."
        )
    AttentionInterface.register(PREFIX_TREE, _attend)
    AttentionMaskInterface.register(PREFIX_TREE, _make_mask)
    lm.set_attn_implementation(PREFIX_TREE)
    with contextlib.ExitStack() as undo:
        undo.callback(lm.set_attn_implementation, chosen)
        _check_reads_trees(lm)
        undo.pop_all()


@torch.no_grad()
def _check_reads_trees(lm: Any) -> None:
    """Compare the logits of three short rows that share their beginning, as a tree and apart."""
    vocab_size = lm.get_input_embeddings().weight.shape[0]
    ids = torch.tensor([[0, 1, 2, 3, 4, 5], [0, 1, 2, 6, 7, 8], [0, 1, 2, 6, 9, 0]])
    input_ids = (ids % vocab_size).to(lm.device)
    region = torch.full_like(input_ids, Region.RESPONSE, dtype=torch.int8)
    tree = prefix_tree(input_ids, region)
    apart = lm(input_ids, use_cache=False).logits
    try:
        shared = run_tree(lm, input_ids, tree).logits[0][tree.node]
    except (AttributeError, TypeError, IndexError, RuntimeError) as error:
        raise ValueError(
            f"{type(lm).__name__} does not take the masks of trees ({error})."
        ) from error
    scale = float(apart.abs().max())
    if not torch.allclose(shared, apart, rtol=0, atol=1e-4 * scale):
        raise ValueError(
            f"rows of {type(lm).__name__} that are run as one see each other, or not their whole "
            "prompt: not all of its layers are attention that transformers hands out (others are "
            "recurrent, say)."
        )
