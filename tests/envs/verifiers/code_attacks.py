"""The attack programs of `code_attacks.json`, and the table of them in the docs."""

import json
from dataclasses import dataclass
from pathlib import Path

_FILE = Path(__file__).with_suffix(".json")


@dataclass(frozen=True)
class Attack:
    """A program that wants a reward it does not deserve, or to do harm.

    Attributes:
        name: Short name.
        tries: What it tries.
        happens: What happens instead.
        code: The program. `SECRET` stands for the path of a file that anybody may read and that
            holds the answers, `SECRET + ".open"` for one that anybody may write, `PORT` for a
            TCP port on which somebody listens.
        is_program: Graded by standard input and output; otherwise by calls of `f`.
        only_isolation: Nothing but namespaces stops it.
    """

    name: str
    tries: str
    happens: str
    code: str
    is_program: bool = False
    only_isolation: bool = False

    def source(self, secret: Path, port: int) -> str:
        """Return the program with its place holders filled in."""
        return self.code.replace("SECRET", repr(str(secret))).replace("PORT", str(port))


def read_attacks() -> list[Attack]:
    """Return all attacks."""
    rows = json.loads(_FILE.read_text(encoding="utf-8"))
    return [Attack(**{**row, "code": "\n".join(row["code"])}) for row in rows]


def attack_table() -> str:
    """Return the Markdown table of the docs."""
    lines = ["| attack | what it tries | what happens |", "|---|---|---|"]
    for attack in read_attacks():
        tries = attack.tries.replace("|", r"\|")
        mark = " (isolation only)" if attack.only_isolation else ""
        lines.append(f"| {attack.name}{mark} | {tries} | {attack.happens} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(attack_table())
