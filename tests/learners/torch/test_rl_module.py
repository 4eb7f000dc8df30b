"""The RLModule: log-probabilities against a plain forward, and weights in and out, bit for bit."""

import gymnasium as gym
import numpy as np
import pytest
import torch
from pyarrow.fs import LocalFileSystem
from ray.rllib.core.columns import Columns
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig, PretrainedConfig

from prefix_rft_rllib.core.tokens import Region
from prefix_rft_rllib.learners.connectors.add_tokens_from_episodes_to_batch import token_columns_of
from prefix_rft_rllib.learners.torch.default_prefix_rft_torch_rl_module import (
    HF_MODEL_DIRECTORY,
    DefaultPrefixRFTTorchRLModule,
)
from prefix_rft_rllib.models.state_arrays import state_to_tensors
from tests.learners.torch.learners import NUM_IDS, make_rows
from tests.random_models import SIZES, random_lm

LLAMA = SIZES | {"vocab_size": NUM_IDS, "initializer_range": 0.5}
CONFIGS: dict[str, PretrainedConfig] = {
    "llama_tied": LlamaConfig(**LLAMA, tie_word_embeddings=True),
    "llama_untied": LlamaConfig(**LLAMA, tie_word_embeddings=False),
    # Dropout of 0.1 everywhere, GPT-2's own default.
    "gpt2_with_dropout": GPT2Config(
        vocab_size=NUM_IDS, n_embd=16, n_layer=2, n_head=2, n_positions=64, initializer_range=0.5
    ),
}
TEMPERATURE = 0.7


def save_model(name, directory, seed=0):
    random_lm(CONFIGS[name], seed=seed).save_pretrained(directory)
    return str(directory)


def build_module(model_path, **settings):
    space = gym.spaces.Discrete(2)
    return DefaultPrefixRFTTorchRLModule(
        observation_space=space,
        action_space=space,
        model_config={
            "model_path": model_path,
            "temperature": TEMPERATURE,
            "use_reference": False,
            "compute_dtype": "float32",
            "entropy_gradient": False,
            "attn_implementation": None,
            "packing": None,
            "activation_checkpointing": False,
            "lora": None,
            "seed": 0,
        }
        | settings,
    )


def batch_of(pictures, num_extra=0):
    """Columns of the rows, with more padding of arbitrary ids."""
    columns = token_columns_of(make_rows(pictures, [0.0] * len(pictures)))
    pad = torch.nn.functional.pad
    return {
        "input_ids": pad(columns.input_ids, (0, num_extra), value=7),
        "region": pad(columns.region, (0, num_extra), value=int(Region.PADDING)),
    }


@torch.no_grad()
def plain_logps_and_entropies(lm, batch):
    """Each row alone and unpadded; 0 at prompt and padding."""
    logps, entropies = torch.zeros(2, *batch["input_ids"].shape)
    for row, (ids, region) in enumerate(zip(batch["input_ids"], batch["region"], strict=True)):
        length = int((region != Region.PADDING).sum())
        logits = lm(ids[None, :length]).logits[0]
        table = torch.log_softmax(logits / TEMPERATURE, dim=-1)
        for t in range(1, length):
            if region[t] != Region.PROMPT:
                logps[row, t] = table[t - 1, ids[t]]
                entropies[row, t] = torch.distributions.Categorical(logits=table[t - 1]).entropy()
    return logps, entropies


PICTURES = ["xxxxpprrrrr", "xrrr", "xxdddd", "xxxxxxxxr"]


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("num_extra", [0, 5])
def test_log_probabilities_equal_an_unpadded_forward_of_each_row(tmp_path, name, num_extra):
    module = build_module(save_model(name, tmp_path))
    batch = batch_of(PICTURES, num_extra)
    logp, entropy = module.token_logps(batch)
    expected_logp, expected_entropy = plain_logps_and_entropies(module.lm, batch)
    torch.testing.assert_close(logp, expected_logp, rtol=0, atol=1e-5)
    torch.testing.assert_close(entropy, expected_entropy, rtol=0, atol=1e-5)
    # The shortest prompt decides where the logits begin; a batch of long prompts begins later.
    late = {name: column[[0, 3]] for name, column in batch.items()}
    torch.testing.assert_close(module.token_logps(late)[0], logp[[0, 3]], rtol=0, atol=1e-5)


def test_dropout_stays_off_in_training_mode(tmp_path):
    module = build_module(save_model("gpt2_with_dropout", tmp_path)).train()
    batch = batch_of(PICTURES)
    first, again = (module.forward_train(batch)["action_logp"] for _ in range(2))
    assert torch.equal(first, again)
    module.lm.train()
    assert not torch.equal(module.token_logps(batch)[0], first)


