r"""From the text of an answer to tokens, strictly: nothing that is written is dropped unseen.

What goes is layout alone: delimiters, blanks, sizes, fonts. A command, an environment or a
character that is not known is `UnreadError`, since an answer is read whole or not at all. Standard
library only; time is linear in the text.
"""

from __future__ import annotations

import dataclasses
import re

from prefix_rft_rllib.envs.verifiers.math_characters import plain_characters
from prefix_rft_rllib.envs.verifiers.math_spellings import (
    BLANK_COMMANDS,
    FONTS,
    FUNCTIONS,
    IGNORED_WITH_GROUP,
    KNOWN,
    LAYOUT,
    PLAIN_FUNCTIONS,
    RENAMED,
    TEXT_COMMANDS,
    TEXT_SWITCHES,
)
from prefix_rft_rllib.envs.verifiers.math_words import is_known_word


class UnreadError(ValueError):
    """The text is not understood as a whole."""


@dataclasses.dataclass(frozen=True)
class Token:
    r"""One piece of an answer.

    Attributes:
        kind: "number" (digits, perhaps with a point), "repeating" (`0.1(6)`), "letters" (a run of
            variables), "word" (upright text), "command" (with its backslash), "begin", "end"
            (environments), or "sign" (everything else, one character or an escaped one).
        text: Its spelling; of an environment, the name.
        is_spaced: True if a blank stands before it.
    """

    kind: str
    text: str
    is_spaced: bool = dataclasses.field(default=False, compare=False)


MAX_DIGITS = 4000
"""Longer numbers are not read: Python refuses to convert them."""


_SPACE = re.compile(r"(?:\s|~|\\[ ,;:!>]|\\/)+")
_COMMAND = re.compile(r"\\([a-zA-Z]+)\*?")
_GROUP = re.compile(r"\s*\{([^{}]*)\}")
_THIN = r"(?:\\[,!;:]|\\ |~)\s?"
_NUMBER = re.compile(
    rf"\d{{1,3}}(?:(?:\s?\{{,\s?\}}|,?{_THIN})\d{{3}}(?!\d))+(?:\.\d+)?|\d+(?:\.\d+)?|\.\d+"
)
_REPEATING = re.compile(
    r"(\d*\.\d*)(?:\s*\\(?:overline|bar)\s*(?:\{(\d+)\}|(\d))|\((\d+)\)"
    r"|\s*\\dot\s*(?:\{(\d)\}|(\d))(?:(\d*)\s*\\dot\s*(?:\{(\d)\}|(\d)))?)"
)
_DOTTED = re.compile(r"(\d*\.\d+)\s*(?:\\(?:l|c)?dots(?![a-zA-Z])|\.\.\.+)")
_DECIMAL_COMMA = re.compile(r"(\d+)\{,\}(\d+)")
_SCIENTIFIC = re.compile(r"(\d+(?:\.\d+)?)[eE]([+-]?\d{1,4})(?![\d.a-zA-Z])")
_ORDINAL = re.compile(
    r"\^?\s*(?:\{\s*)?(?:\\(?:text|mathrm|textrm|rm)\s*\{?\s*)?(?:th|st|nd|rd)(?![a-zA-Z])[\s}]*"
)
_WORD = re.compile(r"[^\W\d_]+(?:[-'][^\W\d_]+)*")
_LETTERS = re.compile(r"[a-zA-Z]+")
_LINE_BREAK = re.compile(r"\\\\\s*(?:\[[^\]]*\])?")
_JOINED = re.compile(r"(?:or|and)(?=[A-Z])")
_SIGNS = set("+-*/^_()[]{},;:=<>!|'&%$€£¥₹¢.?\"`#@")


def tokenize(text: str, is_text: bool = False) -> tuple[Token, ...]:
    r"""Split an answer into tokens.

    Args:
        text: The answer, in LaTeX or plain text.
        is_text: True inside `\text{...}`: letter runs are words there.

    Returns:
        The tokens.

    Raises:
        UnreadError: If a command or a character is not known.
    """
    return tuple(_Scanner(plain_characters(text), is_text).tokens())


