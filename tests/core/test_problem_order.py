"""Which problems an iteration takes."""

from hypothesis import given
from hypothesis import strategies as st

from prefix_rft_rllib.core.problem_order import problem_indices, replacement_indices


@given(st.integers(1, 12), st.integers(1, 15), st.integers(0, 1000))
def test_every_problem_is_taken_once_per_epoch_across_the_borders_of_iterations(
    num_problems, num_taken, seed
):
    num_iterations = -(-3 * num_problems // num_taken)
    taken = [
        index
        for iteration in range(num_iterations)
        for index in problem_indices(num_problems, num_taken, iteration, seed)
    ]
    assert len(taken) == num_iterations * num_taken
    for epoch in range(3):
        part = taken[epoch * num_problems : (epoch + 1) * num_problems]
        assert sorted(part) == list(range(num_problems))


def test_epochs_and_seeds_have_orders_of_their_own():
    first, second = (problem_indices(20, 20, epoch, 0) for epoch in (0, 1))
    assert first != second
    assert first != problem_indices(20, 20, 0, 1)
    assert first != sorted(first)


def test_an_iteration_does_not_depend_on_the_ones_before():
    assert problem_indices(7, 3, 5, 1) == problem_indices(7, 3, 5, 1)
    # The same stream, cut differently: iterations 2 and 3 of three are the second of six.
    assert problem_indices(7, 3, 2, 1) + problem_indices(7, 3, 3, 1) == problem_indices(7, 6, 1, 1)


@given(st.data(), st.integers(1, 12), st.integers(0, 30), st.integers(0, 1000))
def test_replacements_are_new_problems_while_there_are_any(data, num_problems, num_taken, seed):
    met = data.draw(st.lists(st.integers(0, num_problems - 1), max_size=num_problems))
    taken = replacement_indices(num_problems, num_taken, met, (seed, 3, 4))
    assert len(taken) == num_taken
    assert set(taken) <= set(range(num_problems))
    # First those not met, each once; then those met; only then a second time.
    num_new = num_problems - len(set(met))
    assert not set(taken[:num_new]) & set(met)
    assert len(set(taken[:num_problems])) == min(num_taken, num_problems)
    assert taken[num_problems:] == taken[: max(0, num_taken - num_problems)]


def test_replacements_depend_on_key_and_met_problems_only():
    def take(*key, met=(1, 5)):
        return replacement_indices(20, 6, met, key)

    assert take(0, 2, 8) == take(0, 2, 8) == take(0, 2, 8, met={5, 1})
    assert take(0, 2, 8) == take(0, 2, 8, met=[5, 1, 1, 5])
    others = [take(1, 2, 8), take(0, 3, 8), take(0, 2, 9)]
    assert all(taken != take(0, 2, 8) for taken in others)
    # Not simply the next ones.
    assert take(0, 2, 8) != sorted(take(0, 2, 8))
    # More met problems leave the order of the others as it is.
    fewer = [index for index in take(0, 2, 8, met=()) if index not in (1, 5)]
    assert take(0, 2, 8)[: len(fewer)] == fewer


def test_every_problem_is_as_likely_to_be_a_replacement():
    counts = [0] * 8
    for seed in range(3000):
        counts[replacement_indices(8, 1, (0,), (seed, 0, 0))[0]] += 1
    assert counts[0] == 0
    # Chi-square with 6 degrees of freedom, 0.999 quantile.
    assert sum((count - 3000 / 7) ** 2 / (3000 / 7) for count in counts[1:]) < 22.5
