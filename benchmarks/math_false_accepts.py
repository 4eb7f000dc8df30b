r"""How often the math verifier pays for a different answer.

How to run:

    python benchmarks/math_false_accepts.py --data MATH.jsonl AIME.jsonl.gz --out out.csv
    python benchmarks/math_false_accepts.py --num-pairs 2000

It draws pairs of different answers: those of the files (field `answer`) and generated ones of the
kinds that files of harder problems hold (intervals, matrices, infinity, words, functions of n,
powers of e). A pair is two answers at random, two of the same shape, two of the same numbers, or
an answer and the same with one piece changed. Whether they differ is decided by the reader in
`latex_values.py`, which shares nothing with the verifier; where it knows neither "equal" nor
"different" the texts differ. Words that change a value (`million`, `AM`) make a difference; other
words alone do not, since units are ignored by decision. Every accepted pair is printed, to be
looked at: those that the reader calls different, those that differ in words alone, and the rest.
It writes one CSV row for each way of drawing. The exit code is 1 if a pair that the reader calls
different is accepted.
"""

from __future__ import annotations

import argparse
import collections
import csv
import gzip
import itertools
import json
import random
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from latex_values import difference

from prefix_rft_rllib.envs.verifiers import MathVerifier, Verdict

_NUMBER = re.compile(r"\d+(?:\.\d+)?")
_PIECE = re.compile(r"\\[a-zA-Z]+|\d+|[a-zA-Z]|[^\s]")
_FORMS = (
    *("({a},{b})", "[{a},{b}]", "({a},{b}]", "({a},\\infty)", "(-\\infty,{a})", "[{a},\\infty)"),
    *("(-\\infty,{a}]\\cup[{b},\\infty)", "({a},{b})\\cup({c},{d})", "\\infty", "-\\infty"),
    *("\\begin{{pmatrix}} {a} & {b} \\\\ {c} & {d} \\end{{pmatrix}}", "{a}x^2+{b}x+{c}"),
    *("\\begin{{pmatrix}} {a} \\\\ {b} \\end{{pmatrix}}", "\\{{{a},{b},{c}\\}}", "{a}, {b}, {c}"),
    *("\\text{{Yes}}", "\\text{{No}}", "\\emptyset", "\\text{{does not exist}}", "\\text{{True}}"),
    *("{a}n+{b}", "n^{a}-{b}", "\\frac{{n(n+{a})}}{{{b}}}", "{a}^n-{b}", "n!", "2^{{n-{a}}}"),
    *("e^{{{a}}}", "e^{{-{a}}}", "e^{{\\frac{{{a}}}{{{b}}}}}", "{a}e^{b}", "\\frac{{{a}}}{{e}}"),
    *(
        "\\frac{{{a}\\pi}}{{{b}}}",
        "\\frac{{\\pi^2}}{{{a}}}",
        "{a}\\pi",
        "\\ln {a}",
        "\\log_{a} {b}",
    ),
    *("\\sqrt{{{a}}}", "{a}\\sqrt{{{b}}}", "\\frac{{\\sqrt{{{a}}}}}{{{b}}}", "\\sqrt[3]{{{a}}}"),
    *("{a}+{b}i", "{a}-{b}i", "\\frac{{{a}}}{{{b}}}", "-\\frac{{{a}}}{{{b}}}", "{a}!", "-{a}"),
    *("x \\in [{a},{b}]", "{a} < x < {b}", "x \\ge {a}", "x > {a}", "x = {a}", "y = {a}"),
    *("x={a}, y={b}", "(x,y)=({a},{b})", "x \\equiv {a} \\pmod{{{b}}}", "{a}:{b}", "{a}_{b}"),
    *("\\binom{{{a}}}{{{b}}}", "0.\\overline{{{a}}}", "{a}.{b}", "{a}\\%", "{a}^\\circ"),
    *("\\sin {a}^\\circ", "\\cos {a}^\\circ", "\\cos {a}", "\\pm {a}", "{a} \\pm \\sqrt{{{b}}}"),
    *(
        "{a} \\text{{ or }} {b}",
        "{a} \\text{{ million}}",
        "{a} \\text{{ is even}}",
        "\\mathbb{{R}}",
    ),
    *(
        "\\mathbb{{R}} \\setminus \\{{{a}\\}}",
        "\\text{{({A})}}",
        "({A}) {a}",
        "{A}",
        "\\dfrac {a} {b}",
    ),
    *(
        "\\text{{at most }} {a}",
        "{a} \\text{{ PM}}",
        "{a} \\text{{ AM}}",
        "\\frac {a}{b}",
        "|x|<{a}",
    ),
)