def test_the_entropy_has_a_gradient_on_request_only(tmp_path):
    path = save_model("llama_tied", tmp_path)
    batch = batch_of(PICTURES)
    assert not build_module(path).forward_train(batch)["entropy"].requires_grad
    module = build_module(path, entropy_gradient=True)
    assert module.forward_train(batch)["entropy"].requires_grad
    assert not module.token_logps(batch)[1].requires_grad


def test_bfloat16_computes_in_bfloat16_over_float32_weights(tmp_path):
    path = save_model("llama_tied", tmp_path)
    batch = batch_of(PICTURES)
    exact = build_module(path).token_logps(batch)[0]
    module = build_module(path, compute_dtype="bfloat16")
    rough = module.token_logps(batch)[0]
    assert rough.dtype == torch.float32
    assert {p.dtype for p in module.parameters()} == {torch.float32}
    assert not torch.equal(rough, exact)
    # 8 bits of mantissa, on logits of size 10.
    torch.testing.assert_close(rough, exact, rtol=0.05, atol=0.5)


@pytest.mark.parametrize("name", CONFIGS)
def test_the_state_goes_round_bit_for_bit(tmp_path, name):
    source = build_module(save_model(name, tmp_path / "a"))
    target = build_module(save_model(name, tmp_path / "b", seed=1))
    target.set_state(source.get_state())
    expected = source.lm.state_dict()
    for key, value in target.lm.state_dict().items():
        assert torch.equal(value, expected[key])
    head, embedding = target.lm.get_output_embeddings(), target.lm.get_input_embeddings()
    assert (head.weight is embedding.weight) == (name != "llama_untied")


def test_a_state_is_a_copy(tmp_path):
    module = build_module(save_model("llama_tied", tmp_path))
    state = module.get_state()
    before = {name: value.copy() for name, value in state.items()}
    with torch.no_grad():
        for parameter in module.lm.parameters():
            parameter.add_(1.0)
    for name, value in before.items():
        np.testing.assert_array_equal(state[name], value)


def test_bfloat16_weights_travel_bit_for_bit(tmp_path):
    path = save_model("llama_untied", tmp_path)
    module = build_module(path)
    module.lm.bfloat16()
    state = module.get_state()
    assert {value.dtype for value in state.values()} == {np.dtype(np.uint16)}
    expected = module.lm.state_dict()
    for name, tensor in state_to_tensors(state).items():
        assert tensor.dtype == torch.bfloat16
        assert torch.equal(tensor, expected[name])
    other = build_module(save_model("llama_untied", tmp_path / "b", seed=1))
    other.lm.bfloat16()
    other.set_state(state)
    assert torch.equal(other.lm.lm_head.weight, module.lm.lm_head.weight)
    # Into float32 weights: the same numbers.
    wide = build_module(path)
    wide.set_state(state)
    assert wide.lm.lm_head.weight.dtype == torch.float32
    assert torch.equal(wide.lm.lm_head.weight, module.lm.lm_head.weight.float())


def test_read_only_arrays_of_the_object_store_can_be_loaded(tmp_path):
    module = build_module(save_model("llama_tied", tmp_path))
    state = module.get_state()
    for value in state.values():
        value.setflags(write=False)
    module.set_state(state)


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("filesystem", [None, LocalFileSystem()], ids=["alone", "in_a_checkpoint"])
def test_a_checkpoint_holds_the_model_in_hugging_face_form(tmp_path, name, filesystem):
    module = build_module(save_model(name, tmp_path / "model"))
    with torch.no_grad():
        for parameter in module.lm.parameters():
            parameter.mul_(1.1)
    saved = module.save_to_path(str(tmp_path / "checkpoint"), filesystem=filesystem)
    directory = tmp_path / "checkpoint" / HF_MODEL_DIRECTORY
    loaded, report = AutoModelForCausalLM.from_pretrained(directory, output_loading_info=True)
    assert not any(report.values())
    names = load_file(directory / "model.safetensors")
    assert ("lm_head.weight" in names) == (name == "llama_untied")
    ids = batch_of(PICTURES)["input_ids"]
    assert torch.equal(loaded.eval()(ids).logits, module.lm(ids).logits)
    # The same weights as the checkpoint's own state.
    other = build_module(save_model(name, tmp_path / "other", seed=1))
    other.restore_from_path(saved)
    assert torch.equal(other.lm(ids).logits, loaded(ids).logits)