class _Scanner:
    """One pass over a text."""

    def __init__(self, text: str, is_text: bool):
        self.text, self.position = text, 0
        self.is_text = is_text
        self.found: list[Token] = []
        self.is_spaced = False
        self.depth = 0
        self.text_depths: list[int] = []

    def tokens(self) -> list[Token]:
        while self.position < len(self.text):
            if match := _SPACE.match(self.text, self.position):
                self.position, self.is_spaced = match.end(), True
            else:
                self._step()
        return self.found

    def _add(self, kind: str, text: str) -> None:
        self.found.append(Token(kind, text, self.is_spaced))
        self.is_spaced = False

    def _step(self) -> None:
        text, position = self.text, self.position
        character = text[position]
        if character.isdecimal() or (
            character == "." and text[position + 1 : position + 2].isdecimal()
        ):
            self._number()
        elif character == "\\":
            self._backslash()
        elif character.isalpha():
            self._letters()
        elif character == "$":
            is_escaped_pair = text.startswith("$$", position)
            self.position += 2 if is_escaped_pair else 1
            self.is_spaced = True
        elif character in _SIGNS:
            self._sign(character)
        else:
            raise UnreadError(f"character {character!r}")

    def _sign(self, character: str) -> None:
        self.position += 1
        if character == "{":
            self.depth += 1
        elif character == "}":
            if self.text_depths and self.text_depths[-1] == self.depth:
                self.text_depths.pop()
                self.is_text = False
            self.depth -= 1
        if character == "*" and self.text.startswith("*", self.position):
            self.position += 1
            character = "^"
        if character in "<>!" and self.text.startswith("=", self.position):
            self.position += 1
            self._add("command", {"<": r"\le", ">": r"\ge", "!": r"\ne"}[character])
            return
        if character == "." and self.text.startswith("..", self.position):
            self.position += 2
            self._add("command", r"\ldots")
            return
        self._add("sign", character)

    def _number(self) -> None:
        text, position = self.text, self.position
        if match := _REPEATING.match(text, position):
            before, start = match[1], (match[5] or match[6] or "")
            period = (
                match[2]
                or match[3]
                or match[4]
                or start + (match[7] or "") + (match[8] or match[9] or "")
            )
            self._add("repeating", f"{before}({period})")
        elif match := _DOTTED.match(text, position):
            self._add("repeating", _with_period(match[1]))
        elif match := _SCIENTIFIC.match(text, position):
            for kind, piece in (("number", match[1]), ("command", r"\times"), ("number", "10"),
                                ("sign", "^"), ("sign", "{")):  # fmt: skip
                self._add(kind, piece)
            self.found.extend(tokenize(match[2]))
            self._add("sign", "}")
        else:
            match = _NUMBER.match(text, position)
            if match is None:
                raise UnreadError("a digit that is no ASCII digit")
            digits = re.sub(r"[^\d.]", "", match[0])
            comma = _DECIMAL_COMMA.match(text, position)
            if comma and comma.end() > match.end():
                match, digits = comma, f"{comma[1]}.{comma[2]}"
            if len(digits) > MAX_DIGITS or not digits.isascii():
                raise UnreadError("a number that is too long")
            self._add("number", digits)
            if (ordinal := _ORDINAL.match(text, match.end())) and not self._opens_more(ordinal[0]):
                self.position = ordinal.end()
                self.is_spaced = True
                return
        self.position = match.end()

    def _opens_more(self, piece: str) -> bool:
        return piece.count("{") != piece.count("}")

    def _letters(self) -> None:
        match = (_WORD if self.is_text else _LETTERS).match(self.text, self.position)
        if match is None:
            match = _WORD.match(self.text, self.position)
            if match is None:
                raise UnreadError(f"character {self.text[self.position]!r}")
            self._add("word", match[0])
            self.position = match.end()
            return
        run = match[0]
        if not self.is_text and (joined := _JOINED.match(run)):
            run = joined[0]
        self.position += len(run)
        if self.is_text:
            self._add(
                "letters" if run in ("e", "i") and self._is_upright_constant() else "word", run
            )
        elif run in PLAIN_FUNCTIONS:
            self._add("command", "\\" + PLAIN_FUNCTIONS[run])
        else:
            is_word = (len(run) >= 4 and not run.isupper()) or is_known_word(run)
            self._add("word" if is_word else "letters", run)

    def _is_upright_constant(self) -> bool:
        return not self.found and len(self.text.strip()) == 1

    def _backslash(self) -> None:
        text, position = self.text, self.position
        match = _COMMAND.match(text, position)
        if match is None:
            following = text[position + 1 : position + 2]
            if following == "\\":
                line_break = _LINE_BREAK.match(text, position)
                self.position = line_break.end() if line_break else position + 2
                self._add("sign", r"\\")
            elif following in ("(", ")", "[", "]", ""):
                self.position += 1 + len(following)
                self.is_spaced = True
            elif following in set("{}%$&#_|"):
                self.position += 2
                self._add("sign", "\\" + following if following in "{}" else following)
            else:
                raise UnreadError(f"`\\{following}`")
            return
        self.position = match.end()
        self._command(match[1])

    def _command(self, name: str) -> None:
        name = RENAMED.get(name, name)
        if name in TEXT_COMMANDS:
            self._text_command(name)
        elif name in TEXT_SWITCHES:
            if not self.is_text and name == "rm":
                self.text_depths.append(self.depth)
                self.is_text = True
        elif name in FONTS or name in LAYOUT:
            if self.text.startswith(".", self.position) and name in ("left", "right"):
                self.position += 1
        elif name in BLANK_COMMANDS:
            self.is_spaced = True
        elif name in IGNORED_WITH_GROUP:
            group = _GROUP.match(self.text, self.position)
            self.position = group.end() if group else self.position
            self.is_spaced = True
        elif name in ("begin", "end"):
            group = _GROUP.match(self.text, self.position)
            if group is None:
                raise UnreadError("an environment without a name")
            self.position = group.end()
            self._add(name, group[1].strip().rstrip("*"))
            columns = _GROUP.match(self.text, self.position)
            if name == "begin" and group[1] == "array" and columns:
                self.position = columns.end()
        elif name == "mathbb":
            self._named_set()
        elif not name.isalpha():
            self._add("sign", "\\" + name if name in "{}" else name)
        elif name == "i":
            self._add("letters", "i")
        elif name in KNOWN:
            self._add("command", "\\" + name)
        else:
            raise UnreadError(f"`\\{name}`")

    def _named_set(self) -> None:
        match = re.compile(r"\s*(?:\{\s*([RZNQC])\s*\}|([RZNQC]))").match(self.text, self.position)
        if match is None:
            raise UnreadError(r"`\mathbb`")
        self.position = match.end()
        self._add("command", "\\" + (match[1] or match[2]))

    def _text_command(self, name: str) -> None:
        text, position = self.text, self.position
        while position < len(text) and text[position].isspace():
            position += 1
        if position >= len(text):
            raise UnreadError(f"`\\{name}` without text")
        if text[position] != "{":
            content, end = text[position], position + 1
        else:
            end = _closing(text, position)
            content, end = text[position + 1 : end], end + 1
        self.position = end
        if not content.strip():
            self.is_spaced = True
            return
        stripped = content.strip().lstrip("\\")
        if name != "text" and stripped in FUNCTIONS:
            self._add("command", "\\" + stripped)
            return
        inner = tokenize(content, is_text=True)
        if (
            len(inner) == 1
            and inner[0].text in ("e", "i")
            and name not in ("mathrm", "operatorname", "text")
        ):
            inner = (dataclasses.replace(inner[0], kind="letters"),)
        spaced = self.is_spaced or content[0].isspace()
        self.found.extend(
            dataclasses.replace(token, is_spaced=spaced) if index == 0 else token
            for index, token in enumerate(inner)
        )
        self.is_spaced = content[-1].isspace()


def _closing(text: str, opening: int) -> int:
    depth = 0
    for match in re.finditer(r"\\.|[{}]", text[opening:], re.DOTALL):
        depth += {"{": 1, "}": -1}.get(match[0], 0)
        if depth == 0:
            return opening + match.start()
    raise UnreadError("a brace that is not closed")


def _with_period(decimal: str) -> str:
    """Read `0.333` before dots as a repeating decimal, if its last digits repeat.

    One digit must come three times or fill the decimal, more digits twice.
    """
    whole, _, digits = decimal.partition(".")
    for length in range(1, len(digits) // 2 + 1):
        period = digits[-length:]
        times = 2 if length > 1 or len(digits) == 2 else 3
        if digits.endswith(period * times):
            return f"{whole}.{digits[:-length]}({period})"
    raise UnreadError("dots after digits that do not repeat")
