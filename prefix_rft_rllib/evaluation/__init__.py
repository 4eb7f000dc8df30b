"""How good a model is: held-out problems, intervals, paired tests."""

from typing import TYPE_CHECKING

from prefix_rft_rllib.basics.lazy_names import lazy_names

if TYPE_CHECKING:
    from prefix_rft_rllib.evaluation.held_out import evaluate_held_out, evaluate_problems

__all__ = ["evaluate_held_out", "evaluate_problems"]

_HELD_OUT = "prefix_rft_rllib.evaluation.held_out"
# Statistics of finished results are used without Ray.
__getattr__, __dir__ = lazy_names(__name__, {name: f"{_HELD_OUT}:{name}" for name in __all__})
