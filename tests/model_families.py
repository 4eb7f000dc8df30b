"""Tiny random models whose tokenizers, templates and files are built like those of known families.

Normalizer, pre-tokenizer, decoder, post-processor, added tokens and the declared end tokens are of
the family's kind; vocabularies are learned from a few sentences, templates are our own words in the
family's structure, and weights are random.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import AutoConfig

from tests.random_models import random_lm

NUM_POSITIONS = 256
_SENTENCES = [
    "Please reason step by step and put the final answer into a box.",
    "What is 12 + 30? We add 12 and 30 and get 42, so the answer is \\boxed{42}.",
    "Tom has 7 apples and buys 5 more. He has 7 + 5 = 12 apples.\nThe answer is 12.",
    "How many are left? First subtract 3 from 20, then divide by 2.",
]
_WORDS_AND_BYTES = r"(?i:'s|'t|'re)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}|"
_WORDS_AND_BYTES += r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


@dataclass(frozen=True, kw_only=True)
class Family:
    """How a family's model directory looks.

    Attributes:
        model_type: Of its config.json.
        tokenizer_class: Of its tokenizer_config.json.
        build: Makes the tokenizer.
        template: Its chat template.
        eos_token: The tokenizer's end token.
        bos_token: The tokenizer's begin token.
        ends: Tokens that generation_config.json names, in that order.
        turn_end: The token that ends an assistant's turn.
        generation: What else generation_config.json says.
        extra: What else config.json says.
    """

    model_type: str
    tokenizer_class: str
    build: Callable[[], Tokenizer]
    template: str
    eos_token: str
    bos_token: str | None
    ends: tuple[str, ...]
    turn_end: str
    generation: dict[str, Any] = field(default_factory=dict)
    extra: dict[str, Any] = field(default_factory=dict)


def _pieces(num: int) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Vocabulary and merges of sentencepiece's kind: blanks are `▁` in front of words."""
    learner = Tokenizer(models.BPE())
    learner.normalizer = normalizers.Replace(" ", "▁")
    learner.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")
    learner.train_from_iterator(
        _SENTENCES * 10, trainers.BpeTrainer(vocab_size=num, show_progress=False)
    )
    model = json.loads(learner.to_str())["model"]
    return model["vocab"], [tuple(pair) for pair in model["merges"]]


def _sentencepiece(specials: list[str], *, blanks: str, strips: tuple[str, ...] = ()) -> Tokenizer:
    """A BPE with byte fallback; `blanks` says where it puts blanks by itself.

    Args:
        specials: The first ids.
        blanks: "prepend" (a normalizer, at every text behind a special token), "first" (a
            pre-tokenizer, at the beginning of the whole text) or "none".
        strips: Special tokens that swallow the blanks behind them.
    """
    pieces, merges = _pieces(150)
    listed = [*specials, *(f"<0x{byte:02X}>" for byte in range(256)), *pieces]
    vocabulary = {token: number for number, token in enumerate(dict.fromkeys(listed))}
    tokenizer = Tokenizer(
        models.BPE(vocabulary, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    )
    replace = normalizers.Replace(" ", "▁")
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    if blanks == "prepend":
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), replace])
    elif blanks == "first":
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(
            replacement="▁", prepend_scheme="first", split=False
        )
    else:
        tokenizer.normalizer = replace
        tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    if blanks != "none":
        steps.append(decoders.Strip(" ", 1, 0))
    tokenizer.decoder = decoders.Sequence(steps)
    tokenizer.add_special_tokens(
        [AddedToken(s, rstrip=s in strips, normalized=False, special=True) for s in specials]
    )
    return tokenizer


def _begins_with(tokenizer: Tokenizer, bos: str) -> Tokenizer:
    pair = (bos, tokenizer.token_to_id(bos))
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{bos} $A", pair=f"{bos} $A {bos} $B", special_tokens=[pair]
    )
    return tokenizer


