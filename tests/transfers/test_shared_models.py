"""Whole runs with learners that share a model, and with adapters: sync, checkpoints, exports."""

import numpy as np
import pytest
import torch
from ray.rllib.core import DEFAULT_MODULE_ID
from transformers import AutoModelForCausalLM

from prefix_rft_rllib import PrefixRFT
from tests.algorithm_runs import assert_close, assert_same_weights, numbers_of, weights_of

pytest_plugins = ("tests.algorithm_fixtures",)
pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("cluster")]
LORA = {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj"]}


def exported(algo, path):
    model = AutoModelForCausalLM.from_pretrained(algo.save_pretrained(path))
    return {name: value.numpy() for name, value in model.state_dict().items()}


def assert_near(weights, expected, tolerance):
    assert weights.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(weights[name], value, rtol=0, atol=tolerance, err_msg=name)


def engine_weights(algo):
    own = algo.env_runner.engine._open_model().state_dict()
    return {name: value.numpy() for name, value in own.items()}


def test_sharded_learners_sync_save_export_and_continue_as_one_and_back(make_config, run, tmp_path):
    shared = make_config().learners(num_learners=2, parallelism="fsdp")
    algo = shared.copy(copy_frozen=False).reporting(run_dir=str(tmp_path / "a")).build_algo()
    assert_close(numbers_of(algo.train()), run.numbers[1])
    weights = weights_of(algo)
    # AdamW turns the rounding of gradients near 0 into steps of up to lr, 1e-2 here.
    assert np.mean([abs(weights[n] - run.weights[1][n]).mean() for n in weights]) < 1e-4
    assert_same_weights(engine_weights(algo), weights)
    assert_same_weights(exported(algo, tmp_path / "model"), weights)
    checkpoint = algo.save_to_path(str(tmp_path / "checkpoint"))
    expected = numbers_of(algo.train())
    algo.stop()

    alone = make_config().reporting(run_dir=str(tmp_path / "b"))
    algo = PrefixRFT.from_checkpoint(checkpoint, config=alone)
    assert_same_weights(weights_of(algo), weights)
    assert_close(numbers_of(algo.train()), expected)
    algo.stop()

    shared.reporting(run_dir=str(tmp_path / "c"))
    algo = PrefixRFT.from_checkpoint(run.checkpoints[1], config=shared)
    assert_same_weights(weights_of(algo), run.weights[1])
    assert_same_weights(engine_weights(algo), run.weights[1])
    assert_close(numbers_of(algo.train()), run.numbers[2])
    algo.stop()


def test_adapters_are_trained_synced_saved_and_exported(make_config, tmp_path):
    peft = pytest.importorskip("peft")
    config = make_config(kl_coeff=0.1).learners(lora=LORA).reporting(run_dir=str(tmp_path / "a"))
    algo = config.build_algo()
    base = AutoModelForCausalLM.from_pretrained(algo.config.model_path)
    start = {name: value.numpy().copy() for name, value in base.state_dict().items()}
    assert_near(engine_weights(algo), start, 0)
    algo.train()
    module = algo.learner_group._learner.module[DEFAULT_MODULE_ID]
    merged = module.get_state(inference_only=True)
    assert_near(engine_weights(algo), merged, 0)
    moved = {name for name, value in merged.items() if not (value == start[name]).all()}
    assert moved == {name for name in start if "q_proj" in name or "v_proj" in name}

    assert_near(exported(algo, tmp_path / "model"), merged, 0)
    loaded = peft.PeftModel.from_pretrained(base, tmp_path / "model" / "adapter").eval()
    ids = torch.arange(20)[None]
    with torch.no_grad():
        torch.testing.assert_close(loaded(ids).logits, module.lm(ids).logits, rtol=0, atol=1e-5)
        plain = AutoModelForCausalLM.from_pretrained(tmp_path / "model").eval()
        torch.testing.assert_close(plain(ids).logits, module.lm(ids).logits, rtol=0, atol=1e-4)

    checkpoint = algo.save_to_path(str(tmp_path / "checkpoint"))
    state = module.get_state()
    expected = numbers_of(algo.train())
    algo.stop()
    again = PrefixRFT.from_checkpoint(checkpoint)
    module = again.learner_group._learner.module[DEFAULT_MODULE_ID]
    assert_near(module.get_state(), state, 0)
    assert_near(engine_weights(again), merged, 0)
    assert numbers_of(again.train()) == pytest.approx(expected, rel=1e-6, abs=1e-7)
    again.stop()
