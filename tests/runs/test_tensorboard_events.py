"""TensorBoard shows the metrics that were written, and rollouts as the text that they are."""

import dataclasses
import gzip
import html.parser
import math

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from tensorboard.plugin_util import markdown_to_safe_html

from prefix_rft_rllib.runs.run_directory import RunDirectory, read_metrics, read_rollouts
from prefix_rft_rllib.runs.tensorboard_events import (
    MAX_SHOWN_CHARACTERS,
    choose_samples,
    sample_markdown,
    shown_text,
)
from tests.run_records import (
    CharacterTokenizer,
    events_of,
    record,
    scalars_of,
    texts_of,
    write_iterations,
)

HOSTILE = (
    "<script>alert(1)</script></pre><img src=x onerror=y> **bold** `code`\n```\nfenced\n```\n"
    "- item\n# title\n\n    indented\n[a](http://x) ![i](y) [r]: z\n| a | b |\n|---|---|\n"
    "&amp; &lt; \x00 \x02wzxhzdk:0\x03 \x1b[31m \x85 \ud800 \udfff é 漢 🙂 \\( \\boxed{1} \\)"
)


def test_tensorboard_events_equal_the_metrics_file(tmp_path):
    run = RunDirectory(tmp_path)
    for n in range(1, 30):
        run.write_metrics(n, {"rollouts/verdicts/CORRECT": n, "evaluation/a b <c>/avg_at_k": n / 7})
    run.write_metrics(30, {"learner/loss": math.inf, "learner/num_prefix_tokens": 123_456_789})
    run.close()
    expected = {
        row.pop("training_iteration"): {key: float(np.float32(value)) for key, value in row.items()}
        for row in read_metrics(tmp_path)
    }
    assert scalars_of(tmp_path) == expected


def test_event_files_of_other_writers_are_left_alone(tmp_path):
    other = tmp_path / "events.out.tfevents.1700000000.host"
    other.write_bytes(b"not ours")
    run = RunDirectory(tmp_path)
    run.write_metrics(1, {"a": 1.0})
    run.close()
    RunDirectory(tmp_path, iteration=0).write_minibatches(1, [])
    assert other.read_bytes() == b"not ours"


def test_an_event_file_that_ends_in_half_a_record_is_rolled_back(tmp_path):
    run = RunDirectory(tmp_path)
    write_iterations(run, range(1, 5))
    run.close()
    (events,) = tmp_path.glob("events.out.tfevents*")
    events.write_bytes(events.read_bytes()[:-3])
    again = RunDirectory(tmp_path, iteration=2)
    write_iterations(again, range(3, 4))
    again.close()
    assert sorted(scalars_of(tmp_path)) == [1, 2, 3]


def test_samples_are_a_hybrid_and_a_plain_rollout_of_one_group_if_there_is_one():
    hybrids = [record(group_id=group) for group in (1, 2, 3)]
    plain = record(group_id=2, member=1, num_prefix_tokens=0, region=["response"] * 5)
    later = dataclasses.replace(plain, member=2)
    demonstration = record(group_id=1, num_prefix_tokens=0, region=["demonstration"] * 5)
    samples = choose_samples([demonstration, *hybrids, plain, later])
    assert samples == {"rollouts/with_prefix": hybrids[1], "rollouts/plain": plain}
    assert choose_samples([hybrids[0]]) == {"rollouts/with_prefix": hybrids[0]}
    apart = dataclasses.replace(plain, group_id=9)
    assert choose_samples([hybrids[0], apart]) == {
        "rollouts/with_prefix": hybrids[0],
        "rollouts/plain": apart,
    }
    assert choose_samples([demonstration]) == {}


