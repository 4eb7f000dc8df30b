"""Metric keys: each once, with its meaning and unit.

`train()` returns RLlib's nested result; `flatten` gives the flat row of this project's own metrics
that `metrics.jsonl`, TensorBoard and the progress table show.
"""

import math
from collections.abc import Mapping
from typing import Any

# --- Rollouts: logged by the driver over all rollouts of the iteration, under `rollouts/`. -------
ROLLOUTS = "rollouts"

REWARD_MEAN = "reward_mean"
"""Mean reward of all rollouts, prefix rollouts and plain ones."""
REWARD_PREFIX_MEAN = "reward_prefix_mean"
"""Mean reward of the rollouts that started in a prefix state."""
REWARD_PLAIN_MEAN = "reward_plain_mean"
"""Mean reward of the rollouts without a prefix: what the policy solves by itself."""
NUM_ROLLOUTS = "num_rollouts"
"""Rollouts sampled."""
NUM_PREFIX_ROLLOUTS = "num_prefix_rollouts"
"""Rollouts with at least one prefix token."""
NUM_GROUPS = "num_groups"
"""Groups (problems) sampled, those that were replaced too."""
NUM_GROUPS_WITH_SIGNAL = "num_groups_with_signal"
"""Groups whose rewards are not all equal; the others have advantage 0."""
NUM_GROUPS_REPLACED = "num_groups_replaced"
"""Groups without signal that were sampled, counted above, and replaced by others."""
REWARD_DEMONSTRATION_MEAN = "reward_demonstration_mean"
"""Mean reward of the demonstrations that are members of their group."""
PREFIX_WINDOW_LOW = "prefix_window_low"
"""Low end low_t of the interval u is drawn from, as a share of the demonstration."""
PREFIX_WINDOW_HIGH = "prefix_window_high"
"""High end of that interval."""
PREFIX_FRACTION_MEAN = "prefix_fraction_mean"
"""Mean drawn share u of a demonstration, over the rollouts with a draw."""
PREFIX_TOKENS_DRAWN_MEAN = "prefix_tokens_drawn_mean"
"""Mean floor(u * |y*|) over the rollouts with a draw, tokens, before any limit."""
PREFIX_TOKENS_MEAN = "prefix_tokens_mean"
"""Mean prefix length over the rollouts with a draw, tokens, after all limits."""
NUM_PREFIXES_CUT = "num_prefixes_cut"
"""Prefixes shortened so that they end before the answer, to nothing in the extreme."""
PREFIX_TOKEN_FRACTION = "prefix_token_fraction"
"""Share of prefix tokens among all response tokens."""
RESPONSE_LENGTH_MEAN = "response_length_mean"
"""Mean response length, prefix included, tokens."""
TRUNCATED_FRACTION = "truncated_fraction"
"""Share of rollouts that spent the response budget without an end token."""
NUM_SAMPLED_TOKENS = "num_sampled_tokens"
"""Tokens sampled by the engine."""
WEIGHT_STALENESS_MEAN = "weight_staleness_mean"
"""Mean number of updates between a rollout's weights and the start of its update; 0: on-policy."""
VERDICTS = "verdicts"
"""Number of rollouts per verdict, `verdicts/CORRECT` and so on; all five, and SCORED."""
NUM_WITHOUT_ISOLATION = "num_without_isolation"
"""Rollouts whose code ran without isolation; where the verifier says how any of them ran."""

# --- Learner: logged by the learners over the iteration's update, under `learner/`. --------------
LEARNER = "learner"

