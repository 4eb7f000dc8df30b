"""Both engines, greedy: the same answers, except where two tokens are a tie."""

from collections import Counter
from pathlib import Path

import pytest
import smollm2_model
import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from prefix_rft_rllib.engines import Generation, GenerationRequest, build_engine
from prefix_rft_rllib.envs.problems import load_problem_set
from prefix_rft_rllib.evaluate import EvaluationOptions, config_of
from prefix_rft_rllib.evaluation.benchmarks.word_problems import WORD_PROBLEMS
from prefix_rft_rllib.evaluation.questions import spread_evenly
from prefix_rft_rllib.transfers.evaluated_model import find_model
from tests.engines.models import EOS
from tests.engines.vllm.vllm_models import OPTIONS, random_prompts, require_vllm, vllm_model

TIE = 1e-3
"""Largest difference of two logits, in float32, that engines may order differently."""
NUM_PROBLEMS = 100
SVAMP = Path("../shared/data/eval_svamp.jsonl")


def greedy_answers(
    model: PreTrainedModel, requests: list[GenerationRequest], ends: list[int], room: int
) -> list[list[Generation]]:
    """What each engine answers; `room` is vLLM's cache in MiB."""
    options = {"transformers": {}, "vllm": OPTIONS | {"kv_cache_memory_bytes": room * 2**20}}
    answers = []
    for name, engine_config in options.items():
        engine = build_engine(name, model.config, eos_token_ids=ends, **engine_config)
        try:
            engine.load_weights(model.state_dict(), version=1)
            answers.append(engine.generate(requests))
        finally:
            engine.close()
    return answers


@torch.no_grad()
def gaps_where_they_part(
    model: PreTrainedModel, requests: list[GenerationRequest], answers: list[list[Generation]]
) -> dict[int, float]:
    """Compare the answers of two engines.

    Returns:
        By request whose answers differ: how far the logits of the first two different tokens are
        from each other, by a forward pass of the text before them alone.
    """
    gaps = {}
    for row, (request, *pair) in enumerate(zip(requests, *answers, strict=True)):
        one, other = (list(generation.token_ids) for generation in pair)
        if one != other:
            at = next(i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b)
            logits = model(torch.tensor([[*request.prompt_ids, *one[:at]]])).logits[0, -1]
            gaps[row] = abs(float(logits[one[at]] - logits[other[at]]))
    return gaps


def test_greedy_answers_of_both_engines_part_at_ties_alone():
    require_vllm()
    model = vllm_model()
    requests = [GenerationRequest(prompt, 24, temperature=0) for prompt in random_prompts(*[9] * 8)]
    answers = greedy_answers(model, requests, [EOS], room=8)
    assert all(gap < TIE for gap in gaps_where_they_part(model, requests, answers).values())
    # The check sees an answer that is another model's.
    others = greedy_answers(vllm_model(seed=1), requests, [EOS], room=8)
    gaps = gaps_where_they_part(model, requests, [answers[0], others[1]])
    assert max(gaps.values()) > 100 * TIE


@pytest.mark.slow
@pytest.mark.parametrize("source", [None, SVAMP], ids=["word_problems", "svamp"])
def test_both_engines_give_a_real_model_the_same_verdicts(source, tmp_path_factory):
    require_vllm()
    if source is not None and not source.is_file():
        pytest.skip(f"needs the data in {source}")
    directory = tmp_path_factory.getbasetemp() / "smollm2"
    try:
        smollm2_model.fetch(directory)
    except smollm2_model.DownloadError as error:
        pytest.skip(f"no network: {error}")
    options = EvaluationOptions(max_prompt_tokens=512, max_response_tokens=64)
    benchmark = WORD_PROBLEMS.env_config(None if source is None else str(source))
    config = config_of(find_model(str(directory)), options, benchmark)
    problem_set = load_problem_set(config.token_env_config())
    problems = spread_evenly(problem_set.problems, NUM_PROBLEMS)
    requests = [GenerationRequest(list(p.prompt_ids), 64, temperature=0) for p in problems]
    model = AutoModelForCausalLM.from_pretrained(directory)
    answers = greedy_answers(model, requests, list(problem_set.end_tokens.ids), room=1024)
    verdicts = [
        [
            problem_set.grade_response(problem, generation.token_ids)[0].outcome
            for problem, generation in zip(problems, of_engine, strict=True)
        ]
        for of_engine in answers
    ]
    gaps = gaps_where_they_part(model, requests, answers)
    print(f"{len(gaps)} of {len(problems)} answers differ: {gaps}; {Counter(verdicts[0])}")
    assert len(problems) == NUM_PROBLEMS
    assert all(gap < TIE for gap in gaps.values()), gaps
    assert verdicts[0] == verdicts[1]
