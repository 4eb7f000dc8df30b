"""Check data, tokenizer and verifier before training, and show what the model will read.

    python -m prefix_rft_rllib.preflight --data FILE --tokenizer DIRECTORY

Every gold answer must be gradeable and every text must survive the tokenizer: otherwise training
could not work, and the preflight raises. Demonstrations that the verifier does not accept are
legitimate data (flawed demonstrations); they are counted and listed.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from prefix_rft_rllib.basics.command_line import json_object
from prefix_rft_rllib.basics.text import (
    LINE_ABOUT_THE_MIDDLE,
    first_of,
    without_controls,
    without_middle,
)
from prefix_rft_rllib.envs.demonstrations.facts import DemonstrationFacts
from prefix_rft_rllib.envs.problems import Problem, ProblemSet, load_problem_set
from prefix_rft_rllib.envs.problems.lossless import decoded_texts
from prefix_rft_rllib.envs.prompts.prompting import decode_all
from prefix_rft_rllib.envs.verifiers.grading import (
    Outcome,
    is_accepted,
    outcome_name,
    refuses_answer,
)
from prefix_rft_rllib.envs.verifiers.verdict import Verdict

_NUM_LISTED = 5
_TOKENIZER_HELP = "directory of the model or tokenizer, or 'org/name@revision' of the hub"
_NUM_SHOWN_CHARACTERS = 1200


@dataclass(frozen=True, kw_only=True)
class RejectedDemonstration:
    """A demonstration that the verifier does not accept.

    Attributes:
        problem_id: Its problem.
        source: "file:line" of the demonstration.
        verdict: The verdict's name, or "SCORED" for a number that is not above 0.
    """

    problem_id: str
    source: str
    verdict: str


@dataclass(frozen=True, kw_only=True)
class PreflightReport:
    """What the preflight found.

    Attributes:
        counts: The counts of the problem set.
        num_problems: Problems of all splits; the gold answer of each was checked.
        num_ungradeable: Gold answers that the verifier does not accept in a box. With the math
            verifier only those at which it failed or ran out of time: others are an error.
        verdicts: Number of demonstrations by verdict name.
        rejected: The demonstrations that are not accepted, in file order.
        prompt: One whole prompt, decoded, special tokens written out.
        prefix: The first tokens of a demonstration as they follow that prompt in a prefix state,
            decoded; None if there is no demonstration.
        num_prefix_tokens: Tokens of `prefix`.
        seconds: Wall time of the checks.
    """

    counts: Mapping[str, int]
    num_problems: int
    num_ungradeable: int
    verdicts: Mapping[str, int]
    rejected: Sequence[RejectedDemonstration]
    prompt: str
    prefix: str | None
    num_prefix_tokens: int
    seconds: float

    def render(self) -> str:
        """Return the report as text for a terminal."""
        num_demonstrations = sum(self.verdicts.values())
        lines = [
            f"Preflight: {self.num_problems} problems, {num_demonstrations} demonstrations, "
            f"{self.seconds:.1f} s",
            "  counts: " + ", ".join(f"{without_controls(k)} {v}" for k, v in self.counts.items()),
            f"  gold answers: {self.num_problems - self.num_ungradeable} of {self.num_problems} "
            "gradeable",
            "  demonstrations: "
            + (", ".join(f"{k} {v}" for k, v in sorted(self.verdicts.items())) or "none"),
        ]
        num_repeating = self.counts.get("demonstrations_repeating_the_prompt", 0)
        if num_repeating:
            lines.append(
                f"  warning: {num_repeating} demonstrations begin with a tag that the chat "
                "template has already opened, such as <think>; "
                "env_config['drop_template_overlap']=True drops it from them."
            )
        if self.rejected:
            lines.append(
                f"  warning: {len(self.rejected)} of {num_demonstrations} demonstrations are not "
                "accepted by the verifier; prefixes of them may mislead."
            )
            for item in self.rejected[:_NUM_LISTED]:
                where = f"{item.source} ({item.problem_id})"
                lines.append(f"    {without_controls(where)}: {item.verdict}")
            if len(self.rejected) > _NUM_LISTED:
                lines.append(f"    ... and {len(self.rejected) - _NUM_LISTED} more")
        lines += ["One prompt, as the model reads it:", _indented(self.prompt)]
        if self.prefix is not None:
            lines += [
                f"It is followed by a prefix ({self.num_prefix_tokens} tokens here) in a prefix "
                "state:",
                _indented(self.prefix),
            ]
        return "\n".join(lines)


def preflight(problem_set: ProblemSet, *, progress: bool = True) -> PreflightReport:
    """Check every prompt, answer and demonstration of a problem set.

    Args:
        problem_set: From `load_problem_set`.
        progress: Show progress bars on stderr.

    Returns:
        The report.

    Raises:
        ValueError: If the tokenizer loses text, or the math verifier cannot grade against a gold
            answer (the first places are named by file and line), or the verifier does not work.
    """
    started = time.perf_counter()
    problems = problem_set.problems
    check_lossless(problem_set)
    answers = problem_set.grader.grade_answers(problems, "gold answers" if progress else None)
    _check_answers(problem_set, answers)
    demonstrations, rejected = _grade_demonstrations(problem_set, progress)
    _check_verifier(problem_set, answers, demonstrations)
    shown = next((p for p in problems if p.demonstration_ids), problems[0])
    prefix_ids = _example_prefix(problem_set, shown)
    prompt, prefix = decode_all(
        problem_set.tokenizer, [shown.prompt_ids, prefix_ids], skip_special_tokens=False
    )
    return PreflightReport(
        counts=problem_set.counts,
        num_problems=len(problems),
        num_ungradeable=sum(not is_accepted(outcome) for outcome in answers),
        verdicts=Counter(map(outcome_name, demonstrations)),
        rejected=rejected,
        prompt=prompt,
        prefix=prefix if shown.demonstration_ids else None,
        num_prefix_tokens=len(prefix_ids),
        seconds=time.perf_counter() - started,
    )


def check_lossless(problem_set: ProblemSet) -> None:
    """Check that decode(encode(text)) equals every prompt, demonstration and boxed answer.

    Blanks at both ends and beside special tokens are left out of the comparison: tokenizers put
    them there, or drop them, by themselves.

    Raises:
        ValueError: If a text changes; names file, line and the lost piece of the first.
    """
    texts = decoded_texts(problem_set.problems, problem_set.renderers, problem_set.tokenizer)
    changed = [text for text in texts if text.is_changed]
    if changed:
        first = changed[0]
        raise ValueError(
            f"{first.place}: field {first.field_name!r}: the tokenizer loses text: {first.lost}. "
            f"{len(changed)} of {len(texts)} texts are changed by decode(encode(text)). Use a "
            "tokenizer that keeps every text (byte-level, or with byte fallback and without a "
            "normalizer), mend the data, or set filters=['changed_by_tokenizer'] to drop and count "
            "such problems and demonstrations."
        )


def _check_answers(problem_set: ProblemSet, outcomes: Sequence[Outcome]) -> None:
    problems, verifier = problem_set.problems, problem_set.settings.verifier
    bad = [
        problem
        for problem, outcome in zip(problems, outcomes, strict=True)
        if refuses_answer(outcome, problem, verifier)
    ]
    if bad and verifier in ("math", "choice", "domain"):
        places = [f"{p.source}: field 'answer' is {p.answer!r}" for p in bad]
        listed = first_of(places, _NUM_LISTED, "; ")
        raise ValueError(
            f"{len(bad)} of {len(problems)} gold answers cannot be graded: {listed}. "
            "Mend them, or set filters=['no_parseable_answer'] to drop and count such problems."
        )


def _check_verifier(
    problem_set: ProblemSet, answers: Sequence[Outcome], demonstrations: Sequence[Outcome]
) -> None:
    """Raise if nothing is accepted because the verifier fails everywhere."""
    if any(map(is_accepted, [*answers, *demonstrations])):
        return
    for name, outcomes in (("demonstration", demonstrations), ("gold answer", answers)):
        if outcomes and set(outcomes) == {Verdict.ERROR}:
            failures = problem_set.grader.failures.items()
            reasons = "; ".join(f"{kind}: {text}" for kind, text in failures)
            raise ValueError(
                f"The verifier {problem_set.settings.verifier!r} does not work: its verdict is "
                f"ERROR for every {name} ({len(outcomes)}), and it accepts nothing else either. "
                f"It raised {reasons or 'no exception'}. Mend the verifier or its verifier_config."
            )


def _grade_demonstrations(
    problem_set: ProblemSet, progress: bool
) -> tuple[list[Outcome], list[RejectedDemonstration]]:
    """Grade every demonstration as the text that its token ids decode to."""
    owners = [p for p in problem_set.problems for _ in p.demonstration_ids]
    sources = [source for p in problem_set.problems for source in p.demonstration_sources]
    without_end = problem_set.end_tokens.without
    rows = [
        without_end(token_ids) for p in problem_set.problems for token_ids in p.demonstration_ids
    ]
    texts = decode_all(problem_set.tokenizer, rows, skip_special_tokens=True)
    outcomes = problem_set.grader.grade_many(texts, owners, "demonstrations" if progress else None)
    rejected = [
        RejectedDemonstration(
            problem_id=owner.problem_id, source=source, verdict=outcome_name(outcome)
        )
        for owner, source, outcome in zip(owners, sources, outcomes, strict=True)
        if not is_accepted(outcome)
    ]
    return outcomes, rejected


def _example_prefix(problem_set: ProblemSet, problem: Problem) -> Sequence[int]:
    """Return half of a problem's first demonstration, cut before its answer if the settings say."""
    if not problem.demonstration_ids:
        return ()
    num_tokens = len(problem.demonstration_ids[0]) // 2
    cut = DemonstrationFacts(problem_set).answer_cut(problem.problem_id, 0)
    num_tokens = num_tokens if cut is None else min(num_tokens, cut)
    return problem.demonstration_ids[0][:num_tokens]