_MEANING = re.compile(r"million|is even|AM|PM|at most|not ")
_CLASSES = {"different": "different", "words": "words", "unknown": "to look at"}
"""What an accepted pair is called."""


@dataclass(frozen=True)
class Pair:
    """Two different answers, and how they were drawn."""

    drawn: str
    gold: str
    answer: str
    relation: str


def generated_answer(rng: random.Random) -> str:
    """Return an answer of a kind that files of harder problems hold."""
    numbers = rng.sample(range(2, rng.choice((10, 100))), 4)
    form = rng.choice(_FORMS)
    if "x" in form or "(" in form or "[" in form:  # The bounds of intervals stand in order.
        numbers.sort()
    names = dict(zip("abcd", numbers, strict=True))
    return form.format(**names, A=rng.choice("ABCDE"))


def changed(answer: str, rng: random.Random) -> str:
    """Return an answer with one piece changed, left out, doubled or put elsewhere."""
    pieces = _PIECE.findall(answer)
    if not pieces:
        return answer
    at, other = rng.randrange(len(pieces)), rng.randrange(len(pieces))
    swaps = {
        **{"(": "[", "[": "(", ")": "]", "]": ")", "+": "-", "-": "+", "<": ">", ">": "<"},
        **{"\\sin": "\\cos", "\\cos": "\\sin", "\\ge": ">", "\\le": "<", "\\cup": "\\cap"},
        **{"\\sqrt": "", "\\infty": "-\\infty", "x": "y", "n": "m", "e": "2", "\\pi": "3"},
    }
    kind = rng.randrange(5)
    if kind == 0 or (kind == 1 and pieces[at] not in swaps):
        numbers = [i for i, piece in enumerate(pieces) if piece.isdecimal()]
        at = rng.choice(numbers or [at])
        step = rng.choice((-1, 1, 10))
        pieces[at] = str(abs(int(pieces[at]) + step)) if pieces[at].isdecimal() else ""
    elif kind == 1:
        pieces[at] = swaps[pieces[at]]
    elif kind == 2:
        pieces[at], pieces[other] = pieces[other], pieces[at]
    elif kind == 3:
        pieces[at] = ""
    else:
        before = rng.choice(("-", "2", "\\sqrt", "\\text{not }", "x", "1,"))
        many = "\\text{ million}" if any(map(str.isdigit, answer)) else ""
        after = rng.choice((many, "^2", "!", "x", ", 1", "\\text{ or } 1"))
        pieces = rng.choice(([before, *pieces], [*pieces, after]))
    return "".join(f"{piece} " if piece[:1] == "\\" else piece for piece in pieces)


def pairs(answers: Sequence[str], number: int, rng: random.Random) -> Iterator[Pair]:
    """Yield pairs that are not known to be equal, a quarter in each way of drawing."""
    by_shape, by_numbers = _groups(answers, _shape), _groups(answers, _numbers)
    ways: dict[str, Callable[[str], str]] = {
        "random": lambda _: rng.choice(answers),
        "same shape": lambda gold: rng.choice(by_shape[_shape(gold)]),
        "same numbers": lambda gold: rng.choice(by_numbers[_numbers(gold)]),
        "changed": lambda gold: changed(gold, rng),
    }
    seen: set[tuple[str, str]] = set()
    for name, draw in ways.items():
        found = tries = 0
        while found < number // len(ways) and tries < 100 * number:
            tries += 1
            gold = rng.choice(answers)
            answer = draw(gold)
            if (gold, answer) in seen or answer == gold or not _can_stand_in_a_box(answer):
                continue
            seen.add((gold, answer))
            relation = _relation(gold, answer)
            if relation != "equal":
                found += 1
                yield Pair(name, gold, answer, relation)


