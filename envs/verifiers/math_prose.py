r"""The answer that running text states: found as text here, read whole elsewhere.

Nothing here looks into a formula: what is found is a whole formula between delimiters, the end of a
sentence behind "the answer is", or all that stands between two words.
"""

from __future__ import annotations

import dataclasses
import re

from prefix_rft_rllib.envs.verifiers.math_answers import boxed_answer
from prefix_rft_rllib.envs.verifiers.math_reading import read
from prefix_rft_rllib.envs.verifiers.math_tokens import UnreadError
from prefix_rft_rllib.envs.verifiers.math_words import multiple, unit

_TAIL_CHARS = 4000
_WORD = re.compile(r"(?<![\\a-zA-Z{])[a-zA-Z]{2,}(?![a-zA-Z}])")
_TEXT_WORDS = re.compile(r"\\(?:text|mbox|textbf|textit|mathrm)\s*\{([^{}]*)\}")
_SENTENCE_END = re.compile(r"[a-z)$}\d][.!?]\s+[A-Z$\\]")
_END_MARK = re.compile(r"<\|?[a-z_]*(?:end|eos|eot)[a-z_]*\|?>|</s>|\bim_end\|>", re.IGNORECASE)
_HASHES = re.compile(r"####[ \t]*([^\n#]+)")
_STATEMENT = re.compile(
    r"\banswers?(?:[ \t]+(?:is|are|would be|will be))?[ \t]*(?:\*\*)?[ \t]*"
    r"(?::|=|(?<=is)|(?<=are)|(?<=be))"
    r"[ \t]*(?:\*\*)?[ \t]*:?\s*([^\n]+)",
    re.IGNORECASE,
)
_NEXT_WORD = re.compile(r"[ \t]*([a-zA-Z]+)(?![a-zA-Z])")
_CHANGING = frozenset(
    [
        "am",
        "pm",
        "east",
        "west",
        "north",
        "south",
        "n",
        "s",
        "e",
        "w",
        "more",
        "less",
        "even",
        "odd",
        "percent",
    ]
)
_SENTENCE = re.compile(r"(?:\.(?=\s|$)|[!?。](?=\s|$))")
_FORMULA = re.compile(
    r"\$\$(.+?)\$\$|(?<!\\)\$((?:\\.|[^$\\])+?)\$|\\\((.+?)\\\)|\\\[(.+?)\\\]", re.DOTALL
)
# What ends a formula in running text without delimiters: words, sentence ends, quotes, list marks.
_SEPARATOR = re.compile(
    r"(?<![\\a-zA-Z])(?:[a-zA-Z]{2,}|[aAI](?=[\s.]))(?![a-zA-Z{])|[.!?;:](?=\s|$)|,(?=\s)"
    r"|(?:(?![a-zA-Zπθ²³½¼¾⁰-⁹])[^\W\d_])+|[。，！？：、“”（）\"#]|\*\*|\n\s*(?:[-*•]\s)?"  # noqa: RUF001
)
# Right in front of a number, or behind it: the text does not state that number.
_DENIED_BEFORE = re.compile(
    r"(?:\b(?:not|never|neither|nor|cannot|without|except|unless)|n['\u2019]t)(?:\s+[a-z]+){0,3}\s*[:$(]*$"
    r"|\b(?:at\s+(?:least|most)|(?:less|fewer|more|greater|larger|smaller|bigger|other|rather)\s+than"
    r"|above|below|under|over|up\s+to|exceeds?|instead\s+of)\s*[:$(]*$",
    re.IGNORECASE,
)
_DENIED_BEHIND = re.compile(
    r"^[\s$)]*(?:is|are|was|were|would be|seems|looks)\s+(?:clearly\s+|also\s+)?"
    r"(?:wrong|incorrect|false|impossible|not|too)\b|^[\s$)]*(?:or\s+(?:less|fewer|more|greater)|at\s+(?:least|most))\b",
    re.IGNORECASE,
)
_SQUARE_METRES = re.compile(r"\s?m[²³]$")
_DECIMAL_COMMA = re.compile(r"-?\d+,\d{1,2}\s?[$€%]?")


@dataclasses.dataclass(frozen=True)
class Statement:
    """An answer found in running text.

    Attributes:
        text: The answer.
        has_decimal_comma: True if a comma in it is a decimal comma.
    """

    text: str
    has_decimal_comma: bool = False


