"""How each method looks in every figure, and the interval that figures show.

The eight methods that are compared most have a colour of their own: Okabe and Ito's palette, safe
for colour-blind readers, with grey in the place of its yellow, which is hard to see on white.
Relatives share the hue; the ablations have seven hues among themselves, none of them Prefix-RFT's.
What shares a hue differs in line and marker.
"""

from typing import NamedTuple

from scipy import stats

VERMILLION, BLUE, GREEN, PURPLE = "#D55E00", "#0072B2", "#009E73", "#CC79A7"
ORANGE, SKY, BLACK, GREY = "#E69F00", "#56B4E9", "#000000", "#7F7F7F"
SOLID, DASHED, DOTTED, DASH_DOT = "-", (0, (5, 2)), (0, (1, 1.5)), (0, (5, 1.5, 1, 1.5))
DASH_DOT_DOT, LONG_DASHED, LONG_SHORT = (
    (0, (5, 1.5, 1, 1.5, 1, 1.5)),
    (0, (10, 3)),
    (0, (9, 1.5, 3, 1.5)),
)


class Style(NamedTuple):
    """Legend text, colour, line style and marker, as matplotlib takes them."""

    label: str
    colour: str
    line: str | tuple[int, tuple[float, ...]] = SOLID
    marker: str = "o"


STYLES = {
    "prefix_rft": Style("Prefix-RFT", VERMILLION),
    "rft": Style("RFT", BLUE),
    "sft": Style("SFT", GREEN),
    "luffy": Style("LUFFY", PURPLE),
    "relift": Style("ReLIFT", ORANGE),
    "uft": Style("UFT", SKY),
    "chord": Style("CHORD", BLACK),
    "dr_po": Style("DR-PO variant", GREY),
    # Relatives.
    "prefix_rft_adaptive": Style("Prefix-RFT, adaptive window", VERMILLION, DASHED, "s"),
    "grpo": Style("GRPO", BLUE, DASHED, "s"),
    "sft_rft": Style("SFT + RFT", GREEN, DASHED, "s"),
    "rl_with_sft_loss": Style("RL with SFT loss", GREEN, DOTTED, "^"),
    "dft": Style("DFT", GREEN, DASH_DOT_DOT, "D"),
    "trsft": Style("TrSFT", GREEN, LONG_DASHED, "v"),
    "psft": Style("PSFT", GREEN, LONG_SHORT, "P"),
    # Ablations.
    "random_prefix": Style("random prefix tokens", SKY, DASH_DOT, "D"),
    "bottom_entropy": Style("prefix tokens of lowest entropy", PURPLE, DASH_DOT, "v"),
    "freeze_prefix": Style("freeze prefix", ORANGE, DASH_DOT, "P"),
    "update_all": Style("update all", BLACK, DASH_DOT, "X"),
    "static_prefix_weight": Style("static prefix weight", GREY, DASH_DOT, "*"),
    "rft_on_policy_clip": Style("RFT + on-policy clip", BLUE, DASH_DOT, "<"),
    "uniform_schedule": Style("uniform schedule", GREEN, DASH_DOT, ">"),
}
"""By name in `prefix_rft_rllib.methods.METHODS`. Colour and line are unique, so are colour and
marker: where solid and dashed lines mean something else, the marker tells methods apart."""


def half_width(values: list[float]) -> float:
    """Half width of the 95% interval of a mean (Student's t); 0 for a single value."""
    if len(values) < 2:
        return 0.0
    return float(stats.t.ppf(0.975, len(values) - 1) * stats.sem(values))
