import hashlib
import math
from collections import Counter
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prefix_rft_rllib.envs.problems import Problem
from prefix_rft_rllib.envs.problems.subsets import keep_demonstrations, split_off
from tests.envs.problem_data import ROWS, error_of, load


def make_problem(name: str, num_demonstrations: int = 1, split: str = "train") -> Problem:
    return Problem(
        problem_id=name,
        domain="math",
        prompt=name,
        prompt_ids=(1,),
        answer="5",
        demonstration_ids=((2, 0),) * num_demonstrations,
        split=split,
        source="file:1",
        demonstration_texts=("2",) * num_demonstrations,
        demonstration_sources=("file:1",) * num_demonstrations,
    )


def kept(problems, fraction) -> set[str]:
    """Ids of the training problems that keep their demonstrations."""
    subset = keep_demonstrations(problems, fraction, Counter())
    return {p.problem_id for p in subset if p.split == "train" and p.demonstration_ids}


NAMES = st.lists(st.text(max_size=6), unique=True, max_size=40)
PERCENTS = st.integers(0, 100)
PROBLEMS = NAMES.flatmap(
    lambda names: st.tuples(
        *(
            st.builds(
                make_problem, st.just(name), st.integers(0, 2), st.sampled_from(["train", "test"])
            )
            for name in names
        )
    )
)


# --- settings


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (10, "env_config['demonstration_fraction'] must be in [0, 1], got 10. It is a share"),
        (10, "use 0.1 for 10%"),
        (100, "use 1 for 100%"),
        (-0.1, "must be in [0, 1], got -0.1"),
        (float("nan"), "must be in [0, 1], got nan"),
        ("0.1", "must be in [0, 1], got '0.1'"),
        (None, "must be in [0, 1], got None"),
        (True, "must be in [0, 1], got True"),
    ],
)
def test_a_wrong_fraction_is_one_clear_error(config, value, expected):
    assert expected in error_of(config, demonstration_fraction=value)


# --- what is chosen


@pytest.mark.parametrize(
    ("fraction", "num_problems", "expected"),
    [
        (0, 10, 0),
        (0.01, 10, 1),  # one at least
        (0.1, 10, 1),
        (0.1, 11, 2),
        (0.07, 100, 7),  # 0.07 * 100 is 7.000000000000001
        (0.29, 100, 29),
        (0.55, 100, 55),  # 0.55 * 100 is 55.00000000000001
        (1, 10, 10),
        (1.0, 0, 0),
        (0.5, 0, 0),
    ],
)
def test_the_number_of_problems_worked_by_hand(fraction, num_problems, expected):
    problems = [make_problem(f"p{n}") for n in range(num_problems)]
    assert len(kept(problems, fraction)) == expected


def test_the_choice_is_for_ever_the_same():
    # Independent: ranks by the hex digits of SHA-256 of the salted id.
    names = [f"p{n}" for n in range(50)]
    ranked = sorted(
        names, key=lambda n: hashlib.sha256(f"demonstration_fraction\0{n}".encode()).hexdigest()
    )
    assert kept([make_problem(name) for name in names], 0.2) == set(ranked[:10])


@given(problems=PROBLEMS, percent=PERCENTS)
def test_exactly_the_ceiling_of_the_share_keeps_all_its_demonstrations(problems, percent):
    counts: Counter[str] = Counter()
    subset = keep_demonstrations(problems, percent / 100, counts)
    candidates = [p for p in problems if p.split == "train" and p.demonstration_ids]
    num_kept = math.ceil(Fraction(percent, 100) * len(candidates))
    assert len(kept(problems, percent / 100)) == num_kept
    assert [p.problem_id for p in subset] == [p.problem_id for p in problems]
    num_left_out = 0
    for before, after in zip(problems, subset, strict=True):
        if after != before:
            assert before.split == "train"
            texts = (after.demonstration_texts, after.demonstration_sources)
            assert (after.demonstration_ids, *texts) == ((), (), ())
            num_left_out += len(before.demonstration_ids)
    assert counts["demonstrations_left_out"] == num_left_out
    assert ("demonstrations_left_out" in counts) == (percent < 100)


