import re
import time
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prefix_rft_rllib.envs import TOY_BASE_MODEL
from prefix_rft_rllib.envs.demonstrations.solution_steps import (
    covered_characters,
    step_ends,
    text_steps,
)
from prefix_rft_rllib.envs.prompts.prompting import load_tokenizer
from tests.envs.problem_data import load
from tests.envs.small_tokenizers import (
    save_byte_fallback,
    save_byte_level_bpe,
    save_metaspace_unigram,
)

SAVED = {
    "bpe": save_byte_level_bpe,
    "unigram": save_metaspace_unigram,
    "byte_fallback": save_byte_fallback,
}


@pytest.fixture(scope="module", params=[*SAVED, "toy"])
def tokenizer(request, tmp_path_factory):
    if request.param == "toy":
        return load_tokenizer(str(TOY_BASE_MODEL))
    return load_tokenizer(SAVED[request.param](tmp_path_factory.mktemp(request.param)))


@pytest.fixture
def token_steps(config, write_rows):
    """The texts of the steps of a demonstration, as their tokens decode."""

    def split(demonstration: str, **changes) -> list[str]:
        rows = [{"id": "p", "prompt": "2 ?", "answer": "5", "demonstration": demonstration}]
        changes = {"data": write_rows(rows, "steps.jsonl"), "max_response_tokens": 999, **changes}
        problems = load(config, **changes)
        token_ids = problems.by_id("p").demonstration_ids[0]
        ends = step_ends(problems, "p", 0)
        assert ends[-1] == len(token_ids)
        starts = [0, *ends[:-1]]
        decoded = [
            problems.tokenizer.decode(token_ids[:n], skip_special_tokens=True) for n in starts
        ]
        whole = problems.tokenizer.decode(token_ids, skip_special_tokens=True)
        ends_of_text = [len(text) for text in [*decoded[1:], whole]]
        return [whole[len(a) : b] for a, b in zip(decoded, ends_of_text, strict=True)]

    return split


# --- text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2 + 3", ["2 + 3"]),
        ("a. b! c? d; e", ["a. ", "b! ", "c? ", "d; ", "e"]),
        ("a\nb\n\n\nc", ["a\n", "b\n\n\n", "c"]),
        ("a.\n\n  b", ["a.\n\n  ", "b"]),
        ("a \n \n b", ["a \n \n ", "b"]),
        ("a\r\nb", ["a\r\n", "b"]),
        ("3.5 + 1.5; so 5.", ["3.5 + 1.5; ", "so 5."]),  # no whitespace after the last one
        ("a. b. \n", ["a. ", "b. \n"]),  # whitespace at the end is no step
        ("a ; b ; ", ["a ; ", "b ; "]),
        ("\n\n a. b", ["\n\n a. ", "b"]),  # nor is whitespace at the beginning
        ("a. . . b", ["a. . . ", "b"]),
        ("a... b ... ", ["a... ", "b ... "]),
        ("... a", ["... a"]),
        ("a;\n;\n;", ["a;\n;\n;"]),
        ("x \\; y; z \\! w", ["x \\; y; ", "z \\! w"]),  # spaces of LaTeX
        ("...", ["..."]),
        ("", [""]),
    ],
)
def test_steps_of_a_text_worked_by_hand(text, expected):
    ends = [end for _, end in text_steps(text)]
    assert [text[a:b] for a, b in zip([0, *ends[:-1]], ends, strict=True)] == expected
    for content_end, end in text_steps(text):
        assert text[content_end:end].strip() == ""
        assert content_end == 0 or not text[content_end - 1].isspace()


PIECES = [
    "a",
    "5",
    "中",
    "é",
    "😀",
    "\ufffd",
    "\\",
    ".",
    "!",
    "?",
    ";",
    " ",
    "  ",
    "\n",
    "3.5",
    "\\;",
    " so",
]
TEXTS = st.lists(st.sampled_from(PIECES), min_size=1, max_size=20).map("".join)


