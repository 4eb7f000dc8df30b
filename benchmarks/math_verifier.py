r"""Speed and robustness of the math verifier.

How to run:

    python benchmarks/math_verifier.py speed --out speed.csv
    python benchmarks/math_verifier.py speed --data FILE.jsonl --out speed.csv
    python benchmarks/math_verifier.py fuzz --num-strings 10000 --timeout 0.5

`speed` takes the answers of a JSONL file of problems (field `answer`), or without `--data`
those of generated word problems, which are whole numbers. It grades each answer twice: in other
parentheses, which a worker must parse, and against the next problem's answer (two plain integers
need no worker). It prints and writes one CSV row for single calls and one for a batch:
verifications per second, p50 and p99 of the time of one call in milliseconds.

`fuzz` grades generated strings (random LaTeX fragments, nesting, long digits, powers,
Unicode, control characters, prose) as boxed responses and as whole responses, and counts
crashes (verdict ERROR) and late verdicts (later than the limit + 0.5 s). Its exit code is
1 if there is one.
"""

from __future__ import annotations

import argparse
import collections
import csv
import gzip
import json
import platform
import random
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from prefix_rft_rllib.envs.toy.toy_arithmetic import generate_rows
from prefix_rft_rllib.envs.verifiers import MathVerifier, Verdict

GENERATED = "toy_arithmetic"
"""Name of the generated problems in the table."""
ATOMS = (
    *"0123456789xyabnkeiπ∞√½²\u2212\u00d7÷·≤∅°\u2032",
    *("10", "24", "3.14", "0.001", "1,000", "99999999999999999999", "-7", "1e5", "50\\%"),
    *(r"\pi", r"\theta", r"\infty", r"\emptyset", r"\alpha_1", r"\mathbb{R}", r"\$", r"\ldots"),
    *(r"\text{cm}", r"\text{ or }", r"\mathrm{e}", r"\text{Monday}", "and", "answer", "apples"),
    *("\u2028", "\u00a0", "\x00", "\ud83d\ude00", "\ud800", "漢", "\u202e", "\t", "\n", "\\", "$"),
)
OPERATORS = (
    *("+", "-", "*", "/", "^", "_", "=", "<", ">", ",", ";", ":", "!", " ", "|", "&", ".", "%"),
    *(r"\cdot ", r"\times ", r"\pm ", r"\le ", r"\neq ", r"\approx ", r"\in ", r"\cup ", r"\\"),
    *(r"\pmod", r"\to ", r"\quad ", r"\bmod ", r"\equiv ", "**", "//"),
)
WRAPPERS = (
    *("{{{}}}", "({})", "[{})", r"\{{{}\}}", "|{}|", "${}$", r"\[{}\]", r"\({}\)", "{{{}", "{}}}"),
    *(
        r"\frac{{{}}}{{2}}",
        r"\frac{{1}}{{{}}}",
        r"\sqrt{{{}}}",
        r"\sqrt[3]{{{}}}",
        "({})!",
        "2^{{{}}}",
    ),
    *("9^{{9^{{{}}}}}", r"\sin({})", r"\log_{{2}}{{{}}}", r"\binom{{{}}}{{3}}", r"\boxed{{{}}}"),
    *(r"\sum_{{i=1}}^{{{}}} i", r"\int_0^1 {} dx", r"\text{{{}}}", r"\left({}\right)", "x={}"),
    *(r"\begin{{pmatrix}}{}\\1\end{{pmatrix}}", r"\lim_{{x\to 0}} {}", r"\overline{{{}}}"),
)


def fuzzed_answer(generator: random.Random) -> str:
    """Return one hostile or at least strange answer; equal generators give equal strings."""
    shape = generator.random()
    if shape < 0.02:
        return generator.choice("9({$-a\\") * generator.randint(100, 20_000)
    if shape < 0.04:
        wrapper, depth = generator.choice(WRAPPERS), generator.randint(5, 60)
        text = generator.choice(ATOMS)
        for _ in range(depth):
            text = wrapper.format(text)
        return text
    if shape < 0.06:
        digits = str(generator.randrange(10 ** generator.randint(1, 3000)))
        return digits + generator.choice(("", "!", "^{" + digits[:20] + "}", "." + digits))
    text = ""
    for _ in range(generator.randint(1, 8)):
        piece = generator.choice(ATOMS)
        for _ in range(generator.choice((0, 0, 0, 1, 1, 2, 4))):
            piece = generator.choice(WRAPPERS).format(piece)
        text += piece + generator.choice(OPERATORS) * generator.choice((0, 1, 1))
    return text


