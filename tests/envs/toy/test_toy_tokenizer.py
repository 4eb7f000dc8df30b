"""The byte-level tokenizer of the toy task."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from prefix_rft_rllib.envs.toy.tokenizer import build_toy_tokenizer, byte_symbols
from prefix_rft_rllib.envs.toy.toy_arithmetic import TASK_WORDS, generate_rows

TOKENIZER = build_toy_tokenizer(2048)

# Whole words of the task, halves of them, special tokens, and what the byte alphabet uses inside.
PIECES = st.sampled_from(
    [*TASK_WORDS, "finds", "How many", "\\boxed", "{", "}", "Ġ", "Ċ", "<eos>", "<user>", "<", "24"]
)
# Any text that UTF-8 can write: surrogates alone are no text.
ANY_TEXT = st.text(st.characters(exclude_categories=["Cs"]))


def pieces_of(text: str) -> list[str]:
    """Text of each token of `text`."""
    return [TOKENIZER.decode([token]) for token in TOKENIZER.encode(text)]


@settings(max_examples=300, deadline=None)
@given(ANY_TEXT)
def test_any_text_survives_encoding_and_decoding(text: str) -> None:
    assert TOKENIZER.decode(TOKENIZER.encode(text)) == text


@settings(max_examples=200, deadline=None)
@given(st.lists(PIECES | ANY_TEXT, max_size=12))
def test_text_with_words_of_the_task_and_special_tokens_survives(parts: list[str]) -> None:
    text = "".join(parts)
    assert TOKENIZER.decode(TOKENIZER.encode(text)) == text


@settings(max_examples=100, deadline=None)
@given(st.lists(st.sampled_from(TASK_WORDS) | ANY_TEXT, max_size=8))
def test_only_the_text_of_special_tokens_is_skipped(parts: list[str]) -> None:
    text = "".join(parts)
    for token in TOKENIZER.all_special_tokens:
        text = text.replace(token, "")
    if not any(token in text for token in TOKENIZER.all_special_tokens):
        assert TOKENIZER.decode(TOKENIZER.encode(text), skip_special_tokens=True) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "  two  spaces ",
        "\t\n\r\n\x0b\x0c",
        "\x00\x01\x7f",
        "a , b .  c",
        "naïve Ünïcödé re\u0301sume\u0301",
        "日本語 🎉👩‍👩‍👧",
        "\ufeff\u200d\u2028",
        "$\\frac{1}{2}$ is \\boxed{ 2 4 }",
        "<eos><pad> <user>",
        "don 't do n't",
    ],
)
def test_hard_texts_survive(text: str) -> None:
    assert TOKENIZER.decode(TOKENIZER.encode(text)) == text


def test_every_task_word_is_one_token() -> None:
    for word in TASK_WORDS:
        assert len(TOKENIZER.encode(word)) == 1, word


def test_every_digit_is_a_token_of_its_own_with_one_id() -> None:
    assert pieces_of("90 1234") == ["9", "0", " ", "1", "2", "3", "4"]
    for digit in "0123456789":
        token = TOKENIZER.encode(digit)
        assert TOKENIZER.encode(f"has {digit}")[-1:] == token
        assert TOKENIZER.encode(f"x{digit}")[-1:] == token


def test_other_text_is_one_token_per_byte_and_byte_b_has_id_b() -> None:
    assert TOKENIZER.encode("xyz é") == [*b"xyz ", 0xC3, 0xA9]


def test_a_clause_is_eleven_tokens() -> None:
    assert pieces_of("finds 4 : 37 + 4 = 41 ; so \\boxed{41}") == [
        *("finds ", "4", " : ", "3", "7", " + ", "4", " = ", "4", "1", " ; "),
        *("so ", "\\boxed{", "4", "1", "}"),
    ]


def test_the_boxed_answer_decodes_without_spaces() -> None:
    assert TOKENIZER.decode(TOKENIZER.encode("so \\boxed{24}")) == "so \\boxed{24}"


def test_the_longest_demonstrations_fit_into_96_tokens_and_prompts_into_40() -> None:
    rows = generate_rows(num_problems=200, min_clauses=8, max_clauses=8, seed=0)
    # 8 clauses of 11 tokens, "so ", "\boxed{", two digits, "}", end token: 94.
    assert max(len(TOKENIZER.encode(row["demonstration"])) + 1 for row in rows) <= 94
    # Role, name, has, two digits, item, stop; three for each clause; question, role.
    assert max(len(TOKENIZER.encode(row["prompt"])) + 2 for row in rows) <= 40


def test_the_byte_symbols_are_256_different_printable_characters() -> None:
    symbols = byte_symbols()
    assert len(set(symbols)) == 256
    assert all(len(symbol) == 1 and symbol.isprintable() for symbol in symbols)
    assert symbols[ord(" ")] == "Ġ"
    assert symbols[ord("a")] == "a"


def test_encoding_adds_no_token() -> None:
    assert TOKENIZER.encode("Ana", add_special_tokens=True) == TOKENIZER.encode(
        "Ana", add_special_tokens=False
    )
    assert len(TOKENIZER.encode("")) == 0


def test_end_and_padding_are_different_special_tokens() -> None:
    assert TOKENIZER.eos_token == "<eos>"
    assert TOKENIZER.pad_token == "<pad>"
    assert TOKENIZER.eos_token_id != TOKENIZER.pad_token_id
    ids = [*TOKENIZER.encode("so "), TOKENIZER.eos_token_id, TOKENIZER.pad_token_id]
    assert TOKENIZER.decode(ids, skip_special_tokens=True) == "so "


def test_chat_template_renders_system_user_and_generation_prompt() -> None:
    messages = [{"role": "user", "content": "Ana has 3"}]
    assert (
        TOKENIZER.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        == "<user>Ana has 3<assistant>"
    )
    messages = [
        {"role": "system", "content": "Count."},
        *messages,
        {"role": "assistant", "content": "so"},
    ]
    assert (
        TOKENIZER.apply_chat_template(messages, tokenize=False)
        == "<system>Count.<user>Ana has 3<assistant>so<eos>"
    )


def test_chat_template_roles_are_single_tokens() -> None:
    ids = TOKENIZER.apply_chat_template(
        [{"role": "user", "content": "Ana"}], add_generation_prompt=True, return_dict=False
    )
    assert TOKENIZER.convert_ids_to_tokens(ids) == ["<user>", "Ana", "<assistant>"]


def test_an_unknown_role_is_an_error_that_lists_the_known_ones() -> None:
    with pytest.raises(Exception, match=r"Unknown role: tool\. Known roles: system, user"):
        TOKENIZER.apply_chat_template([{"role": "tool", "content": ""}], tokenize=False)


def test_a_saved_tokenizer_loads_the_same(tmp_path: Path) -> None:
    TOKENIZER.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    assert isinstance(loaded, PreTrainedTokenizerFast)
    assert loaded.get_vocab() == TOKENIZER.get_vocab()
    assert loaded.chat_template == TOKENIZER.chat_template
    assert loaded.eos_token_id == TOKENIZER.eos_token_id
    assert loaded.pad_token_id == TOKENIZER.pad_token_id
    assert loaded.clean_up_tokenization_spaces is False
    text = "Ana has 37 pears . déjà <eos> vu !"
    assert loaded.encode(text) == TOKENIZER.encode(text)
    assert loaded.decode(loaded.encode(text)) == text
