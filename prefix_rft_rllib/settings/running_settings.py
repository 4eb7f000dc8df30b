"""What the setters beside `config.training()` set: declared once, with range and meaning."""

from dataclasses import dataclass
from typing import Any

from prefix_rft_rllib.basics.declarations import setting
from prefix_rft_rllib.basics.ranges import (
    FLAG,
    PATH,
    TEXT,
    Range,
    mapping,
    one_of,
    optional,
    real,
    texts,
    whole,
)
from prefix_rft_rllib.engines import ENGINES
from prefix_rft_rllib.evaluation.options import MAX_K
from prefix_rft_rllib.rollouts.weight_transfer_choice import WEIGHT_TRANSFERS

PARALLELISMS = ("ddp", "fsdp")
FINGERPRINTED = (
    *("data", "demonstrations", "prompts", "verifier", "verifier_config", "rewards"),
    *("max_response_tokens", "cut_prefix_before_answer", "end_tokens", "model", "method"),
    *("seed", "group_size", "num_problems_per_iteration", "max_resampling_rounds"),
    *("max_weight_staleness", "engine", "temperature", "top_p"),
)
"""What draws and rewards depend on: a run goes on from checkpoints that have it in common."""

_FINGERPRINTED = Range(
    f"a list of names, of {', '.join(FINGERPRINTED)}",
    lambda v: texts("names").contains(v) and set(v) <= set(FINGERPRINTED),
)
_ATTENTION = Range("a name that transformers knows ('sdpa', 'flash_attention_2')", TEXT.contains)


@dataclass(init=False, repr=False, eq=False)
class LearnerSettings:
    """How learners hold and run the model (docs/learners.md)."""

    attn_implementation: str | None = setting(
        None,
        optional(_ATTENTION, "for the model's own choice"),
        "Implementation of attention.",
        change='"flash_attention_2" on GPUs that have it installed.',
    )
    packing: bool | None = setting(
        None,
        optional(FLAG, "for where the attention has kernels for it"),
        "Run the rows of a micro-batch as one, without padding.",
        change="False to compare with padded rows.",
    )
    share_prompts: bool | None = setting(
        False,
        optional(FLAG, "for where it saves a fifth of the tokens and the attention can"),
        "Compute tokens that rows share, from their beginning on, once per micro-batch.",
        change="None or True for long prompts; gradients differ by rounding alone.",
    )
    activation_checkpointing: bool = setting(
        False,
        FLAG,
        "Recompute each layer in the backward pass: less memory, more time, the same gradients.",
        change="True when long responses do not fit at the smallest micro-batch.",
    )
    parallelism: str = setting(
        "ddp",
        one_of(PARALLELISMS),
        "How several learners share the work: with ddp each holds the whole model, with fsdp a "
        "share of weights, gradients and optimizer state.",
        change="fsdp when one learner cannot hold the model with AdamW's state.",
    )
    lora: dict[str, Any] | None = setting(
        None,
        optional(mapping("keyword arguments of peft's LoraConfig"), "to train all weights"),
        "Train adapters instead of the weights.",
        change="When memory is short; with a larger `lr`.",
    )


@dataclass(init=False, repr=False, eq=False)
class EnvRunnerSettings:
    """How responses are sampled."""

    engine: str = setting(
        "transformers",
        one_of(ENGINES),
        "What generates the responses (docs/engines.md).",
        change="vllm for models above a few hundred million parameters (docs/engines.md).",
    )
    engine_config: dict[str, Any] = setting(
        {},
        mapping("keyword arguments of the engine"),
        "Settings of the engine.",
        change="For its batch sizes and memory (docs/engines.md).",
    )
    weight_transfer: str = setting(
        "auto",
        one_of(WEIGHT_TRANSFERS),
        "How new weights reach the engines: object_store through Ray; nccl from GPU to GPU, ipc "
        "inside one (engine vllm alone); auto directly where learners and env runners have GPUs, "
        "else through Ray (docs/engines.md).",
        change="object_store when a direct transfer makes trouble.",
    )
    temperature: float = setting(
        1.0,
        real(above=0).advising("Greedy rollouts of a group are all the same."),
        "Sampling temperature; also that of the trained policy's log-probabilities.",
        change="Lower for a model that rambles, higher if rollouts of a group are all alike.",
        paper="1.0",
    )
    top_p: float = setting(
        1.0,
        real(above=0, most=1),
        "Nucleus of the sampling distribution; log-probabilities are those before this "
        'filter (docs/engines.md, "How tokens are drawn").',
        change="Seldom: below 1 the sampled distribution is not the trained one.",
        paper="1.0",
    )
    num_envs_per_env_runner: int = setting(
        4,
        whole(1),
        "How many responses a runner verifies at the same time; generation is one batch whatever "
        "it is.",
        change="More on machines with many cores, if verification takes long.",
    )
    sample_timeout_s: float | None = setting(
        None,
        optional(real(above=0), "for no limit"),
        "How long the driver waits for the runners' answers, in seconds: one that is silent for "
        "longer is ended, and its rollouts are sampled again.",
        change="On clusters where processes hang; well above the longest iteration.",
    )


