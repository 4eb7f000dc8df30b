r"""Where a prefix has to end so that it does not give the answer away.

Short demonstrations state their answer early enough for a prefix to contain it; the rollout
would then earn the reward without any sampling. A prefix is therefore cut before the box whose
closing brace makes the verifier accept the text. In a choice problem letters that stand alone are
tried as well. In a code problem it is cut before the last line of the program, so that at least
this line has to be written.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Sequence
from typing import Any

from prefix_rft_rllib.envs.problems.problem import Problem
from prefix_rft_rllib.envs.problems.problem_set import ProblemSet
from prefix_rft_rllib.envs.prompts.prompting import decode_response
from prefix_rft_rllib.envs.verifiers.choice_verifier import CHOICE, letter_spans
from prefix_rft_rllib.envs.verifiers.code_extraction import extract_code
from prefix_rft_rllib.envs.verifiers.code_tests import is_task
from prefix_rft_rllib.envs.verifiers.grading import is_accepted, is_undecided, outcome_name
from prefix_rft_rllib.envs.verifiers.math_answers import closing_brace

logger = logging.getLogger(__name__)

_BOX = re.compile(r"\\(?:f?boxed|fbox)(?![a-zA-Z])\s*(?:(?P<brace>\{)|[^\s{}$\\]+)")
_UNFINISHED_CHARACTER = "\ufffd"


def answer_cut(
    problem_set: ProblemSet,
    problem_id: str,
    demonstration_index: int,
    warn: Callable[[str], None] = logger.warning,
) -> int | None:
    """Return how many tokens of a demonstration end before its accepted answer begins.

    Only the closings of boxes are graded, in a choice problem also the ends of letters that stand
    alone, in their order in the text. A place at which the verifier runs out of time or fails may
    hold the answer and counts as accepted.

    Args:
        problem_set: The problems and their verifier.
        problem_id: A problem of the set.
        demonstration_index: Which of its demonstrations.
        warn: Called with a sentence if the cut is at a place without a verdict.

    Returns:
        The largest number of leading tokens whose text does not reach into the box command (the
        letter), 0 if the demonstration begins with it; None if none is accepted. For code: whose
        text does not reach into the program's last line; None without a program.

    Raises:
        ValueError: If there is no such problem or demonstration.
    """
    problem = problem_set.by_id(problem_id)
    token_ids = problem_set.demonstration(problem_id, demonstration_index)
    text = problem_set.response_text(token_ids)
    start = last_code_line(text) if is_task(problem.answer) else None
    for answer_start, answer_end in _answers(problem_set, problem, text):
        outcome = problem_set.grader.grade(text[:answer_end], problem)
        if is_undecided(outcome):
            warn(
                f"The verdict of a box in demonstration {demonstration_index} of problem "
                f"{problem_id!r} is {outcome_name(outcome)}. Prefixes of it are cut before that "
                "box, in case it holds the answer."
            )
        if is_accepted(outcome) or is_undecided(outcome):
            start = answer_start
            break
    return None if start is None else num_tokens_before(problem_set.tokenizer, token_ids, start)


def _answers(problem_set: ProblemSet, problem: Problem, text: str) -> list[tuple[int, int]]:
    """Return the places that may give the answer of a problem without tests away."""
    if is_task(problem.answer):
        return []
    names = (problem_set.settings.verifier, problem.domain)
    letters = letter_spans(text) if names[0] == CHOICE or names == ("domain", CHOICE) else []
    return sorted(boxes(text) + letters, key=lambda span: (span[1], span[0]))


def boxes(text: str) -> list[tuple[int, int]]:
    r"""Find every finished box, as the verifier reads boxes.

    These are `\boxed{...}` and `\fbox{...}` with balanced braces, and `\boxed 5` without any.

    Args:
        text: Any text; escaped braces do not count.

    Returns:
        Pairs (position of the backslash, position after the closing brace or the bare content),
        ordered by the second. A box inside another one is listed with the start of the outermost:
        what follows that start belongs to the answer.
    """
    found: list[tuple[int, int]] = []
    for match in _BOX.finditer(text):
        if match.group("brace"):
            closing = closing_brace(text, match.end() - 1)
            end = None if closing is None else closing + 1
        else:
            end = match.end()
        if end is not None:
            outer = next((start for start, outer_end in found if end <= outer_end), match.start())
            found.append((outer, end))
    return sorted(found, key=lambda box: box[1])


def last_code_line(text: str) -> int | None:
    """Return where the last line of a response's program begins; None without a program."""
    code = extract_code(text, "block_or_whole")
    if code is None:
        return None
    program = code.rstrip()
    return text.rindex(code) + program.rfind("\n") + 1


def num_tokens_before(tokenizer: Any, token_ids: Sequence[int], position: int) -> int:
    """Return the largest number of leading tokens whose text ends at or before a position.

    Args:
        tokenizer: The tokenizer of the ids.
        token_ids: Tokens of a text.
        position: Character position in the decoded text.

    Returns:
        The number of tokens. A token that covers characters on both sides of the position does
        not count.
    """
    low, high = 0, len(token_ids)
    while low < high:  # the decoded length never falls when tokens are added
        middle = (low + high + 1) // 2
        text = decode_response(tokenizer, token_ids[:middle])
        if len(text.rstrip(_UNFINISHED_CHARACTER)) <= position:
            low = middle
        else:
            high = middle - 1
    return low
