r"""Words in answers: units, factors, numbers. A closed list; every other word must agree.

A unit says what is counted and may be left out; `million` and `dozen` multiply; `even`, `east` or
`p.m.` change the meaning and are in no list here. Standard library only.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from fractions import Fraction

from prefix_rft_rllib.envs.verifiers.math_nouns import COUNTED
from prefix_rft_rllib.envs.verifiers.math_spellings import names


@dataclasses.dataclass(frozen=True)
class Unit:
    """A unit, as powers of base units and its size in them.

    Attributes:
        powers: Base units and their powers, in order of the names.
        size: Size in base units: 1/100 for a centimetre.
    """

    powers: tuple[tuple[str, int], ...]
    size: Fraction = Fraction(1)

    def times(self, other: Unit, power: int = 1) -> Unit:
        """Return the product with a power of another unit."""
        powers: dict[str, int] = dict(self.powers)
        for name, count in other.powers:
            powers[name] = powers.get(name, 0) + power * count
        left = tuple(sorted((name, count) for name, count in powers.items() if count))
        return Unit(left, self.size * other.size**power)


NO_UNIT = Unit(())
PERCENT = Unit((("percent", 1),))
DEGREE = Unit((("degree", 1),))

_INCH, _POUND = Fraction(254, 10_000), Fraction(45_359_237, 100_000_000)
_MEASURES: Mapping[str, Mapping[str, Fraction | int]] = {
    "metre": {
        **{"m meter metre": 1, "cm centimeter centimetre": Fraction(1, 100)},
        **{"mm millimeter millimetre": Fraction(1, 1000), "km kilometer kilometre": 1000},
        **{"dm decimeter decimetre": Fraction(1, 10), "nm nanometer": Fraction(1, 10**9)},
        **{"micrometer micron": Fraction(1, 10**6), "in inch inches": _INCH},
        **{"ft foot feet": 12 * _INCH, "yd yard": 36 * _INCH, "mi mile": 63_360 * _INCH},
    },
    "kilogram": {
        **{
            "kg kilogram kilo": 1,
            "g gm gram": Fraction(1, 1000),
            "mg milligram": Fraction(1, 10**6),
        },
        **{"lb lbs pound": _POUND, "oz ounce": _POUND / 16, "tonne": 1000, "ton": 2000 * _POUND},
    },
    "second": {
        **{"s sec second": 1, "ms millisecond": Fraction(1, 1000), "min mins minute": 60},
        **{"h hr hrs hour": 3600, "day": 86_400, "week": 604_800},
    },
    "month": {"month": 1, "year yr yrs": 12, "decade": 120, "century centuries": 1200},
    "litre": {
        **{"l liter litre": 1, "ml milliliter millilitre": Fraction(1, 1000)},
        **{"cl centiliter": Fraction(1, 100), "cc": Fraction(1, 1000)},
    },
    "gallon": {
        **{"gal gallon": 1, "qt quart": Fraction(1, 4), "pt pint": Fraction(1, 8)},
        **{"cup": Fraction(1, 16), "tablespoon tbsp": Fraction(1, 256)},
        **{"teaspoon tsp": Fraction(1, 768)},
    },
    "dollar": {"dollar usd": 1, "cent ¢": Fraction(1, 100)},
    "euro": {"euro eur €": 1},
    "sterling": {"£ gbp": 1, "pence": Fraction(1, 100)},
    "yen": {"yen": 1},
    "yuan": {"yuan rmb": 1},
    "¥": {"¥": 1},
    "rupee": {"rupee ₹": 1},
    "degree": {"degree deg": 1},
    "radian": {"radian rad": 1},
    "percent": {"percent pct": 1, "percentage points": 1},
    "newton": {"n newton": 1, "kn kilonewton": 1000},
    "joule": {"j joule": 1, "kj kilojoule": 1000},
    "calorie": {"calorie cal": 1, "kcal": 1000},
    "watt": {"w watt": 1, "kw kilowatt": 1000},
    "volt": {"v volt": 1},
    "ampere": {"a amp ampere": 1},
    "ohm": {"ohm": 1},
    "electronvolt": {"ev electronvolt": 1, "kev": 1000, "mev": 10**6, "gev": 10**9},
    "atmosphere": {"atm atmosphere": 1},
    "hertz": {"hz hertz": 1, "khz": 1000, "mhz": 10**6, "ghz": 10**9},
    "pascal": {"pa pascal": 1, "kpa": 1000, "mpa": 10**6},
    "kelvin": {"k kelvin": 1},
    "mole": {"mol mole": 1},
    "coulomb": {"c coulomb": 1},
    "bit": {"bit": 1, "byte": 8},
    "acre": {"acre": 1},
    "hectare": {"hectare ha": 1},
    "bushel": {"bushel": 1},
    "celsius": {"celsius": 1},
    "fahrenheit": {"fahrenheit": 1},
}
# Case tells these apart: `5 \text{ N}` is a force, `5 \text{ n}` is a variable set upright.
_UPPER_SYMBOLS = frozenset(names("N J W V A K C L"))
_LOWER_SYMBOLS = frozenset(names("m s g h l"))
_ALIASES = {
    **{"mph": "mile/hour", "kmph": "km/hour", "kph": "km/hour", "fps": "foot/second"},
    **{"rpm": "revolution/minute", "sqft": "foot^2"},
}
_MULTIPLES = {
    **{"hundred": 100, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12},
    **{"dozen": 12, "lakh": 10**5, "crore": 10**7, "score": 20, "gross": 144},
}
_NUMBERS = {
    name: number
    for number, name in enumerate(
        names(
            "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen "
            "fifteen sixteen seventeen eighteen nineteen twenty"
        )
    )
} | dict(
    zip(names("thirty forty fifty sixty seventy eighty ninety"), range(30, 100, 10), strict=True)
)
_SHARES = {
    **{"half": 2, "quarter": 4},
    **dict(
        zip(names("third fourth fifth sixth seventh eighth ninth tenth"), range(3, 11), strict=True)
    ),
}
FILLERS = frozenset(
    names("approximately approx about roughly exactly total altogether overall equals")
)
"""Words that say nothing about the value."""
_MODIFIERS = frozenset(names("different distinct possible unique whole full separate such total"))
_SMALL_WORDS = frozenset(
    names(
        "and or is are the not yes no all any none if for of to in on at am pm per with when where "
        "so then than more less odd even east west north south left right up down true false "
        "sq cu each mod an as by it its at least most only both either neither old too win wins"
    )
)


def _table() -> dict[str, Unit]:
    units = {}
    for base, measures in _MEASURES.items():
        for spellings, size in measures.items():
            for name in spellings.split():
                units[name] = Unit(((base, 1),), Fraction(size))
    return units


_UNITS = _table()
_BARE_SYMBOLS = frozenset(
    name
    for name in _UNITS
    if 2 <= len(name) <= 3 and name not in ("in", "mi", "pa", "ha", "pt", "cal", "rad")
)


def multiple(word: str) -> int | None:
    """Return the factor that a number word stands for: 1,000,000 for `million`."""
    word = word.casefold()
    return _MULTIPLES.get(word, _MULTIPLES.get(word.removesuffix("s")))


def number_in_words(words: tuple[str, ...]) -> int | None:
    """Return the number that words spell out, `two million five`; None if they do not."""
    total, least = 0, 10**18
    group: int | None = None
    for word in (part for one in words for part in one.casefold().split("-")):
        if word in _NUMBERS:
            value = _NUMBERS[word]
            follows_hundred = group and group % 100 == 0 and value
            follows_tens = group and group % 100 in range(20, 100, 10) and 0 < value < 10
            if group is not None and not (follows_hundred or follows_tens):
                return None
            group = (group or 0) + value
        elif word == "hundred" and group and group < 100:
            group *= 100
        elif group and word != "hundred" and (factor := _MULTIPLES.get(word, least)) < least:
            total, group, least = total + group * factor, None, factor
        else:
            return None
    return total + (group or 0) if words and (total or group is not None) else None


def share_in_words(words: tuple[str, ...]) -> Fraction | None:
    """Return the fraction below 1 that words spell out, `two-thirds`; None if they do not."""
    *above, below = [part for one in words for part in one.casefold().split("-")]
    numerator = number_in_words(tuple(above))
    denominator = _SHARES.get(below, _SHARES.get(below.removesuffix("s")))
    if numerator is None or denominator is None or not 0 < numerator < denominator:
        return None
    return Fraction(numerator, denominator)


def unit(word: str, is_upright: bool = True) -> Unit | None:
    """Return the unit that a word names, or None.

    Args:
        word: The word; plurals are known.
        is_upright: False for letters set as variables: only names of two letters and more are
            units then (`5cm`), and `5m` is not.
    """
    if len(word) == 1 and not (
        word in _UPPER_SYMBOLS or word in _LOWER_SYMBOLS or not word.isalpha()
    ):
        return None
    if len(word) == 1 and word.isalpha() and not is_upright:
        return None
    name = word.casefold().rstrip(".")
    if alias := _ALIASES.get(name):
        return _compound(alias)
    for candidate in (name, name.removesuffix("s"), name.removesuffix("es")):
        if candidate in _UNITS and (len(candidate) > 1 or candidate == name):
            return _UNITS[candidate]
    for candidate in _singulars(name):
        if candidate in COUNTED:
            return Unit((("# " + candidate, 1),))
    return None


def _compound(text: str) -> Unit:
    above, _, below = text.partition("/")
    name, _, power = above.partition("^")
    found = NO_UNIT.times(unit(name) or NO_UNIT, int(power or 1))
    return found.times(unit(below) or NO_UNIT, -1) if below else found


def _singulars(name: str) -> tuple[str, ...]:
    irregular = {
        "people": "person", "children": "child", "men": "man", "women": "woman", "mice": "mouse",
        "vertices": "vertex", "geese": "goose", "teeth": "tooth", "dice": "die", "loaves": "loaf",
        "leaves": "leaf", "knives": "knife", "shelves": "shelf", "halves": "half", "axes": "axis",
        "indices": "index", "matrices": "matrix", "wolves": "wolf",
    }  # fmt: skip
    if name in irregular:
        return (irregular[name],)
    shorter = [name, name.removesuffix("s"), name.removesuffix("es")]
    if name.endswith("ies"):
        shorter.append(name[:-3] + "y")
    return tuple(shorter)


def is_modifier(word: str) -> bool:
    """True for words before a counted noun that leave the count as it is."""
    return word.casefold() in _MODIFIERS


def is_known_word(run: str) -> bool:
    """True if letters in a formula are a word and no product of variables: `cm`, `and`."""
    if len(run) == 1:
        return False
    run = run.casefold() if run[1:].islower() else run
    return (
        run in _BARE_SYMBOLS
        or run in _SMALL_WORDS
        or (
            len(run) >= 3
            and (multiple(run) is not None or run in _NUMBERS or unit(run, False) is not None)
        )
    )
