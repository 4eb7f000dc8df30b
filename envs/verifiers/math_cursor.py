"""A place among the tokens of one formula. Standard library only."""

from __future__ import annotations

from collections.abc import Sequence

from prefix_rft_rllib.envs.verifiers.math_formula import CLOSING, matching
from prefix_rft_rllib.envs.verifiers.math_tokens import Token, UnreadError

_END = Token("end of text", "")


class Cursor:
    """Takes tokens one after the other.

    Args:
        tokens: All tokens of a formula.
        depth: How deep it is nested in others.
    """

    def __init__(self, tokens: Sequence[Token], depth: int = 0):
        self.tokens, self.position, self.depth = tokens, 0, depth
        self.bars = 0

    def peek(self, ahead: int = 0) -> Token:
        """Return a token ahead without taking it."""
        index = self.position + ahead
        return self.tokens[index] if index < len(self.tokens) else _END

    def take(self) -> Token:
        """Take the next token."""
        token = self.peek()
        if token is _END:
            raise UnreadError("an early end")
        self.position += 1
        return token

    def accept(self, *texts: str) -> Token | None:
        """Take the next token if it is one of these signs or commands, else return None."""
        token = self.peek()
        if token.kind in ("sign", "command") and token.text in texts:
            self.position += 1
            return token
        return None

    def expect(self, text: str) -> None:
        """Take the next token, which must be this sign."""
        if not self.accept(text):
            raise UnreadError(f"no `{text}`")

    def closing(self, opening: int) -> int:
        """Return the index of the sign that closes the bracket at `opening`."""
        end = matching(self.tokens, opening)
        bracket = self.tokens[opening]
        if end is None or (
            bracket.text in CLOSING and self.tokens[end].text != CLOSING[bracket.text]
        ):
            raise UnreadError("a bracket that is not closed by its own kind")
        return end
