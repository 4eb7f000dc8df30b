"""The adapter for lm-evaluation-harness: settings, stop strings, draws, refusals, the command."""

import json
import shutil
import subprocess
import sys

import pytest
from transformers import AutoConfig, AutoTokenizer

from prefix_rft_rllib.engines import GenerationRequest, build_engine
from prefix_rft_rllib.envs.prompts.end_tokens import EndTokens
from prefix_rft_rllib.evaluation.benchmarks.word_problems import generate_rows
from prefix_rft_rllib.models.causal_lm import load_lm
from tests.evaluation.lm_eval_cases import (
    ScriptedEngine,
    require_lm_eval,
    run_lm_eval,
    task_of_docs,
    write_rows,
    yaml_of_docs,
)

require_lm_eval()

from lm_eval.api.instance import Instance  # noqa: E402

from prefix_rft_rllib.evaluation.lm_eval_adapter import EngineLM, PrefixRFTLM  # noqa: E402

GREEDY = {"until": [], "do_sample": False}


def instances(contexts: list[str], **settings) -> list[Instance]:
    arguments = [(context, {**GREEDY, **settings}) for context in contexts]
    return [
        Instance(request_type="generate_until", doc={}, arguments=pair, idx=i)
        for i, pair in enumerate(arguments)
    ]


def scripted(directory: str, texts: dict[str, str], **options) -> EngineLM:
    tokenizer = AutoTokenizer.from_pretrained(directory)
    engine = ScriptedEngine(AutoConfig.from_pretrained(directory), tokenizer, texts)
    end = tokenizer.eos_token_id
    return EngineLM(engine, tokenizer, EndTokens((end,), end), **options)


@pytest.fixture(scope="module")
def tiny(tiny_model_dir) -> PrefixRFTLM:
    return PrefixRFTLM(tiny_model_dir, max_gen_toks=20)


@pytest.mark.parametrize(
    ("until", "expected"),
    [
        ([], "one two\nthree"),
        (["\n"], "one two"),
        ("\n", "one two"),
        (["three", "two"], "one "),
        (["four"], "one two\nthree"),
        (["<user>"], "one two\nthree"),
        (["<pad>"], "one two\n"),
    ],
)
def test_an_answer_ends_before_the_first_stop_string(until, expected, tiny_model_dir):
    # "<pad>" is a special token of this tokenizer and in no decoded text.
    lm = scripted(tiny_model_dir, {"?": "one two\n<pad>three"})
    assert lm.generate_until(instances(["?"], until=until)) == [expected]


def test_answers_come_in_the_order_of_the_requests_with_any_batch_size(tiny_model_dir, tiny):
    contexts = ["a", "abcdef", "abc", "abcdefghij", "ab"]
    answers = tiny.generate_until(instances(contexts))
    assert len(set(answers)) == 5
    for size in (1, "2", 3, "auto"):
        lm = PrefixRFTLM(tiny_model_dir, max_gen_toks=20, batch_size=size)
        assert lm.generate_until(instances(contexts)) == answers
    assert tiny.generate_until(instances(contexts[::-1])) == answers[::-1]
    assert tiny.generate_until([]) == []


def test_an_answer_is_what_the_engine_generates(tiny):
    ids = tiny.tokenizer.encode("Eva has 3 apples")
    (generation,) = tiny.engine.generate([GenerationRequest(ids, 20, temperature=0)])
    (answer,) = tiny.generate_until(instances(["Eva has 3 apples"]))
    assert answer == tiny.tokenizer.decode(generation.token_ids, skip_special_tokens=True)


def test_a_task_or_the_model_says_how_long_an_answer_may_be(tiny, monkeypatch):
    seen = []
    generate = tiny.engine.generate
    monkeypatch.setattr(
        tiny.engine, "generate", lambda asked: seen.extend(asked) or generate(asked)
    )
    tiny.generate_until(instances(["a"]))
    tiny.generate_until(instances(["a"], max_gen_toks=7))
    assert [request.max_new_tokens for request in seen] == [20, 7]
    assert [request.temperature for request in seen] == [0, 0]


def test_repeats_of_a_sampled_request_differ_and_come_back_in_another_run(tiny):
    settings = {"do_sample": True, "temperature": 1.0, "top_p": 0.9}
    requests = instances(["a", "a", "b", "a"], **settings)
    answers = tiny.generate_until(requests)
    assert len(set(answers)) == 4
    assert tiny.generate_until(requests) == answers
    alone = tiny.generate_until(instances(["b", "a"], **settings))
    assert alone == [answers[2], answers[0]]


def test_the_begin_token_is_added_once(tiny_model_dir):
    lm = scripted(tiny_model_dir, {})
    assert lm.tok_encode("ab") == [97, 98]
    begins, _ = lm.tokenizer.convert_tokens_to_ids(["<user>", "<assistant>"])
    lm.tokenizer.bos_token = "<user>"
    encode = lm.tokenizer.encode

    def encoded(text, add_special_tokens):
        return [begins] * add_special_tokens + encode(text)

    lm.tokenizer.encode = encoded
    assert lm.tok_encode("ab") == [begins, 97, 98]
    assert lm.tok_encode("<user>ab") == [begins, 97, 98]
    assert lm.tok_encode("ab", add_special_tokens=False) == [97, 98]


def test_messages_are_written_by_the_chat_template(tiny):
    messages = [{"role": "user", "content": "How many?"}, {"role": "assistant", "content": "It"}]
    assert tiny.apply_chat_template(messages[:1]) == "<user>How many?<assistant>"
    assert tiny.apply_chat_template(messages, add_generation_prompt=False) == (
        "<user>How many?<assistant>It"
    )
    assert tiny.chat_template(True) == tiny.tokenizer.chat_template
    assert "/" not in tiny.tokenizer_name
    assert tiny.eot_token_id == tiny.tokenizer.eos_token_id


