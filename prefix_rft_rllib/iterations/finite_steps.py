"""A run whose optimizer steps are left out one after the other has nothing to go on for."""

import math
from collections.abc import Mapping, Sequence
from typing import Any


class FiniteSteps:
    """Counts steps that were left out since loss or gradient was not finite.

    Args:
        most: `max_nonfinite_steps`; None for no limit.
    """

    def __init__(self, most: int | None) -> None:
        self._most = most
        self._num_in_a_row = 0

    def observe(self, iteration: int, steps: Sequence[Mapping[str, Any]]) -> None:
        """Count the steps of an update.

        Args:
            iteration: Its iteration, from 1.
            steps: The learners' records of them, with "loss" and "grad_norm", in their order.

        Raises:
            FloatingPointError: If too many in a row were left out.
        """
        for step in steps:
            loss, norm = step["loss"], step["grad_norm"]
            is_finite = math.isfinite(loss) and math.isfinite(norm)
            self._num_in_a_row = 0 if is_finite else self._num_in_a_row + 1
            if self._most is not None and self._num_in_a_row >= self._most:
                raise FloatingPointError(
                    f"{self._num_in_a_row} optimizer steps in a row were left out, the last in "
                    f"iteration {iteration}: loss {loss}, gradient norm {norm}. "
                    f"`max_nonfinite_steps` is {self._most}. The weights are those before these "
                    "steps, and minibatches.jsonl has each of them. Try a lower `lr`, a "
                    "`grad_clip`, or compute_dtype='float32'."
                )