def test_a_checkpoint_of_a_given_state_holds_that_state_in_both_forms(tmp_path):
    module = build_module(save_model("llama_tied", tmp_path / "model"))
    state = module.get_state()
    with torch.no_grad():
        for parameter in module.lm.parameters():
            parameter.zero_()
    module.save_to_path(str(tmp_path / "checkpoint"), state=state)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "checkpoint" / HF_MODEL_DIRECTORY)
    for name, value in loaded.state_dict().items():
        np.testing.assert_array_equal(value.numpy(), state[name])


def test_a_model_directory_without_some_weights_is_refused(tmp_path):
    smaller = LlamaConfig(**LLAMA | {"num_hidden_layers": 1})
    random_lm(smaller).save_pretrained(tmp_path)
    CONFIGS["llama_tied"].save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="lacks weights of its configuration"):
        build_module(str(tmp_path))


OBSERVATIONS = np.array([[5, 9, 2, -1, -1, -1], [3, -1, -1, -1, -1, -1], [1, 2, 3, 4, 5, -1]])
"""Tokens so far, right-padded, as `TokenEnv` gives them."""


@torch.no_grad()
def plain_next_logits(lm) -> torch.Tensor:
    """Each row alone and unpadded."""
    rows = [torch.tensor(row[row >= 0])[None] for row in OBSERVATIONS]
    return torch.cat([lm(row).logits[:, -1] for row in rows])


@pytest.mark.parametrize(
    ("name", "settings"),
    [*((name, {}) for name in CONFIGS), ("llama_tied", {"packing": True})],  # GPT-2 packs no rows
)
def test_an_observation_gives_the_models_logits_of_the_next_token(name, settings, tmp_path):
    module = build_module(save_model(name, tmp_path), **settings)
    expected = plain_next_logits(AutoModelForCausalLM.from_pretrained(tmp_path).eval())
    for observations in (OBSERVATIONS, torch.tensor(OBSERVATIONS, dtype=torch.int32)):
        logits = module.forward_inference({Columns.OBS: observations})[Columns.ACTION_DIST_INPUTS]
        torch.testing.assert_close(logits, expected, rtol=0, atol=1e-5)
    assert not logits.requires_grad


def test_exploration_is_the_trained_policy(tmp_path):
    module = build_module(save_model("llama_tied", tmp_path))
    outputs = module.forward_exploration({Columns.OBS: OBSERVATIONS})
    distribution = module.get_exploration_action_dist_cls().from_logits(
        outputs[Columns.ACTION_DIST_INPUTS]
    )
    # The same tokens as a training batch: the policy's log-probability of each row's last token.
    row = OBSERVATIONS[2, :5]
    region = torch.full((1, 5), int(Region.RESPONSE), dtype=torch.int8)
    region[0, 0] = int(Region.PROMPT)
    batch = {"input_ids": torch.tensor(row)[None], "region": region}
    logp, _ = module.token_logps(batch)
    shorter = module.forward_exploration({Columns.OBS: row[None, :4]})
    before_last = type(distribution).from_logits(shorter[Columns.ACTION_DIST_INPUTS])
    assert before_last.logp(torch.tensor([5])).item() == pytest.approx(logp[0, 4].item(), abs=2e-6)
    assert distribution.sample().shape == (3,)


@pytest.mark.parametrize(
    ("observations", "message"),
    [
        (OBSERVATIONS[0], r"shape .*got \(6,\)\. Of one observation use obs\[None\]"),
        (OBSERVATIONS[:0], "must be a batch"),
        (np.array([[1, 2], [-1, -1]]), r"obs\[1\].* at least one token"),
        (np.array([[1, -1, 2]]), r"obs\[0\].* followed by padding of -1"),
        (np.array([[1, 2], [1, -2]]), r"obs\[1\].* followed by padding of -1"),
        (np.array([[1.5, 2.0]]), r"obs\[0\].* followed by padding of -1"),
        (np.array([[1.0, np.nan]]), r"obs\[0\].* followed by padding of -1"),
    ],
)
def test_what_is_no_batch_of_observations_is_refused(observations, message, tmp_path):
    module = build_module(save_model("llama_tied", tmp_path))
    with pytest.raises(ValueError, match=message):
        module.forward_inference({Columns.OBS: observations})


def test_a_module_for_inference_alone_keeps_no_reference(tmp_path):
    directory = save_model("llama_tied", tmp_path)
    module = build_module(directory, use_reference=True)
    _, settings = module.get_ctor_args_and_kwargs()
    alone = DefaultPrefixRFTTorchRLModule(**{**settings, "inference_only": True})
    assert module.reference is not None
    assert alone.reference is None
    alone.set_state(module.get_state())
    for name, value in module.get_state().items():
        np.testing.assert_array_equal(alone.get_state()[name], value)
