import numpy as np
import pytest

from prefix_rft_rllib.core.demonstration_rows import EveryStep, NoRows, OneRowPerGroup


def draw(rows, iteration=0, problem_id="p", num_demonstrations=3):
    return rows.indices(
        seed=0, iteration=iteration, problem_id=problem_id, num_demonstrations=num_demonstrations
    )


def test_rows_are_drawn_without_replacement_and_stop_at_what_there_is():
    assert draw(NoRows()) == []
    assert draw(EveryStep(2), num_demonstrations=0) == []
    assert draw(EveryStep(1), num_demonstrations=1) == [0]
    for iteration in range(50):
        assert len(set(draw(EveryStep(2), iteration))) == 2
        assert sorted(draw(EveryStep(5), iteration)) == [0, 1, 2]


def test_every_demonstration_is_drawn_equally_often():
    drawn = [draw(EveryStep(1), iteration)[0] for iteration in range(3000)]
    counts = np.bincount(drawn, minlength=3)
    # Chi-square with 2 degrees of freedom, 0.999 quantile.
    assert ((counts - 1000) ** 2 / 1000).sum() < 13.8


def test_draws_depend_on_their_key_only():
    assert draw(EveryStep(2), 4) == draw(EveryStep(2), 4)
    assert len({tuple(draw(EveryStep(2), iteration)) for iteration in range(50)}) == 6


def test_a_row_count_below_one_is_refused():
    with pytest.raises(ValueError, match="`num_rows` must be a whole number of at least 1"):
        EveryStep(0)


def test_one_row_per_group_is_a_member_and_draws_as_every_step():
    rows = OneRowPerGroup()
    assert (rows.num_rows, rows.is_member) == (1, True)
    assert not EveryStep(1).is_member
    assert not NoRows().is_member
    assert rows != EveryStep(1)
    assert rows == OneRowPerGroup()
    assert repr(rows) == "OneRowPerGroup()"
    for iteration in range(20):
        assert draw(rows, iteration) == draw(EveryStep(1), iteration)
    assert draw(rows, num_demonstrations=0) == []
    with pytest.raises(TypeError):
        OneRowPerGroup(2)
