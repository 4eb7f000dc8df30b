"""What `config.training()` and `config.debugging()` set: declared once, with range and meaning.

Paper values are those of arXiv 2507.01679, App. A.2, which follows LUFFY's recipe.
"""

from dataclasses import dataclass
from typing import Any

from prefix_rft_rllib.basics.declarations import setting
from prefix_rft_rllib.basics.ranges import (
    DIRECTORY_OR_NAME,
    TEXT,
    Range,
    any_of,
    mapping,
    one_of,
    only,
    optional,
    real,
    whole,
)
from prefix_rft_rllib.core.lr_schedules import LR_SCHEDULES
from prefix_rft_rllib.methods import Method

COMPUTE_DTYPES = ("float32", "bfloat16")

# Far above any run: a count mistyped by many digits would be planned for hours.
_MOST_ROLLOUTS, _MOST_PROBLEMS = 10_000, 10_000_000
_METHOD = Range("the name of a method, or a `Method`", lambda v: isinstance(v, str | Method))
_BETAS = Range(
    "two numbers in [0, 1)",
    lambda v: (
        isinstance(v, tuple | list) and len(v) == 2 and all(map(real(0, below=1).contains, v))
    ),
)
_STALENESS = Range(
    "0 (on-policy) or 1 (the next iteration is sampled during the update)", whole(0, 1).contains
)
_LR = real(0).advising(
    "`lr_schedule`, `lr_warmup_steps` and `lr_schedule_steps` change it over optimizer steps."
)


