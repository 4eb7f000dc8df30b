"""Models as published families have them: tokenizers that add blanks, several end tokens."""

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from prefix_rft_rllib import PrefixRFTConfig, metrics
from prefix_rft_rllib.envs.problems import ProblemSet, load_problem_set
from prefix_rft_rllib.runs.run_directory import read_rollouts
from tests.model_families import FAMILIES, end_ids_of, save_family
from tests.small_configs import HALF_RIGHT

ROWS = [
    {
        "problem": f"What is {a} + {b}?",
        "answer": str(a + b),
        "demonstration": f"<think>\nWe add.\n</think>\n\nIt is {a + b} é,\nso \\boxed{{{a + b}}}.",
    }
    for a, b in ((12, 30), (7, 5), (3, 20), (1, 2))
]


@pytest.fixture(scope="session")
def directories(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("families")
    return {name: save_family(name, folder / name) for name in FAMILIES}


@pytest.fixture(scope="session")
def data(tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("data") / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS), encoding="utf-8")
    return str(path)


def problems_of(directory: Path, data: str, **settings) -> ProblemSet:
    limits = {"max_prompt_tokens": 96, "max_response_tokens": 120}
    names = {"fields": {"prompt": "problem"}, "verifier": HALF_RIGHT}
    return load_problem_set(
        {"data": data, "tokenizer": str(directory), **limits, **names, **settings}
    )


@pytest.mark.parametrize("name", FAMILIES)
def test_prompt_and_demonstration_are_the_ids_of_the_whole_conversation(name, directories, data):
    problem_set = problems_of(directories[name], data)
    tokenizer = AutoTokenizer.from_pretrained(directories[name])
    turn_end = tokenizer.convert_tokens_to_ids(FAMILIES[name].turn_end)
    for problem, row in zip(problem_set.train, ROWS, strict=True):
        turns = [("user", row["problem"]), ("assistant", row["demonstration"])]
        whole = tokenizer.apply_chat_template(
            [{"role": role, "content": content} for role, content in turns], return_dict=False
        )
        ours = [*problem.prompt_ids, *problem.demonstration_ids[0]]
        assert ours == whole[: len(ours)]
        assert ours[-1] == turn_end  # what follows is the template's newline, or its end of text
        assert whole.index(turn_end, len(problem.prompt_ids)) == len(ours) - 1
        bos = tokenizer.bos_token_id
        assert bos is None or ours.count(bos) == whole.count(bos) <= 1


@torch.no_grad()
def lowest_rank(directory, record) -> int:
    """Of a rollout's sampled tokens, how many others were more probable, at most."""
    model = AutoModelForCausalLM.from_pretrained(directory)
    ids = torch.tensor([[*record.prompt_ids, *record.response_ids]])
    logits = model(ids).logits[0]
    first = len(record.prompt_ids) + record.num_prefix_tokens
    places = range(first, ids.shape[1])
    return max(int((logits[i - 1] > logits[i - 1, ids[0, i]]).sum()) for i in places)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_trains_stops_at_every_end_token_and_exports_what_it_was_given(
    name, directories, data, tmp_path
):
    directory = directories[name]
    config = (
        PrefixRFTConfig()
        .environment(
            "PrefixRFT/Math-v0",
            env_config={
                "data": data,
                "fields": {"prompt": "problem"},
                "verifier": HALF_RIGHT,
                "max_prompt_tokens": 96,
                "max_response_tokens": 120,
            },
        )
        .env_runners(num_env_runners=0)
        .training(
            model_path=str(directory),
            group_size=16,
            num_problems_per_iteration=4,
            num_problems_per_minibatch=2,
            lr=1e-3,
        )
        .reporting(run_dir=str(tmp_path / "run"), progress=False, num_logged_groups=4)
    )
    algo = config.build_algo()  # with the preflight: no text is lost
    result = algo.train()
    algo.save_pretrained(tmp_path / "trained")
    algo.save_to_path(str(tmp_path / "checkpoint"))
    algo.stop()
    end_ids = set(end_ids_of(directory))
    records = read_rollouts(tmp_path / "run" / "rollouts" / "iteration_000001.jsonl.gz")
    assert lowest_rank(directory, records[0]) > 64  # no top_k of generation_config.json
    stopped = [r for r in records if r.finish_reason == "stop"]
    assert len(records) == 64 and {r.response_ids[-1] for r in stopped} == end_ids
    for record in records:
        assert not end_ids & set(record.response_ids[:-1])
        assert record in stopped or len(record.response_ids) == 120
    rollouts = result[metrics.ROLLOUTS]
    assert rollouts[metrics.TRUNCATED_FRACTION] == 1 - len(stopped) / len(records)
    assert result["learners"]["default_policy"]["engine_logp_gap_max"] < 1e-3
    exported = tmp_path / "trained"
    for file in ("generation_config.json", "config.json"):
        given, kept = (json.loads((d / file).read_text()) for d in (directory, exported))
        kept |= {"dtype": given.get("dtype"), "transformers_version": None}
        given |= {"dtype": given.get("dtype"), "transformers_version": None}
        assert kept == given
    before, after = (AutoTokenizer.from_pretrained(d) for d in (directory, exported))
    chat = [{"role": "user", "content": "1  é"}, {"role": "assistant", "content": "2 "}]
    text = before.apply_chat_template(chat, tokenize=False)
    assert after(text)["input_ids"] == before(text)["input_ids"]
    assert after.chat_template == before.chat_template
    loaded = AutoModelForCausalLM.from_pretrained(exported).generation_config.eos_token_id
    assert set(loaded if isinstance(loaded, list) else [loaded]) == end_ids
