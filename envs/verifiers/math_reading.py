r"""Reading one answer: LaTeX text in, SymPy expression out. Runs in worker processes only.

A bare answer is read *whole or not at all*. math-verify's `parse` is made for prose: given
`3\sqrt{13}` without dollar signs it finds the number 3, and when the LaTeX parser rejects
a formula it falls back to any number inside. Both would reward wrong answers, so a bare
answer goes straight to the library's normaliser and LaTeX parser, and `parse` sees prose.
"""

from __future__ import annotations

import re
from typing import TypeAlias

from latex2sympy2_extended.latex2sympy2 import latex2sympy
from latex2sympy2_extended.math_normalization import NormalizationConfig, normalize_latex
from math_verify.parser import (
    ExprExtractionConfig,
    LatexExtractionConfig,
    get_last_eq,
    parse,
    should_treat_as_complex,
)
from sympy import Basic, I, MatrixBase

from prefix_rft_rllib.envs.verifiers.math_answers import closing_brace

Expression: TypeAlias = Basic | MatrixBase

# math-verify's defaults, except units: its list strips bare letters, so `2t`, `8c` and
# `\frac{1}{2}ab` would lose their variables. `_without_unit` does that work instead.
_NORMALIZATION = NormalizationConfig(
    basic_latex=True, units=False, malformed_operators=True, nits=True, boxed="none"
)
_PROSE_EXTRACTION = (
    LatexExtractionConfig(
        normalization_config=NormalizationConfig(
            basic_latex=True, units=False, malformed_operators=True, nits=True, boxed="all"
        )
    ),
    ExprExtractionConfig(),
)

_UNIT_WORDS = "|".join(
    (
        "centimet(?:er|re)s?|millimet(?:er|re)s?|kilomet(?:er|re)s?|met(?:er|re)s?|inch(?:es)?",
        "feet|foot|yards?|miles?|cm|mm|km|kg|lbs?|ft|mph|kmph|pounds?|ounces?|(?:kilo)?grams?",
        "lit(?:er|re)s?|gallons?|seconds?|minutes?|hours?|days?|weeks?|months?|years?|degrees?",
        "radians?|units?|dollars?|cents?|euros?|rupees?|yuan|people|persons?|students?|children",
        "points?|times?|ways?|apples?|coins?|books?|pages?|cups?|tickets?|steps?|integers?",
        "numbers?|digits?|edges?|sides?|vertices|square|cubic|sq|cu|per",
    )
)
_BLANKS = r"(?:\s|\\[ ,;!]|~)*"
_POWER = r"(?:\s*\^\s*(?:\d|\{\d\}))?"
_UNIT = re.compile(
    rf"(?<=[\d}})]){_BLANKS}(?:(?:{_UNIT_WORDS})(?![a-zA-Z])(?:\s|/)*)+{_POWER}\.?$",
    re.IGNORECASE,
)
_TEXT = r"\\(?:text|textnormal|textrm|textbf|textit|mbox|mathrm|rm)"
_TEXT_UNIT = re.compile(rf"(?<=[\da-zA-Z}})\]]){_BLANKS}{_TEXT}\s*\{{([^{{}}]*)\}}{_POWER}[\s.]*$")
_PROSE_UNIT = re.compile(
    rf"(?<=[\d}}]){_BLANKS}{_TEXT}\s*\{{([^{{}}]{{0,40}})\}}{_POWER}"
    r"(?=[\s.,]{0,3}(?:\}|\$|\\\)|\\\]))"
)
_NO_UNIT = re.compile(r"\d|[\\$=<>]|\b(?:and|or|not|e|i|pi)\b", re.IGNORECASE)