def _byte_level(specials: list[str], *, normalizer: Any = None) -> Tokenizer:
    """A byte-level BPE with a regular expression for words; special tokens behind the others."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_WORDS_AND_BYTES), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=340, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(_SENTENCES * 10, trainer)
    tokenizer.add_special_tokens([AddedToken(s, normalized=False, special=True) for s in specials])
    return tokenizer


def _gemma3() -> Tokenizer:
    specials = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "<start_of_turn>", "<end_of_turn>"]
    return _begins_with(_sentencepiece(specials, blanks="none"), "<bos>")


def _phi3() -> Tokenizer:
    marks = ["<|assistant|>", "<|system|>", "<|end|>", "<|user|>"]
    specials = ["<unk>", "<s>", "</s>", "<|endoftext|>", *marks]
    return _sentencepiece(specials, blanks="prepend", strips=("</s>", *marks))


def _llama2() -> Tokenizer:
    return _begins_with(_sentencepiece(["<unk>", "<s>", "</s>"], blanks="prepend"), "<s>")


def _mistral() -> Tokenizer:
    specials = ["<unk>", "<s>", "</s>", "[INST]", "[/INST]"]
    return _begins_with(_sentencepiece(specials, blanks="first"), "<s>")


def _qwen3() -> Tokenizer:
    specials = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    return _byte_level(specials, normalizer=normalizers.NFC())


def _llama3() -> Tokenizer:
    specials = ["<|begin_of_text|>", "<|end_of_text|>", "<|eom_id|>", "<|eot_id|>"]
    specials += ["<|start_header_id|>", "<|end_header_id|>"]
    return _begins_with(_byte_level(specials), "<|begin_of_text|>")


_GEMMA_TEMPLATE = """{{ bos_token }}{% if messages[0].role == 'system' %}{% set first = \
messages[0].content + '\n\n' %}{% set turns = messages[1:] %}{% else %}{% set first = '' %}\
{% set turns = messages %}{% endif %}{% for turn in turns %}<start_of_turn>\
{{ 'model' if turn.role == 'assistant' else turn.role }}\n{% if loop.first %}{{ first }}{% endif %}\
{{ turn.content | trim }}<end_of_turn>\n{% endfor %}\
{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"""

_PHI_TEMPLATE = """{% for turn in messages %}{{ '<|' + turn.role + '|>\n' + turn.content + \
'<|end|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% else %}\
{{ eos_token }}{% endif %}"""

_LLAMA2_TEMPLATE = """{% if messages[0].role == 'system' %}{% set system = '<<SYS>>\n' + \
messages[0].content + '\n<</SYS>>\n\n' %}{% set turns = messages[1:] %}{% else %}\
{% set system = '' %}{% set turns = messages %}{% endif %}{% for turn in turns %}\
{% if turn.role == 'user' %}{{ bos_token + '[INST] ' + (system if loop.first else '') + \
turn.content.strip() + ' [/INST]' }}{% else %}{{ ' ' + turn.content.strip() + ' ' + eos_token }}\
{% endif %}{% endfor %}"""

_MISTRAL_TEMPLATE = """{{ bos_token }}{% for turn in messages %}{% if turn.role == 'user' %}\
{{ '[INST] ' + turn.content + '[/INST]' }}{% elif turn.role == 'assistant' %}\
{{ ' ' + turn.content | trim + eos_token }}{% else %}{{ raise_exception('no system turn') }}\
{% endif %}{% endfor %}"""

_QWEN_TEMPLATE = """{% for turn in messages %}{{ '<|im_start|>' + turn.role + '\n' }}\
{% if turn.role == 'assistant' and loop.last and '</think>' not in turn.content %}\
{{ '<think>\n\n</think>\n\n' }}{% endif %}{{ turn.content + '<|im_end|>\n' }}{% endfor %}\
{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"""

_LLAMA3_TEMPLATE = """{{ bos_token }}{% for turn in messages %}{{ '<|start_header_id|>' + \
turn.role + '<|end_header_id|>\n\n' + turn.content | trim + '<|eot_id|>' }}{% endfor %}\
{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"""

FAMILIES = {
    "gemma3": Family(
        model_type="gemma3_text",
        tokenizer_class="GemmaTokenizer",
        build=_gemma3,
        template=_GEMMA_TEMPLATE,
        eos_token="<eos>",
        bos_token="<bos>",
        ends=("<eos>", "<end_of_turn>"),
        turn_end="<end_of_turn>",
        generation={
            "do_sample": True,
            "top_k": 64,
            "top_p": 0.95,
            "cache_implementation": "hybrid",
        },
        extra={"head_dim": 8, "sliding_window": 64, "layer_types": ["full_attention"]},
    ),
    "phi3": Family(
        model_type="phi3",
        tokenizer_class="LlamaTokenizer",
        build=_phi3,
        template=_PHI_TEMPLATE,
        eos_token="<|endoftext|>",
        bos_token="<s>",
        ends=("<|end|>", "<|assistant|>", "<|endoftext|>"),
        turn_end="<|end|>",
    ),
    "llama2": Family(
        model_type="llama",
        tokenizer_class="LlamaTokenizer",
        build=_llama2,
        template=_LLAMA2_TEMPLATE,
        eos_token="</s>",
        bos_token="<s>",
        ends=("</s>",),
        turn_end="</s>",
        generation={"temperature": 0.9, "top_p": 0.6},  # without do_sample, as published once
    ),
    "llama3": Family(
        model_type="llama",
        tokenizer_class="PreTrainedTokenizerFast",
        build=_llama3,
        template=_LLAMA3_TEMPLATE,
        eos_token="<|eot_id|>",
        bos_token="<|begin_of_text|>",
        ends=("<|end_of_text|>", "<|eom_id|>", "<|eot_id|>"),
        turn_end="<|eot_id|>",
        generation={"do_sample": True, "temperature": 0.6, "top_p": 0.9},
    ),
    "mistral": Family(
        model_type="mistral",
        tokenizer_class="LlamaTokenizer",
        build=_mistral,
        template=_MISTRAL_TEMPLATE,
        eos_token="</s>",
        bos_token="<s>",
        ends=("</s>",),
        turn_end="</s>",
    ),
    "qwen3": Family(
        model_type="qwen3",
        tokenizer_class="Qwen2Tokenizer",
        build=_qwen3,
        template=_QWEN_TEMPLATE,
        eos_token="<|im_end|>",
        bos_token=None,
        ends=("<|im_end|>", "<|endoftext|>"),
        turn_end="<|im_end|>",
        generation={"do_sample": True, "temperature": 0.6, "top_k": 20, "top_p": 0.95},
    ),
}


def save_family(name: str, directory: Path) -> Path:
    """Write a model directory of a family.

    End tokens are likely: each is drawn at a few in a hundred places, whatever was written.

    Args:
        name: A key of `FAMILIES`.
        directory: Where to; made here.

    Returns:
        The directory.
    """
    family = FAMILIES[name]
    directory.mkdir(parents=True)
    tokenizer = family.build()
    tokenizer.save(str(directory / "tokenizer.json"))
    settings = {
        "tokenizer_class": family.tokenizer_class,
        "eos_token": family.eos_token,
        "bos_token": family.bos_token,
        "chat_template": family.template,
        "clean_up_tokenization_spaces": False,
        "model_max_length": NUM_POSITIONS,
    }
    if tokenizer.token_to_id("<unk>") is not None:
        settings["unk_token"] = "<unk>"
    if family.tokenizer_class == "LlamaTokenizer":
        settings |= {"legacy": name != "mistral", "add_bos_token": True}
    _write(directory / "tokenizer_config.json", settings)
    end_ids = [tokenizer.token_to_id(token) for token in family.ends]
    config = AutoConfig.for_model(
        family.model_type,
        vocab_size=tokenizer.get_vocab_size() + 8,  # padded, as published ones are
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=NUM_POSITIONS,
        tie_word_embeddings=False,
        pad_token_id=None,
        bos_token_id=None if family.bos_token is None else tokenizer.token_to_id(family.bos_token),
        eos_token_id=tokenizer.token_to_id(family.eos_token),
        **family.extra,
    )
    model = random_lm(config)
    with torch.no_grad():
        # One channel is the same at every place: the head makes a bias of it.
        model.get_input_embeddings().weight[:, 0] = 1.0
        head = model.get_output_embeddings().weight
        head[:, 0] = 0.0
        head[end_ids, 0] = 0.75
        head[tokenizer.get_vocab_size() :, 0] = -8.0
    model.save_pretrained(directory)
    _write(
        directory / "generation_config.json",
        {"eos_token_id": end_ids[0] if len(end_ids) == 1 else end_ids, **family.generation},
    )
    return directory


def _write(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2), encoding="utf-8")


def end_ids_of(directory: Path) -> list[int]:
    """The end tokens that the directory's generation_config.json names."""
    value = json.loads((directory / "generation_config.json").read_text())["eos_token_id"]
    return value if isinstance(value, list) else [value]