@dataclass(init=False, repr=False, eq=False)
class TrainingSettings:
    """What is trained and how."""

    model_path: str | None = setting(
        None,
        optional(DIRECTORY_OR_NAME),
        "The causal LM in Hugging Face form, with its tokenizer.",
        change="Always: there is no model by default.",
        paper="Qwen2.5-Math-7B",
    )
    model_revision: str | None = setting(
        None,
        optional(TEXT, "for the default branch, or with a directory"),
        "Branch, tag or commit of that name; a run reads the commit that it stands for at the "
        "start.",
        change="To repeat a run on a model that has changed since.",
    )
    method: str | Method = setting(
        "prefix_rft",
        _METHOD,
        "What learns from rollouts and demonstrations (docs/methods.md).",
        change="To compare with a baseline or an ablation (docs/methods.md).",
        paper="Prefix-RFT",
    )
    method_config: dict[str, Any] = setting(
        {},
        mapping("keyword arguments of the method's function, as plain data"),
        "Settings of the method.",
        change="See the settings of each method in docs/methods.md.",
    )
    group_size: int = setting(
        8,
        whole(1, _MOST_ROLLOUTS),
        "Rollouts per problem, the prefix rollout included.",
        change="More of them for hard problems, where groups of equal rewards teach nothing.",
        paper="8",
    )
    num_problems_per_iteration: int = setting(
        128,
        whole(1, _MOST_PROBLEMS),
        "Problems sampled per iteration, over all env runners.",
        change="Fewer on a small machine; the rollouts of an iteration are generated together.",
        paper="128",
    )
    num_problems_per_minibatch: int = setting(
        64,
        whole(1, _MOST_PROBLEMS),
        "Problems per optimizer step, over all learners; divides `num_problems_per_iteration`.",
        change="As large as `num_problems_per_iteration` for a single step on on-policy rollouts.",
        paper="64",
    )
    max_resampling_rounds: int = setting(
        0,
        whole(0),
        "How often, in an iteration, groups of equal rewards are replaced by groups of other "
        "problems (DAPO, arXiv 2503.14476, Sec. 3.2); 0 for never. What is still without signal "
        "after the last round stays.",
        change="Where many problems are solved always or never, and sampling is cheap.",
    )
    max_nonfinite_steps: int | None = setting(
        10,
        optional(whole(1), "for no end"),
        "How many optimizer steps may be left out one after the other, because loss or gradient is "
        "not finite, before the run ends with an error (docs/faults.md).",
        change="Lower where an hour of such steps is expensive.",
    )
    max_weight_staleness: int = setting(
        0,
        _STALENESS,
        "Updates between the weights that sample an iteration and those that its update starts "
        'from; 1 needs remote env runners (docs/pieces.md, "Sampling ahead").',
        change="1 where env runners and learners have devices of their own, to use both at once.",
    )
    clip_param: float = setting(
        0.2,
        real(above=0, below=1),
        "PPO clip: the ratio is clipped to [1 - clip_param, 1 + clip_param]. This and the next two "
        "are the bounds of methods without bounds of their own; an error where the method has some "
        '(docs/pieces.md, "Surrogates").',
        change="Smaller if the mean ratio leaves 1 with several epochs or minibatches.",
        paper="0.2",
    )
    clip_param_high: float | None = setting(
        None,
        optional(real(above=0), "for `clip_param`"),
        "Upper clip, in the place of `clip_param`.",
        change="0.28 (DAPO) if the entropy of the policy collapses.",
    )
    dual_clip: float | None = setting(
        None,
        optional(real(above=1), "for no such bound"),
        "Bound c > 1 of the loss of tokens with negative weight (3 in the authors' code).",
        change="3 if single tokens with a large ratio and a negative advantage upset training.",
    )
    entropy_coeff: float = setting(
        0.0,
        real(0),
        "Weight of the entropy bonus on sampled tokens (global token mean).",
        change="0.001 (LUFFY's line) if the policy becomes deterministic too early.",
    )
    kl_coeff: float = setting(
        0.0,
        real(0),
        "Weight of the KL to the initial model on response tokens.",
        change="To stay near the initial model; a second copy of it is then held in memory.",
    )
    importance_weight_cap: float | str | None = setting(
        "auto",
        any_of(real(1), only(None, "for no importance weights"), only("auto")),
        "Weigh sampled tokens by min(pi_old / pi_engine, cap), against the mismatch of sampler and "
        'learner. "auto": no such weight, but cap 2 with `max_weight_staleness=1`.',
        change="2 (usual) where engine and learner differ, in precision or kernels.",
    )
    lr: float = setting(
        1e-6,
        _LR,
        "Learning rate of AdamW.",
        change="Larger for small models and for LoRA (1e-5 to 1e-4 is usual).",
        paper="1e-6",
    )
    num_epochs: int = setting(
        1,
        whole(1),
        "Passes over the rollouts of an iteration.",
        change="More where sampling is dear; the PPO clip then binds.",
        paper="1",
    )
    grad_clip: float | None = setting(
        1.0,
        optional(real(above=0), "for no clipping"),
        "Largest gradient of an optimizer step.",
        change="Smaller if the gradient norm has spikes.",
        paper="1.0",
    )
    grad_clip_by: str = setting(
        "global_norm",
        one_of(("value", "norm", "global_norm")),
        "What `grad_clip` limits: each entry, each tensor's norm, or the norm of all together.",
    )
    weight_decay: float = setting(
        0.0,
        real(0),
        "AdamW's decoupled weight decay.",
        change="0.01 to repeat a recipe that has it.",
    )
    adam_betas: tuple[float, float] = setting(
        (0.9, 0.999),
        _BETAS,
        "AdamW's betas.",
        change="(0.9, 0.95) with small batches or loss spikes.",
    )
    lr_schedule: str = setting(
        "constant",
        one_of(LR_SCHEDULES),
        "How the rate goes on after the warm-up; cosine ends at 0.",
        change="cosine for runs of a known length.",
        paper="constant",
    )
    lr_warmup_steps: int = setting(
        0,
        whole(0),
        "Optimizer steps n over which the rate rises linearly, from lr / n in the first one to "
        "`lr`; 0 for no warm-up.",
        change="Some tens of steps with a large rate: AdamW's moments are noise at first.",
    )
    lr_schedule_steps: int | None = setting(
        None,
        optional(whole(1)),
        "Optimizer steps until a cosine schedule reaches 0.",
        change="Always with the cosine schedule: iterations * minibatches * epochs.",
    )
    max_tokens_per_microbatch: int = setting(
        16384,
        whole(1),
        "Computed tokens of one forward and backward pass, padding included. Bounds memory; the "
        "result does not depend on it.",
        change="Halve it when a learner runs out of memory, double it while there is room.",
    )
    compute_dtype: str = setting(
        "float32",
        one_of(COMPUTE_DTYPES),
        "Precision of forward and backward passes; bfloat16 is autocast over float32 weights.",
        change="bfloat16 on GPUs: faster, half the activations.",
        paper="bfloat16",
    )


@dataclass(init=False, repr=False, eq=False)
class DebuggingSettings:
    """What random draws depend on."""

    # Draws are functions of the seed, so there is always one.
    seed: int = setting(
        0,
        whole(0, 2**32 - 1).advising("Problems, prefixes and tokens are drawn from it."),
        "Seed of problems, prefixes and tokens; the same for any number of env runners.",
        change="Several of them before a difference between two methods is believed.",
    )
