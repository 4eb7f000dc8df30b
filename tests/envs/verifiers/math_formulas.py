r"""Random formulas with their values, and random spellings of them.

A `Formula` knows its value from its parts, never from reading LaTeX. Its spellings differ in form
(`\frac34`, `0.75`, `6/8`), in order (`a+b`, `b+a`) and in what stands around them; all are right.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from random import Random

from mpmath import mp, mpf

mp.dps = 40
Spelling = Callable[[Random], str]

_TRIGONOMETRY = (
    *(
        ("sin", 30, "\\frac12"),
        ("sin", 45, "\\frac{\\sqrt2}{2}"),
        ("cos", 30, "\\frac{\\sqrt3}{2}"),
    ),
    *(("cos", 60, "0.5"), ("tan", 60, "\\sqrt{3}"), ("tan", 15, "2-\\sqrt3")),
    *(("sin", 18, "\\frac{\\sqrt5-1}{4}"), ("cos", 36, "\\frac{1+\\sqrt{5}}{4}"), ("sin", 10, "")),
)


@dataclass(frozen=True)
class Formula:
    """A number as a formula.

    Attributes:
        value: Its value to 40 digits.
        spell: Returns one of its spellings.
        is_atom: Whether every spelling can stand beside a sign without parentheses.
    """

    value: mpf
    spell: Spelling
    is_atom: bool = False

    def inside(self, rng: Random) -> str:
        """A spelling that can stand beside any sign."""
        text = self.spell(rng)
        return text if self.is_atom else rng.choice((f"({text})", f"\\left({text}\\right)"))


def any_of(*spellings: str) -> Spelling:
    """A choice of texts."""
    return lambda rng: rng.choice(spellings)


def integer(number: int) -> Formula:
    """A whole number above or below 0."""
    spellings = [str(number), f"{{{number}}}"]
    if number >= 1000:
        spellings.append(f"{number:,}".replace(",", "{,}"))
    return Formula(mpf(number), any_of(*spellings), is_atom=number >= 0)


def fraction(above: int, below: int) -> Formula:
    """A fraction of positive integers."""
    k = 3
    texts = [f"\\frac{{{above}}}{{{below}}}", f"\\dfrac{{{above}}}{{{below}}}"]
    texts += [f"\\tfrac{{{above}}}{{{below}}}", f"\\frac{{{k * above}}}{{{k * below}}}"]
    texts += [f"\\frac {{{above}}} {{{below}}}", f"{above}/{below}"]
    if above < 10 and below < 10:
        texts += [f"\\frac{above}{below}", f"\\dfrac {above} {below}", f"\\frac{{{above}}}{below}"]
    exact = Fraction(above, below)
    if 10**4 % exact.denominator == 0:
        texts.append(f"{float(exact)}")
    return Formula(mpf(above) / below, any_of(*texts))


def root(radicand: int, outside: int) -> Formula:
    """A square root with a factor before it."""
    texts = [f"{outside}\\sqrt{{{radicand}}}", f"\\sqrt{{{outside**2 * radicand}}}"]
    texts += [f"\\sqrt{{{radicand}}} \\cdot {outside}", f"{outside} \\times {radicand}^{{1/2}}"]
    if radicand < 10:
        texts += [f"{outside}\\sqrt{radicand}", f"{outside}\\sqrt {radicand}"]
    return Formula(outside * mp.sqrt(radicand), any_of(*texts))


def power(base: int, exponent: int) -> Formula:
    """A power of integers above 1."""
    texts = [f"{base}^{{{exponent}}}", f"{base}^{exponent}", str(base**exponent)]
    texts += [" \\cdot ".join([str(base)] * exponent), f"({base})^{{{exponent}}}"]
    texts += [f"{base}^{{{exponent - 1}}} \\cdot {base}"]
    return Formula(mpf(base) ** exponent, any_of(*texts))


def logarithm(base: int, number: int) -> Formula:
    """A logarithm to a base."""
    texts = [f"\\log_{base} {number}", f"\\log_{{{base}}}{{{number}}}", f"\\log_{base}({number})"]
    texts += [
        f"\\frac{{\\ln {number}}}{{\\ln {base}}}",
        f"\\frac{{1}}{{\\log_{{{number}}} {base}}}",
    ]
    return Formula(mp.log(number) / mp.log(base), any_of(*texts))


def trigonometric(name: str, degrees: int, known: str) -> Formula:
    """A function of an angle."""
    value = getattr(mp, name)(mp.pi * degrees / 180)
    texts = [f"\\{name} {degrees}^\\circ", f"\\{name}({degrees}^{{\\circ}})"]
    texts += [f"\\{name} \\left(\\frac{{{degrees}\\pi}}{{180}}\\right)"]
    if name == "sin":
        texts.append(f"\\cos {90 - degrees}^\\circ")
    return Formula(value, any_of(*texts, *([known] if known else [])))


def circle(above: int, below: int) -> Formula:
    """A multiple of pi."""
    texts = [f"\\frac{{{above}\\pi}}{{{below}}}", f"\\frac{{{above}}}{{{below}}}\\pi"]
    texts += [f"{above}\\pi/{below}", f"\\frac{{\\pi \\cdot {above}}}{{{below}}}"]
    return Formula(above * mp.pi / below, any_of(*texts))


def exponential(exponent: int) -> Formula:
    """A power of e below 1."""
    texts = [f"e^{{-{exponent}}}", f"\\frac{{1}}{{e^{{{exponent}}}}}", f"1/e^{exponent}"]
    return Formula(mp.exp(-exponent), any_of(*texts))


def total(first: Formula, second: Formula, sign: int) -> Formula:
    """A sum or a difference."""

    def spell(rng: Random) -> str:
        one, two = first.inside(rng), second.inside(rng)
        if sign > 0:
            return f"{two} + {one}" if rng.random() < 0.5 else f"{one}+{two}"
        return f"-{two} + {one}" if rng.random() < 0.5 else f"{one} - {two}"

    return Formula(first.value + sign * second.value, spell)


def product(first: Formula, second: Formula) -> Formula:
    """A product."""

    def spell(rng: Random) -> str:
        one, two = first.inside(rng), second.inside(rng)
        if rng.random() < 0.5:
            one, two = two, one
        both = one.startswith(("(", "\\left(")) and two.startswith(("(", "\\left("))
        sign = rng.choice((" \\cdot ", " \\times ", *([""] if both else [])))
        return f"{one}{sign}{two}"

    return Formula(first.value * second.value, spell)


def quotient(first: Formula, second: Formula) -> Formula:
    """A quotient."""

    def spell(rng: Random) -> str:
        form = rng.randrange(3)
        if form == 0:
            return f"\\frac{{{first.spell(rng)}}}{{{second.spell(rng)}}}"
        if form == 1:
            return f"{first.inside(rng)}/{second.inside(rng)}"
        return f"\\dfrac{{1}}{{{second.spell(rng)}}} \\cdot {first.inside(rng)}"

    return Formula(first.value / second.value, spell)


def leaf(rng: Random) -> Formula:
    """A formula of one piece."""
    a, b = rng.randint(2, 9), rng.randint(2, 12)
    makers: Sequence[Callable[[], Formula]] = (
        lambda: integer(rng.choice((a, b, -a, 1000 * a + b))),
        lambda: fraction(a, b),
        lambda: root(rng.choice((2, 3, 5, 7, 10, 11)), a),
        lambda: power(a, rng.randint(2, 4)),
        lambda: logarithm(rng.choice((2, 3, 5)), rng.choice((6, 7, 10))),
        lambda: trigonometric(*rng.choice(_TRIGONOMETRY)),
        lambda: circle(a, rng.choice((5, 7, 11))),
        lambda: exponential(rng.randint(1, 4)),
    )
    return rng.choice(makers)()


def formula(rng: Random, depth: int = 2) -> Formula:
    """A random formula of at most 2**depth pieces."""
    if depth == 0 or rng.random() < 0.4:
        return leaf(rng)
    first, second = formula(rng, depth - 1), formula(rng, depth - 1)
    makers: Sequence[Callable[[], Formula]] = (
        lambda: total(first, second, 1),
        lambda: total(first, second, -1),
        lambda: product(first, second),
        lambda: quotient(first, second),
    )
    found = rng.choice(makers)()
    return found if abs(found.value) > 1e-3 else first


def surrounded(text: str, rng: Random) -> str:
    """A spelling with something around it that changes nothing."""
    around = (
        "{}",
        "{}",
        " {} ",
        "{{{}}}",
        "\\displaystyle {}",
        "\\left({}\\right)",
        "{}.",
        "\\ {}",
    )
    return rng.choice(around).replace("{{{}}}", "{\x00}").replace("{}", text).replace("\x00", text)


def differ(first: mpf, second: mpf) -> bool:
    """Whether two values differ by more than any rounding of a written number."""
    return bool(abs(first - second) > mpf("1e-3") * max(1, abs(first), abs(second)))
