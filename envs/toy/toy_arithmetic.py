r"""Generated word problems with step-by-step demonstrations.

A problem is a start value and one to eight clauses of verb and number:

    Ana has 37 pears . finds 4 , repeats 2 , loses 9 , shares 3 . How many ?

Each of sixteen verbs stands for one of four operations. A demonstration restates every clause,
calculates it, and boxes the last value:

    finds 4 : 37 + 4 = 41 ; repeats 2 : 41 * 2 = 82 ; loses 9 : 82 - 9 = 73 ; ... so \boxed{24}

The only thing a solver has to decide is the operation; all else is copying and single-step
arithmetic. `docs/toy_arithmetic.md` says why the task is built this way.
"""

import hashlib
import random
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from prefix_rft_rllib.basics.ranges import SHARE, one_of, whole

MIN_VALUE, MAX_VALUE = 0, 99
MAX_CLAUSES = 8

OPERATIONS: dict[str, Callable[[int, int], int]] = {
    "+": lambda value, number: value + number,
    "-": lambda value, number: value - number,
    "*": lambda value, number: value * number,
    "//": lambda value, number: value // number,
}
VERBS = {
    "+": ("finds", "buys", "gains", "picks"),
    "-": ("loses", "sells", "eats", "drops"),
    "*": ("repeats", "copies", "grows", "stacks"),
    "//": ("shares", "splits", "divides", "parts"),
}
OPERATION_OF_VERB = {verb: symbol for symbol, verbs in VERBS.items() for verb in verbs}
NAMES = ("Ana", "Ben", "Eva", "Kim", "Leo", "Mia", "Tom", "Zoe")
ITEMS = ("pears", "coins", "books", "cards", "shells", "stones", "stamps", "nuts")
NUMBERS = range(2, 10)
START_VALUES = range(2, MAX_VALUE + 1)

# Pieces of text that the toy tokenizer holds as one token each. Together with single digits they
# cover every prompt and demonstration: the spaces are part of the words, so that a number is
# always written with the same ten digit tokens.
TASK_WORDS = (
    *NAMES,
    *(f" {item}" for item in ITEMS),
    *(f"{verb} " for verb in OPERATION_OF_VERB),
    *(f" {symbol} " for symbol in OPERATIONS),
    *(" has ", " . ", " , ", "How many ?", " : ", " = ", " ; ", "so ", "\\boxed{"),
)

# Which of 4 hash buckets belongs to which split.
_SPLIT_BUCKETS = {"pretraining": (0, 1), "train": (2,), "held_out": (3,)}
SPLITS = tuple(_SPLIT_BUCKETS)
_MAX_DRAWS_PER_PROBLEM = 400

Clause = tuple[str, int]
ChooseOperation = Callable[[str, tuple[str, ...]], str]


@dataclass(frozen=True, kw_only=True)
class WordProblem:
    """One generated problem.

    Attributes:
        name: Who the problem is about, one of `NAMES`.
        item: What is counted, one of `ITEMS`.
        start: Value before the first clause, one of `START_VALUES`.
        clauses: Verb and number of each clause, in order.
    """

    name: str
    item: str
    start: int
    clauses: tuple[Clause, ...]

    @property
    def prompt(self) -> str:
        """The bare problem text."""
        return prompt_of(self.name, self.start, self.item, self.clauses)

    @property
    def answer(self) -> int:
        """The value after the last clause."""
        value = self.start
        for verb, number in self.clauses:
            value = OPERATIONS[OPERATION_OF_VERB[verb]](value, number)
        return value

    @property
    def key(self) -> Hashable:
        """What makes it a problem of its own: not the name and the item."""
        return self.start, self.clauses

    @property
    def split(self) -> str:
        """The split that owns this problem, one of "pretraining", "train", "held_out".

        Decided by a hash of the start value and the clauses, not of the name and the item: a
        problem that differs from a training problem in nothing but the name is not new.
        """
        return split_of(self.key)


def prompt_of(name: str, start: int | str, item: str, clauses: Sequence[Clause]) -> str:
    """Return the text of a problem."""
    listed = " , ".join(f"{verb} {number}" for verb, number in clauses)
    return f"{name} has {start} {item} . {listed} . How many ?"


def split_of(key: Hashable) -> str:
    """Return the split that owns what `key` stands for, by a hash of its `repr`."""
    bucket = hashlib.sha256(repr(key).encode()).digest()[0] % 4
    return next(split for split, buckets in _SPLIT_BUCKETS.items() if bucket in buckets)


def valid_operations(value: int, number: int) -> tuple[str, ...]:
    """Symbols of the operations that keep the value in 0..99; always two at least."""
    return tuple(
        symbol
        for symbol, operation in OPERATIONS.items()
        if MIN_VALUE <= operation(value, number) <= MAX_VALUE
    )


def draw_problem(rng: random.Random, num_clauses: int) -> WordProblem:
    """Draw a problem whose values all stay in 0..99.

    The operation of each clause is drawn evenly, then its verb and a number that fits. A verb
    occurs at most once in a problem, and an operation for which no number fits or whose verbs
    are all used up is drawn again.

    Args:
        rng: Source of randomness; its state moves on.
        num_clauses: Number of clauses, 1 to `MAX_CLAUSES`.

    Returns:
        The problem.
    """
    start = value = rng.choice(START_VALUES)
    clauses: list[Clause] = []
    unused_verbs = {symbol: list(verbs) for symbol, verbs in VERBS.items()}
    while len(clauses) < num_clauses:
        symbol = rng.choice(tuple(OPERATIONS))
        numbers = [
            number for number in NUMBERS if 0 < OPERATIONS[symbol](value, number) <= MAX_VALUE
        ]
        if not numbers or not unused_verbs[symbol]:
            continue
        verb, number = rng.choice(unused_verbs[symbol]), rng.choice(numbers)
        unused_verbs[symbol].remove(verb)
        clauses.append((verb, number))
        value = OPERATIONS[symbol](value, number)
    return WordProblem(
        name=rng.choice(NAMES), item=rng.choice(ITEMS), start=start, clauses=tuple(clauses)
    )


