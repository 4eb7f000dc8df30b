r"""One formula: tokens in, a tree out, whole or not at all. Standard library only.

Every token must find its place in the tree, else the formula is not read: there is no recovery and
no guessing which half of an ambiguous one (`24 25`, `\frac123`) was meant.
"""

from __future__ import annotations

from collections.abc import Sequence

from prefix_rft_rllib.envs.verifiers.math_commands import CommandParser
from prefix_rft_rllib.envs.verifiers.math_formula import (
    CLOSING,
    GREEK,
    MANY_ARGUMENTS,
    ONE_ARGUMENT,
    Formula,
    Number,
    Operation,
    Symbol,
    number,
    quotient,
)
from prefix_rft_rllib.envs.verifiers.math_tokens import Token, UnreadError

_DECORATIONS = frozenset(
    (r"\angle", r"\triangle", r"\vec", r"\hat", r"\overrightarrow", r"\overline")
)
_FUNCTION_LETTERS = frozenset("fgh")
MAX_DEPTH = 60
"""Deeper nesting is not read."""
_FACTOR_COMMANDS = (
    frozenset(
        (r"\frac", r"\binom", r"\sqrt", r"\lfloor", r"\lceil", r"\sum", r"\prod", r"\mathcal")
    )
    | _DECORATIONS
)


def parse(tokens: Sequence[Token]) -> Formula:
    """Read a formula.

    Args:
        tokens: All tokens of it.

    Returns:
        The tree.

    Raises:
        UnreadError: If any token is left over or the nesting is too deep.
    """
    return _Parser((), 0).inner(_single_letters(tokens))


def _single_letters(tokens: Sequence[Token]) -> list[Token]:
    """Cut runs of variables into variables."""
    result: list[Token] = []
    for token in tokens:
        if token.kind == "letters" and len(token.text) > 1:
            result.append(Token("letters", token.text[0], token.is_spaced))
            result.extend(Token("letters", letter) for letter in token.text[1:])
        else:
            result.append(token)
    return result


