"""The learning rate of every optimizer step."""

import math

LR_SCHEDULES = ("constant", "cosine")


def lr_at(
    step: int, *, lr: float, schedule: str, num_warmup_steps: int, num_steps: int | None
) -> float:
    """Learning rate of one optimizer step.

    Linear warm-up from lr / num_warmup_steps to lr, then constant, or half a cosine from `lr` to
    0 at `num_steps` (warm-up included) and 0 after.

    Args:
        step: Optimizer step, from 0.
        lr: Peak rate.
        schedule: "constant" or "cosine".
        num_warmup_steps: Steps of the warm-up; 0 for none.
        num_steps: Steps until a cosine schedule ends; not read otherwise.

    Returns:
        The rate, in [0, lr].
    """
    if step < num_warmup_steps:
        return lr * ((step + 1) / num_warmup_steps)
    if schedule == "constant":
        return lr
    assert num_steps is not None
    progress = (step - num_warmup_steps) / max(1, num_steps - num_warmup_steps)
    return lr * 0.5 * (1.0 + math.cos(math.pi * min(progress, 1.0)))