class PageReader(html.parser.HTMLParser):
    """Tags of a page and the texts inside <pre>, as a browser shows them."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.blocks: list[str] = []
        self.is_open = False
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list) -> None:
        self.tags.append(tag)
        self.is_open = tag == "pre"
        if self.is_open:
            self.blocks.append("")

    def handle_endtag(self, tag: str) -> None:
        self.is_open = False

    def handle_data(self, data: str) -> None:
        if self.is_open:
            self.blocks[-1] += data


def visible(text: str) -> str:
    """Independent of the product: control characters and surrogates as escapes."""
    return "".join(
        c.encode("unicode_escape").decode()
        if (ord(c) < 32 and c not in "\t\n") or 127 <= ord(c) < 160 or 0xD800 <= ord(c) <= 0xDFFF
        else c
        for c in text
    )


@settings(max_examples=60, deadline=None)
@given(st.text(st.sampled_from("`*_<>&/-#|[]()!~=:\n\t \\ab1\x02\ud800é"), max_size=60))
def test_tensorboard_shows_any_text_character_by_character(text):
    page = PageReader(markdown_to_safe_html(f"<pre>{shown_text(text)}</pre>"))
    assert page.tags == ["pre"]
    # HTML drops one line break at the start of <pre>; this parser does not.
    assert page.blocks == [visible(text)]


def test_hostile_text_is_written_read_and_shown(tmp_path):
    ids = [ord(character) for character in HOSTILE]
    huge = "x<" * 200_000
    hostile = record(
        problem_id=HOSTILE, prompt_ids=[ord(c) for c in huge], response_ids=ids,
        region=["prefix"] * 10 + ["response"] * (len(ids) - 10), num_prefix_tokens=10,
        entropy=None, old_logp=None, engine_logp=None, weight=None, kept=None,
    )  # fmt: skip
    run = RunDirectory(tmp_path)
    run.write_rollouts(1, [hostile], CharacterTokenizer())
    run.close()
    (again,) = read_rollouts(tmp_path / "rollouts" / "iteration_000001.jsonl.gz")
    assert again.problem_id == HOSTILE
    assert again.prompt_text == huge
    assert again.prefix_text + again.sampled_text == HOSTILE
    with gzip.open(tmp_path / "rollouts" / "iteration_000001.jsonl.gz") as file:
        assert file.read().isascii()
    (text,) = texts_of(tmp_path, "rollouts/with_prefix")
    page = PageReader(markdown_to_safe_html(text))
    assert set(page.tags) <= {"p", "pre", "strong"}
    prompt, prefix, sampled = page.blocks
    assert prefix == visible(HOSTILE[:10])
    assert sampled == visible(HOSTILE[10:])
    half = MAX_SHOWN_CHARACTERS // 2
    note = f"[... {len(huge) - 2 * half} characters not shown ...]"
    assert prompt == f"{huge[:half]}\n{note}\n{huge[-half:]}"


def test_a_sample_names_its_prefix_verdict_reward_and_share():
    text = sample_markdown(record().with_texts(CharacterTokenizer()))
    page = html.unescape(text)
    assert "verdict **CORRECT**" in page
    assert "reward **1**" in page
    assert "u **0.3000 (cut)**" in page
    assert "**Prefix** (GIVEN from the demonstration, 2 tokens):\n\n<pre>ab</pre>" in page
    assert "**Sampled by the policy** (3 tokens):\n\n<pre>cde</pre>" in page


def test_a_sample_shows_what_the_verifier_says_character_by_character():
    details = {"test": "assert f(1) < 2", "got": HOSTILE, "num_passed": 0}
    text = sample_markdown(record(verdict_details=details).with_texts(CharacterTokenizer()))
    page = PageReader(markdown_to_safe_html(text))
    assert page.blocks[-1] == visible(f"test: assert f(1) < 2\ngot: {HOSTILE}\nnum_passed: 0")
    assert len(page.blocks) == 4  # prompt, prefix, sampled text, verifier


def test_without_a_tokenizer_there_are_no_samples(tmp_path):
    run = RunDirectory(tmp_path)
    run.write_rollouts(1, [record()])
    run.close()
    assert events_of(tmp_path).Tags()["tensors"] == []
