"""lm-evaluation-harness and `evaluate` on one file: prompts, tokens and scores item by item."""

import gzip
import json
import re
from pathlib import Path

import pytest
import yaml
from transformers import AutoConfig, AutoTokenizer, LlamaConfig

from prefix_rft_rllib.engines.transformers.engine import TransformersEngine
from prefix_rft_rllib.envs import TOY_BASE_MODEL
from prefix_rft_rllib.envs.prompts.end_tokens import EndTokens
from prefix_rft_rllib.envs.toy.tokenizer import build_toy_tokenizer
from prefix_rft_rllib.envs.toy.toy_arithmetic import generate_rows as toy_rows
from prefix_rft_rllib.envs.verifiers import MathVerifier
from prefix_rft_rllib.evaluate import EvaluationOptions, evaluate
from prefix_rft_rllib.evaluation import asking
from prefix_rft_rllib.evaluation.benchmarks.benchmark import BOXED
from prefix_rft_rllib.evaluation.benchmarks.word_problems import generate_rows as word_rows
from prefix_rft_rllib.evaluation.completions import read_completions
from prefix_rft_rllib.rollouts import row_data
from tests.evaluation.lm_eval_cases import (
    DATA,
    DOCS,
    FILTER,
    ScriptedEngine,
    needs_data,
    require_lm_eval,
    run_lm_eval,
    task_of_docs,
    write_rows,
)
from tests.random_models import SIZES, random_lm

require_lm_eval()

import lm_eval  # noqa: E402

from prefix_rft_rllib.evaluation.lm_eval_adapter import EngineLM  # noqa: E402

NUM_POSITIONS = 2048
MAX_TOKENS = 40
CHAT = {"apply_chat_template": True}


@pytest.fixture(scope="module")
def byte_model(tmp_path_factory) -> str:
    """A random model that reads bytes, so that any text fits its tokenizer."""
    directory = str(tmp_path_factory.mktemp("byte_model"))
    tokenizer = build_toy_tokenizer(NUM_POSITIONS)
    config = LlamaConfig(
        **SIZES,
        vocab_size=len(tokenizer),
        max_position_embeddings=NUM_POSITIONS,
        initializer_range=0.5,  # large: no two tokens are nearly as probable
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
    )
    random_lm(config).save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return directory


def gsm8k_rows() -> list[dict]:
    with open(DATA / "eval_gsm8k.jsonl", encoding="utf-8", newline="\n") as file:
        return [json.loads(line) for line in file]


@pytest.fixture
def asked(monkeypatch) -> dict[str, dict]:
    """Token ids of prompts and answers, of each side by prompt."""
    seen: dict[str, dict] = {"evaluate": {}, "lm-eval": {}}
    completion_of, generate = asking.completion_of, TransformersEngine.generate

    def completed(question, episode, problem_set):
        prompt = tuple(map(int, problem_set.by_id(question.problem_id).prompt_ids))
        seen["evaluate"][prompt] = row_data.response_ids_of(episode).tolist()
        return completion_of(question, episode, problem_set)

    def generated(self, requests):
        generations = generate(self, requests)
        for request, generation in zip(requests, generations, strict=True):
            seen["lm-eval"][tuple(request.prompt_ids)] = generation.token_ids
        return generations

    monkeypatch.setattr(asking, "completion_of", completed)
    monkeypatch.setattr(TransformersEngine, "generate", generated)
    return seen


def both(model: str, rows: list[dict], directory, *, template: str = BOXED) -> list[dict]:
    """Run both on a file; returns for each row both texts and whether each counts it as right."""
    file = write_rows(directory / "rows.jsonl", rows)
    options = EvaluationOptions(
        num_samples=0,
        max_prompt_tokens=NUM_POSITIONS - MAX_TOKENS,
        max_response_tokens=MAX_TOKENS,
        env_config={"prompt_template": template},
    )
    evaluate(model, [f"gsm8k={file}"], directory / "out", options=options)
    completions = read_completions(directory / "out" / "gsm8k.jsonl").by_question
    ours = {question.problem_id: completion for question, completion in completions.items()}
    settings = {"until": [], "do_sample": False, "max_gen_toks": MAX_TOKENS}
    text = template.replace("{prompt}", "{{prompt}}")
    task = task_of_docs(file, generation_kwargs=settings, doc_to_text=text)
    samples = run_lm_eval("prefix_rft", task, model_args=f"pretrained={model}", **CHAT)
    return [
        {
            "ours": ours[row["id"]].response,
            "theirs": sample["resps"][0][0],
            "our verdict": ours[row["id"]].verdict,
            "their score": bool(sample["exact_match"]),
        }
        for row, sample in zip(rows, samples, strict=True)
    ]


def explained(item: dict) -> bool:
    """Whether both judge alike, or the answer has no box: the recipe then reads none."""
    is_right = item["our verdict"] == "CORRECT"
    has_no_box = item["our verdict"] == "UNPARSEABLE" and "\\boxed" not in item["ours"]
    return is_right == item["their score"] or has_no_box


@pytest.mark.parametrize("data", ["generated", pytest.param("gsm8k", marks=needs_data)])
def test_both_send_the_same_prompts_and_get_the_same_tokens(data, byte_model, tmp_path, asked):
    rows = [*word_rows(6)] if data == "generated" else gsm8k_rows()[::96]
    items = both(byte_model, rows, tmp_path)
    assert len(asked["evaluate"]) == len(rows) >= 6
    assert asked["lm-eval"] == asked["evaluate"]
    assert len({item["ours"] for item in items}) > len(rows) / 2, "answers differ"
    for item in items:
        assert item["theirs"] == item["ours"]
        assert explained(item), item