@given(text=TEXTS)
def test_steps_equal_a_slow_walk_over_the_characters(text):
    """Independent: look at each position and decide whether a step ends there."""

    def ends_here(position: int) -> bool:
        before, after = text[:position], text[position:]
        if after[:1].isspace() or not re.search(r"[^\s.!?;]", after):
            return False  # whitespace belongs to the finished step; the rest is no step
        blanks = before[len(before.rstrip()) :]
        last = before.rstrip()[-2:]
        is_marked = bool(blanks) and last[-1:] in [*".!?;"] and last[:1] != "\\"
        is_marked |= bool(blanks) and last in [".", "!", "?", ";"]
        return is_marked or "\n" in blanks

    # A piece of nothing but separators ends with the step before it.
    expected: list[int] = []
    start = 0
    for position in [*filter(ends_here, range(1, len(text))), len(text)]:
        if re.search(r"[^\s.!?;]", text[start:position]):
            expected.append(position)
        elif expected:
            expected[-1] = position
        start = position
    assert [end for _, end in text_steps(text)] == (expected or [len(text)])


# --- tokens


def test_a_demonstration_of_the_small_task_is_split_into_its_clauses(token_steps):
    demonstration = "finds 4 : 37 + 4 = 41 ; repeats 2 : 41 * 2 = 82 ; so \\boxed{82}"
    assert token_steps(demonstration, tokenizer=str(TOY_BASE_MODEL)) == [
        "finds 4 : 37 + 4 = 41 ; ",
        "repeats 2 : 41 * 2 = 82 ; ",
        "so \\boxed{82}",
    ]


def test_numbers_of_tokens_worked_by_hand(config, write_rows):
    # "finds ", "4", " : ", "3", " + ", "4", " = ", "7", " ; " are 9 tokens; then "so ", "\boxed{",
    # "7", "}" and the end token.
    row = {"prompt": "?", "answer": "7", "demonstration": "finds 4 : 3 + 4 = 7 ; so \\boxed{7}"}
    changes = {"data": write_rows([row], "hand.jsonl"), "tokenizer": str(TOY_BASE_MODEL)}
    problems = load(config, **changes)
    assert step_ends(problems, problems.train[0].problem_id, 0) == (9, 14)


def test_a_token_with_a_leading_space_begins_the_next_step(token_steps, bpe):
    tokenizer = load_tokenizer(bpe)
    assert " so" in [tokenizer.decode([t]) for t in tokenizer.encode("5. so")]
    assert token_steps("2 = 2. so 5.\nso") == ["2 = 2.", " so 5.\n", "so"]


def test_a_stripped_space_at_the_beginning_shifts_nothing(token_steps, unigram):
    # A metaspace tokenizer writes a space in front of the text, and decoding strips it.
    steps = token_steps("2 = 3. so 5. 67", tokenizer=unigram)
    assert [step.strip() for step in steps] == ["2 = 3.", "so 5.", "67"]


@pytest.mark.parametrize("kind", ["bpe", "byte_fallback"])
def test_a_character_in_several_tokens_is_never_cut(token_steps, kind, tmp_path):
    directory = SAVED[kind](tmp_path)
    # 😀 is four bytes and U+3000, a space, is three, each byte a token.
    text = "2😀. 😀中.\u3000中; 5\n\u3000😀"
    steps = token_steps(text, tokenizer=directory)
    assert "".join(steps) == text
    assert [step.strip() for step in steps] == ["2😀.", "😀中.", "中;", "5", "😀"]


def ends_of(tokenizer, token_ids) -> tuple[int, ...]:
    problem_set = SimpleNamespace(tokenizer=tokenizer, demonstration=lambda *_: tuple(token_ids))
    return step_ends(problem_set, "p", 0)


def ends_of_words(*words: str) -> tuple[int, ...]:
    """Step ends for a tokenizer whose tokens are these words."""
    decode = lambda token_ids, **_: "".join(words[token] for token in token_ids)  # noqa: E731
    return ends_of(SimpleNamespace(decode=decode), range(len(words)))


