import logging

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prefix_rft_rllib.envs.demonstrations.answer_cut import answer_cut, boxes, num_tokens_before
from prefix_rft_rllib.envs.problems import load_problem_set
from prefix_rft_rllib.envs.prompts.prompting import load_tokenizer
from prefix_rft_rllib.envs.verifiers.math_answers import final_box
from tests.envs import fake_verifiers
from tests.envs.problem_data import SAME_BOX
from tests.envs.small_tokenizers import save_byte_fallback, save_byte_level_bpe


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return load_tokenizer(save_byte_level_bpe(tmp_path_factory.mktemp("bpe")))


@pytest.fixture
def cut_text(config, write_rows):
    """The text that a prefix of a demonstration may at most have."""

    def cut(demonstration: str, answer: str = "5", **changes):
        rows = [{"id": "p", "prompt": "2 + 3 ?", "answer": answer, "demonstration": demonstration}]
        changes = {"data": write_rows(rows, "cut.jsonl"), "max_response_tokens": 999, **changes}
        problems = load_problem_set({**config, **changes})
        num_tokens = answer_cut(problems, "p", 0)
        if num_tokens is None:
            return None
        return problems.tokenizer.decode(problems.by_id("p").demonstration_ids[0][:num_tokens])

    return cut


@pytest.mark.parametrize(
    ("demonstration", "expected"),
    [
        ("It lies by the sea. The answer is (B).", "It lies by the sea. The answer is"),
        ("It is not A, so the answer is **(B)** Lisbon.", "It is not A, so the answer is"),
        ("Lisbon fits. Answer: B", "Lisbon fits. Answer:"),
        ("Lisbon fits.\nB", "Lisbon fits.\n"),
        ("Lisbon fits: $\\boxed{\\text{B}}$.", "Lisbon fits: $"),
        ("Lisbon fits: \\boxed{B}. The answer is B.", "Lisbon fits:"),
        ("B. Lisbon", ""),
        ("A man told me that vitamin B is good. The answer is A.", None),
        ("Lisbon fits.", None),
    ],
)
def test_a_prefix_of_a_choice_ends_before_the_letter(cut_text, demonstration, expected):
    text = cut_text(demonstration, answer="B", verifier="choice")
    assert (text and text.rstrip(" ")) == expected


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
@pytest.mark.parametrize("verifier", [SAME_BOX, "math"])
def test_a_prefix_ends_before_the_box(cut_text, kind, verifier, request):
    directory = request.getfixturevalue(kind)
    text = cut_text("2 + 3 = 5 so \\boxed{5} .", tokenizer=directory, verifier=verifier)
    assert text.rstrip() == "2 + 3 = 5 so"


@pytest.mark.parametrize(
    ("demonstration", "expected"),
    [
        ("3\\boxed{4} 2\\boxed{5} 9\\boxed{5}", "3\\boxed{4} 2"),  # the first accepted box
        ("3\\boxed{5} 2\\boxed{4}", "3"),  # accepted there, although the end is wrong
        ("3\\boxed{4}", None),
        ("3 = 3 so 5 .", None),
        ("\\boxed{5} .", ""),
        ("2\\boxed{5", None),  # never closed
        ("2\\boxed{4 3\\boxed{5}}", "2"),  # a box inside a box: the outer one is cut too
        ("{2 {3\\fbox{5}}}", "{2 {3"),
        ("2\\boxed 5 .", "2"),
        ("2\\boxed{\\}} 3\\boxed{5}", "2\\boxed{\\}} 3"),
        ("é中\\boxed{5}", "é中"),
    ],
)
def test_the_cut_worked_by_hand(cut_text, demonstration, expected):
    assert cut_text(demonstration) == expected


def test_a_token_that_reaches_into_the_box_does_not_stay(tokenizer):
    # " \" is a merge of this tokenizer (blank and backslash), seen often in its training text.
    token_ids = tokenizer.encode("is \\boxed{5}", add_special_tokens=False)
    pieces = [tokenizer.decode([token]) for token in token_ids]
    position = "is \\boxed{5}".index("\\")
    num_tokens = num_tokens_before(tokenizer, token_ids, position)
    assert len("".join(pieces[:num_tokens])) <= position
    assert len("".join(pieces[: num_tokens + 1])) > position
    assert any(piece.startswith(" \\") for piece in pieces)
    assert "".join(pieces[:num_tokens]) == "is"


