"""The generated word problems."""

import random
import re
from collections import Counter

import pytest

from prefix_rft_rllib.envs.toy.toy_arithmetic import (
    MAX_CLAUSES,
    OPERATION_OF_VERB,
    OPERATIONS,
    TASK_WORDS,
    VERBS,
    WordProblem,
    draw_problem,
    generate_rows,
    valid_operations,
    write_demonstration,
    write_solution,
)

ANA = WordProblem(
    name="Ana",
    item="pears",
    start=37,
    clauses=(("finds", 4), ("repeats", 2), ("loses", 9), ("shares", 3)),
)


def rows_of(**changes: object) -> list[dict[str, str]]:
    arguments: dict[str, object] = {
        "num_problems": 200,
        "min_clauses": 2,
        "max_clauses": 6,
        "seed": 0,
    }
    return generate_rows(**{**arguments, **changes})


def steps_of(demonstration: str) -> list[tuple[str, int, int, str, int, int]]:
    """(verb, number, value, operation, number again, result) of each clause, read by a regex."""
    pattern = r"(\w+) (\d+) : (\d+) (\+|-|\*|//) (\d+) = (\d+) ; "
    return [
        (verb, int(number), int(value), symbol, int(again), int(result))
        for verb, number, value, symbol, again, result in re.findall(pattern, demonstration)
    ]


def calculate(value: int, symbol: str, number: int) -> int:
    """Independent of the generator's table."""
    if symbol == "//":
        return (value - value % number) // number
    return {"+": value + number, "-": value - number, "*": value * number}[symbol]


def clauses_of(prompt: str) -> tuple[str, ...]:
    """Everything but the name and the item: what makes a problem new."""
    words = prompt.split()
    return (words[2], *words[4:])


def test_prompt_and_demonstration_read_as_documented() -> None:
    # 37 + 4 = 41, 41 * 2 = 82, 82 - 9 = 73, 73 // 3 = 24 (remainder 1 dropped).
    assert ANA.prompt == (
        "Ana has 37 pears . finds 4 , repeats 2 , loses 9 , shares 3 . How many ?"
    )
    assert ANA.answer == 24
    assert write_demonstration(ANA, random.Random(0)) == (
        "finds 4 : 37 + 4 = 41 ; repeats 2 : 41 * 2 = 82 ; loses 9 : 82 - 9 = 73 ; "
        "shares 3 : 73 // 3 = 24 ; so \\boxed{24}"
    )


def test_a_solution_goes_on_from_the_value_of_a_wrong_step() -> None:
    # Subtracting throughout: 37 - 4 = 33, 33 - 2 = 31, 31 - 9 = 22, 22 - 3 = 19.
    assert write_solution(ANA, lambda _right, _valid: "-") == (
        "finds 4 : 37 - 4 = 33 ; repeats 2 : 33 - 2 = 31 ; loses 9 : 31 - 9 = 22 ; "
        "shares 3 : 22 - 3 = 19 ; so \\boxed{19}"
    )


def test_valid_operations_keep_the_value_between_0_and_99() -> None:
    assert valid_operations(50, 2) == ("+", "-", "//")  # 50 * 2 = 100
    assert valid_operations(49, 2) == ("+", "-", "*", "//")  # 49 * 2 = 98
    assert valid_operations(1, 2) == ("+", "*", "//")  # 1 - 2 < 0
    assert valid_operations(98, 2) == ("-", "//")  # 98 + 2 = 100
    assert min(len(valid_operations(value, n)) for value in range(100) for n in range(2, 10)) == 2


def test_unflawed_demonstrations_calculate_the_answer_by_the_verbs() -> None:
    for row in rows_of():
        value = int(row["prompt"].split()[2])
        for verb, number, before, symbol, again, result in steps_of(row["demonstration"]):
            assert (before, again) == (value, number)
            assert verb in VERBS[symbol]
            assert result == calculate(value, symbol, number)
            assert 1 <= result <= 99
            value = result
        assert row["answer"] == str(value)
        assert row["demonstration"].endswith(f"so \\boxed{{{value}}}")


