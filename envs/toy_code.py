r"""Generated programming problems that a tiny model can learn.

A problem is two to four clauses of verb and number, in the words of `toy_arithmetic`:

    x . finds 4 , repeats 2 , loses 9 . How many ?

The program applies the clauses to any start value, one line each:

    def f(x):
     x = x + 4
     x = x * 2
     x = x - 9
     return x

It is graded by calls with start values that the prompt does not show. What has to be decided is the
operation that each verb stands for; the base model of `toy_arithmetic` knows it from sums, not
from programs.
"""

import hashlib
import random
from collections.abc import Iterator
from typing import Any

from prefix_rft_rllib.envs.toy_arithmetic import NUMBERS, OPERATION_OF_VERB, OPERATIONS, Clause

MAX_CLAUSES = 8
ENTRY_POINT = "f"
NUM_TESTS = 5

_START_VALUES = range(100)
_MAX_FAILED_DRAWS = 400
_SPLITS = ("train", "held_out")


def prompt_of(clauses: tuple[Clause, ...]) -> str:
    """Return the problem text."""
    return f"x . {' , '.join(f'{verb} {number}' for verb, number in clauses)} . How many ?"


def program_of(
    clauses: tuple[Clause, ...], rng: random.Random | None = None, flawed_fraction: float = 0.0
) -> str:
    """Return the program that applies the clauses.

    Args:
        clauses: Verb and number of each.
        rng: Source of randomness for flaws; None for none.
        flawed_fraction: Probability, per clause, that the operation is drawn evenly from all.

    Returns:
        The program. With flaws it may be wrong.
    """
    lines = []
    for verb, number in clauses:
        symbol = OPERATION_OF_VERB[verb]
        if rng is not None and rng.random() < flawed_fraction:
            symbol = rng.choice(tuple(OPERATIONS))
        lines.append(f" x = x {symbol} {number}\n")
    return f"def {ENTRY_POINT}(x):\n{''.join(lines)} return x"


def value_of(clauses: tuple[Clause, ...], value: int) -> int:
    """Return what the program returns for a start value."""
    for verb, number in clauses:
        value = OPERATIONS[OPERATION_OF_VERB[verb]](value, number)
    return value


def split_of(clauses: tuple[Clause, ...]) -> str:
    """Return the split that owns these clauses, by a hash of them."""
    return _SPLITS[hashlib.sha256(repr(clauses).encode()).digest()[0] % 4 == 3]


def generate_rows(
    *,
    num_problems: int,
    min_clauses: int = 2,
    max_clauses: int = 4,
    seed: int = 0,
    flawed_fraction: float = 0.0,
    split: str = "train",
) -> list[dict[str, Any]]:
    """Generate problems with tests and demonstrations.

    A pure function of its arguments. No two rows share their clauses, and problems of different
    splits never do, whatever their seeds and sizes.

    Args:
        num_problems: Number of rows, at least 1.
        min_clauses: Fewest clauses, 1 to 8.
        max_clauses: Most clauses, `min_clauses` to 8.
        seed: Seed of the draws, an integer from 0.
        flawed_fraction: Probability per clause of an operation drawn evenly from all in the
            demonstration, in [0, 1]; the tests stay right.
        split: "train" or "held_out".

    Returns:
        Rows with the keys "id", "domain", "prompt", "tests", "entry_point", "demonstration".

    Raises:
        ValueError: If an argument is outside its range, or there are too few different problems.
    """
    if split not in _SPLITS:
        raise ValueError(f"`split` must be one of {list(_SPLITS)}, got {split!r}.")
    if not 1 <= min_clauses <= max_clauses <= MAX_CLAUSES:
        raise ValueError(
            f"1 <= `min_clauses` <= `max_clauses` <= {MAX_CLAUSES} must hold, got {min_clauses} "
            f"and {max_clauses}."
        )
    if num_problems < 1 or seed < 0:
        raise ValueError(
            f"`num_problems` must be at least 1 and `seed` at least 0, got {num_problems} and "
            f"{seed}."
        )
    if not 0.0 <= flawed_fraction <= 1.0:
        raise ValueError(
            f"`flawed_fraction` must be in [0, 1], got {flawed_fraction!r}. It is a share, not a "
            "percentage: use 0.3 for 30%."
        )
    rng, flaw_rng = random.Random(f"programs of {seed}"), random.Random(f"flaws of {seed}")
    rows = []
    for clauses in _draw_new_clauses(rng, (min_clauses, max_clauses), split):
        rows.append(_row(clauses, program_of(clauses, flaw_rng, flawed_fraction)))
        if len(rows) == num_problems:
            return rows
    raise ValueError(
        f"`num_problems` ({num_problems}) is more than the generator found: {len(rows)} different "
        f"problems of {min_clauses} to {max_clauses} clauses. Ask for fewer or raise `max_clauses`."
    )


def _draw_new_clauses(
    rng: random.Random, lengths: tuple[int, int], split: str
) -> Iterator[tuple[Clause, ...]]:
    """Yield the clauses of problems of a split, each once, until new ones get too rare."""
    seen: set[tuple[Clause, ...]] = set()
    num_failed = 0
    while num_failed < _MAX_FAILED_DRAWS:
        verbs = rng.sample(list(OPERATION_OF_VERB), rng.randint(*lengths))
        clauses = tuple((verb, rng.choice(NUMBERS)) for verb in verbs)
        if clauses in seen or split_of(clauses) != split:
            num_failed += 1
            continue
        num_failed = 0
        seen.add(clauses)
        yield clauses


def _row(clauses: tuple[Clause, ...], demonstration: str) -> dict[str, Any]:
    prompt = prompt_of(clauses)
    digest = hashlib.sha256(prompt.encode()).hexdigest()[:16]
    values = random.Random(digest).sample(_START_VALUES, NUM_TESTS)
    calls = [f"assert {ENTRY_POINT}({value}) == {value_of(clauses, value)}" for value in values]
    return {
        "id": f"toy-code-{digest}",
        "domain": "code",
        "prompt": prompt,
        "tests": {"kind": "asserts", "asserts": calls},
        "entry_point": ENTRY_POINT,
        "demonstration": demonstration,
    }
