"""Settings that are declared once."""

from dataclasses import dataclass

import pytest

from prefix_rft_rllib.basics.declarations import NEEDED, declarations, setting
from prefix_rft_rllib.basics.ranges import mapping, whole


@dataclass(kw_only=True)
class Kitchen:
    cook: str = setting(NEEDED, whole(), "Who cooks.")
    num_plates: int = setting(4, whole(1), "Plates.", change="For guests.", paper="2")
    spices: dict = setting({"salt": 1}, mapping("names to grams"), "What goes in.")


def test_a_declaration_is_a_field_of_a_dataclass():
    with pytest.raises(TypeError, match="cook"):
        Kitchen()
    first, second = Kitchen(cook="a"), Kitchen(cook="b")
    assert (first.num_plates, first.spices) == (4, {"salt": 1})
    assert first.spices is not second.spices


def test_declarations_know_everything_in_the_order_of_the_class():
    cook, plates, spices = declarations(Kitchen)
    assert cook.default is NEEDED
    assert (plates.name, plates.default, plates.paper, plates.change) == (
        *("num_plates", 4, "2", "For guests."),
    )
    assert plates.allowed.contains(1) and not plates.allowed.contains(0)
    assert plates.description == "Plates. A whole number of at least 1."
    assert spices.default == {"salt": 1}
    assert spices.default is not declarations(Kitchen)[2].default
