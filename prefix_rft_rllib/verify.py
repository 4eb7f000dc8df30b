r"""Grade a file of responses with the math verifier.

    python -m prefix_rft_rllib.verify FILE.jsonl[.gz] [--extract boxed|last] [--out GRADED.jsonl]

Each line of FILE is an object with `response` and `gold` (texts) and, if wanted, `kind`
and `expected`:

* kind "response" (the default): the response is graded as in training, its answer taken
  from the last `\boxed{}` (`--extract boxed`) or from its last expression (`--extract last`);
* kind "answer_pair": `response` and `gold` are two answers, which are compared;
* kinds "choice" and "format" are not for this verifier: counted, not graded.

`expected` (true or false) says whether the verdict should be CORRECT; rows where it is not
so are listed. All other fields are carried to `--out` unread.
"""

from __future__ import annotations

import argparse
import collections
import dataclasses
import gzip
import json
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any, cast

from prefix_rft_rllib.envs.verifiers import MathVerifier, Verdict

GRADED_KINDS = ("response", "answer_pair")
SKIPPED_KINDS = ("choice", "format")


@dataclasses.dataclass(frozen=True)
class Row:
    """One checked line of the input file.

    Attributes:
        line: Line number, from 1.
        fields: Everything the line holds.
        kind: One of `GRADED_KINDS` or `SKIPPED_KINDS`.
    """

    line: int
    fields: dict[str, Any]
    kind: str

    @property
    def is_graded(self) -> bool:
        """True if the math verifier applies to the row."""
        return self.kind in GRADED_KINDS

    @property
    def expected(self) -> bool | None:
        """Whether the verdict should be CORRECT, None if the row does not say."""
        return self.fields.get("expected")


def open_text(path: Path, mode: str) -> IO[str]:
    """Open a text file, compressed if its name ends in .gz.

    Lines end at a line feed only: some texts contain other line separators (U+2028).
    """
    if path.suffix == ".gz":
        return cast(IO[str], gzip.open(path, mode + "t", encoding="utf-8", newline="\n"))
    return open(path, mode, encoding="utf-8", newline="\n")


def read_rows(path: Path) -> Iterator[Row]:
    """Read and check the rows of a file.

    Args:
        path: A JSONL file, compressed or not. Empty lines are skipped.

    Yields:
        The rows in order.

    Raises:
        ValueError: If a row is malformed; names file, line and field.
    """
    with open_text(path, "r") as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                yield _checked_row(line, number, f"{path}, line {number}")


def _checked_row(line: str, number: int, place: str) -> Row:
    try:
        fields = json.loads(line)
    except ValueError as error:
        raise ValueError(f"{place}: not a JSON object: {error}") from error
    if not isinstance(fields, dict):
        raise ValueError(f"{place}: must be a JSON object, got {type(fields).__name__}")
    kind = fields.get("kind", "response")
    if kind not in GRADED_KINDS + SKIPPED_KINDS:
        raise ValueError(
            f"{place}, field `kind`: got {kind!r}; must be one of "
            f"{list(GRADED_KINDS + SKIPPED_KINDS)} or left out (= 'response')"
        )
    for name in ("response", "gold") if kind in GRADED_KINDS else ():
        if not isinstance(fields.get(name), str):
            got = repr(fields[name])[:80] if name in fields else "no such field"
            raise ValueError(f"{place}, field `{name}`: must be a text, got {got}")
    if not isinstance(fields.get("expected"), bool | None):
        raise ValueError(
            f"{place}, field `expected`: must be true, false or left out, "
            f"got {fields['expected']!r:.80}"
        )
    return Row(number, fields, kind)