def is_prose(text: str) -> bool:
    r"""True if words, or several formulas, stand around the answer."""
    outside = _FORMULA.sub(" ", text)
    has_formula = outside != text and bool(re.search(r"\w", outside))
    has_label = ":" in outside and bool(_WORD.search(outside))
    return has_formula or has_label or len(_WORD.findall(outside)) >= 2 or not text.isascii()


def is_solution(text: str) -> bool:
    """True for a text of sentences, as a solution is, and no bare answer."""
    words = _WORD.findall(_TEXT_WORDS.sub(r" \1 ", text))
    has_sentences = bool(_SENTENCE_END.search(text)) and len(words) > 4
    has_statement = bool(_STATEMENT.search(text)) and len(words) > 6
    return "####" in text or len(words) > 15 or has_sentences or has_statement


def marked_statement(text: str) -> str | None:
    """Return what stands behind the last `####` or "the answer is", None without these."""
    hashes = _HASHES.findall(text)
    if hashes:
        return hashes[-1].strip()
    found = None
    for found in _STATEMENT.finditer(text):  # noqa: B007
        pass
    if found is None:
        return None
    end = _SENTENCE.search(found[1])
    statement = (found[1][: end.start()] if end else found[1]).strip().strip("*").strip()
    return statement or None


def last_statement(response: str) -> Statement | None:
    r"""Return the last answer that a response states.

    In this order: a box or `<answer>` tags; `####`; "the answer is"; else the last formula between
    delimiters or the last number by itself, whichever stands later.

    Args:
        response: Any text; only its last 4,000 characters are searched for an unmarked answer.

    Returns:
        The answer, or None if there is none.
    """
    marked = boxed_answer(response)
    if marked is not None:
        return Statement(marked)
    if re.search(r"\\f?boxed\s*\{", response):
        return None
    text = _END_MARK.sub(" ", response)[-_TAIL_CHARS:]
    statement = marked_statement(text)
    if statement is not None and _is_readable(statement):
        return Statement(statement)
    if not is_prose(text):
        return Statement(text)
    return _last_formula_or_number(text if statement is None else statement)


def _is_readable(text: str) -> bool:
    try:
        read(text)
    except UnreadError:
        return False
    return not is_prose(text) or (text.count("$") == 2 and text.strip(" .").endswith("$"))


def _last_formula_or_number(text: str) -> Statement | None:
    """Return the last formula between delimiters, or between words behind that if it has digits.

    None if the text denies it (`it is not 5`) or bounds it (`at least 5`).
    """
    formula = None
    for found in _FORMULA.finditer(text):
        if len(_WORD.findall(found[0])) < 2 or "\\" in found[0]:
            formula = found
    start = formula.end() if formula else 0
    ends = [found.span() for found in _SEPARATOR.finditer(text, start)] + [(len(text), len(text))]
    for end, begin in zip(reversed(ends), reversed([(0, start), *ends[:-1]]), strict=True):
        chunk = _cleaned(text[begin[1] : end[0]])
        if re.search(r"\d", chunk):
            if _is_denied(text[: begin[1]], text[end[0] :]):
                return None
            return Statement(f"{chunk} {_words_behind(text[end[0] :])}".strip(), _is_decimal(chunk))
    if formula is None or _is_denied(text[: formula.start()], text[formula.end() :]):
        return None
    return Statement(next(group for group in formula.groups() if group))


def _is_denied(before: str, behind: str) -> bool:
    """True if the words around a formula say that it is not the answer, or only its bound."""
    near = before[-80:]
    return bool(_DENIED_BEFORE.search(near) or _DENIED_BEHIND.search(behind))


def _is_decimal(chunk: str) -> bool:
    return _DECIMAL_COMMA.fullmatch(chunk) is not None


def _cleaned(chunk: str) -> str:
    """Drop a dash in front and brackets that have no partner."""
    chunk = _SQUARE_METRES.sub("", chunk.strip())
    chunk = chunk.removeprefix("- ").strip()
    if chunk.count("(") != chunk.count(")") or chunk.count("[") != chunk.count("]"):
        chunk = chunk.strip("()[] ")
    return chunk


def _words_behind(text: str) -> str:
    """Return the words behind a number that belong to it: units, factors, directions."""
    end = 0
    while (word := _NEXT_WORD.match(text, end)) and (
        unit(word[1]) is not None or multiple(word[1]) or word[1].casefold() in _CHANGING
    ):
        end = word.end()
    return text[:end]
