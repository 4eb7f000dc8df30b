"""The exported model: what was trained, in the form of transformers."""

import json
import shutil

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from prefix_rft_rllib.models.export import save_pretrained


@pytest.fixture
def original(tiny_model_dir, tmp_path):
    """A bfloat16 copy of the tiny model that stops at another token than its tokenizer."""
    directory = shutil.copytree(tiny_model_dir, tmp_path / "original")
    model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.bfloat16)
    model.generation_config.eos_token_id = 5
    model.save_pretrained(directory)
    return directory


def weights_of(directory):
    model = AutoModelForCausalLM.from_pretrained(directory)
    return {name: (value.float() + 1e-6).numpy() for name, value in model.state_dict().items()}


def test_export_keeps_trained_weights_in_full_and_the_end_tokens_it_was_given(
    original, tmp_path, caplog
):
    trained = weights_of(original)
    tokenizer = AutoTokenizer.from_pretrained(original)
    ends = [5, tokenizer.eos_token_id]
    directory = save_pretrained(
        str(original), trained, str(original), ends, tmp_path / "new" / "model"
    )
    model = AutoModelForCausalLM.from_pretrained(directory)
    state = model.state_dict()
    for name, value in trained.items():
        assert state[name].dtype == torch.float32  # bfloat16 would round the 1e-6 away
        assert (state[name].numpy() == value).all(), name
    assert model.generation_config.eos_token_id == 5 != tokenizer.eos_token_id
    assert f"ended with the tokens {ends}; the model's files name [5]" in caplog.text
    again = AutoTokenizer.from_pretrained(directory)
    assert again("1 + 1 = 2")["input_ids"] == tokenizer("1 + 1 = 2")["input_ids"]
    assert again.chat_template == tokenizer.chat_template


def test_generation_settings_are_copied_byte_for_byte(original, tmp_path):
    # A temperature without do_sample: transformers loads this and refuses to save it.
    text = '{"eos_token_id": [5, 3, 5], "temperature": 0.9, "mine": {"a": 1}}'
    (original / "generation_config.json").write_text(text)
    directory = save_pretrained(
        str(original), weights_of(original), str(original), [3, 5], tmp_path / "new"
    )
    assert (directory / "generation_config.json").read_text() == text


@pytest.mark.parametrize(("ends", "written"), [([301], 301), ([3, 301], [3, 301])])
def test_a_model_that_names_no_end_token_is_exported_with_those_of_training(
    original, tmp_path, ends, written
):
    (original / "generation_config.json").unlink()
    config = json.loads((original / "config.json").read_text())
    (original / "config.json").write_text(json.dumps(config | {"eos_token_id": None}))
    directory = save_pretrained(
        str(original), weights_of(original), str(original), ends, tmp_path / "new"
    )
    assert json.loads((directory / "generation_config.json").read_text())["eos_token_id"] == written