def test_demonstrations_restate_the_clauses_of_the_prompt_in_order() -> None:
    for row in rows_of():
        clauses = row["prompt"].split(" . ")[1].split(" , ")
        steps = steps_of(row["demonstration"])
        assert [f"{verb} {number}" for verb, number, *_ in steps] == clauses
        assert len({verb for verb, *_ in steps}) == len(steps)


def test_sixteen_verbs_four_for_each_operation() -> None:
    assert len(OPERATION_OF_VERB) == 16
    assert Counter(OPERATION_OF_VERB.values()) == dict.fromkeys(OPERATIONS, 4)


def test_operations_lengths_and_verbs_are_spread() -> None:
    rows = rows_of(num_problems=3000, min_clauses=1, max_clauses=8)
    steps = [steps_of(row["demonstration"]) for row in rows]
    lengths = Counter(len(row_steps) for row_steps in steps)
    symbols = Counter(step[3] for row_steps in steps for step in row_steps)
    verbs = Counter(step[0] for row_steps in steps for step in row_steps)
    # 3000 / 8 = 375 each; standard deviation sqrt(375 * 7 / 8) = 18.
    assert set(lengths) == set(range(1, 9))
    assert all(300 < count < 450 for count in lengths.values())
    # Multiplication fits only values up to 49, so it comes up less often than the others.
    shares = {symbol: count / symbols.total() for symbol, count in symbols.items()}
    assert all(0.13 < share < 0.32 for share in shares.values())
    assert all(count / verbs.total() > 0.03 for count in verbs.values())


def test_random_operations_seldom_reach_the_answer() -> None:
    rng = random.Random(0)
    num_right = 0
    for _ in range(2000):
        problem = draw_problem(rng, 5)
        text = write_solution(problem, lambda _right, valid: rng.choice(valid))
        num_right += text.endswith(f"{{{problem.answer}}}")
    assert num_right / 2000 < 0.05


def test_same_arguments_give_the_same_rows_and_other_seeds_other_rows() -> None:
    assert rows_of() == rows_of()
    assert not {row["prompt"] for row in rows_of()} & {row["prompt"] for row in rows_of(seed=1)}


def test_rows_do_not_depend_on_the_global_generators() -> None:
    random.seed(1)
    first = rows_of(flawed_fraction=0.5)
    random.seed(2)
    assert rows_of(flawed_fraction=0.5) == first


def test_asking_for_more_problems_keeps_the_first_ones() -> None:
    assert rows_of(num_problems=300, flawed_fraction=0.3)[:200] == rows_of(flawed_fraction=0.3)


def test_rows_stay_the_same_from_version_to_version() -> None:
    # Checked by hand. Results of a seed are comparable only as long as this holds.
    assert rows_of(num_problems=1) == [
        {
            "id": "toy-175c296a0965bb10",
            "prompt": (
                "Mia has 68 books . drops 6 , buys 3 , divides 6 , finds 5 , copies 6 . How many ?"
            ),
            "answer": "90",
            "demonstration": (
                "drops 6 : 68 - 6 = 62 ; buys 3 : 62 + 3 = 65 ; divides 6 : 65 // 6 = 10 ; "
                "finds 5 : 10 + 5 = 15 ; copies 6 : 15 * 6 = 90 ; so \\boxed{90}"
            ),
        }
    ]


def test_no_two_rows_share_start_and_clauses() -> None:
    rows = rows_of(num_problems=2000, min_clauses=1, max_clauses=2)
    assert len({clauses_of(row["prompt"]) for row in rows}) == 2000
    assert len({row["id"] for row in rows}) == 2000


@pytest.mark.parametrize("seeds", [(0, 0), (0, 1), (5, 3)])
def test_splits_share_no_problem_whatever_the_seed(seeds: tuple[int, int]) -> None:
    # Short problems, so that different seeds do meet the same ones inside a split.
    keys = [
        {
            clauses_of(row["prompt"])
            for row in rows_of(
                num_problems=1000, min_clauses=1, max_clauses=1, seed=seed, split=split
            )
        }
        for seed, split in zip((*seeds, 0), ("train", "held_out", "pretraining"), strict=True)
    ]
    assert not keys[0] & keys[1]
    assert not keys[0] & keys[2]
    assert not keys[1] & keys[2]


