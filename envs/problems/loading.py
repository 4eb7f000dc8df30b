"""Problem sets are loaded once per process, or received from another one."""

from __future__ import annotations

import json
import threading
from collections import Counter, OrderedDict
from collections.abc import Mapping
from dataclasses import asdict
from itertools import compress
from typing import Any

from prefix_rft_rllib.basics.hub_models import model_directory
from prefix_rft_rllib.envs.problems.problem import TRAIN, Problem
from prefix_rft_rllib.envs.problems.problem_filters import (
    has_filter,
    settle_overlaps,
    unchanged_by_tokenizer,
    with_gradeable_answer,
)
from prefix_rft_rllib.envs.problems.problem_set import ProblemSet
from prefix_rft_rllib.envs.problems.raw_problems import read_problems
from prefix_rft_rllib.envs.problems.subsets import keep_demonstrations, split_off, without_clashes
from prefix_rft_rllib.envs.prompts.assistant_turns import DemonstrationEncoders
from prefix_rft_rllib.envs.prompts.end_tokens import declared_end_ids
from prefix_rft_rllib.envs.prompts.prompt_renderer import PromptRenderers
from prefix_rft_rllib.envs.prompts.prompting import TOKENIZER, load_tokenizer, smallest_vocab_size
from prefix_rft_rllib.envs.rows.problem_rows import fingerprint
from prefix_rft_rllib.envs.rows.row_fields import RawProblem
from prefix_rft_rllib.envs.settings import EnvSettings

_NUM_CACHED_SETS = 8

_cache: OrderedDict[str, ProblemSet] = OrderedDict()
_received: dict[str, ProblemSet] = {}
_cache_lock = threading.Lock()


def receive_problem_set(problem_set: ProblemSet) -> None:
    """Let `load_problem_set` give this set in this process, without reading any file.

    For processes without the data: another one has loaded the set and sent it here.

    Args:
        problem_set: The set, for its own settings.
    """
    with _cache_lock:
        _received[_key(problem_set.settings)] = problem_set


def load_problem_set(env_config: Mapping[str, Any]) -> ProblemSet:
    """Load, merge, tokenise, filter and split problems.

    The set is cached in this process for an equal `env_config` and unchanged files; it is shared,
    so treat it as read-only. A set that `receive_problem_set` was given is not loaded again.

    Args:
        env_config: Plain data; `docs/problems.md` lists the keys.

    Returns:
        The problems with their tokenizer.

    Raises:
        ValueError: If a setting is wrong, a source or the tokenizer cannot be read, a row is bad
            (file, line and field are named), a prompt is over budget, or no training problem is
            left.
    """
    settings = EnvSettings.from_config(env_config)
    with _cache_lock:
        received = _received.get(_key(settings))
        if received is not None:
            return received
        key = _key([asdict(settings), [fingerprint(s) for s in settings.sources]])
        if key not in _cache:
            _cache[key] = _load(settings)
            while len(_cache) > _NUM_CACHED_SETS:
                _cache.popitem(last=False)
        _cache.move_to_end(key)
        return _cache[key]


def _key(settings: Any) -> str:
    value = asdict(settings) if isinstance(settings, EnvSettings) else settings
    return json.dumps(value, default=repr)


def _load(settings: EnvSettings) -> ProblemSet:
    tokenizer = load_tokenizer(settings.tokenizer)
    renderers = PromptRenderers(tokenizer, settings)
    declared = settings.eos_token_ids
    if declared is None:
        directory = model_directory(settings.tokenizer, TOKENIZER, with_weights=False)
        declared = declared_end_ids(directory)
    vocab_size = max(settings.vocab_size or 0, smallest_vocab_size(tokenizer))
    encoders = DemonstrationEncoders(tokenizer, renderers, declared, vocab_size)
    counts: Counter[str] = Counter()
    raw = read_problems(settings.data, settings, counts)
    problems = _build(raw, TRAIN, renderers, encoders, settings, counts)
    problems = split_off(problems, settings.held_out_fraction)
    problems = keep_demonstrations(problems, settings.demonstration_fraction, counts)
    for name, sources in settings.held_out_data.items():
        raw = read_problems(sources, settings, counts)
        held_out = _build(raw, name, renderers, encoders, settings, counts)
        problems += without_clashes(held_out, name, problems, counts)
    for problem in problems:
        counts["problems"] += 1
        split = problem.split
        counts[TRAIN if split == TRAIN else f"held_out:{split}"] += 1
        counts["demonstrations"] += len(problem.demonstration_ids)
        counts["demonstrations_set_aside"] += problem.num_long_demonstrations
    if not counts[TRAIN]:
        raise ValueError(
            f"No training problem is left after filters and split. Counts: {dict(counts)}. Relax "
            "filters, raise the token budgets or lower held_out_fraction."
        )
    return ProblemSet(problems, tokenizer, settings, counts, encoders.end_tokens)


def _build(
    raw: list[RawProblem],
    split: str,
    renderers: PromptRenderers,
    encoders: DemonstrationEncoders,
    settings: EnvSettings,
    counts: Counter[str],
) -> list[Problem]:
    """Tokenise problems and apply the filters."""
    prompts = [renderers.text(item) for item in raw]
    settle_overlaps(raw, prompts, settings, counts)
    prompt_ids = renderers.encode(raw, prompts)
    demonstration_ids = encoders.encode(raw, prompts, prompt_ids)
    filters = [settings.of_source(source).filters for source in settings.sources]
    problems = []
    for item, ids in zip(raw, prompt_ids, strict=True):
        complete = [next(demonstration_ids) for _ in item.demonstration_texts]
        if len(ids) > settings.max_prompt_tokens:
            if "prompt_too_long" not in filters[item.source_number]:
                raise ValueError(_too_long_message(item, len(ids), settings))
            counts["dropped_prompt_too_long"] += 1
            continue
        fits = [len(token_ids) <= settings.max_response_tokens for token_ids in complete]
        needs_one = split == TRAIN and "no_demonstration" in filters[item.source_number]
        if needs_one and not any(fits):
            counts["dropped_no_demonstration"] += 1
            continue
        problem = Problem(
            problem_id=item.problem_id,
            domain=item.domain,
            prompt=item.prompt,
            prompt_ids=ids,
            answer=item.answer,
            demonstration_ids=tuple(compress(complete, fits)),
            split=split,
            source=item.source,
            num_long_demonstrations=fits.count(False),
            demonstration_texts=tuple(compress(item.demonstration_texts, fits)),
            demonstration_sources=tuple(compress(item.demonstration_sources, fits)),
            extra=item.extra,
            messages=item.messages,
            source_number=item.source_number,
        )
        problems.append(problem)
    if has_filter("changed_by_tokenizer", settings):
        problems = unchanged_by_tokenizer(problems, renderers, encoders.tokenizer, settings, counts)
    if has_filter("no_parseable_answer", settings):
        problems = with_gradeable_answer(problems, settings, counts)
    return problems


def _too_long_message(item: RawProblem, num_tokens: int, settings: EnvSettings) -> str:
    return (
        f"{item.source}: field 'prompt' has {num_tokens} tokens with its template, more than "
        f"max_prompt_tokens ({settings.max_prompt_tokens}). Raise max_prompt_tokens, or set "
        "filters=['prompt_too_long'] to drop and count such problems."
    )