def test_both_count_the_same_answers_of_a_model_that_solves_some(tmp_path, asked):
    rows = toy_rows(num_problems=24, min_clauses=1, max_clauses=4, seed=1)
    items = both(str(TOY_BASE_MODEL), rows, tmp_path, template="{prompt}")
    assert asked["lm-eval"] == asked["evaluate"]
    assert len(asked["lm-eval"]) == 24
    rights = [item["our verdict"] == "CORRECT" for item in items]
    assert {True, False} == set(rights)
    assert [item["their score"] for item in items] == rights


def test_lm_evals_own_model_gives_the_same_answers(byte_model, tmp_path):
    pytest.importorskip("accelerate", reason="lm-eval's model `hf` needs accelerate")
    settings = {"until": ["x+", "<pad>"], "do_sample": False, "max_gen_toks": MAX_TOKENS}
    file = write_rows(tmp_path / "rows.jsonl", [*word_rows(6)])
    task = task_of_docs(file, generation_kwargs=settings)
    arguments = {"pretrained": byte_model, "dtype": "float32"}
    ours = run_lm_eval("prefix_rft", task, model_args=arguments, **CHAT)
    theirs = run_lm_eval("hf", task, model_args=arguments, batch_size=1, device="cpu", **CHAT)
    texts = [sample["resps"][0][0] for sample in theirs]
    assert [sample["resps"][0][0] for sample in ours] == texts
    assert len({len(text) for text in texts}) > 1, "stop strings cut some"


def scores_of(triples: list[tuple[str, str, str]], byte_model: str, directory) -> list[dict]:
    """lm-eval's samples for given responses, each (id, gold, response), through the adapter."""
    tokenizer = AutoTokenizer.from_pretrained(byte_model)
    rows = [{"id": name, "prompt": name, "answer": gold} for name, gold, _ in triples]
    task = task_of_docs(write_rows(directory / "rows.jsonl", rows), doc_to_text="{{prompt}}")
    texts = {name: response for name, _, response in triples}
    engine = ScriptedEngine(AutoConfig.from_pretrained(byte_model), tokenizer, texts)
    ends = EndTokens((tokenizer.eos_token_id,), tokenizer.eos_token_id)
    return run_lm_eval(EngineLM(engine, tokenizer, ends), task)


def forms_of_docs() -> list[tuple[str, ...]]:
    """The rows of the page's table of forms."""
    table = DOCS.read_text(encoding="utf-8").split("| response | gold |")[1].split("\n\n")[0]
    lines = [line.strip("| ").split(" | ") for line in table.split("\n")[2:]]
    return [tuple(cell.strip("`") for cell in line) for line in lines]


def test_scores_differ_for_the_forms_that_the_page_explains(byte_model, tmp_path):
    forms = forms_of_docs()
    assert len(forms) == 6
    triples = [(f"form {i}", gold, text) for i, (text, gold, *_) in enumerate(forms)]
    samples = scores_of(triples, byte_model, tmp_path)
    texts, golds = [form[0] for form in forms], [form[1] for form in forms]
    with MathVerifier(num_workers=1) as verifier:
        boxed = verifier.verify_batch(texts, golds)
    with MathVerifier(num_workers=1, extract="last") as verifier:
        last = verifier.verify_batch(texts, golds)
    words = {"CORRECT": "right", "WRONG": "wrong", "UNPARSEABLE": "not solved"}
    for form, sample, verdict in zip(forms, samples, boxed, strict=True):
        assert sample["filter"] == FILTER
        assert sample["resps"] == [[form[0]]]
        assert sample["filtered_resps"] == [form[2]], form
        assert bool(sample["exact_match"]) == (form[3] == "right"), form
        assert words[verdict] == form[4], form
    assert last[0] == "CORRECT", "the first form is a matter of where the answer is looked for"


@needs_data
def test_responses_of_models_to_gsm8k_are_scored_alike(byte_model, tmp_path):
    with gzip.open(DATA / "verifier_responses.jsonl.gz", "rt", encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    rows = [row for row in rows if row["id"].startswith("gsm8k-model")]
    triples = [(row["id"], row["gold"], row["response"]) for row in rows]
    samples = scores_of(triples, byte_model, tmp_path)
    with MathVerifier(num_workers=1, extract="last") as verifier:
        verdicts = verifier.verify_batch([t[2] for t in triples], [t[1] for t in triples])
    theirs = [bool(sample["exact_match"]) for sample in samples]
    assert (len(rows), sum(theirs)) == (220, 115)
    assert [verdict == "CORRECT" for verdict in verdicts] == theirs


@needs_data
def test_solutions_of_gsm8k_are_right_for_both(byte_model, tmp_path):
    rows = gsm8k_rows()
    triples = [(row["id"], row["answer"], row["demonstration"]) for row in rows]
    samples = scores_of(triples, byte_model, tmp_path)
    with MathVerifier(num_workers=1) as verifier:
        verdicts = verifier.verify_batch([t[2] for t in triples], [t[1] for t in triples])
    assert len(samples) == 672
    assert all(sample["exact_match"] for sample in samples)
    assert set(verdicts) == {"CORRECT"}


def test_the_pages_filter_and_metric_are_those_of_lm_evals_gsm8k(tmp_path):
    path = Path(lm_eval.__file__).parent / "tasks" / "gsm8k" / "gsm8k.yaml"
    theirs = yaml.safe_load(path.read_text(encoding="utf-8"))
    task = task_of_docs(tmp_path / "rows.jsonl")
    assert task["filter_list"] == [f for f in theirs["filter_list"] if f["name"] == FILTER]
    (metric,) = theirs["metric_list"]
    assert metric.pop("ignore_punctuation") is False  # the metric's default
    assert task["metric_list"] == [metric]
    assert task["doc_to_text"] == re.sub(r"\{prompt\}", "{{prompt}}", BOXED)