def test_a_token_may_hold_a_character_and_the_beginning_of_the_next():
    pieces = [b"a\xe4", b"\xb8", b"\xad", b"b", b"\xc3", b"\xa9c\xf0\x9f", b"\x98\x80", b""]
    decode = lambda ids, **_: b"".join(pieces[i] for i in ids).decode("utf-8", "replace")  # noqa: E731
    covered = covered_characters(SimpleNamespace(decode=decode), range(len(pieces)))
    assert covered == [0, 1, 1, 2, 3, 3, 5, 6, 6]  # of "a中béc😀"


def test_a_step_swallowed_by_a_token_is_part_of_the_one_before():
    """One token holds the end of a step, a whole step and the beginning of the next."""
    assert ends_of_words("2 + 3", ";\nso;\n", "5", "6", "") == (2, 5)
    assert ends_of_words("2 + 3", ";\nso;\n5", "") == (3,)  # the last step is swallowed too
    assert ends_of_words("2;\n", "so", ";\n5", "") == (1, 4)


@settings(max_examples=60, deadline=None)
@given(text=TEXTS)
def test_covered_characters_equal_decoding_every_prefix(tokenizer, text):
    """Independent: decode the first n tokens, for every n; no character is complete before that."""
    token_ids = [*tokenizer.encode(text, add_special_tokens=False), tokenizer.eos_token_id]
    covered = covered_characters(tokenizer, token_ids)
    expected = [0]
    for num_tokens in range(1, len(token_ids) + 1):
        prefix = tokenizer.decode(token_ids[:num_tokens], skip_special_tokens=True)
        expected.append(max(expected[-1], len(prefix.rstrip("\ufffd"))))
    assert covered == expected


@settings(max_examples=60, deadline=None)
@given(text=TEXTS)
def test_steps_cover_the_demonstration_and_end_at_separators(tokenizer, text):
    token_ids = (*tokenizer.encode(text, add_special_tokens=False), tokenizer.eos_token_id)
    whole = tokenizer.decode(token_ids, skip_special_tokens=True)
    ends = ends_of(tokenizer, token_ids)
    assert list(ends) == sorted(set(ends))
    assert ends[0] > 0
    assert ends[-1] == len(token_ids)
    for num_tokens in ends[:-1]:
        # No token of these tokenizers holds a separator and what follows it, blanks left out.
        cut = tokenizer.decode(token_ids[:num_tokens], skip_special_tokens=True)
        assert whole.startswith(cut)
        rest = whole[len(cut) :]
        assert re.search(r"[.!?;]\s*$|\n\s*$", cut) or re.match(r"\s*\n", rest)
        assert re.search(r"[^\s.!?;]", rest)
        assert len(cut.rstrip()) in [content for content, _ in text_steps(whole)] or len(cut) in [
            end for _, end in text_steps(whole)
        ]


def test_every_text_step_is_a_token_step_where_separators_are_tokens(token_steps):
    text = "2 + 3 = 5 ; so 5 . é = 中 ?\n\n7 ! 5"
    steps = token_steps(text, tokenizer=str(TOY_BASE_MODEL))
    ends = [end for _, end in text_steps(text)]
    assert [len("".join(steps[: n + 1])) for n in range(len(steps))] == ends


def test_an_unknown_demonstration_is_an_error(config):
    with pytest.raises(ValueError, match=r"\(0\) is out of range: problem 'b' has 0"):
        step_ends(load(config), "b", 0)
    with pytest.raises(ValueError, match=r"\(-1\) is out of range: problem 'c' has 2"):
        step_ends(load(config), "c", -1)
    with pytest.raises(ValueError, match="no problem with the id 'z'"):
        step_ends(load(config), "z", 0)


def test_a_long_demonstration_takes_linear_time():
    # About 15 ms for 8,000 tokens; ten decodings of all of them per step would take 8 seconds.
    tokenizer = load_tokenizer(str(TOY_BASE_MODEL))
    text = "".join(f"finds 4 : 37 + {n} = 41 ; " for n in range(1000))
    token_ids = tokenizer.encode(text, add_special_tokens=False)[:8000]
    started = time.perf_counter()
    covered = covered_characters(tokenizer, token_ids)
    assert time.perf_counter() - started < 1
    assert covered[-1] == len(tokenizer.decode(token_ids))
