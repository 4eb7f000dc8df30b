"""Local learners, rows drawn as pictures, and a record of their optimizer steps.

One letter per token of a row: x prompt, p prefix, r response, d demonstration, D demonstration that
is a member of its group.
"""

import dataclasses

import gymnasium as gym
import numpy as np
import torch
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.utils.metrics import NUM_ENV_STEPS_SAMPLED_LIFETIME

from prefix_rft_rllib.basics.random_draws import stable_hash
from prefix_rft_rllib.core.prefix_sampling import PlannedRollout
from prefix_rft_rllib.rollouts import row_data
from prefix_rft_rllib.rollouts.row_data import WholeSequences, build_episode

NUM_IDS = 300
"""Ids of the rows' tokens are below this: the tiny model knows them all."""


def make_row(
    picture,
    advantage=0.0,
    *,
    index=0,
    minibatch=0,
    is_logged=True,
    seed=0,
    reward=0.0,
    beginning=(),
):
    """An episode with all the data of a learner's row; token ids behind a beginning are random."""
    generator = np.random.default_rng([seed, index])
    ids = generator.integers(0, NUM_IDS, len(picture))
    ids[: len(beginning)] = beginning
    num_prompt, num_prefix = picture.count("x"), picture.count("p")
    is_demonstration = picture[-1] in "dD"
    logps = -generator.exponential(2.0, len(picture) - num_prompt)
    logps[: len(logps) if is_demonstration else num_prefix] = np.nan
    return build_episode(
        ids[:num_prompt],
        ids[num_prompt:],
        logps=logps,
        reward=reward,
        custom_data={
            row_data.ROLLOUT: PlannedRollout(
                problem_id=f"p{index}",
                group_id=0,
                member=index,
                seed=0,
                num_prefix_tokens=num_prefix,
            ),
            row_data.IS_DEMONSTRATION: is_demonstration,
            row_data.IS_MEMBER: "d" not in picture,
            row_data.ADVANTAGE: advantage,
            row_data.ROW_INDEX: index,
            row_data.ROW_KEY: stable_hash("test_row", seed, index),
            row_data.MINIBATCH: minibatch,
            row_data.IS_LOGGED: is_logged,
        },
    )


def make_rows(pictures, advantages, minibatches=None, seed=0):
    """Rows with indices 0, 1, ...; all in minibatch 0 unless `minibatches` says otherwise."""
    minibatches = minibatches or [0] * len(pictures)
    return [
        make_row(picture, advantage, index=index, minibatch=minibatch, seed=seed)
        for index, (picture, advantage, minibatch) in enumerate(
            zip(pictures, advantages, minibatches, strict=True)
        )
    ]


def rows_of_groups(pictures, minibatches=None):
    """Rows of several groups, one list of pictures each; rows of a group begin alike.

    Prompt and prefix are those of the group's demonstration. Advantages alternate in sign.
    """
    rows = []
    for group, members in enumerate(pictures):
        demonstration = np.random.default_rng([7, group]).integers(0, NUM_IDS, 30)
        for member, picture in enumerate(members):
            num_given = picture.count("x") + picture.count("p")
            rows.append(
                make_row(
                    picture,
                    (-0.5) ** member,
                    index=len(rows),
                    minibatch=minibatches[group] if minibatches else 0,
                    beginning=demonstration[:num_given],
                )
            )
    return rows


def two_groups(minibatches=None):
    """Two groups of two rollouts, one of each with a prefix; the rewards of both are mixed."""
    return make_rows(
        ["xxxpppprrrrr", "xxxrrrrrrrr", "xxpppppprrr", "xxrrrr"],
        [0.5, -0.5, -0.25, 0.25],
        minibatches,
    )


def build_learner(config):
    """A learner in this process. The spaces of the environment are not read by the module."""
    config = config.copy(copy_frozen=False)
    config.validate()
    space = gym.spaces.Discrete(2)
    return config.build_learner(spaces={DEFAULT_MODULE_ID: (space, space)})


def update(learner, rows, *, iteration=0, num_epochs=1, **kwargs):
    """One update; returns its metrics as plain numbers.

    `kwargs`: objective and schedule_iteration, where they are not the default ones.
    """
    results = learner.update(
        training_data=WholeSequences(episodes=rows),
        timesteps={NUM_ENV_STEPS_SAMPLED_LIFETIME: 0},
        num_epochs=num_epochs,
        iteration=iteration,
        **kwargs,
    )
    return {name: float(stat.peek()) for name, stat in results[DEFAULT_MODULE_ID].items()}


def model_of(learner):
    """The learner's Hugging Face model."""
    return learner.module[DEFAULT_MODULE_ID].unwrapped().lm


def weights_of(learner):
    """A copy of the model's weights by name."""
    return {n: p.detach().clone() for n, p in model_of(learner).named_parameters()}


@dataclasses.dataclass
class Step:
    """Weights and gradients as an optimizer step met them, and the norm it reported."""

    weights: dict[str, torch.Tensor]
    gradients: dict[str, torch.Tensor]
    norm: float = float("nan")


def record_steps(learner):
    """A list that gets one `Step` for each optimizer step from now on."""
    steps = []
    take_step = learner._optimizer_step

    def recorded(loss):
        gradients = {n: p.grad.clone() for n, p in model_of(learner).named_parameters()}
        steps.append(Step(weights_of(learner), gradients))
        steps[-1].norm = take_step(loss)
        return steps[-1].norm

    learner._optimizer_step = recorded
    return steps


def one_gradient(config, rows, **kwargs):
    """Gradients of the only minibatch of an update by a new learner."""
    learner = build_learner(config)
    steps = record_steps(learner)
    update(learner, rows, **kwargs)
    (step,) = steps
    return step.gradients


def assert_same(actual, expected, *, tolerance):
    """Check tensors by name; `tolerance` is relative to the largest expected entry of all."""
    assert actual.keys() == expected.keys()
    scale = max(float(value.abs().max()) for value in expected.values())
    for name, value in expected.items():
        difference = float((actual[name].double() - value.double()).abs().max())
        assert difference <= tolerance * scale, f"{name}: {difference} of {scale}"