def test_the_split_ignores_name_and_item() -> None:
    twin = WordProblem(name="Zoe", item="nuts", start=ANA.start, clauses=ANA.clauses)
    assert twin.split == ANA.split


def test_flaws_change_demonstrations_only() -> None:
    clean, flawed = rows_of(), rows_of(flawed_fraction=0.3)
    for key in ("id", "prompt", "answer"):
        assert [row[key] for row in clean] == [row[key] for row in flawed]
    assert clean != flawed


def test_flawed_fraction_is_the_share_of_clauses_with_a_wrong_operation() -> None:
    # One clause per problem: no wrong value can force a second wrong operation.
    rows = rows_of(num_problems=1000, min_clauses=1, max_clauses=1, flawed_fraction=0.3)
    steps = [steps_of(row["demonstration"])[0] for row in rows]
    num_wrong = sum(OPERATION_OF_VERB[verb] != symbol for verb, _, _, symbol, _, _ in steps)
    # Binomial(1000, 0.3): standard deviation 14.5.
    assert 240 < num_wrong < 360


def test_every_clause_of_a_fully_flawed_demonstration_is_wrong_but_well_calculated() -> None:
    rows = rows_of(flawed_fraction=1.0)
    for row in rows:
        for verb, number, value, symbol, _, result in steps_of(row["demonstration"]):
            assert symbol != OPERATION_OF_VERB[verb]
            assert result == calculate(value, symbol, number)
            assert 0 <= result <= 99
    num_wrong = sum(not row["demonstration"].endswith(f"{{{row['answer']}}}") for row in rows)
    assert num_wrong > 150


def test_task_words_and_digits_cover_every_prompt_and_demonstration() -> None:
    pattern = "|".join(["[0-9]", "}", *map(re.escape, sorted(TASK_WORDS, key=len, reverse=True))])
    for row in rows_of(num_problems=300, min_clauses=1, max_clauses=8):
        assert re.sub(pattern, "", row["prompt"] + row["demonstration"]) == ""


def test_the_longest_problems_have_max_clauses() -> None:
    rows = rows_of(min_clauses=MAX_CLAUSES, max_clauses=MAX_CLAUSES, num_problems=20)
    assert {len(steps_of(row["demonstration"])) for row in rows} == {MAX_CLAUSES}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_problems": 0}, "`num_problems` must be a whole number of at least 1, got 0"),
        ({"num_problems": 2.0}, "`num_problems` must be a whole number of at least 1, got 2.0"),
        ({"min_clauses": 0}, r"`min_clauses` must be a whole number in \[1, 8\], got 0"),
        ({"max_clauses": 9}, r"`max_clauses` must be a whole number in \[2, 8\], got 9"),
        ({"max_clauses": 1}, r"`max_clauses` must be a whole number in \[2, 8\], got 1"),
        ({"seed": -1}, "`seed` must be a whole number of at least 0, got -1"),
        ({"seed": True}, "`seed` must be a whole number of at least 0, got True"),
        ({"flawed_fraction": 30}, "not a percentage: use 0.3 for 30%"),
        ({"flawed_fraction": "0.3"}, r"`flawed_fraction` must be in \[0, 1\], got '0.3'"),
        ({"split": "test"}, r"must be one of 'held_out', 'pretraining', 'train', got 'test'"),
    ],
)
def test_a_bad_argument_is_a_clear_error(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        rows_of(**changes)


def test_asking_for_more_problems_than_exist_is_an_error() -> None:
    # One clause: 98 starts * 16 verbs * 8 numbers = 12,544 at most, a quarter of them to train.
    with pytest.raises(ValueError, match="Ask for fewer problems or raise `max_clauses`"):
        rows_of(num_problems=5000, min_clauses=1, max_clauses=1)