LOSS = "loss"
"""Mean loss of the minibatches, all terms."""
GRAD_NORM = "grad_norm"
"""Mean global gradient norm of the minibatches, before clipping."""
LEARNING_RATE = "lr"
"""Learning rate of the last optimizer step."""
NUM_OPTIMIZER_STEPS = "num_optimizer_steps"
"""Optimizer steps taken, those left out not counted."""
NUM_NONFINITE_STEPS = "num_nonfinite_steps"
"""Minibatches whose loss or gradient was not finite; their step was left out on all learners."""
NUM_TRAINED_ROWS = "num_trained_rows"
"""Rows in the forward and backward passes, summed over minibatches."""
NUM_SKIPPED_ROWS = "num_skipped_rows"
"""Rows left out of these passes because all their weights are 0."""
NUM_PREFIX_TOKENS = "num_prefix_tokens"
"""Prefix tokens in the pools of the selections, summed over minibatches."""
NUM_KEPT_PREFIX_TOKENS = "num_kept_prefix_tokens"
"""Prefix tokens that the selections kept, summed over minibatches."""
RATIO_PREFIX = "ratio_prefix"
"""Mean pi/pi_old of prefix tokens that carry weight."""
RATIO_RESPONSE = "ratio_response"
"""Mean pi/pi_old of sampled tokens that carry weight."""
RATIO_DEMONSTRATION = "ratio_demonstration"
"""Mean pi/pi_old of demonstration rows' tokens that carry a policy weight."""
CLIP_FRACTION_PREFIX = "clip_fraction_prefix"
"""Share of the prefix tokens with weight whose gradient the surrogate removed or bounded."""
CLIP_FRACTION_RESPONSE = "clip_fraction_response"
"""Share of the sampled tokens with weight whose gradient the surrogate removed or bounded."""
CLIP_FRACTION_DEMONSTRATION = "clip_fraction_demonstration"
"""Share of demonstration rows' tokens with a policy weight whose gradient it removed or bounded."""
ENTROPY_PREFIX = "entropy_prefix"
"""Mean entropy of the old policy at prefix tokens, nats."""
ENTROPY_PREFIX_KEPT = "entropy_prefix_kept"
"""Mean entropy of the old policy at the kept prefix tokens, nats."""
ENTROPY_RESPONSE = "entropy_response"
"""Mean entropy of the old policy at sampled tokens, nats."""
DEMONSTRATION_LOSS = "demonstration_loss"
"""Mean -log pi_old of demonstration rows' tokens, nats."""
PREFIX_LOSS = "prefix_loss"
"""Mean -log pi_old of prefix tokens, nats."""
ENGINE_LOGP_GAP_MEAN = "engine_logp_gap_mean"
"""Mean |log pi_old(learner) - log pi_old(engine)| of sampled tokens, nats."""
ENGINE_LOGP_GAP_MAX = "engine_logp_gap_max"
"""Largest such gap, nats."""
IMPORTANCE_WEIGHT_MEAN = "importance_weight_mean"
"""Mean truncated importance weight of sampled tokens; where there are such weights."""
IMPORTANCE_WEIGHT_TRUNCATED_FRACTION = "importance_weight_truncated_fraction"
"""Share of sampled tokens whose importance weight was above the cap, before it was truncated."""
KL_TO_REFERENCE = "kl_to_reference"
"""Mean k3 estimate of KL(pi || initial model) at sampled tokens, nats; if `kl_coeff` > 0."""

# --- Faults: what failed in the iteration and was mended, under `faults/` (docs/faults.md). ------
FAULTS = "faults"

NUM_ENV_RUNNERS_LOST = "num_env_runners_lost"
"""Env runners whose process ended, or that raised, while they were asked for something."""
NUM_ENV_RUNNERS_SILENT = "num_env_runners_silent"
"""Env runners that were ended because they did not answer in time (`sample_timeout_s`)."""
NUM_ROLLOUTS_SAMPLED_AGAIN = "num_rollouts_sampled_again"
"""Rollouts that were lost with an env runner, evaluations' too; trained on once all the same."""
FAULT_METRICS = (NUM_ENV_RUNNERS_LOST, NUM_ENV_RUNNERS_SILENT, NUM_ROLLOUTS_SAMPLED_AGAIN)

# --- A separate step on demonstrations of failed problems, under `imitation_step/`. --------------
# With `loss`, `grad_norm` and `lr` as above; absent in iterations without such a step.
IMITATION_STEP = "imitation_step"

NUM_ROWS = "num_rows"
"""Demonstrations in the step."""

# --- Time, under `time/`, seconds of wall time in the iteration. ---------------------------------
TIME = "time"

