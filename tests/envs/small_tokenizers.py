"""Tokenizers of different kinds, built here so that no test needs a download."""

from pathlib import Path

from tokenizers import (
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import PreTrainedTokenizerFast

END = "<|end|>"
CHAT_TEMPLATE = (
    "{% for m in messages %}<|turn|>{{ m.role }}: {{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}<|turn|>assistant: {% endif %}"
)
_TEXT = ["2 + 3 = 5 so the answer is \\boxed{5} .", "What is 2 + 3 ?", "é ü 中 $x^2$ {12} 34 67 89"]


def save_byte_level_bpe(directory: Path, *, chat: bool = False, end: str | None = END) -> str:
    """Save a byte-level BPE tokenizer with merges across `\\boxed`, as GPT-2's."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=330,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=[END, "<|turn|>"],
        show_progress=False,
    )
    tokenizer.train_from_iterator(_TEXT * 20, trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=end)
    if chat:
        fast.chat_template = CHAT_TEMPLATE
    return _save(fast, directory)


def save_metaspace_unigram(directory: Path) -> str:
    """Save a Unigram tokenizer with metaspaces and a begin-of-text token, as sentencepiece's."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=120,
        special_tokens=["<unk>", "<s>", "</s>"],
        unk_token="<unk>",
        initial_alphabet=sorted(set("".join(_TEXT))),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_TEXT * 20, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )
    return _save(fast, directory)


def save_byte_fallback(directory: Path) -> str:
    """Save a character tokenizer that falls back to bytes for unknown characters, as Llama 2's."""
    letters = [(character, -1.0) for character in sorted(set("".join(_TEXT[:2])))]
    bytes_ = [(f"<0x{byte:02X}>", -9.0) for byte in range(256)]
    vocabulary = [("<unk>", 0.0), (END, 0.0), *bytes_, *letters]
    tokenizer = Tokenizer(models.Unigram(vocabulary, unk_id=0, byte_fallback=True))
    tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=END, unk_token="<unk>")
    return _save(fast, directory)


def save_lossy_words(directory: Path) -> str:
    """Save a word-level tokenizer, which loses blanks and unknown words."""
    words = sorted({word for text in _TEXT for word in text.split()})
    vocabulary = {word: index for index, word in enumerate([END, "<unk>", *words])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=END, unk_token="<unk>")
    return _save(fast, directory)


def _save(tokenizer: PreTrainedTokenizerFast, directory: Path) -> str:
    tokenizer.save_pretrained(directory)
    return str(directory)


def save_normalising(directory: Path) -> str:
    """Save a byte-level tokenizer that composes characters and lowers case, as BERT's and T5's."""
    fast = PreTrainedTokenizerFast.from_pretrained(save_byte_level_bpe(directory))
    fast.backend_tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFKC(), normalizers.Lowercase()]
    )
    return _save(fast, directory)
