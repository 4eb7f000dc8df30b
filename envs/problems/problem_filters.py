"""Filters that need token ids or the verifier, and demonstrations that repeat the prompt's end."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from prefix_rft_rllib.envs.problems.lossless import decoded_texts
from prefix_rft_rllib.envs.problems.problem import TRAIN, Problem
from prefix_rft_rllib.envs.prompts.prompt_renderer import PromptRenderers
from prefix_rft_rllib.envs.prompts.template_overlap import overlap_length
from prefix_rft_rllib.envs.rows.row_fields import RawProblem
from prefix_rft_rllib.envs.settings import EnvSettings
from prefix_rft_rllib.envs.verifiers.grading import Grader, refuses_answer

logger = logging.getLogger(__name__)


def settle_overlaps(
    raw: Sequence[RawProblem],
    prompts: Sequence[str],
    settings: EnvSettings,
    counts: Counter[str],
) -> None:
    """Drop, or warn of, what demonstrations repeat of the tags that end the prompt.

    Args:
        raw: The problems; where `drop_template_overlap` is set, their demonstrations are changed.
        prompts: Each as the model reads it.
        settings: Of the environment; a source's own count for it.
        counts: Demonstrations are added to it.
    """
    own = [settings.of_source(source) for source in settings.sources]
    first: tuple[str, str] | None = None
    num_kept = 0
    for item, prompt in zip(raw, prompts, strict=True):
        drops = own[item.source_number].drop_template_overlap
        texts, sources = [], []
        for text, source in zip(item.demonstration_texts, item.demonstration_sources, strict=True):
            length = overlap_length(prompt, text)
            if length and drops:
                counts["template_overlaps_dropped"] += 1
                text = text[length:]
            elif length:
                num_kept += 1
                first = first or (source, text[:length])
            if text.strip():
                texts.append(text)
                sources.append(source)
            else:
                counts["demonstrations_blank"] += 1
        item.demonstration_texts, item.demonstration_sources = texts, sources
    if first:
        counts["demonstrations_repeating_the_prompt"] += num_kept
        logger.warning(
            "%s: field 'demonstration' begins with %r, which the chat template has already opened "
            "at the end of the prompt (%d demonstrations do so): the model would read it twice. "
            "Set env_config['drop_template_overlap']=True to drop it from the demonstrations, or "
            "choose a template without it (chat_template_kwargs).",
            *first,
            num_kept,
        )


def unchanged_by_tokenizer(
    problems: list[Problem],
    renderers: PromptRenderers,
    tokenizer: Any,
    settings: EnvSettings,
    counts: Counter[str],
) -> list[Problem]:
    """Apply the filter "changed_by_tokenizer".

    Args:
        problems: With their token ids.
        renderers: How their prompts are written.
        tokenizer: Of their token ids.
        settings: Of the environment; a source's own filters count for it.
        counts: Dropped problems and demonstrations are added to it.

    Returns:
        The problems whose prompt and answer come back from the tokenizer as they were, with the
        demonstrations that do; of sources without the filter all.
    """
    filtered = _filtered_sources("changed_by_tokenizer", settings)
    chosen = [n for n, p in enumerate(problems) if p.source_number in filtered]
    dropped: set[int] = set()
    changed: set[tuple[int, str]] = set()
    for kept in decoded_texts([problems[n] for n in chosen], renderers, tokenizer):
        if kept.is_changed and kept.field_name == "demonstration":
            changed.add((chosen[kept.problem], kept.text))
        elif kept.is_changed:
            dropped.add(chosen[kept.problem])
    counts["dropped_changed_by_tokenizer"] += len(dropped)
    needed = _filtered_sources("no_demonstration", settings)
    left = []
    for number, problem in enumerate(problems):
        if number in dropped:
            continue
        keeps = [(number, text) not in changed for text in problem.demonstration_texts]
        counts["demonstrations_changed_by_tokenizer"] += keeps.count(False)
        is_needed = problem.split == TRAIN and problem.source_number in needed
        if is_needed and not any(keeps):
            counts["dropped_no_demonstration"] += 1
        else:
            left.append(problem if all(keeps) else _with_demonstrations(problem, keeps))
    return left


def with_gradeable_answer(
    problems: list[Problem], settings: EnvSettings, counts: Counter[str]
) -> list[Problem]:
    """Apply the filter "no_parseable_answer" to gold answers.

    Refused answers only are dropped: every process has to keep the same problems.
    """
    filtered = _filtered_sources("no_parseable_answer", settings)
    graded = [p for p in problems if p.source_number in filtered]
    outcomes = Grader(settings.verifier, settings.verifier_config).grade_answers(graded)
    refused = {
        id(problem)
        for problem, outcome in zip(graded, outcomes, strict=True)
        if refuses_answer(outcome, problem, settings.verifier)
    }
    counts["dropped_no_parseable_answer"] += len(refused)
    return [p for p in problems if id(p) not in refused]


def has_filter(name: str, settings: EnvSettings) -> bool:
    """Whether any source has a filter."""
    return bool(_filtered_sources(name, settings))


def _filtered_sources(name: str, settings: EnvSettings) -> set[int]:
    sources = enumerate(settings.sources)
    return {n for n, source in sources if name in settings.of_source(source).filters}


def _with_demonstrations(problem: Problem, keeps: Sequence[bool]) -> Problem:
    def kept(values: Sequence[Any]) -> tuple[Any, ...]:
        return tuple(value for value, keep in zip(values, keeps, strict=True) if keep)

    return replace(
        problem,
        demonstration_ids=kept(problem.demonstration_ids),
        demonstration_texts=kept(problem.demonstration_texts),
        demonstration_sources=kept(problem.demonstration_sources),
    )