_DELIMITERS = (("$$", "$$"), ("$", "$"), (r"\(", r"\)"), (r"\[", r"\]"))
_INNER_DELIMITER = re.compile(r"(?<!\\)(?:\$|\\[()](?!\\))|(?<!\\)\\\[(?!\d*\.?\d*(?:pt|em|ex))")
_UPRIGHT_CONSTANT = re.compile(
    r"\\(?:mathrm|text|operatorname)\s*(?:\{\s*(e|i|\\pi)\s*\}|(?<=mathrm)\s(e|i)(?![a-zA-Z]))"
)
_ORDINAL = re.compile(
    r"(?<=\d)\s*(?:\^\s*\{\s*\\(?:text|mathrm)\s*\{\s*(?:th|st|nd|rd)\s*\}\s*\}"
    r"|\^?\\(?:text|mathrm)\s*\{\s*(?:th|st|nd|rd)\s*\}|\^\{(?:th|st|nd|rd)\})"
)
_CHARACTERS = str.maketrans(
    {
        "\u2212": "-",
        "\u2013": "-",
        "\u00a0": " ",
        "\u2009": " ",
        "\u202f": " ",
        "\n": " ",
        "\t": " ",
    }
)
_SPELLINGS = (
    (re.compile(r"√\s*\(([^()]*)\)"), r"\\sqrt{\1}"),
    (re.compile(r"√\s*(\d+|[a-zA-Z])"), r"\\sqrt{\1}"),
    (re.compile("½"), r"\\frac{1}{2}"),
    (re.compile("²"), "^{2}"),
    (re.compile("³"), "^{3}"),
    (re.compile("°"), r"^{\\circ}"),
    # `\frac \pi4`: the library's repair of missing braces would split the command's name.
    (re.compile(r"(\\[dtc]?frac)\s*(\\(?:pi|theta|alpha|beta|gamma|phi))(?![a-zA-Z])"), r"\1{\2}"),
)
_THIN_SPACE_THOUSANDS = re.compile(r"(?<![\d.])\d{1,3}(?:,?(?:\\[,!;]|\{,\})\s*\d{3})+(?![\d])")
_BLANK_THOUSANDS = re.compile(r"-?\d{1,3}(?:(?:\s|\\ |~)+\d{3})+(?:\.\d+)?")
_STYLE = re.compile(
    r"\\(?:display|text|script)style(?![a-zA-Z])|\\(?:big|Big|bigg|Bigg)[lr]?(?![a-zA-Z])"
)
_LABEL = re.compile(
    rf"^{_TEXT}\s*\{{\s*(?:so |thus |hence )?(?:the )?(?:final )?(?:answer|result)"
    r"(?: is)?\s*:?\s*\}\s*[:=]?(?=\s*\S)",
    re.IGNORECASE,
)
_NAMED_THOUSANDS = re.compile(r"[a-zA-Z]\s*=\s*(-?\d{1,3}(?:,\d{3})+)")
_MIXED_NUMBER = re.compile(r"(-?\d+)\s+(\d+)\s*/\s*(\d+)")
_SCIENTIFIC = re.compile(r"(-?\d+(?:\.\d+)?)[eE]([+-]?\d+)")
_SIDE_BY_SIDE_NUMBERS = re.compile(r"\d(?:\s|\\[ ,;:!]|~|\\q?quad)+\d")
_CURRENCY = re.compile(r"^(-?)\s*(?:\\\$|\\pounds|[€£¥₹]|\\text\{\s*[€£¥₹]\s*\})\s*")
_PROSE_WORD = re.compile(r"(?<![\\a-zA-Z{])[a-zA-Z]{3,}(?![a-zA-Z}])")


def bare_answer(text: str) -> str:
    r"""Return the formula itself: no outer `$...$` or box, no dots after it, one spelling.

    Args:
        text: An answer as a data file or a box gives it.

    Returns:
        LaTeX for the whole answer, ready for `read_formula`.
    """
    text = text.translate(_CHARACTERS).strip()
    while (inner := _unwrapped(text)) != text:
        text = inner
    for pattern, replacement in _SPELLINGS:
        text = pattern.sub(replacement, text)
    text = _ORDINAL.sub("", _upright_constants_plain(text))
    text = _THIN_SPACE_THOUSANDS.sub(lambda match: re.sub(r"[^\d]", "", match.group()), text)
    text = _STYLE.sub(" ", _INNER_DELIMITER.sub(" ", text)).strip()
    text = _CURRENCY.sub(r"\1", text)
    text = _without_unit(_LABEL.sub("", text).strip())
    if _BLANK_THOUSANDS.fullmatch(text):
        text = re.sub(r"[^\d.-]", "", text)
    if match := _NAMED_THOUSANDS.fullmatch(text):
        text = match[1]
    if match := _MIXED_NUMBER.fullmatch(text):
        text = rf"{match[1]}\frac{{{match[2]}}}{{{match[3]}}}"
    if match := _SCIENTIFIC.fullmatch(text):
        text = rf"{match[1]} \times 10^{{{int(match[2])}}}"
    return text