class _Parser(CommandParser):
    """Recursive descent over the tokens of one formula."""

    def sum(self) -> Formula:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise UnreadError("nesting too deep")
        terms: list[Formula] = []
        while True:
            sign = self.accept("+", "-", r"\pm", r"\mp")
            if sign is None and terms:
                break
            term = self.product()
            name = {"-": "neg", r"\pm": "pm", r"\mp": "mp"}.get(sign.text if sign else "+")
            terms.append(Operation(name, (term,)) if name else term)
        self.depth -= 1
        return terms[0] if len(terms) == 1 else Operation("add", tuple(terms))

    def product(self) -> Formula:
        result = self.signed_side_by_side()
        while operator := self.accept(r"\cdot", r"\times", "*", "/", r"\div", ":"):
            factor = self.signed_side_by_side()
            if operator.text in (r"\cdot", r"\times", "*"):
                result = Operation("mul", (result, factor))
            else:
                result = quotient(result, factor)
        return result

    def signed_side_by_side(self) -> Formula:
        is_negative = False
        while sign := self.accept("+", "-"):
            is_negative ^= sign.text == "-"
        result = self.side_by_side()
        return Operation("neg", (result,)) if is_negative else result

    def side_by_side(self, is_argument: bool = False) -> Formula:
        """Factors without a sign between them bind closer than `/`: `1/2x` is 1/(2x)."""
        first = self.peek()
        factors = [self.power()]
        if first.kind == "number" and (mixed := self._mixed_number(first, factors[0])):
            factors = [mixed]
        is_open_bracket = first.text in "([" and first.kind == "sign"
        while self._starts_factor() and not (
            is_argument and (is_open_bracket or self._starts_function())
        ):
            following = self.peek()
            is_letter_power = isinstance(factors[-1], Symbol) and self.peek(1).text == "^"
            if (
                following.kind in ("number", "repeating")
                and not is_letter_power
                and not _may_stand_before_number(factors[-1], self.peek(-1))
            ):
                raise UnreadError("numbers side by side")
            factors.append(self.power())
        return factors[0] if len(factors) == 1 else Operation("mul", tuple(factors))

    def _mixed_number(self, token: Token, whole: Formula) -> Formula | None:
        r"""Read `1\frac12` and `1 1/2`; anything else that looks like it is `UnreadError`."""
        if "." in token.text or self.peek(-1) is not token:
            return None
        start = self.position
        if self.peek().kind == "command" and self.peek().text == r"\frac":
            part = self.base()
        elif (
            [self.peek(i).kind for i in (0, 2)] == ["number", "number"]
            and self.peek(1).text == "/"
            and self.peek().is_spaced
        ):
            part = quotient(number(self.take().text), number((self.take(), self.take())[1].text))
        else:
            return None
        is_raised = self.peek().text in ("^", "!") and not self._is_degree_sign()
        if isinstance(part, Operation) and part.name == "div" and not is_raised:
            above, below = part.arguments
            if isinstance(above, Number) and isinstance(below, Number):
                if above.value >= below.value or not (above.is_exact and below.is_exact):
                    raise UnreadError("a mixed number whose fraction is not below 1")
                return self.postfixed(Operation("add", (whole, part)))
        self.position = start
        return None

    def _is_degree_sign(self) -> bool:
        return r"\circ" in (self.peek(1).text, self.peek(2).text) and self.peek(1).text in (
            "{",
            r"\circ",
        )

    def _starts_factor(self) -> bool:
        token = self.peek()
        if token.kind in ("number", "repeating", "letters"):
            return True
        if token.kind == "command":
            return token.text in GREEK or token.text in _FACTOR_COMMANDS or self._starts_function()
        if token.kind == "begin":
            return True
        return token.kind == "sign" and (
            token.text in "([{" or (token.text == "|" and not self.bars)
        )

    def _starts_function(self) -> bool:
        token = self.peek()
        return token.kind == "command" and (
            token.text in ONE_ARGUMENT or token.text in MANY_ARGUMENTS
        )

    def power(self) -> Formula:
        if self._starts_function():
            return self.function()
        return self.postfixed(self.base())

    def postfixed(self, result: Formula) -> Formula:
        """Read what stands behind a factor: exponents, `!`, `%`, degree signs, primes."""
        while True:
            if self.accept("!"):
                result = Operation("factorial", (result,))
                if self.peek().text == "!":
                    raise UnreadError("a double factorial")
            elif self.accept("%"):
                result = Operation("percent", (result,))
            elif self.peek().text == "^" and self.peek().kind == "sign":
                self.take()
                result = self.raised(result)
                result = self._with_late_subscript(result)
                if self.peek().text == "^":
                    raise UnreadError("two exponents")
            elif self.accept(r"\circ"):
                result = Operation("degree", (result,))
            elif self.peek().text == "'" and isinstance(result, Symbol):
                self.take()
                result = Symbol(result.name + "'")
            else:
                return result

    def raised(self, base: Formula) -> Formula:
        r"""Read an exponent; `^\\circ`, `^o` behind a number and `^'` are none."""
        tokens = self.group_tokens()
        texts = [token.text for token in tokens]
        is_degree = texts == [r"\circ"] or (
            texts in (["o"], ["0", "o"]) and isinstance(base, Number)
        )
        if is_degree:
            return Operation("degree", (base,))
        if texts and set(texts) == {"'"} and isinstance(base, Symbol):
            return Symbol(base.name + "'" * len(texts))
        return Operation("pow", (base, self.inner(tokens)))

    def _with_late_subscript(self, power: Formula) -> Formula:
        """Read `v^2_0`, the square of `v_0`."""
        if self.peek().text != "_" or not (isinstance(power, Operation) and power.name == "pow"):
            return power
        base, exponent = power.arguments
        if not isinstance(base, Symbol):
            raise UnreadError("a subscript of a formula")
        return Operation("pow", (Symbol(base.name + self.subscript()), exponent))

    def inner(self, tokens: Sequence[Token]) -> Formula:
        parser = _Parser(tokens, self.depth + 1)
        formula = parser.sum()
        if parser.position != len(parser.tokens):
            raise UnreadError(f"`{parser.peek().text}`")
        return formula

    def group_tokens(self) -> Sequence[Token]:
        r"""Take a group, or the one piece that stands for it: `3`, `x`, `-1`, `\frac12`."""
        start = self.position
        if self.peek().text == "{":
            end = self.closing(self.position)
            self.position = end + 1
            return self.tokens[start + 1 : end]
        while self.accept("-", "+"):
            pass
        token = self.peek()
        if (
            token.kind in ("number", "letters")
            or (token.kind == "command" and token.text in (GREEK | {r"\circ"}))
            or token.text == "'"
        ):
            self.take()
            if (
                token.kind == "letters"
                and self.peek().kind == "letters"
                and not self.peek().is_spaced
            ):
                raise UnreadError("letters without braces")
            while token.text == "'" and self.accept("'"):
                pass
        elif token.kind == "command" or token.text == "(":
            self.power() if token.kind == "command" else self.base()
        else:
            raise UnreadError(f"`{token.text}`")
        return self.tokens[start : self.position]

    def base(self) -> Formula:
        token = self.take()
        if token.kind in ("number", "repeating"):
            return number(token.text, token.kind == "repeating")
        if token.kind == "letters":
            return self.letters(token)
        if token.kind == "begin":
            return self.matrix(token)
        if token.kind == "command":
            return self.command(token)
        if token.kind == "sign" and token.text in CLOSING:
            end = self.closing(self.position - 1)
            tokens = self.tokens[self.position : end]
            self.position = end + 1
            if token.text == r"\{":
                raise UnreadError("a set inside a formula")
            return self.bracketed(tokens, token.text)
        if token.text == "|":
            return self.absolute()
        raise UnreadError(f"`{token.text}`")

    def bracketed(self, tokens: Sequence[Token], bracket: str) -> Formula:
        choose = next((i for i, one in enumerate(tokens) if one.text == r"\choose"), None)
        if bracket == "{" and choose is not None:
            return Operation(
                "binom", (self.inner(tokens[:choose]), self.inner(tokens[choose + 1 :]))
            )
        return self.inner(tokens)

    def absolute(self) -> Formula:
        self.bars += 1
        formula = self.sum()
        self.bars -= 1
        self.expect("|")
        return Operation("abs", (formula,))

    def letters(self, token: Token) -> Formula:
        """Read a variable with its subscript, or a function's value `f(2)`."""
        symbol = Symbol(token.text + self.subscript())
        is_function = token.text in _FUNCTION_LETTERS
        is_call = self.peek().text == "(" and is_function and not self.peek().is_spaced
        if not is_call:
            return symbol
        return Operation("call", (symbol, *self.arguments()))

    def subscript(self) -> str:
        if not (self.peek().text == "_" and self.peek().kind == "sign"):
            return ""
        self.take()
        if self.peek().kind == "word":
            return "_" + self.take().text
        tokens = self.group_tokens()
        return "_" + "".join(one.text for one in tokens)

    def command(self, token: Token) -> Formula:
        name = token.text
        if name in GREEK:
            return Symbol(name + self.subscript())
        if name == r"\frac":
            return quotient(*self.two_arguments())
        if name == r"\binom":
            return Operation("binom", self.two_arguments())
        if name == r"\sqrt":
            return self.root()
        if name in (r"\lfloor", r"\lceil"):
            formula = self.sum()
            self.expect(name.replace("\\l", "\\r"))
            return Operation(name[2:], (formula,))
        if name in _DECORATIONS or name in (r"\mathcal",):
            letters = "".join(one.text for one in self.name_tokens())
            is_vector = name in (r"\vec", r"\overrightarrow") and len(letters) == 1
            return Symbol(("" if is_vector else name) + letters + self.subscript())
        if name in (r"\sum", r"\prod"):
            return self.large_operator(name[1:])
        raise UnreadError(f"`{name}`")


def _may_stand_before_number(factor: Formula, last: Token) -> bool:
    """True for what cannot be mistaken for digits that belong together: `2^6 3^5`, `(2)3`."""
    if last.kind == "sign" and last.text == ")":
        return True
    return isinstance(factor, Operation) and factor.name in ("pow", "factorial")