def run_fuzz(options: argparse.Namespace) -> int:
    """Grade fuzzed strings; return the number of crashes and late verdicts."""
    generator = random.Random(options.seed)
    golds = ("24", r"\frac{1}{2}", r"3\sqrt{13}", "x^2+1", r"\{1, 2\}", "(0, 1]", "x = 5", "0.333")
    counts: collections.Counter[str] = collections.Counter()
    slowest, late = 0.0, 0
    with (
        MathVerifier(timeout_s=options.timeout, num_workers=options.workers) as boxed,
        MathVerifier(
            extract="last", timeout_s=options.timeout, num_workers=options.workers
        ) as last,
        ThreadPoolExecutor(options.workers) as executor,
    ):
        cases = []
        for index in range(options.num_strings):
            answer = fuzzed_answer(generator)
            gold = generator.choice(golds) if index % 5 else fuzzed_answer(generator)
            is_boxed = index % 4 != 3
            response = rf"Thus it is $\boxed{{{answer}}}$." if is_boxed else f"It is {answer}"
            cases.append((boxed if is_boxed else last, response, gold))

        def timed(case: tuple[MathVerifier, str, str]) -> tuple[Verdict, float]:
            verifier, response, gold = case
            begin = time.perf_counter()
            verdict = verifier.verify(response, gold)
            return verdict, time.perf_counter() - begin

        for (_, response, gold), (verdict, seconds) in zip(
            cases, executor.map(timed, cases), strict=True
        ):
            # An unreadable gold answer is an ERROR by definition, not a crash.
            is_crash = verdict is Verdict.ERROR and boxed.check_answer(gold)
            counts["crash" if is_crash else verdict.value] += 1
            late += seconds > options.timeout + 0.5
            slowest = max(slowest, seconds)
            if is_crash or seconds > options.timeout + 0.5:
                print(f"{verdict} after {seconds:.2f} s: {response!a:.200} gold {gold!a:.100}")
    print(f"{options.num_strings} strings, seed {options.seed}, limit {options.timeout} s:")
    print(f"  {dict(counts)}; slowest {slowest:.3f} s; late (limit + 0.5 s): {late}")
    return 1 if counts["crash"] or late else 0


def run_speed(options: argparse.Namespace) -> int:
    """Measure single calls and batches; write a CSV row for each."""
    answers = read_answers(options.data, options.num_answers)
    name = GENERATED if options.data is None else options.data.name
    pairs = [(rf"So it is $\boxed{{\left({answer}\right)}}$.", answer) for answer in answers]
    pairs += [
        (rf"So it is $\boxed{{{wrong}}}$.", answer)
        for answer, wrong in zip(answers, answers[1:] + answers[:1], strict=True)
    ]
    rows = []
    with MathVerifier(num_workers=options.workers) as verifier:
        seconds = []
        for response, answer in pairs:
            begin = time.perf_counter()
            verifier.verify(response, answer)
            seconds.append(time.perf_counter() - begin)
        rows.append(csv_row(name, "single", seconds, sum(seconds), len(pairs)))
        begin = time.perf_counter()
        verdicts = verifier.verify_batch(*zip(*pairs, strict=True))
        total = time.perf_counter() - begin
        mode = f"batch, {options.workers} workers"
        rows.append(csv_row(name, mode, [], total, len(pairs)))
    print(f"{len(pairs)} verifications: {dict(collections.Counter(map(str, verdicts)))}")
    for row in rows:
        print("  " + ", ".join(f"{name}={value}" for name, value in row.items()))
    if options.out is not None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        with open(options.out, "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
    return 0


def read_answers(path: Path | None, number: int) -> list[str]:
    """Return the first answers of a JSONL file (also .gz), or of generated word problems."""
    if path is None:
        rows = generate_rows(num_problems=number, min_clauses=2, max_clauses=6, seed=0)
        return [row["answer"] for row in rows]
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rt", encoding="utf-8", newline="\n") as file:
        return [json.loads(line)["answer"] for line in file if line.strip()][:number]


def csv_row(
    data: str, mode: str, seconds: Sequence[float], total: float, number: int
) -> dict[str, str | int]:
    """Return one line of the table; times in milliseconds."""
    ordered = sorted(seconds)
    milliseconds = [
        f"{1000 * ordered[int(quantile * (len(ordered) - 1))]:.2f}" if ordered else ""
        for quantile in (0.5, 0.99, 1.0)
    ]
    return {
        "data": data,
        "mode": mode,
        "verifications": number,
        "per_second": f"{number / total:.1f}",
        "p50_ms": milliseconds[0],
        "p99_ms": milliseconds[1],
        "max_ms": milliseconds[2],
        "python": platform.python_version(),
    }


def main() -> int:
    """Run the chosen benchmark; return its exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--workers", type=int, default=2)
    commands = parser.add_subparsers(dest="command", required=True)
    speed = commands.add_parser("speed")
    speed.add_argument("--data", type=Path, help="JSONL with a field `answer`; default generated")
    speed.add_argument("--num-answers", type=int, default=500)
    speed.add_argument("--out", type=Path, help="CSV file to write")
    fuzz = commands.add_parser("fuzz")
    fuzz.add_argument("--num-strings", type=int, default=10_000)
    fuzz.add_argument("--seed", type=int, default=0)
    fuzz.add_argument("--timeout", type=float, default=0.5)
    options = parser.parse_args()
    return run_speed(options) if options.command == "speed" else run_fuzz(options)


if __name__ == "__main__":
    sys.exit(main())