def _relation(gold: str, answer: str) -> str:
    """As `difference`; answers that differ in a word that changes the value are different."""
    relation = difference(gold, answer)
    meanings = [_MEANING.findall(text) for text in (gold, answer)]
    return "different" if relation == "words" and meanings[0] != meanings[1] else relation


def _can_stand_in_a_box(answer: str) -> bool:
    braces = re.sub(r"\\.", "", answer)
    depths = list(itertools.accumulate((b == "{") - (b == "}") for b in braces))
    return any(map(str.isalnum, answer)) and min(depths) >= 0 and depths[-1] == 0


def _groups(answers: Sequence[str], key: Callable[[str], str]) -> dict[str, list[str]]:
    groups = collections.defaultdict(list)
    for answer in answers:
        groups[key(answer)].append(answer)
    return groups


def _shape(answer: str) -> str:
    return _NUMBER.sub("#", answer).replace(" ", "")


def _numbers(answer: str) -> str:
    return " ".join(sorted(_NUMBER.findall(answer)))


def read_answers(paths: Sequence[Path], rng: random.Random, num_generated: int) -> list[str]:
    """Return the different answers of files and as many generated ones as asked for."""
    answers = {generated_answer(rng) for _ in range(num_generated)}
    for path in paths:
        opener = gzip.open if path.suffix == ".gz" else open
        with opener(path, "rt", encoding="utf-8", newline="\n") as file:
            answers |= {json.loads(line)["answer"] for line in file if line.strip()}
    return sorted(answers)


def main() -> int:
    """Grade pairs, print the accepted ones; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--data", type=Path, nargs="*", default=[], help="JSONL files of problems")
    parser.add_argument("--num-pairs", type=int, default=20_000)
    parser.add_argument("--num-generated", type=int, default=4_000, help="answers")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--out", type=Path, help="CSV file to write")
    options = parser.parse_args()
    rng = random.Random(options.seed)
    answers = read_answers(options.data, rng, options.num_generated)
    drawn = list(pairs(answers, options.num_pairs, rng))
    with MathVerifier(num_workers=options.workers) as verifier:
        verdicts = verifier.verify_batch(
            [rf"It is $\boxed{{{pair.answer}}}$." for pair in drawn],
            [pair.gold for pair in drawn],
            progress=sys.stderr.isatty(),
        )
    accepted: collections.Counter[tuple[str, str]] = collections.Counter()
    for pair, verdict in zip(drawn, verdicts, strict=True):
        if verdict == Verdict.CORRECT:
            accepted[pair.drawn, _CLASSES[pair.relation]] += 1
            print(f"{_CLASSES[pair.relation]}, {pair.drawn}: {pair.gold} ;; {pair.answer}")
    rows = [_row(name, drawn, verdicts, accepted) for name in dict.fromkeys(p.drawn for p in drawn)]
    for row in rows:
        print("  " + ", ".join(f"{name}={value}" for name, value in row.items()))
    if options.out is not None:
        with options.out.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
    return 1 if any(kind == "different" for _, kind in accepted) else 0


def _row(
    name: str,
    drawn: Sequence[Pair],
    verdicts: Sequence[Verdict],
    accepted: collections.Counter[tuple[str, str]],
) -> dict[str, str | int]:
    counts = collections.Counter(
        verdict for pair, verdict in zip(drawn, verdicts, strict=True) if pair.drawn == name
    )
    return {
        "drawn": name,
        "pairs": sum(counts.values()),
        "accepted": counts[Verdict.CORRECT],
        **{kind: accepted[name, kind] for kind in ("different", "words", "to look at")},
        **{str(verdict): counts[verdict] for verdict in Verdict if verdict != Verdict.CORRECT},
    }


if __name__ == "__main__":
    sys.exit(main())
