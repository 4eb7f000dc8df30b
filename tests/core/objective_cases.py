"""Every method with default and other settings, as the objectives that learners train."""

import dataclasses
from collections.abc import Callable

import numpy as np
import torch

from prefix_rft_rllib.core.losses import DEFAULT_CLIP, policy_loss
from prefix_rft_rllib.core.objectives import Objective
from prefix_rft_rllib.core.token_weights import prepare_weights
from prefix_rft_rllib.methods import build
from tests.core import slow_methods as slow

T_MAX = 10
ITERATIONS = (0, 1, 150, 350, 600, 5000)
"""Before, in and after CHORD's warm-up and decay."""

Slow = Callable[[slow.Tokens, int], None]


@dataclasses.dataclass(frozen=True)
class Case:
    """One objective of a method, and the slow function that says what it has to be."""

    name: str
    method: str
    objective: Objective
    slow: Slow

    def __str__(self):
        return self.name


def _same(function, **settings) -> Slow:
    return lambda tokens, iteration: function(tokens, **settings)


def _chord(phi=True, **schedule) -> Slow:
    return lambda tokens, t: slow.chord(tokens, mu=slow.chord_mu(t, **schedule), phi=phi)


NO_WARMUP = {"mu_peak": 0.1, "mu_valley": 0.1, "num_warmup_iterations": 0}
TABLE: list[tuple[str, dict, list[Slow]]] = [
    # Method, settings, and the slow function of each objective.
    ("prefix_rft", {}, [_same(slow.prefix_rft)]),
    (
        "prefix_rft",
        {"entropy_keep_fraction": 0.5, "num_prefix_rollouts": 2, "advantage": "two_level"},
        [_same(slow.prefix_rft, entropy_keep_fraction=0.5)],
    ),
    ("prefix_rft_adaptive", {}, [_same(slow.prefix_rft)]),
    (
        "prefix_rft_adaptive",
        {"entropy_keep_fraction": 0.8, "target": 0.3},
        [_same(slow.prefix_rft, entropy_keep_fraction=0.8)],
    ),
    ("rft", {}, [_same(slow.rft)]),
    ("grpo", {}, [_same(slow.grpo)]),
    ("sft", {}, [_same(slow.sft)]),
    ("sft", {"num_rows_per_problem": 3}, [_same(slow.sft)]),
    ("dft", {}, [_same(slow.dft)]),
    ("dft", {"num_rows_per_problem": 2}, [_same(slow.dft)]),
    ("trsft", {}, [_same(slow.trsft)]),
    ("trsft", {"threshold": 0.5}, [_same(slow.trsft, threshold=0.5)]),
    ("psft", {}, [_same(slow.psft)]),
    ("psft", {"clip_high": 0.05}, [_same(slow.psft, clip_high=0.05)]),
    ("sft_rft", {}, [_same(slow.sft), _same(slow.rft)]),
    ("sft_rft", {"num_sft_iterations": 2, "sft_lr": None}, [_same(slow.sft), _same(slow.rft)]),
    ("rl_with_sft_loss", {}, [_same(slow.rl_with_sft_loss)]),
    ("rl_with_sft_loss", {"sft_coeff": 0.25}, [_same(slow.rl_with_sft_loss, sft_coeff=0.25)]),
    ("uft", {}, [_same(slow.uft)]),
    ("uft", {"imitation_coeff": 0.5}, [_same(slow.uft, imitation_coeff=0.5)]),
    ("luffy", {}, [_same(slow.luffy)]),
    ("luffy", {"gamma": 0.5, "clip": True}, [_same(slow.luffy, gamma=0.5, clip=True)]),
    ("relift", {}, [_same(slow.rft, clip=False), _same(slow.sft)]),
    ("relift", {"clip": True, "buffer_size": 2}, [_same(slow.rft), _same(slow.sft)]),
    ("chord", {}, [_chord()]),
    ("chord", {"phi": False, "mu_peak": 0.9}, [_chord(phi=False, mu_peak=0.9)]),
    ("chord", NO_WARMUP, [_chord(mu_peak=0.1, mu_valley=0.1, warmup=0)]),
    ("dr_po", {}, [_same(slow.rft)]),
    ("random_prefix", {}, [_same(slow.random_prefix)]),
    ("random_prefix", {"keep_fraction": 0.5}, [_same(slow.random_prefix, keep_fraction=0.5)]),
    ("bottom_entropy", {}, [_same(slow.bottom_entropy)]),
    ("bottom_entropy", {"keep_fraction": 0.5}, [_same(slow.bottom_entropy, keep_fraction=0.5)]),
    ("freeze_prefix", {}, [_same(slow.rft)]),
    ("update_all", {}, [_same(slow.update_all)]),
    ("static_prefix_weight", {}, [_same(slow.static_prefix_weight)]),
    ("static_prefix_weight", {"weight": 0.5}, [_same(slow.static_prefix_weight, weight=0.5)]),
    ("rft_on_policy_clip", {}, [_same(slow.rft_on_policy_clip)]),
    (
        "rft_on_policy_clip",
        {"entropy_keep_fraction": 0.5},
        [_same(slow.rft_on_policy_clip, entropy_keep_fraction=0.5)],
    ),
    ("uniform_schedule", {}, [_same(slow.prefix_rft)]),
    (
        "uniform_schedule",
        {"entropy_keep_fraction": 0.5, "low": 0.3},
        [_same(slow.prefix_rft, entropy_keep_fraction=0.5)],
    ),
]


def _cases():
    for method, settings, slow_functions in TABLE:
        objectives = build(method, settings).objectives()
        for objective, slow_function in zip(objectives, slow_functions, strict=True):
            parts = [method, *(f"{key}={value}" for key, value in settings.items())]
            name = " ".join([*parts, *([objective.name] if len(objectives) > 1 else [])])
            yield Case(name, method, objective, slow_function)


CASES = list(_cases())


def objective_of(name, **settings):
    """The first objective of a method."""
    return build(name, settings).objectives()[0]


def with_bounds(objective):
    """Its surrogate, with the config's default bounds where it has none of its own."""
    return objective.surrogate.completed_by(DEFAULT_CLIP)


def prepared(objective, columns, iteration=0):
    return prepare_weights(objective.rules, columns, max_response_tokens=T_MAX, iteration=iteration)


def loss_and_gradient(objective, columns, logp, *, iteration=0, pieces=None):
    """The product's loss and d loss / d logp; `pieces` are the micro-batches' row numbers."""
    weights = prepared(objective, columns, iteration)
    logp = logp.clone().requires_grad_()
    total = 0.0
    for rows in pieces or [torch.arange(columns.num_rows)]:
        part = weights.rows(rows).weights(logp[rows])
        terms = policy_loss(part, logp[rows], columns.old_logp[rows], with_bounds(objective))
        terms.loss.backward()
        total += terms.loss.item()
    return total, logp.grad


def slow_loss_and_gradient(function, columns, logp, *, iteration=0):
    """The slow loss and gradient, and the tokens they were added up in."""
    tokens = slow.Tokens(columns, logp, T_MAX)
    function(tokens, iteration)
    return tokens.loss, np.array(tokens.gradient), tokens


def moved_logp(columns, seed=0):
    """Log probabilities away from the old policy: many ratios beyond both clips."""
    noise = np.random.default_rng(seed).normal(0, 0.3, columns.old_logp.shape)
    moved = columns.old_logp + torch.tensor(noise, dtype=torch.float32)
    return moved.clamp(max=-1e-3)
