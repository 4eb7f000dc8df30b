"""Which problems an iteration takes."""

from hypothesis import given
from hypothesis import strategies as st

from prefix_rft_rllib.core.problem_order import problem_indices


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
