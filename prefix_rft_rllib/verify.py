r"""Grade a file of responses with the verifiers of mathematics, code and choices.

    python -m prefix_rft_rllib.verify FILE.jsonl[.gz] [--problems PROBLEMS.jsonl[.gz]]
        [--extract boxed|last] [--extract-code block|whole|block_or_whole] [--tolerance NUMBER]
        [--out GRADED.jsonl]

Each line of FILE is an object with `response` and what to grade it by:

* `gold`, a text, and `kind` "response" (the default): math, graded as in training, the answer
  taken from the last `\boxed{}` (`--extract boxed`) or from the last expression (`--extract last`);
* `gold` and `kind` "answer_pair": `response` and `gold` are two answers, which are compared;
* `gold` and `kind` "choice": multiple choice, `gold` a letter or the text of an option; options are
  read from `prompt`, if the row or its problem has one;
* `tests`, an object, and maybe `entry_point` and `prompt`: code, graded by running the tests;
* only `problem_id`: the problem of that id in PROBLEMS supplies `answer` or `tests`.

Rows of kind "format" are for no verifier: counted, not graded. `expected` (true or false, "pass"
or "fail") says whether the verdict should be CORRECT; rows where it is not so are listed. All other
fields are carried to `--out` unread.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import dataclasses
import json
import logging
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from prefix_rft_rllib.basics.text import end_of, one_line
from prefix_rft_rllib.envs.sandbox.output_comparison import DEFAULT_TOLERANCE
from prefix_rft_rllib.envs.sandbox.sandbox import ISOLATIONS
from prefix_rft_rllib.envs.verifiers import ChoiceVerifier, MathVerifier, Verdict
from prefix_rft_rllib.envs.verifiers.code_verifier import EXTRACTIONS, CodeResult, CodeVerifier
from prefix_rft_rllib.envs.verifiers.verify_rows import (
    CHOICE_KIND,
    CODE_KIND,
    MATH_KINDS,
    Row,
    open_text,
    read_problems,
    read_rows,
)

MATH_TIMEOUT_S, CODE_TIMEOUT_S = 5.0, 10.0

Outcome = Verdict | CodeResult | None


class Verifiers:
    """The verifiers that the rows of a file need, and no others.

    Args:
        rows: The rows.
        options: Of the command line.
    """

    def __init__(self, rows: Sequence[Row], options: argparse.Namespace):
        kinds = {row.kind for row in rows}
        self.math: MathVerifier | None = None
        self.code: CodeVerifier | None = None
        self.choice = ChoiceVerifier()
        if kinds & set(MATH_KINDS):
            self.math = MathVerifier(
                extract=options.extract,
                timeout_s=MATH_TIMEOUT_S if options.timeout is None else options.timeout,
                num_workers=options.workers,
            )
        if CODE_KIND in kinds:
            self.code = CodeVerifier(
                extract=options.extract_code,
                timeout_s=CODE_TIMEOUT_S if options.timeout is None else options.timeout,
                num_workers=options.workers,
                isolation=options.isolation,
                require_isolation=options.require_isolation,
                tolerance=options.tolerance,
                run_all=True,
            )

    def grade(self, row: Row) -> Outcome:
        """Grade one row; None where no verifier applies."""
        response = row.fields.get("response", "")
        if row.kind == CODE_KIND and self.code is not None:
            return self.code.verify(response, **row.problem)
        if row.kind == "response" and self.math is not None:
            return self.math.verify(response, row.fields["gold"])
        if row.kind == "answer_pair" and self.math is not None:
            return self.math.compare(row.fields["gold"], response)
        if row.kind == CHOICE_KIND:
            gold, prompt = row.fields["gold"], row.problem["prompt"]
            return self.choice.verify(response, gold, prompt).verdict
        return None

    @property
    def num_workers(self) -> int:
        """Rows that may be graded at a time."""
        return max([v.num_workers for v in (self.math, self.code) if v is not None], default=1)

    def close(self) -> None:
        """End the verifiers' processes."""
        for verifier in (self.math, self.code):
            if verifier is not None:
                verifier.close()


def grade_rows(rows: Sequence[Row], verifiers: Verifiers, progress: bool) -> list[Outcome]:
    """Grade rows, several at a time.

    Args:
        rows: The rows.
        verifiers: Those of the rows' kinds.
        progress: Show a progress bar on stderr.

    Returns:
        A verdict, or for code a result, for each row; None where no verifier applies.
    """
    from tqdm import tqdm

    with ThreadPoolExecutor(verifiers.num_workers) as executor:
        outcomes = executor.map(verifiers.grade, rows)
        return list(tqdm(outcomes, total=len(rows), unit="row", disable=not progress))


def verdict_of(outcome: Outcome) -> Verdict | None:
    """Return the verdict of an outcome."""
    return outcome.verdict if isinstance(outcome, CodeResult) else outcome


