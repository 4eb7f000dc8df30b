"""A model built from sent weights is the model that its directory gives."""

import pickle
import shutil

import pytest
import torch
from transformers import (
    AutoConfig,
    GPT2Config,
    LlamaConfig,
    MixtralConfig,
    Qwen2Config,
)

from prefix_rft_rllib.models.causal_lm import load_lm
from prefix_rft_rllib.models.sent_weights import SentWeights, receive_weights
from tests.random_models import SIZES, random_lm

SMALL = SIZES | {"vocab_size": 64}
CONFIGS = {
    "llama": LlamaConfig(**SMALL),
    "tied qwen2": Qwen2Config(**SMALL, tie_word_embeddings=True),
    "tied gpt2": GPT2Config(vocab_size=64, n_embd=16, n_layer=2, n_head=4),
    "mixture of experts": MixtralConfig(**SMALL, num_local_experts=4),
}


def save(directory, name, dtype) -> str:
    model = random_lm(CONFIGS[name], dtype=dtype)
    model.generation_config.max_new_tokens = 7
    model.save_pretrained(directory)
    return str(directory)


def is_tied(lm) -> bool:
    return lm.get_input_embeddings().weight is lm.get_output_embeddings().weight


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("name", CONFIGS)
def test_the_model_is_the_same_without_its_directory(name, dtype, tmp_path):
    path = save(tmp_path / "model", name, dtype)
    lm = load_lm(path)
    config = AutoConfig.from_pretrained(path)
    sent = pickle.loads(pickle.dumps(SentWeights.of(lm)))
    for array in sent.arrays.values():
        array.flags.writeable = False  # as from an object store
    shutil.rmtree(path)
    random_state = torch.random.get_rng_state()
    with receive_weights(path, config, sent):
        there = load_lm(path)
        reference = load_lm(path)
    assert torch.equal(torch.random.get_rng_state(), random_state)
    assert_equal(there, lm)
    assert is_tied(there) == is_tied(lm) == name.startswith("tied")
    input_ids = torch.arange(6)[None]
    assert torch.equal(there(input_ids).logits, lm(input_ids).logits)
    assert there.generation_config.to_dict() == lm.generation_config.to_dict()
    assert there.config.to_dict() == lm.config.to_dict()
    # The reference model is another one, and nothing is left behind.
    assert not {p.data_ptr() for p in there.parameters()} & {
        p.data_ptr() for p in reference.parameters()
    }
    with pytest.raises(Exception, match=path):
        load_lm(path)


def assert_equal(there, lm) -> None:
    for kind in ("state_dict", "named_buffers"):
        ours, theirs = dict(getattr(there, kind)()), dict(getattr(lm, kind)())
        assert list(ours) == list(theirs)
        for key, value in theirs.items():
            assert ours[key].dtype == value.dtype
            assert torch.equal(ours[key], value), key


@pytest.mark.parametrize(
    ("dtype", "bytes_each"), [(torch.float32, 4), (torch.bfloat16, 2), (torch.float16, 2)], ids=str
)
def test_weights_travel_in_the_bytes_they_have_and_tied_ones_once(dtype, bytes_each, tmp_path):
    lm = load_lm(save(tmp_path / "model", "tied qwen2", dtype))
    sent = SentWeights.of(lm)
    assert sent.tied == {"lm_head.weight": "model.embed_tokens.weight"}
    num_values = sum(p.numel() for p in lm.parameters())  # tied ones once
    # Weights of 1 and biases of 0 are short in any type.
    num_short = sum(p.numel() for p in lm.parameters() if p.eq(p.bfloat16()).all())
    short = num_short if bytes_each == 4 else num_values
    assert sent.num_bytes == 2 * short + bytes_each * (num_values - short)


def test_a_directory_with_more_than_the_plain_model_is_refused(tmp_path):
    lm = load_lm(save(tmp_path / "model", "llama", torch.float32))
    lm.model.register_buffer("extra", torch.ones(3))
    with pytest.raises(ValueError, match="does not hold the plain causal LM") as caught:
        SentWeights.of(lm)
    assert "model.extra" in str(caught.value)


def test_weights_that_read_the_same_memory_in_another_order_are_not_tied():
    lm = random_lm(LlamaConfig(**SIZES, vocab_size=16))
    embedding = lm.get_input_embeddings().weight.detach()
    lm.get_output_embeddings().weight = torch.nn.Parameter(embedding.T)
    sent = SentWeights.of(lm)
    assert not sent.tied
    assert torch.equal(torch.from_numpy(sent.array("lm_head.weight")), embedding.T)
