"""The tokenizer of the toy task: single bytes, and the task's words as whole tokens."""

import re

from tokenizers import Regex, Tokenizer
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel, Sequence, Split
from transformers import PreTrainedTokenizerFast

from prefix_rft_rllib.envs.toy.toy_arithmetic import TASK_WORDS

EOS_TOKEN = "<eos>"
PAD_TOKEN = "<pad>"
ROLE_TOKENS = {"system": "<system>", "user": "<user>", "assistant": "<assistant>"}

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message.role not in ['system', 'user', 'assistant'] %}"
    "{{ raise_exception('Unknown role: ' + message.role + "
    "'. Known roles: system, user, assistant.') }}"
    "{% endif %}"
    "{{ '<' + message.role + '>' + message.content }}"
    "{% if message.role == 'assistant' %}{{ eos_token }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<assistant>' }}{% endif %}"
)


def byte_symbols() -> list[str]:
    """The printable character that stands for each byte in a byte-level vocabulary.

    Returns:
        256 characters; the entry at position b stands for byte b (the mapping of GPT-2).
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    unprintable = [byte for byte in range(256) if byte not in printable]
    symbols = {byte: chr(byte) for byte in printable}
    symbols |= {byte: chr(256 + index) for index, byte in enumerate(unprintable)}
    return [symbols[byte] for byte in range(256)]


def build_toy_tokenizer(max_length: int) -> PreTrainedTokenizerFast:
    """Build the byte-level tokenizer of the toy task.

    Every occurrence of one of the task's words is one token, every other byte is a token of its
    own; so digits are single, and `decode(encode(text)) == text` for any text that UTF-8 can
    write. The text of a special token stands for that token, as in every Hugging Face tokenizer.
    No token is added at either end.

    Args:
        max_length: Longest input in tokens, the model's number of positions.

    Returns:
        The tokenizer: ids 0..255 are the bytes, then come the words, then the special tokens.
    """
    symbols = byte_symbols()
    words = ["".join(symbols[byte] for byte in word.encode()) for word in TASK_WORDS]
    vocabulary = {token: index for index, token in enumerate([*symbols, *words])}
    # With no merges a piece stays in bytes, and `ignore_merges` makes a piece that is an entry of
    # the vocabulary one token.
    tokenizer = Tokenizer(BPE(vocab=vocabulary, merges=[], ignore_merges=True))
    longest_first = sorted(TASK_WORDS, key=len, reverse=True)
    pattern = Regex("|".join(re.escape(word) for word in longest_first))
    tokenizer.pre_tokenizer = Sequence(
        [Split(pattern, behavior="isolated"), ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.decoder = ByteLevelDecoder()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=EOS_TOKEN,
        pad_token=PAD_TOKEN,
        additional_special_tokens=list(ROLE_TOKENS.values()),
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
        model_max_length=max_length,
        padding_side="right",
    )