SAMPLING_TIME = "sampling"
"""Waiting for rollouts, grading included; not what runners did during the update."""
GENERATION_TIME = "generation"
"""Sampling in the engine, slowest runner."""
VERIFICATION_TIME = "verification"
"""Playing and grading responses after the last one was sampled, slowest runner."""
LEARNING_TIME = "learning"
"""The learners' update."""
SYNC_TIME = "sync"
"""Sending weights to the runners."""
ITERATION_TIME = "iteration"
"""One training step: planning, sampling, learning and syncing; evaluation is not part of it."""
TOKENS_PER_SECOND = "tokens_per_second"
"""Sampled tokens per second of the training step."""

# --- Sets of problems, under `evaluation/<set>/`. ------------------------------------------------
# With `response_length_mean` and `truncated_fraction` of the k samples, and `verdicts` of all
# attempts. Of means over problems the ends of the 95% interval stand beside.
AVG_AT_K = "avg_at_k"
"""Mean share of right attempts among the k samples of a problem."""
PASS_AT_K = "pass_at_k"
"""Share of problems with at least one right sample among k."""
MAJ_AT_K = "maj_at_k"
"""Share of problems that the majority of k > 1 samples solves; mathematics in a box, and choice."""
GREEDY_ACCURACY = "greedy_accuracy"
"""Share of problems that the greedy response solves."""
GREEDY_RESPONSE_LENGTH_MEAN = "greedy_response_length_mean"
"""Mean length of the greedy responses, end token included, tokens."""
GREEDY_TRUNCATED_FRACTION = "greedy_truncated_fraction"
"""Share of greedy responses that spent the response budget without an end token."""
LOW, HIGH = "_low", "_high"
"""Behind the name of a mean: the ends of its interval."""
SAMPLE_REWARD_MEAN = "sample_reward_mean"
"""Mean reward of the k samples."""
NUM_PROBLEMS = "num_problems"
"""Problems asked."""
NUM_SAMPLES = "num_samples"
"""k: sampled attempts at each problem."""

# With `demonstration_probes`, of a held-out set or of "train":
DEMONSTRATION_NLL_PER_TOKEN = "demonstration_nll_per_token"
"""Mean -log pi of the tokens of the watched demonstrations, nats."""
DEMONSTRATION_NLL = "demonstration_nll"
"""Mean -log pi of a whole watched demonstration, nats."""
NUM_DEMONSTRATIONS = "num_demonstrations"
"""Demonstrations watched."""


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, float | int]:
    """Flatten nested metrics to `a/b/c` keys; what is no finite number is left out.

    RLlib reports NaN for keys that nobody logged in an iteration.
    """
    flat: dict[str, float | int] = {}
    for name, value in tree.items():
        key = f"{prefix}{name}"
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{key}/")
        elif isinstance(value, bool):
            flat[key] = int(value)
        elif isinstance(value, int | float) or hasattr(value, "item"):
            is_one = math.prod(getattr(value, "shape", ())) == 1  # no series
            number = value.item() if hasattr(value, "item") and is_one else value
            if isinstance(number, int | float) and math.isfinite(number):
                flat[key] = number
    return flat


LEARNER_METRICS = (
    LOSS,
    GRAD_NORM,
    LEARNING_RATE,
    NUM_OPTIMIZER_STEPS,
    NUM_NONFINITE_STEPS,
    NUM_TRAINED_ROWS,
    NUM_SKIPPED_ROWS,
    NUM_PREFIX_TOKENS,
    NUM_KEPT_PREFIX_TOKENS,
    RATIO_PREFIX,
    RATIO_RESPONSE,
    RATIO_DEMONSTRATION,
    CLIP_FRACTION_PREFIX,
    CLIP_FRACTION_RESPONSE,
    CLIP_FRACTION_DEMONSTRATION,
    ENTROPY_PREFIX,
    ENTROPY_PREFIX_KEPT,
    ENTROPY_RESPONSE,
    DEMONSTRATION_LOSS,
    PREFIX_LOSS,
    ENGINE_LOGP_GAP_MEAN,
    ENGINE_LOGP_GAP_MAX,
    IMPORTANCE_WEIGHT_MEAN,
    IMPORTANCE_WEIGHT_TRUNCATED_FRACTION,
    KL_TO_REFERENCE,
)
"""The learners' metrics; RLlib's own stand beside them in its results."""