def test_what_an_engine_cannot_do_is_refused(tiny):
    with pytest.raises(ValueError, match=r"'top_k', which no engine follows. Known.*temperature"):
        tiny.generate_until(instances(["a"], top_k=3))
    with pytest.raises(ValueError, match="A prompt of 120 tokens plus `max_new_tokens`"):
        tiny.generate_until(instances(["a", "b" * 120]))
    for score in (tiny.loglikelihood, tiny.loglikelihood_rolling, tiny._loglikelihood_tokens):
        with pytest.raises(NotImplementedError, match="Engines generate and do not score"):
            score(instances(["a"]))


def test_a_task_that_scores_text_says_why_it_is_refused(tiny, tmp_path):
    file = write_rows(tmp_path / "rows.jsonl", [{"prompt": "a", "answer": "b"}])
    task = task_of_docs(file, output_type="loglikelihood", generation_kwargs=None)
    task = {key: value for key, value in task.items() if key not in ("filter_list", "metric_list")}
    with pytest.raises(NotImplementedError, match="multiple choice or perplexity"):
        run_lm_eval(tiny, task)


def test_a_request_that_does_not_fit_fails_before_others_are_answered(tiny_model_dir, monkeypatch):
    lm = PrefixRFTLM(tiny_model_dir, max_gen_toks=20, batch_size=1)
    monkeypatch.setattr(lm, "_text", lambda *_: pytest.fail("an answer was generated"))
    with pytest.raises(ValueError, match="A prompt of 120 tokens"):
        lm.generate_until(instances(["a", "b", "b" * 120]))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch_size": 0}, "`batch_size` must be .*, got 0. Use 'auto' for all at once"),
        ({"batch_size": "auto:4"}, "`batch_size` must be .*, got 'auto:4'"),
        ({"max_gen_toks": 0}, "`max_gen_toks` must be"),
        ({"engine": "sglang"}, "Unknown engine 'sglang'"),
        ({"dtype": "int3"}, "`dtype` must be"),
        ({"beams": 4}, "Unknown option 'beams' of the transformers engine"),
    ],
)
def test_wrong_arguments_of_the_model_are_errors(settings, message, tiny_model_dir):
    with pytest.raises(ValueError, match=message):
        PrefixRFTLM(tiny_model_dir, **settings)


def test_a_model_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"`pretrained` .*no-such"):
        PrefixRFTLM(str(tmp_path / "no-such"))


def test_end_tokens_of_the_models_files_end_an_answer(tiny_model_dir, tmp_path):
    shutil.copytree(tiny_model_dir, tmp_path / "model")
    settings = {"eos_token_id": [97, 300]}
    (tmp_path / "model" / "generation_config.json").write_text(json.dumps(settings))
    lm = PrefixRFTLM(str(tmp_path / "model"))
    assert set(lm._ends.ids) == {97, 300, lm.tokenizer.eos_token_id}
    assert lm.engine._eos_token_ids == set(lm._ends.ids)


def test_a_killed_run_goes_on_behind_the_answers_in_lm_evals_cache(tiny_model_dir, tmp_path):
    file = write_rows(tmp_path / "rows.jsonl", [*generate_rows(2)])
    task = task_of_docs(file, doc_to_text="{{id}}")
    options = {"use_cache": str(tmp_path / "answers")}
    first, second = ({f"word-problem-0-{i}": f"\\boxed{{{i}}}"} for i in range(2))
    with pytest.raises(KeyError, match="word-problem-0-1"):
        run_lm_eval(scripted(tiny_model_dir, first, batch_size=1), task, **options)
    with pytest.raises(KeyError, match="word-problem-0-1"):  # it asks for that one alone
        run_lm_eval(scripted(tiny_model_dir, {}), task, **options)
    samples = run_lm_eval(scripted(tiny_model_dir, second), task, **options)
    assert [sample["resps"] for sample in samples] == [[["\\boxed{0}"]], [["\\boxed{1}"]]]


def test_an_engine_of_ones_own_may_answer(tiny_model_dir, tiny):
    lm = load_lm(tiny_model_dir)
    end = tiny.tokenizer.eos_token_id
    engine = build_engine("transformers", lm.config, eos_token_ids=[end])
    engine.load_weights(lm.state_dict(), version=3)
    own = EngineLM(engine, tiny.tokenizer, EndTokens((end,), end), max_gen_toks=20)
    contexts = ["Eva", "How many"]
    assert own.generate_until(instances(contexts)) == tiny.generate_until(instances(contexts))


def test_the_command_runs_the_task_of_the_page(tiny_model_dir, tmp_path):
    file = write_rows(tmp_path / "rows.jsonl", [{"prompt": "Eva has 2", "answer": "2"}] * 3)
    text = yaml_of_docs(file).replace("max_gen_toks: 512", "max_gen_toks: 8")
    assert "max_gen_toks: 8" in text
    text = text.replace("Please reason step by step, and put your", "Put the")  # a small model
    (tmp_path / "local_gsm8k.yaml").write_text(text)
    command = [sys.executable, "-m", "prefix_rft_rllib.evaluation.lm_eval_adapter", "run"]
    command += ["--model", "prefix_rft", "--model_args", f"pretrained={tiny_model_dir}"]
    command += ["--include_path", str(tmp_path), "--tasks", "local_gsm8k"]
    command += ["--apply_chat_template", "--batch_size", "auto"]
    command += ["--output_path", str(tmp_path / "out"), "--log_samples"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    assert "flexible-extract" in done.stdout
    (samples,) = (tmp_path / "out").rglob("samples_local_gsm8k_*.jsonl")
    assert len(samples.read_text().splitlines()) == 3