@dataclass(init=False, repr=False, eq=False)
class EvaluationSettings:
    """What is evaluated every `evaluation_interval` iterations (docs/evaluation.md)."""

    evaluation_interval: int | None = setting(
        None,
        optional(whole(0), "for never, as 0"),
        "Iterations from one evaluation to the next.",
        change="Always where problems are held out; an evaluation takes as long as its samples.",
    )
    held_out_num_samples: int = setting(
        8,
        whole(1, MAX_K),
        "k of avg@k and pass@k of held-out sets: samples per problem beside the greedy one.",
        change="More for few problems (32 is usual for AIME).",
        paper="32 for AIME and AMC, else 1",
    )
    evaluation_sets: dict[str, Any] | None = setting(
        None,
        optional(
            mapping("names to settings of sets"),
            "for all held-out sets, each with `held_out_num_samples`",
        ),
        "The sets that are evaluated, and how each is asked: attempts, temperature, length, a "
        "benchmark (docs/evaluation.md#evaluation-during-training).",
        change="For sets with another k or temperature than training, and for benchmarks.",
    )
    demonstration_probes: dict[str, int] = setting(
        {},
        Range(
            "a dict of 'train' or names of held-out sets to whole numbers of at least 1",
            lambda v: mapping().contains(v) and all(map(whole(1).contains, v.values())),
        ),
        "Of how many problems of these sets the loss on a demonstration is watched; the same "
        "problems at every evaluation.",
        change="To see what is learned and forgotten of the demonstrations.",
        paper="Fig. 3",
    )


@dataclass(init=False, repr=False, eq=False)
class ReportingSettings:
    """What a run shows and writes."""

    run_dir: str | None = setting(
        None,
        optional(PATH, "for RLlib's default place"),
        "Directory of the run (config, metrics, TensorBoard events, rollouts); under Tune always "
        "the trial's directory.",
        change="One directory of its own for every run.",
    )
    progress: bool | None = setting(
        None,
        optional(FLAG, "for yes, except under Tune"),
        "Print one line per iteration.",
        change="False in notebooks and services.",
    )
    preflight: bool = setting(
        True,
        FLAG,
        "Grade all answers and demonstrations before training starts.",
        change="False for data that has passed before and takes minutes.",
    )
    num_logged_groups: int = setting(
        2,
        whole(0),
        "Groups per iteration of which all rollouts are logged with their per-token values; prefix "
        "rollouts always are.",
        change="More to study single problems; the files grow with it.",
    )


@dataclass(init=False, repr=False, eq=False)
class CheckpointSettings:
    """When checkpoints are written into the run directory, and which stay (docs/checkpoints.md)."""

    every: int | None = setting(
        None,
        optional(whole(1), "for none"),
        "Iterations from one checkpoint in the run directory to the next.",
        change="Always for runs that take hours; a killed run repeats what came after the newest.",
    )
    keep_last: int = setting(
        2,
        whole(1),
        "How many of the newest checkpoints in the run directory stay.",
        change="More to go back further; 1 where disks are small.",
    )
    keep_every: int | None = setting(
        None,
        optional(whole(1), "for none"),
        "Checkpoints of iterations that are multiples of it stay for ever.",
        change="To evaluate a run at several of its iterations.",
    )
    accept_changed: tuple[str, ...] = setting(
        (),
        _FINGERPRINTED,
        "What may differ from a checkpoint that the run goes on from; all else that decides draws "
        "or rewards must be the same. What differs is said in a warning.",
        change="To go on with other data or another method on purpose.",
    )


@dataclass(init=False, repr=False, eq=False)
class ResourceSettings:
    """What the run asks of a cluster."""

    placement_timeout_s: float | None = setting(
        None,
        optional(real(0), "to wait without limit"),
        "How long to wait for nodes that may still join the cluster, and for what others use, "
        "before that is an error, in seconds; without limit with a message each minute. What a Ray "
        "that the driver has started itself does not have is an error at once (docs/cluster.md).",
        change="On clusters where a job that waits for long should end.",
    )