@pytest.mark.parametrize("tail", range(12))
def test_bytes_of_an_unfinished_character_count_as_before_the_box(tmp_path, tail):
    # 中 is three tokens. An unfinished run of bytes decodes to one replacement character a byte,
    # more characters than it becomes in the end.
    tokenizer = load_tokenizer(save_byte_fallback(tmp_path))
    token_ids = tokenizer.encode("中中\\boxed{5}" + "." * tail, add_special_tokens=False)
    assert tokenizer.decode(token_ids[:5]) == 5 * "\ufffd"
    assert num_tokens_before(tokenizer, token_ids, 2) == 6


def test_only_closings_of_boxes_up_to_the_accepted_one_are_graded(config, write_rows):
    demonstration = "2 {3} \\boxed{4} 9 9 9 \\boxed{5} \\boxed{6}"
    rows = [{"id": "p", "prompt": "?", "answer": "5", "demonstration": demonstration}]
    changes = {"data": write_rows(rows, "calls.jsonl"), "max_response_tokens": 99}
    problems = load_problem_set({**config, **changes})
    fake_verifiers.calls.clear()
    assert answer_cut(problems, "p", 0) is not None
    assert fake_verifiers.calls == ["2 {3} \\boxed{4}", "2 {3} \\boxed{4} 9 9 9 \\boxed{5}"]


def test_a_number_above_zero_is_accepted(cut_text):
    verifier = "tests.envs.fake_verifiers:share_of_length"
    assert cut_text("3\\boxed{4} 2\\boxed{5}", verifier=verifier) == "3\\boxed{4} 2"


def test_an_unknown_demonstration_is_an_error(config):
    with pytest.raises(ValueError, match=r"\(0\) is out of range: problem 'b' has 0"):
        answer_cut(load_problem_set(config), "b", 0)


PIECES = [
    "\\boxed{",
    "\\boxed ",
    "\\fbox{",
    "{",
    "}",
    "\\{",
    "\\\\",
    " ",
    "5",
    "é",
    "中",
    "so ",
    "$",
]


@settings(max_examples=150, deadline=None)
@given(pieces=st.lists(st.sampled_from(PIECES), max_size=12))
def test_boxes_are_found_where_the_verifier_finds_them(pieces):
    """Independent: grading a text that ends at a closing, the verifier reads a box there."""
    text = "".join(pieces)
    found = boxes(text)
    assert [end for _, end in found] == sorted(end for _, end in found)
    assert all(text[start] == "\\" and start < end <= len(text) for start, end in found)
    if final_box(text) is not None:
        assert final_box(text) in [final_box(text[:end]) for _, end in found]


@settings(max_examples=100, deadline=None)
@given(pieces=st.lists(st.sampled_from(PIECES), min_size=1, max_size=15), data=st.data())
def test_the_number_of_tokens_equals_a_slow_search(tokenizer, pieces, data):
    """Independent: decode byte by byte, count the tokens that lie wholly before the position."""
    text = "".join(pieces)
    token_ids = tokenizer.encode(text, add_special_tokens=False)
    position = data.draw(st.sampled_from([i for i, c in enumerate(text) if c == "\\"] or [0]))
    budget = len(text[:position].encode())
    alphabet = {c: b for b, c in byte_characters().items()}
    num_bytes = expected = 0
    for token in token_ids:
        num_bytes += len([alphabet[c] for c in tokenizer.convert_ids_to_tokens(token)])
        expected += num_bytes <= budget
    assert num_tokens_before(tokenizer, token_ids, position) == expected


def byte_characters() -> dict[int, str]:
    """GPT-2's table: the printable bytes stand for themselves, the others follow from 256 on."""
    table, offset = {}, 0
    for byte in range(256):
        printable = 33 <= byte <= 126 or 161 <= byte <= 172 or 174 <= byte <= 255
        table[byte] = chr(byte) if printable else chr(256 + offset)
        offset += not printable
    return table


@pytest.mark.parametrize(("box", "verdict"), [(7, "TIMEOUT"), (8, "ERROR")])
def test_a_prefix_ends_before_a_box_without_a_verdict(cut_text, caplog, box, verdict):
    # 7 runs out of time, 8 makes the verifier raise: either may be the answer.
    demonstration = f"2 \\boxed{{4}} 3 \\boxed{{{box}}} 9 \\boxed{{5}}"
    with caplog.at_level(logging.WARNING, "prefix_rft_rllib.envs"):
        cut = cut_text(demonstration, verifier="tests.envs.fake_verifiers:undecided")
    assert cut.rstrip() == "2 \\boxed{4} 3"
    (record,) = [r for r in caplog.records if r.name.endswith("answer_cut")]
    assert f"demonstration 0 of problem 'p' is {verdict}. Prefixes" in record.getMessage()
