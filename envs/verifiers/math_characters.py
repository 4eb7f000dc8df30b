r"""Characters in one spelling: Unicode signs as LaTeX, full-width characters as plain ones."""

from __future__ import annotations

import re
import unicodedata

from prefix_rft_rllib.envs.verifiers.math_spellings import CHARACTERS, SUBSCRIPTS, SUPERSCRIPTS

_CLOCK = re.compile(r"(?<![a-zA-Z])([ap])\.\s?m\.?(?![a-zA-Z])", re.IGNORECASE)


def plain_characters(text: str) -> str:
    r"""Write Unicode spellings as LaTeX, full-width characters as plain ones."""
    text = text.replace("\\\x0c", "\\f").replace("\x0c", "\\f")
    if r"\begin" not in text:  # Doubled backslashes of a file that was escaped twice.
        text = re.sub(r"\\\\(?=[a-zA-Z]{2,})", lambda match: "\\", text)
    pieces = []
    for character in text:
        if character in SUPERSCRIPTS:
            pieces.append(f"^{{{SUPERSCRIPTS[character]}}}")
        elif character in SUBSCRIPTS:
            pieces.append(f"_{{{SUBSCRIPTS[character]}}}")
        elif "\uff01" <= character <= "\uff5e":
            pieces.append(unicodedata.normalize("NFKC", character))
        else:
            pieces.append(CHARACTERS.get(character, character))
    plain = re.sub(r"\{\s*([:;])\s*\}", r"\1", "".join(pieces))
    plain = re.sub(r"(\^\{[0-9+n-]+)\}\^\{(?=[0-9+n-]+\})", r"\1", plain)
    return _CLOCK.sub(lambda match: match[1].lower() + "m", plain)
