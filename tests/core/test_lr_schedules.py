"""Learning rates of optimizer steps."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prefix_rft_rllib.core.lr_schedules import LR_SCHEDULES, lr_at


def rates(count, **settings):
    return [lr_at(step, lr=0.8, **settings) for step in range(count)]


def test_a_constant_rate_with_warm_up_by_hand():
    assert rates(3, schedule="constant", num_warmup_steps=0, num_steps=None) == [0.8] * 3
    # 0.8 * (1, 2, 3, 4) / 4, then 0.8.
    assert rates(6, schedule="constant", num_warmup_steps=4, num_steps=None) == pytest.approx(
        [0.2, 0.4, 0.6, 0.8, 0.8, 0.8]
    )


def test_a_cosine_with_warm_up_by_hand():
    # 2 steps of warm-up, then half a cosine over 4: 0.4 * (1 + cos(pi * k / 4)), then 0.
    assert rates(8, schedule="cosine", num_warmup_steps=2, num_steps=6) == pytest.approx(
        [0.4, 0.8, 0.8, 0.4 * (1 + 0.5**0.5), 0.4, 0.4 * (1 - 0.5**0.5), 0.0, 0.0]
    )


@given(st.sampled_from(LR_SCHEDULES), st.integers(0, 50), st.integers(1, 100), st.integers(0, 200))
def test_a_rate_is_never_negative_nor_above_the_peak(schedule, num_warmup_steps, num_steps, step):
    settings = {"num_warmup_steps": num_warmup_steps, "num_steps": num_steps}
    rate = lr_at(step, lr=0.1, schedule=schedule, **settings)
    assert 0 <= rate <= 0.1
    if step < num_warmup_steps:
        assert rate > 0
    if schedule == "cosine" and step >= max(num_steps, num_warmup_steps + 1):
        assert rate == 0.0


def test_a_cosine_never_rises_after_the_warm_up():
    falling = rates(40, schedule="cosine", num_warmup_steps=3, num_steps=30)[2:]
    assert falling == sorted(falling, reverse=True)