def write_solution(problem: WordProblem, choose: ChooseOperation) -> str:
    """Write a step-by-step solution with the operations that `choose` picks.

    Args:
        problem: The problem to work through.
        choose: Called once per clause with the symbol of the right operation and the symbols of
            the operations that keep the value in 0..99; returns one of the latter. After a wrong
            step the right operation may not be among them.

    Returns:
        The solution text, ending in the boxed last value.
    """
    value, steps = problem.start, []
    for verb, number in problem.clauses:
        symbol = choose(OPERATION_OF_VERB[verb], valid_operations(value, number))
        result = OPERATIONS[symbol](value, number)
        steps.append(f"{verb} {number} : {value} {symbol} {number} = {result} ; ")
        value = result
    return f"{''.join(steps)}so \\boxed{{{value}}}"


def write_demonstration(
    problem: WordProblem, rng: random.Random, flawed_fraction: float = 0.0
) -> str:
    """Write a demonstration, with flaws if asked for.

    Args:
        problem: The problem to demonstrate.
        rng: Source of randomness for the flaws; its state moves on.
        flawed_fraction: Probability, per clause, that the demonstration takes another operation
            than the right one, drawn evenly from the valid ones, and goes on from the wrong
            value. Where the right operation no longer fits the value, another one is taken in
            any case.

    Returns:
        The demonstration text. With flaws its answer may be wrong.
    """

    def choose(right: str, valid: tuple[str, ...]) -> str:
        is_flawed = rng.random() < flawed_fraction
        if right in valid and not is_flawed:
            return right
        return rng.choice([symbol for symbol in valid if symbol != right])

    return write_solution(problem, choose)


def generate_rows(
    *,
    num_problems: int,
    min_clauses: int,
    max_clauses: int,
    seed: int,
    flawed_fraction: float = 0.0,
    split: str = "train",
) -> list[dict[str, str]]:
    """Generate problems with answers and demonstrations.

    A pure function of its arguments. No two rows share start value and clauses, and problems of
    different splits never do, whatever their seeds and sizes: a hash of start value and clauses
    assigns every possible problem to one split. More problems of the same seed begin with the
    same rows, and `flawed_fraction` changes demonstrations only.

    Args:
        num_problems: Number of rows, at least 1.
        min_clauses: Fewest clauses, 1 to 8.
        max_clauses: Most clauses, `min_clauses` to 8. The number is drawn evenly in between.
        seed: Seed of the draws, an integer from 0.
        flawed_fraction: Probability per clause of a wrong operation in the demonstration, in
            [0, 1]; see `write_demonstration`.
        split: "train", "held_out" or "pretraining" (the base model's problems).

    Returns:
        Rows with the keys "id", "prompt", "answer" and "demonstration", all strings.

    Raises:
        ValueError: If an argument is outside its range, or there are too few different problems
            of the wanted length.
    """
    _check_arguments(num_problems, min_clauses, max_clauses, seed, flawed_fraction, split)
    rng = random.Random(f"problems of {seed}")
    problems = new_problems(lambda: draw_problem(rng, rng.randint(min_clauses, max_clauses)), split)
    flaw_rng = random.Random(f"flaws of {seed}")
    rows: list[dict[str, str]] = []
    while len(rows) < num_problems:
        problem = next(problems, None)
        if problem is None:
            raise ValueError(
                f"`num_problems` ({num_problems}) is more than the generator found: "
                f"{len(rows)} different problems of {min_clauses} to {max_clauses} clauses in "
                f"split {split!r}. Ask for fewer problems or raise `max_clauses`."
            )
        rows.append(
            {
                "id": f"toy-{hashlib.sha256(problem.prompt.encode()).hexdigest()[:16]}",
                "prompt": problem.prompt,
                "answer": str(problem.answer),
                "demonstration": write_demonstration(problem, flaw_rng, flawed_fraction),
            }
        )
    return rows


class GeneratedProblem(Protocol):
    """What `new_problems` asks of a problem."""

    @property
    def key(self) -> Hashable:
        """Equal for problems that are the same."""

    @property
    def split(self) -> str:
        """The split that owns the problem."""


Drawn = TypeVar("Drawn", bound=GeneratedProblem)


def new_problems(draw: Callable[[], Drawn], split: str) -> Iterator[Drawn]:
    """Yield problems of a split, each key once, until new ones get too rare.

    Args:
        draw: Draws a problem of any split.
        split: The wanted one.
    """
    seen: set[Hashable] = set()
    num_failed_draws = 0
    while num_failed_draws < _MAX_DRAWS_PER_PROBLEM:
        problem = draw()
        if problem.split != split or problem.key in seen:
            num_failed_draws += 1
            continue
        num_failed_draws = 0
        seen.add(problem.key)
        yield problem


def _check_arguments(
    num_problems: int,
    min_clauses: int,
    max_clauses: int,
    seed: int,
    flawed_fraction: float,
    split: str,
) -> None:
    """Raise `ValueError` for an argument outside its range."""
    one_of(sorted(SPLITS)).check("split", split)
    whole(1).check("num_problems", num_problems)
    whole(0).check("seed", seed)
    whole(1, MAX_CLAUSES).check("min_clauses", min_clauses)
    most = whole(min_clauses, MAX_CLAUSES).advising("It is at least `min_clauses`.")
    most.check("max_clauses", max_clauses)
    SHARE.check("flawed_fraction", flawed_fraction)
