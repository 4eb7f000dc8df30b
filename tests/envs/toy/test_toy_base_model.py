"""The shipped base model: what it is, and what it can and cannot do."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM
from transformers.modeling_utils import PreTrainedModel

from prefix_rft_rllib.envs.toy.tokenizer import build_toy_tokenizer
from prefix_rft_rllib.envs.toy.toy_arithmetic import generate_rows

REPOSITORY = Path(__file__).parents[3]
MODEL_DIRECTORY = REPOSITORY / "envs" / "toy_base_model"
TOKENIZER = AutoTokenizer.from_pretrained(MODEL_DIRECTORY)
END_OF_CHOICE = {f" {symbol} " for symbol in ("+", "-", "*", "//")}


@pytest.fixture(scope="module")
def model() -> PreTrainedModel:
    return AutoModelForCausalLM.from_pretrained(MODEL_DIRECTORY).eval()


def held_out_rows(min_clauses: int, max_clauses: int, num_problems: int) -> list[dict[str, str]]:
    return generate_rows(
        num_problems=num_problems,
        min_clauses=min_clauses,
        max_clauses=max_clauses,
        seed=0,
        split="held_out",
    )


def prompt_ids(prompt: str) -> list[int]:
    return TOKENIZER.apply_chat_template(
        [{"role": "user", "content": prompt}], add_generation_prompt=True, return_dict=False
    )


@torch.no_grad()
def success(
    model: PreTrainedModel, rows: list[dict[str, str]], given_fraction: float = 0.0
) -> float:
    """Share of right answers sampled at temperature 1, after a share of the demonstration."""
    torch.manual_seed(0)
    starts = []
    for row in rows:
        demonstration = TOKENIZER.encode(row["demonstration"].split("so \\boxed")[0])
        starts.append(
            prompt_ids(row["prompt"]) + demonstration[: int(given_fraction * len(demonstration))]
        )
    batch = TOKENIZER.pad({"input_ids": starts}, padding_side="left", return_tensors="pt")
    output = model.generate(**batch, max_new_tokens=96, do_sample=True, top_k=0)
    texts = TOKENIZER.batch_decode(output, skip_special_tokens=True)
    answers = [re.findall(r"\\boxed\{(\d+)\}$", text) for text in texts]
    return sum(answer == [row["answer"]] for answer, row in zip(answers, rows, strict=True)) / len(
        rows
    )


def test_the_model_directory_is_small_and_complete() -> None:
    files = {path.name: path.stat().st_size for path in MODEL_DIRECTORY.iterdir()}
    assert {"config.json", "generation_config.json", "model.safetensors"} <= set(files)
    assert {"tokenizer.json", "tokenizer_config.json", "chat_template.jinja"} <= set(files)
    assert sum(files.values()) <= 3_000_000


def test_the_model_is_a_tied_float32_llama_of_half_a_million_parameters(
    model: PreTrainedModel,
) -> None:
    assert isinstance(model, LlamaForCausalLM)
    assert model.dtype == torch.float32
    assert model.config.tie_word_embeddings
    assert 500_000 <= model.num_parameters() <= 750_000
    assert model.config.max_position_embeddings >= 2048


def test_model_and_tokenizer_agree(model: PreTrainedModel) -> None:
    assert len(TOKENIZER) <= model.config.vocab_size
    assert model.config.eos_token_id == TOKENIZER.eos_token_id
    assert model.generation_config.eos_token_id == TOKENIZER.eos_token_id
    assert model.generation_config.pad_token_id == TOKENIZER.pad_token_id
    assert TOKENIZER.model_max_length == model.config.max_position_embeddings


def test_the_shipped_tokenizer_is_the_one_the_builder_makes() -> None:
    built = build_toy_tokenizer(TOKENIZER.model_max_length)
    assert TOKENIZER.backend_tokenizer.to_str() == built.backend_tokenizer.to_str()
    assert TOKENIZER.chat_template == built.chat_template
    assert TOKENIZER.all_special_tokens == built.all_special_tokens


def test_alone_the_base_seldom_succeeds(model: PreTrainedModel) -> None:
    # Measured .05 on many; 256 draws: standard deviation .014.
    assert 0.0 < success(model, held_out_rows(2, 6, 256)) < 0.11
    assert success(model, held_out_rows(7, 8, 64)) < 0.13


def test_a_right_beginning_helps_the_base_to_go_on(model: PreTrainedModel) -> None:
    rows = held_out_rows(2, 6, 128)
    # Measured .2 from half of the steps, .05 without.
    assert success(model, rows, 0.5) > 0.1
    # The last twentieth has no choice left in it, only a calculation.
    assert success(model, rows, 0.95) > 0.9
    assert success(model, held_out_rows(7, 8, 64), 0.95) > 0.9


@torch.no_grad()
def test_the_base_is_unsure_of_operations_and_of_nothing_else(model: PreTrainedModel) -> None:
    at_choices, elsewhere = [], []
    for row in held_out_rows(1, 8, 64):
        prompt = prompt_ids(row["prompt"])
        response = [*TOKENIZER.encode(row["demonstration"]), TOKENIZER.eos_token_id]
        logits = model(torch.tensor([prompt + response])).logits[0, len(prompt) - 1 : -1]
        entropies = torch.distributions.Categorical(logits=logits).entropy().tolist()
        # The first choice only: later on the right beginning tells the base who writes.
        first = next(
            position
            for position, token in enumerate(response)
            if TOKENIZER.decode([token]) in END_OF_CHOICE
        )
        at_choices.append(entropies[first])
        elsewhere += [
            entropy
            for token, entropy in zip(response, entropies, strict=True)
            if TOKENIZER.decode([token]) not in END_OF_CHOICE
        ]
    assert 0.9 < sum(at_choices) / len(at_choices) < 1.4
    assert sum(elsewhere) / len(elsewhere) < 0.06


@torch.no_grad()
def test_the_base_copies_and_calculates_without_error(model: PreTrainedModel) -> None:
    num_wrong = num_tokens = 0
    for row in held_out_rows(1, 8, 64):
        prompt = prompt_ids(row["prompt"])
        response = [*TOKENIZER.encode(row["demonstration"]), TOKENIZER.eos_token_id]
        logits = model(torch.tensor([prompt + response])).logits[0, len(prompt) - 1 : -1]
        for token, guess in zip(response, logits.argmax(-1).tolist(), strict=True):
            if TOKENIZER.decode([token]) not in END_OF_CHOICE:
                num_wrong += token != guess
                num_tokens += 1
    assert num_wrong / num_tokens < 0.005


def test_other_text_can_be_run_through_the_model(model: PreTrainedModel) -> None:
    ids = prompt_ids("Janet's ducks — née 鴨 — lay 16 eggs per day. " * 40)
    assert len(ids) > 1000
    output = model.generate(torch.tensor([ids]), max_new_tokens=4, do_sample=False)
    assert output.shape[1] <= len(ids) + 4


@pytest.mark.slow
def test_the_script_that_makes_the_model_runs(tmp_path: Path) -> None:
    script = REPOSITORY / "tuned_examples" / "toy_arithmetic_base_model.py"
    command = [sys.executable, str(script), "--out", str(tmp_path / "model"), "--smoke"]
    subprocess.run(command, check=True, timeout=250)
    made = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    shipped = AutoModelForCausalLM.from_pretrained(MODEL_DIRECTORY)
    assert made.config.to_dict() == {**shipped.config.to_dict(), "_name_or_path": ""} | {
        "_name_or_path": made.config.to_dict().get("_name_or_path", "")
    }
