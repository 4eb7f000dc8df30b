"""Which rows are trained whatever the old policy's values at them are."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from prefix_rft_rllib.core.shown_columns import OLD_POLICY_COLUMNS
from prefix_rft_rllib.core.token_selection import All
from prefix_rft_rllib.core.token_weights import Rule, token_values
from prefix_rft_rllib.core.tokens import TokenColumns


def rows_without_old_policy_pass(
    rules: Sequence[Rule], columns: TokenColumns, iteration: int
) -> Tensor:
    """Rows whose weights do not depend on the old-policy pass, and are not all 0.

    Such a row takes part in the training pass of its minibatch for sure. If no optimizer step comes
    before, that pass gives its old log-probabilities and entropies. Not among them are the rows of
    a rule whose value reads these columns, rows with tokens among which a selection chooses, and
    rows that are worth nothing.

    Args:
        rules: The rules of the objective.
        columns: The rows, before the old-policy pass.
        iteration: Training iteration, from 0, for values on a schedule.

    Returns:
        Shape (B,), bool.
    """
    is_trained = torch.zeros_like(columns.is_member)
    needs_pass = torch.zeros_like(columns.is_member)
    for rule in rules:
        is_region = columns.in_region(rule.region)
        if rule.reads & OLD_POLICY_COLUMNS or not isinstance(rule.keep, All):
            needs_pass |= is_region.any(dim=1)
        else:
            has_worth = token_values(rule, columns, iteration) != 0
            is_trained |= (is_region & has_worth).any(dim=1)
    return is_trained & ~needs_pass
