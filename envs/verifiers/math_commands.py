r"""Commands of formulas with their arguments: `\frac`, `\sqrt`, `\log_2`, sums, matrices."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from fractions import Fraction

from prefix_rft_rllib.envs.verifiers.math_cursor import Cursor
from prefix_rft_rllib.envs.verifiers.math_formula import (
    GREEK,
    MANY_ARGUMENTS,
    MATRICES,
    Formula,
    Number,
    Operation,
    Symbol,
    matrix_rows,
    number,
    split,
)
from prefix_rft_rllib.envs.verifiers.math_tokens import Token, UnreadError

_INVERSE = {r"\sin": "arcsin", r"\cos": "arccos", r"\tan": "arctan", r"\cot": "arccot"}
_NEGATIVE_ONE = Number(Fraction(-1))


class CommandParser(Cursor, ABC):
    """Reads what stands behind a command; the formulas inside are read by the class below it."""

    @abstractmethod
    def inner(self, tokens: Sequence[Token]) -> Formula:
        """Read all of some tokens as one formula."""

    @abstractmethod
    def product(self) -> Formula:
        """Read factors."""

    @abstractmethod
    def side_by_side(self, is_argument: bool = False) -> Formula:
        """Read factors without a sign between them."""

    @abstractmethod
    def base(self) -> Formula:
        """Read one factor without its exponent."""

    @abstractmethod
    def group_tokens(self) -> Sequence[Token]:
        """Take a group or what stands for it."""

    def arguments(self) -> list[Formula]:
        """Take a bracket with arguments between commas."""
        opening = self.position
        bracket = self.take()
        if bracket.text not in ("(", "{", "["):
            raise UnreadError("a function without an argument")
        end = self.closing(opening)
        parts = split(self.tokens[opening + 1 : end], (",",))
        self.position = end + 1
        return [self.inner(part) for part in parts]

    def function(self) -> Formula:
        r"""Read a function with its base, exponent and argument: `\log_2 8`, `\sin^2 x`."""
        token = self.take()
        name = token.text[1:]
        if token.text in MANY_ARGUMENTS:
            return Operation(name, tuple(self.arguments()))
        base: Formula | None = None
        exponent: Formula | None = None
        while self.peek().text in ("^", "_") and self.peek().kind == "sign":
            if self.take().text == "_":
                base = self.inner(self.group_tokens())
            else:
                exponent = self.inner(self.group_tokens())
        if exponent in (_NEGATIVE_ONE, Operation("neg", (Number(Fraction(1)),))):
            if token.text not in _INVERSE:
                raise UnreadError(f"`{token.text}^{{-1}}`")
            name, exponent = _INVERSE[token.text], None
        if base is not None and self.peek(-1).kind == "number" and self._has_no_argument():
            return self._with_cut_base(self.peek(-1).text)
        is_negative = bool(self.accept("-"))
        argument = self.side_by_side(is_argument=True)
        if is_negative:
            argument = Operation("neg", (argument,))
        if name == "log":
            result = Operation("log", (argument, base or Number(Fraction(10))))
        elif base is not None:
            raise UnreadError(f"a subscript of `{token.text}`")
        else:
            result = Operation(name, (argument,))
        return result if exponent is None else Operation("pow", (result, exponent))

    def _has_no_argument(self) -> bool:
        following = self.peek()
        return following.kind == "end of text" or following.text in ("+", "-", ",", ")", "=")

    def _with_cut_base(self, digits: str) -> Formula:
        r"""Read `\log_28` as TeX does, which takes one digit for the base: the logarithm of 8."""
        if len(digits) < 2 or not digits.isdecimal() or digits[0] in "01":
            raise UnreadError("a logarithm without an argument")
        return Operation("log", (number(digits[1:]), number(digits[0])))

    def name_tokens(self) -> Sequence[Token]:
        r"""Take the letters behind `\angle` and its like."""
        start = self.position
        while self.peek().kind == "letters" and (
            start == self.position or not self.peek().is_spaced
        ):
            self.take()
        if self.position > start:
            return self.tokens[start : self.position]
        tokens = self.group_tokens()
        if not tokens or not all(one.kind in ("letters", "word") for one in tokens):
            raise UnreadError("a decoration of a formula")
        return tokens

    def two_arguments(self) -> tuple[Formula, Formula]:
        r"""Read `{3}{4}`, `34`, `3 4`; three digits in a row are ambiguous."""
        first = self.peek()
        if first.kind == "number" and len(first.text) == 2 and first.text.isdigit():
            self.take()
            return number(first.text[0]), number(first.text[1])
        return self.one_argument(), self.one_argument()

    def one_argument(self) -> Formula:
        """Read one argument: a group, a digit, a letter or a command with its own."""
        token = self.peek()
        if token.text == "{":
            start = self.position
            end = self.closing(start)
            self.position = end + 1
            return self.inner(self.tokens[start + 1 : end])
        if token.kind == "number" and len(token.text) == 1:
            return number(self.take().text)
        if token.kind == "letters":
            return Symbol(self.take().text)
        if token.kind == "command" and token.text in GREEK:
            return Symbol(self.take().text)
        if token.kind == "command" and token.text in (r"\sqrt", r"\frac"):
            return self.base()
        raise UnreadError("an argument without braces")

    def root(self) -> Formula:
        """Read a root, behind its command."""
        index: Formula = Number(Fraction(2))
        if self.peek().text == "[":
            end = self.closing(self.position)
            index = self.inner(self.tokens[self.position + 1 : end])
            self.position = end + 1
        if self.peek().text in ("{", "("):
            return Operation("root", (self.base(), index))
        return Operation("root", (self.inner(self.group_tokens()), index))

    def large_operator(self, name: str) -> Formula:
        """Read a sum or product with its bounds."""
        lower: Sequence[Token] = ()
        upper: Sequence[Token] = ()
        for _ in range(2):
            if self.accept("_"):
                lower = self.group_tokens()
            elif self.accept("^"):
                upper = self.group_tokens()
        parts = split(lower, ("=",))
        if len(parts) != 2 or not upper:
            raise UnreadError(f"a {name} without bounds")
        index = self.inner(parts[0])
        if not isinstance(index, Symbol):
            raise UnreadError(f"a {name} without an index")
        bounds = self.inner(parts[1]), self.inner(upper)
        return Operation(name, (self.product(), index, *bounds))

    def matrix(self, token: Token) -> Formula:
        r"""Read a matrix, behind its `\begin`."""
        if token.text not in MATRICES:
            raise UnreadError(f"environment {token.text}")
        end = self.closing(self.position - 1)
        tokens = self.tokens[self.position : end]
        self.position = end + 1
        rows = matrix_rows(tokens)
        formulas = tuple(Operation("row", tuple(self.inner(cell) for cell in row)) for row in rows)
        if len({len(row.arguments) for row in formulas}) != 1:
            raise UnreadError("rows of different length")
        return Operation("det" if token.text == "vmatrix" else "matrix", formulas)
