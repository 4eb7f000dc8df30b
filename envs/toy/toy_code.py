r"""Generated programming problems that a tiny model can learn.

A problem is an unknown start value and one to six clauses of verb and number, in the words of
`toy_arithmetic`:

    Ana has x pears . finds 4 , repeats 2 , loses 9 . How many ?

The program applies the clauses to any start value. Each line comes after a comment that restates
its clause:

    def f(x):
     # finds 4
     x = x + 4
     # repeats 2
     x = x * 2
     # loses 9
     x = x - 9
     return x

It is graded by calls with start values that the prompt does not show. All that a solver has to
decide is the operation that each verb stands for. `docs/toy_code.md` says more.
"""

import hashlib
import random
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any

from prefix_rft_rllib.basics.ranges import SHARE, one_of, whole
from prefix_rft_rllib.envs.toy.toy_arithmetic import (
    ITEMS,
    NAMES,
    NUMBERS,
    OPERATION_OF_VERB,
    OPERATIONS,
    SPLITS,
    Clause,
    new_problems,
    prompt_of,
    split_of,
)

MAX_CLAUSES = 6
ENTRY_POINT = "f"
NUM_TESTS = 5

_START_VALUES = range(100)


@dataclass(frozen=True, kw_only=True)
class ProgramProblem:
    """One generated problem.

    Attributes:
        name: Who the problem is about, one of `NAMES`.
        item: What is counted, one of `ITEMS`.
        clauses: Verb and number of each clause, in order.
    """

    name: str
    item: str
    clauses: tuple[Clause, ...]

    @property
    def prompt(self) -> str:
        """The bare problem text."""
        return prompt_of(self.name, "x", self.item, self.clauses)

    @property
    def key(self) -> Hashable:
        """What makes it a problem of its own: not the name and the item."""
        return self.clauses

    @property
    def split(self) -> str:
        """The split that owns this problem: "pretraining" (half), "train" or "held_out".

        Decided by a hash of the clauses, not of the name and the item.
        """
        return split_of(self.key)

    def value(self, start: int) -> int:
        """Return what a right program returns for a start value."""
        for verb, number in self.clauses:
            start = OPERATIONS[OPERATION_OF_VERB[verb]](start, number)
        return start


def draw_problem(rng: random.Random, num_clauses: int) -> ProgramProblem:
    """Draw a problem; each verb occurs at most once in it.

    Args:
        rng: Source of randomness; its state moves on.
        num_clauses: Number of clauses, 1 to `MAX_CLAUSES`.

    Returns:
        The problem.
    """
    verbs = rng.sample(list(OPERATION_OF_VERB), num_clauses)
    clauses = tuple((verb, rng.choice(NUMBERS)) for verb in verbs)
    return ProgramProblem(name=rng.choice(NAMES), item=rng.choice(ITEMS), clauses=clauses)


def write_program(problem: ProgramProblem, choose: Callable[[str], str]) -> str:
    """Write a program with the operations that `choose` picks.

    Args:
        problem: The problem to write for.
        choose: Called once per clause with the symbol of the right operation; returns the one
            to write.

    Returns:
        The program, without a line break at its end.
    """
    lines = [
        f" # {verb} {number}\n x = x {choose(OPERATION_OF_VERB[verb])} {number}\n"
        for verb, number in problem.clauses
    ]
    return f"def {ENTRY_POINT}(x):\n{''.join(lines)} return x"


def write_demonstration(
    problem: ProgramProblem, rng: random.Random, flawed_fraction: float = 0.0
) -> str:
    """Write a demonstration, with flaws if asked for.

    Args:
        problem: The problem to demonstrate.
        rng: Source of randomness for the flaws; its state moves on.
        flawed_fraction: Probability, per clause, of another operation than the right one, drawn
            evenly from the three others.

    Returns:
        The program. With flaws it may be wrong.
    """

    def choose(right: str) -> str:
        if rng.random() >= flawed_fraction:
            return right
        return rng.choice([symbol for symbol in OPERATIONS if symbol != right])

    return write_program(problem, choose)


def generate_rows(
    *,
    num_problems: int,
    min_clauses: int = 2,
    max_clauses: int = 5,
    seed: int = 0,
    flawed_fraction: float = 0.0,
    split: str = "train",
) -> list[dict[str, Any]]:
    """Generate problems with tests and demonstrations.

    A pure function of its arguments. No two rows share their clauses, and problems of different
    splits never do, whatever their seeds and sizes.

    Args:
        num_problems: Number of rows, at least 1.
        min_clauses: Fewest clauses, 1 to 6.
        max_clauses: Most clauses, `min_clauses` to 6. The number is drawn evenly in between.
        seed: Seed of the draws, an integer from 0.
        flawed_fraction: Probability per clause of a wrong operation in the demonstration, in
            [0, 1]; the tests stay right.
        split: "train", "held_out" or "pretraining" (the base model's problems).

    Returns:
        Rows with the keys "id", "domain", "prompt", "tests", "entry_point", "demonstration".

    Raises:
        ValueError: If an argument is outside its range, or there are too few different problems.
    """
    one_of(SPLITS).check("split", split)
    if not 1 <= min_clauses <= max_clauses <= MAX_CLAUSES:
        raise ValueError(
            f"1 <= `min_clauses` <= `max_clauses` <= {MAX_CLAUSES} must hold, got {min_clauses} "
            f"and {max_clauses}."
        )
    whole(1).check("num_problems", num_problems)
    whole(0).check("seed", seed)
    SHARE.check("flawed_fraction", flawed_fraction)
    rng, flaw_rng = random.Random(f"programs of {seed}"), random.Random(f"flaws of {seed}")
    rows = []
    problems = new_problems(lambda: draw_problem(rng, rng.randint(min_clauses, max_clauses)), split)
    for problem in problems:
        rows.append(_row(problem, write_demonstration(problem, flaw_rng, flawed_fraction)))
        if len(rows) == num_problems:
            return rows
    raise ValueError(
        f"`num_problems` ({num_problems}) is more than the generator found: {len(rows)} different "
        f"problems of {min_clauses} to {max_clauses} clauses. Ask for fewer or raise `max_clauses`."
    )


def _row(problem: ProgramProblem, demonstration: str) -> dict[str, Any]:
    digest = hashlib.sha256(problem.prompt.encode()).hexdigest()[:16]
    values = random.Random(digest).sample(_START_VALUES, NUM_TESTS)
    calls = [f"assert {ENTRY_POINT}({value}) == {problem.value(value)}" for value in values]
    return {
        "id": f"toy-code-{digest}",
        "domain": "code",
        "prompt": problem.prompt,
        "tests": {"kind": "asserts", "asserts": calls},
        "entry_point": ENTRY_POINT,
        "demonstration": demonstration,
    }
