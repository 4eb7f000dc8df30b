"""A run whose rollouts vLLM generates, in two remote env runners."""

import pytest

from prefix_rft_rllib.envs import TOY_BASE_MODEL
from tests.algorithm_runs import ROLLOUT_FIELDS, numbers_of, rollouts_of
from tests.engines.vllm.vllm_models import require_vllm
from tests.small_configs import small_config

pytest_plugins = ("tests.algorithm_fixtures",)
pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("cluster")]

NUM_ITERATIONS = 2
PLANNED = ROLLOUT_FIELDS[: ROLLOUT_FIELDS.index("minibatch") + 1]
"""What the plan decides, whatever the engine samples."""


def train(run_dir, **env_runners):
    """Metrics, plans and responses of each iteration."""
    config = small_config(str(TOY_BASE_MODEL), lr=1e-3).env_runners(
        temperature=0.8, top_p=0.9, **env_runners
    )
    algo = config.reporting(run_dir=str(run_dir), num_logged_groups=4).build_algo()
    numbers = [numbers_of(algo.train()) for _ in range(NUM_ITERATIONS)]
    algo.stop()
    rollouts = [rollouts_of(run_dir, i + 1) for i in range(NUM_ITERATIONS)]
    plans = [[rollout[: len(PLANNED)] for rollout in records] for records in rollouts]
    responses = [[rollout[-1] for rollout in records] for records in rollouts]
    return numbers, plans, responses


def test_two_env_runners_with_vllm_follow_the_plan_and_the_learners_weights(tmp_path):
    require_vllm()
    numbers, plans, responses = train(
        tmp_path / "vllm",
        num_env_runners=2,
        engine="vllm",
        engine_config={"max_model_len": 128, "timeout_s": 120},
    )
    for iteration in numbers:
        # Of the second iteration too: new weights, and no keys and values of the old ones.
        assert iteration["learner/engine_logp_gap_max"] < 1e-4
        assert iteration["learner/engine_logp_gap_mean"] < 1e-5
        assert iteration["learner/grad_norm"] > 0
    _, expected_plans, expected_responses = train(tmp_path / "transformers", num_env_runners=0)
    assert plans == expected_plans
    # The draws are the engine's own, of the same distribution.
    assert responses != expected_responses
