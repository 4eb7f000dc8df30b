"""What RLlib's users do with any algorithm: its module, its checkpoint, its name, its marks."""

import re
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.columns import Columns
from ray.rllib.core.rl_module.rl_module import RLModule
from ray.util.annotations import _is_annotated
from transformers import AutoModelForCausalLM

from prefix_rft_rllib import PrefixRFT, PrefixRFTConfig
from prefix_rft_rllib.learners.learner_group import PrefixRFTLearnerGroup
from prefix_rft_rllib.learners.prefix_rft_learner import PrefixRFTLearner
from prefix_rft_rllib.learners.torch.default_prefix_rft_torch_rl_module import (
    DefaultPrefixRFTTorchRLModule,
)
from prefix_rft_rllib.learners.torch.prefix_rft_torch_learner import PrefixRFTTorchLearner
from prefix_rft_rllib.rollouts.token_env_runner import TokenEnvRunner

pytest_plugins = ("tests.algorithm_fixtures",)

README = Path(__file__).parents[1] / "README.md"
MODULE = f"learner_group/learner/rl_module/{DEFAULT_MODULE_ID}"
TOLERANCE = 1e-5
"""Of logits, which lie between -10 and 10."""


@pytest.mark.parametrize(
    "marked",
    [
        PrefixRFT,
        PrefixRFT.save_pretrained,
        PrefixRFT.sample_rollouts,
        PrefixRFTConfig,
        PrefixRFTLearner,
        PrefixRFTLearnerGroup,
        PrefixRFTTorchLearner,
        DefaultPrefixRFTTorchRLModule,
        TokenEnvRunner,
    ],
    ids=lambda marked: marked.__qualname__,
)
def test_classes_and_own_methods_have_a_mark_of_api_stability(marked):
    assert _is_annotated(marked)


def next_logits(module: RLModule, observations: np.ndarray) -> torch.Tensor:
    outputs = module.forward_inference({Columns.OBS: torch.from_numpy(observations)})
    return outputs[Columns.ACTION_DIST_INPUTS]


@torch.no_grad()
def expected_logits(lm, observations: np.ndarray) -> torch.Tensor:
    """transformers' logits after each observation's tokens, row by row."""
    rows = [torch.from_numpy(row[row >= 0]).long()[None] for row in observations]
    return torch.cat([lm(row).logits[:, -1] for row in rows])


def observations_of(config: PrefixRFTConfig) -> np.ndarray:
    """Starts of three episodes of the environment: one plain, one with a prefix, one a step on."""
    env = gym.make(config.env, **config.token_env_config())
    problems = env.unwrapped.problem_set.train
    plain, _ = env.reset(seed=0)
    options = {"problem_id": problems[1].problem_id, "num_prefix_tokens": 5}
    inside, _ = env.reset(options=options)
    later, *_ = env.step(3)
    return np.stack([plain, inside, later])


@pytest.mark.integration
def test_module_of_algorithm_and_checkpoint_gives_the_trained_models_next_token(run, make_config):
    algo = PrefixRFT.from_checkpoint(run.checkpoints[3])
    observations = observations_of(algo.config)
    lm = AutoModelForCausalLM.from_pretrained(run.model_dir).eval()
    untrained = AutoModelForCausalLM.from_pretrained(algo.config.model_path).eval()
    expected = expected_logits(lm, observations)
    assert (expected - expected_logits(untrained, observations)).abs().max() > 100 * TOLERANCE
    restored = RLModule.from_checkpoint(f"{run.checkpoints[3]}/{MODULE}")
    for module in (algo.get_module(), restored):
        logits = next_logits(module, observations)
        assert logits.shape == (3, algo.env_runner.env.action_space.n)
        torch.testing.assert_close(logits, expected, rtol=0, atol=TOLERANCE)
        distribution = module.get_inference_action_dist_cls().from_logits(logits)
        probabilities = torch.softmax(expected, dim=-1)
        action = torch.tensor([3, 4, 5])
        torch.testing.assert_close(
            distribution.logp(action).exp(), probabilities[range(3), action], rtol=1e-4, atol=0
        )
    assert algo.get_module("another") is None
    algo.stop()


@pytest.mark.integration
def test_the_module_of_remote_learners_with_adapters_is_the_exported_model(
    cluster, make_config, tmp_path
):
    pytest.importorskip("peft")
    config = make_config(kl_coeff=0.1).learners(
        num_learners=1, lora={"r": 2, "lora_alpha": 64, "target_modules": "all-linear"}
    )
    algo = config.reporting(run_dir=str(tmp_path / "run")).build_algo()
    before = algo.get_module()
    algo.train()
    observations = observations_of(algo.config)
    lm = AutoModelForCausalLM.from_pretrained(algo.save_pretrained(tmp_path / "model")).eval()
    expected = expected_logits(lm, observations)
    torch.testing.assert_close(
        next_logits(algo.get_module(), observations), expected, rtol=0, atol=10 * TOLERANCE
    )
    # A copy: the one that was asked for before stays as it was.
    assert (next_logits(before, observations) - expected).abs().max() > 1000 * TOLERANCE
    algo.stop()


@pytest.mark.integration
def test_the_readmes_lines_run(cluster, make_config, tmp_path):
    section = README.read_text().split("\n## Used like any RLlib algorithm\n")[1]
    lines = re.search(r"```python\n(.*?)```", section, flags=re.DOTALL).group(1)
    for shown, used in (("/results", str(tmp_path)), ("500", "1")):
        assert shown in lines
        lines = lines.replace(shown, used)
    config = make_config().reporting(run_dir=str(tmp_path / "run"))
    names = {"config": config, "PrefixRFTConfig": PrefixRFTConfig}
    exec(lines, names)
    assert names["logits"].shape == (1, names["env"].action_space.n)
    assert names["algo"].iteration == 1
    (result,) = names["results"]
    assert result.metrics["training_iteration"] == 1