def _indented(text: str) -> str:
    """Mark the lines of a shown text, the middle of a long one left out."""
    text = without_middle(text, _NUM_SHOWN_CHARACTERS, LINE_ABOUT_THE_MIDDLE)
    return "\n".join(f"  | {without_controls(line)}" for line in text.split("\n"))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the preflight from a command line; returns the exit code (1 for a user's mistake)."""
    parser = argparse.ArgumentParser(
        prog="python -m prefix_rft_rllib.preflight",
        description="Check problems, tokenizer and verifier before training.",
    )
    parser.add_argument(
        "--data", nargs="+", required=True, help="files, datasets, functions that give rows"
    )
    parser.add_argument("--tokenizer", required=True, help=_TOKENIZER_HELP)
    parser.add_argument("--max-prompt-tokens", type=int)
    parser.add_argument("--max-response-tokens", type=int)
    parser.add_argument(
        "--env-config",
        type=json_object,
        default={},
        help='further env_config keys as JSON, for example \'{"fields": {"answer": "gold"}}\'',
    )
    options = parser.parse_args(arguments)
    env_config: dict[str, Any] = {
        **options.env_config,
        "data": options.data if len(options.data) > 1 else options.data[0],
        "tokenizer": options.tokenizer,
    }
    for key in ("max_prompt_tokens", "max_response_tokens"):
        if getattr(options, key) is not None:
            env_config[key] = getattr(options, key)
    try:
        report = preflight(load_problem_set(env_config))
    except ValueError as error:
        print(f"error: {without_controls(str(error))}", file=sys.stderr)
        return 1
    print(report.render())
    return 0


if __name__ == "__main__":
    sys.exit(main())