@given(problems=PROBLEMS, percents=st.tuples(PERCENTS, PERCENTS))
def test_a_smaller_share_keeps_a_subset(problems, percents):
    small, large = sorted(percents)
    assert kept(problems, small / 100) <= kept(problems, large / 100)


@given(problems=PROBLEMS, percent=PERCENTS, data=st.data())
def test_the_order_of_the_problems_does_not_matter(problems, percent, data):
    shuffled = data.draw(st.permutations(problems))
    assert kept(shuffled, percent / 100) == kept(problems, percent / 100)


def test_the_choice_does_not_go_with_the_split():
    # If both ranked by one hash, all 500 kept of 1000 would be among the 600 not held out by a
    # larger split, or none; independent choices share 500 * 0.6 = 300, standard deviation 8.
    problems = [make_problem(f"p{n}") for n in range(1000)]
    chosen = kept(problems, 0.5)
    train = {p.problem_id for p in split_off(problems, 0.4) if p.split == "train"}
    expected = 0.5 * len(train)
    assert abs(len(chosen & train) - expected) < 50


# --- the whole loader


def many_rows(num_rows: int) -> list[dict]:
    return [
        {"id": f"n{n}", "prompt": f"{n} ?", "answer": "5", "demonstrations": ["5", "2 + 3"]}
        for n in range(num_rows)
    ]


def demonstrated(problems) -> set[str]:
    return {p.problem_id for p in problems if p.demonstration_ids}


def test_the_loader_applies_the_fraction_after_the_split(config, write_rows):
    data = write_rows(many_rows(40), "many.jsonl")
    settings = {"data": data, "held_out_fraction": 0.25}
    whole = load(config, **settings)
    tenth = load(config, **settings, demonstration_fraction=0.1)
    num_train, held_out = len(whole.train), whole.held_out["held_out"]
    assert 0 < len(held_out) < 40
    assert [p.problem_id for p in tenth.train] == [p.problem_id for p in whole.train]
    assert len(demonstrated(tenth.train)) == math.ceil(num_train / 10)
    assert tenth.held_out["held_out"] == held_out
    num_left_out = 2 * (num_train - math.ceil(num_train / 10))
    assert tenth.counts["demonstrations_left_out"] == num_left_out
    assert tenth.counts["demonstrations"] == 80 - num_left_out
    assert whole.counts["demonstrations"] == 80
    assert "demonstrations_left_out" not in whole.counts


def test_the_order_of_rows_does_not_matter(config, write_rows):
    rows = many_rows(30)
    first = load(config, data=write_rows(rows, "rows.jsonl"), demonstration_fraction=0.3)
    again = load(config, data=write_rows(rows[::-1], "again.jsonl"), demonstration_fraction=0.3)
    assert demonstrated(first.train) == demonstrated(again.train)
    assert len(demonstrated(first.train)) == 9


def test_the_filter_refers_to_the_data_as_given(config):
    # Of a, b and c only b has no demonstration in the data.
    problems = load(config, filters=["no_demonstration"], demonstration_fraction=0)
    assert [p.problem_id for p in problems.train] == ["a", "c"]
    assert demonstrated(problems.train) == set()
    assert problems.counts["dropped_no_demonstration"] == 1
    assert problems.counts["demonstrations_left_out"] == 3


def test_a_problem_whose_demonstrations_do_not_fit_is_no_candidate(config, write_rows):
    # N is 1: a third of it, rounded up, is c, whatever the hash of the others.
    long_row = {**ROWS[0], "demonstration": "34 " * 60}
    data = write_rows([long_row, ROWS[1], ROWS[2]], "long.jsonl")
    problems = load(config, data=data, demonstration_fraction=0.33)
    assert demonstrated(problems.train) == {"c"}
    assert problems.counts["demonstrations_set_aside"] == 1
    assert problems.counts["demonstrations_left_out"] == 0


def test_files_of_held_out_data_keep_their_demonstrations(config):
    problems = load(config, held_out_data={"same": config["data"]}, demonstration_fraction=0)
    assert demonstrated(problems.held_out["same"]) == {"same/a", "same/c"}
    assert demonstrated(problems.train) == set()