def _unwrapped(text: str) -> str:
    """Strip one layer of punctuation, delimiters or box around the whole text."""
    # A lone backslash at the end is the rest of a line break; `\ ` and `\!` are blanks.
    text = re.sub(r"(?:(?<!\\)\\[ !,;]?|[.,;:\s])+$", "", text).strip()
    for opening, closing in _DELIMITERS:
        if len(text) > len(opening) + len(closing) and text.startswith(opening):
            inner = text[len(opening) : -len(closing)]
            is_whole = text.endswith(closing) and not inner.endswith("\\")
            if is_whole and opening not in inner and closing not in inner:
                return inner.strip()
    for command in (r"\boxed", r"\fbox", ""):
        body = text[len(command) :].lstrip() if text.startswith(command) else ""
        if body.startswith("{") and closing_brace(body, 0) == len(body) - 1:
            return body[1:-1].strip()
    return text


def _upright_constants_plain(text: str) -> str:
    r"""Write `\mathrm{e}` as `e`: the library reads the former as the name of a variable."""
    return _UPRIGHT_CONSTANT.sub(lambda match: f"{{{match[1] or match[2]}}}", text)


def _without_unit(text: str) -> str:
    r"""Drop the units at the end: `10\text{ cm}^2`, `12 miles`, `5\,\mathrm{m/s}`.

    Only what cannot be part of the answer goes: a text with digits, `and`, `or` or `not`
    stays (`24 \text{ or } 25`), and so does a bare letter, which is a variable (`2t`).
    """
    while (match := _TEXT_UNIT.search(text)) and not _NO_UNIT.search(match[1]):
        text = text[: match.start()]
    return _UNIT.sub("", text).strip() or text


def read_formula(text: str, is_complex: bool = False) -> Expression | None:
    r"""Read a bare answer as a whole.

    Args:
        text: The result of `bare_answer`.
        is_complex: Read `i` as the imaginary unit and symbols as complex.

    Returns:
        The expression, or None if any part of the text is not understood.

    Raises:
        MemoryError: If the worker's memory limit is reached.
    """
    if not text or _SIDE_BY_SIDE_NUMBERS.search(text):
        return None
    latex = normalize_latex(text, _NORMALIZATION)
    for candidate in dict.fromkeys((latex, get_last_eq(latex))):
        try:
            expression = latex2sympy(
                candidate, is_real=not is_complex, convert_degrees=False, normalization_config=None
            )
        except MemoryError:
            raise
        except Exception:  # The parser says "not understood" in many ways.
            continue
        if isinstance(expression, (Basic, MatrixBase)):
            return with_imaginary_unit(expression) if is_complex else expression
    return None


def with_imaginary_unit(expression: Expression) -> Expression:
    """Put the imaginary unit where the parser left a symbol named `i`."""
    unit_symbols = [one for one in expression.free_symbols if str(one) == "i"]
    try:
        return expression.subs([(one, I) for one in unit_symbols])
    except TypeError:  # An inequality between complex numbers; `i` is a name there.
        return expression


def is_complex_formula(text: str) -> bool:
    """True if the text speaks of complex numbers, as math-verify decides, or `2i`."""
    return should_treat_as_complex(text) or bool(re.search(r"(?<![a-zA-Z\\])i(?![a-zA-Z])", text))


def is_prose(text: str) -> bool:
    r"""True if words or several formulas stand around the answer."""
    bare = bare_answer(text)
    without_commands = re.sub(r"\\[a-zA-Z]+(?:\s*\{[a-zA-Z .()]*\})?", " ", bare)
    if len(_PROSE_WORD.findall(without_commands)) >= 2:
        return True
    outside = text.strip().strip("$")
    return bool(re.search(r"(?<!\\)\$|\\[(\[]|\\boxed", outside)) and bare != text.strip()


def read_prose(text: str) -> list[Expression | str]:
    """Return what math-verify finds in a text: at most an expression and its spelling."""
    text = _ORDINAL.sub("", _upright_constants_plain(text))
    text = _PROSE_UNIT.sub(lambda match: match[0] if _NO_UNIT.search(match[1]) else "", text)
    return parse(text, _PROSE_EXTRACTION, parsing_timeout=None)