def grade_rows(rows: Sequence[Row], verifier: MathVerifier, progress: bool) -> list[Verdict | None]:
    """Grade rows, several at a time.

    Args:
        rows: The rows.
        verifier: Grades them; its `extract` holds for all rows of kind "response".
        progress: Show a progress bar on stderr.

    Returns:
        A verdict for each row, None where the verifier does not apply.
    """

    def grade(row: Row) -> Verdict | None:
        if row.kind == "answer_pair":
            return verifier.compare(row.fields["gold"], row.fields["response"])
        if row.kind == "response":
            return verifier.verify(row.fields["response"], row.fields["gold"])
        return None

    from tqdm import tqdm

    with ThreadPoolExecutor(verifier.num_workers) as executor:
        verdicts = executor.map(grade, rows)
        return list(tqdm(verdicts, total=len(rows), unit="row", disable=not progress))


def report(rows: Sequence[Row], verdicts: Sequence[Verdict | None], seconds: float) -> str:
    """Return the summary the command prints: counts, disagreements, rate."""
    graded = [(row, verdict) for row, verdict in zip(rows, verdicts, strict=True) if verdict]
    counts = collections.Counter(str(verdict) for _, verdict in graded)
    skipped = collections.Counter(row.kind for row in rows if not row.is_graded)
    labelled = [(row, verdict) for row, verdict in graded if row.expected is not None]
    disagreements = [pair for pair in labelled if not _agrees(*pair)]
    lines = [
        f"graded {len(graded)} rows in {seconds:.2f} s ({len(graded) / seconds:.1f} per second)"
    ]
    lines += [f"  {verdict:<12} {counts[verdict]:>7}" for verdict in Verdict]
    lines += [f"not applicable: {sum(skipped.values())} {dict(skipped) or ''}".rstrip()]
    if labelled:
        agreeing = len(labelled) - len(disagreements)
        share = 100 * agreeing / len(labelled)
        lines.append(f"agree with `expected`: {agreeing} of {len(labelled)} ({share:.2f}%)")
    for row, verdict in disagreements:
        fields = row.fields
        label = f", {fields['label_class']}" if "label_class" in fields else ""
        lines.append(
            f"  line {row.line}, id {fields.get('id', '-')} ({row.kind}{label}): {verdict}, "
            f"expected {'CORRECT' if row.expected else 'not CORRECT'}; "
            f"gold {_shortened(fields['gold'])}, response {_shortened(fields['response'])}"
        )
    return "\n".join(lines)


def _agrees(row: Row, verdict: Verdict) -> bool:
    return (verdict is Verdict.CORRECT) == row.expected


def _shortened(text: str, width: int = 60) -> str:
    return ascii(text if len(text) <= width else "..." + text[-width:])


def write_graded(path: Path, rows: Sequence[Row], verdicts: Sequence[Verdict | None]) -> None:
    """Write the rows with `verdict` (null where not applicable) and `agrees` added."""
    with open_text(path, "w") as file:
        for row, verdict in zip(rows, verdicts, strict=True):
            agrees = None if verdict is None or row.expected is None else _agrees(row, verdict)
            graded = {**row.fields, "verdict": verdict and verdict.value, "agrees": agrees}
            file.write(json.dumps(graded) + "\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code: 0, or 2 if the input cannot be graded."""
    parser = argparse.ArgumentParser(prog="python -m prefix_rft_rllib.verify", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("file", type=Path, metavar="FILE.jsonl[.gz]")
    parser.add_argument("--extract", choices=["boxed", "last"], default="boxed")
    parser.add_argument("--out", type=Path, metavar="GRADED.jsonl", help="write graded rows here")
    parser.add_argument("--timeout", type=float, default=5.0, help="seconds a row (default 5)")
    parser.add_argument("--workers", type=int, default=None, help="default: CPU cores, at most 4")
    options = parser.parse_args(arguments)
    try:
        rows = list(read_rows(options.file))
        if not rows:
            raise ValueError(f"{options.file}: no rows; expected one JSON object a line")
        verifier = MathVerifier(
            extract=options.extract, timeout_s=options.timeout, num_workers=options.workers
        )
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    with verifier:
        begin = time.perf_counter()
        verdicts = grade_rows(rows, verifier, progress=True)
        seconds = time.perf_counter() - begin
    print(report(rows, verdicts, seconds))
    if options.out is not None:
        write_graded(options.out, rows, verdicts)
    return 0


if __name__ == "__main__":
    sys.exit(main())