def report(rows: Sequence[Row], outcomes: Sequence[Outcome], seconds: float) -> str:
    """Return the summary the command prints: counts, disagreements, rate."""
    graded = [(row, item) for row, item in zip(rows, outcomes, strict=True) if item]
    counts = collections.Counter(str(verdict_of(outcome)) for _, outcome in graded)
    skipped = collections.Counter(row.kind for row in rows if not row.is_graded)
    labelled = [(row, outcome) for row, outcome in graded if row.expected is not None]
    disagreements = [pair for pair in labelled if not _agrees(*pair)]
    lines = [
        f"graded {len(graded)} rows in {seconds:.2f} s ({len(graded) / seconds:.1f} per second)"
    ]
    lines += [f"  {verdict:<12} {counts[verdict]:>7}" for verdict in Verdict]
    lines += [f"not applicable: {sum(skipped.values())} {dict(skipped) or ''}".rstrip()]
    levels = {outcome.isolation for _, outcome in graded if isinstance(outcome, CodeResult)} - {""}
    lines += [f"isolation of code: {', '.join(sorted(levels))}"] if levels else []
    if labelled:
        agreeing = len(labelled) - len(disagreements)
        share = 100 * agreeing / len(labelled)
        lines.append(f"agree with `expected`: {agreeing} of {len(labelled)} ({share:.2f}%)")
    lines += [_disagreement(*pair) for pair in disagreements]
    return "\n".join(lines)


def _disagreement(row: Row, outcome: Outcome) -> str:
    fields = row.fields
    label = f", {fields['label_class']}" if "label_class" in fields else ""
    if isinstance(outcome, CodeResult):
        reason = one_line(outcome.reason, 300)
        why = f"{reason}; test {_end(outcome.test)}, got {_end(outcome.got)}"
    else:
        why = f"gold {_end(fields['gold'])}, response {_end(fields['response'])}"
    return (
        f"  line {row.line}, id {fields.get('id', '-')} ({row.kind}{label}): "
        f"{verdict_of(outcome)}, expected {'CORRECT' if row.expected else 'not CORRECT'}; {why}"
    )


def _agrees(row: Row, outcome: Outcome) -> bool:
    return (verdict_of(outcome) is Verdict.CORRECT) == row.expected


def _end(text: str) -> str:
    return ascii(end_of(text, 60))


def write_graded(path: Path, rows: Sequence[Row], outcomes: Sequence[Outcome]) -> None:
    """Write the rows with `verdict` (null where not applicable) and `agrees` added.

    Code rows also get what the verifier found out: `reason`, `test`, `got`, `output`,
    `num_passed`, `num_tests`, `isolation`, `seconds`.
    """
    with open_text(path, "w") as file:
        for row, outcome in zip(rows, outcomes, strict=True):
            found = dataclasses.asdict(outcome) if isinstance(outcome, CodeResult) else {}
            agrees = None if outcome is None or row.expected is None else _agrees(row, outcome)
            verdict = verdict_of(outcome)
            verdict_name = None if verdict is None else verdict.value
            graded = {**row.fields, **found, "verdict": verdict_name, "agrees": agrees}
            file.write(json.dumps(graded) + "\n")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m prefix_rft_rllib.verify", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("file", type=Path, metavar="FILE.jsonl[.gz]")
    parser.add_argument("--problems", type=Path, help="answers and tests, by `problem_id`")
    parser.add_argument("--extract", choices=["boxed", "last"], default="boxed", help="of math")
    parser.add_argument("--extract-code", choices=EXTRACTIONS, default="block_or_whole")
    parser.add_argument(
        "--tolerance", type=float, default=DEFAULT_TOLERANCE, help="of numbers on stdout"
    )
    parser.add_argument("--isolation", choices=ISOLATIONS, default="auto", help="of code")
    parser.add_argument("--require-isolation", action="store_true", help="refuse to run without")
    parser.add_argument("--out", type=Path, metavar="GRADED.jsonl", help="write graded rows here")
    parser.add_argument("--timeout", type=float, help="seconds a row (math 5, code 10)")
    parser.add_argument("--workers", type=int, default=None, help="default: CPU cores, at most 4")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code: 0, or 2 if the input cannot be graded."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    options = _parser().parse_args(arguments)
    try:
        problems = read_problems(options.problems) if options.problems else {}
        rows = list(read_rows(options.file, problems))
        if not rows:
            raise ValueError(f"{options.file}: no rows; expected one JSON object a line")
        verifiers = Verifiers(rows, options)
    except (OSError, ValueError, RuntimeError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    with contextlib.closing(verifiers):
        begin = time.perf_counter()
        outcomes = grade_rows(rows, verifiers, progress=True)
        seconds = time.perf_counter() - begin
    print(report(rows, outcomes, seconds))
    if options.out is not None:
        write_graded(options.out, rows, outcomes)
    return 0


if __name__ == "__main__":
    sys.exit(main())
