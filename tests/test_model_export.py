"""The exported model: what was trained, in the form of transformers."""

import shutil

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from prefix_rft_rllib.model_export import save_pretrained


@pytest.fixture
def original(tiny_model_dir, tmp_path):
    """A bfloat16 copy of the tiny model that stops at another token than its tokenizer."""
    directory = shutil.copytree(tiny_model_dir, tmp_path / "original")
    model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.bfloat16)
    model.generation_config.eos_token_id = 5
    model.save_pretrained(directory)
    return directory


def test_export_keeps_trained_weights_in_full_and_stops_at_the_tokenizers_end(original, tmp_path):
    trained = {
        name: (value.float() + 1e-6).numpy()
        for name, value in AutoModelForCausalLM.from_pretrained(original).state_dict().items()
    }
    tokenizer = AutoTokenizer.from_pretrained(original)
    directory = save_pretrained(str(original), trained, tokenizer, tmp_path / "new" / "model")
    model = AutoModelForCausalLM.from_pretrained(directory)
    state = model.state_dict()
    for name, value in trained.items():
        assert state[name].dtype == torch.float32  # bfloat16 would round the 1e-6 away
        assert (state[name].numpy() == value).all(), name
    assert model.generation_config.eos_token_id == tokenizer.eos_token_id != 5
    again = AutoTokenizer.from_pretrained(directory)
    assert again("1 + 1 = 2")["input_ids"] == tokenizer("1 + 1 = 2")["input_ids"]
    assert again.chat_template == tokenizer.chat_template
