"""Problem sets, and the loader that every process shares."""

from __future__ import annotations

import json
import threading
from collections import Counter, OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from functools import cached_property
from typing import Any

import numpy as np

from prefix_rft_rllib.basics.hub_models import model_directory
from prefix_rft_rllib.envs.problems.packed_problems import PackedProblems, SelectedProblems
from prefix_rft_rllib.envs.problems.problem import Problem
from prefix_rft_rllib.envs.problems.problem_filters import (
    has_filter,
    settle_overlaps,
    unchanged_by_tokenizer,
    with_gradeable_answer,
)
from prefix_rft_rllib.envs.problems.raw_problems import read_problems
from prefix_rft_rllib.envs.problems.subsets import keep_demonstrations, split_off, without_clashes
from prefix_rft_rllib.envs.prompts.assistant_turns import DemonstrationEncoders
from prefix_rft_rllib.envs.prompts.end_tokens import EndTokens, declared_end_ids
from prefix_rft_rllib.envs.prompts.prompt_renderer import PromptRenderers
from prefix_rft_rllib.envs.prompts.prompting import (
    TOKENIZER,
    decode_response,
    load_tokenizer,
    smallest_vocab_size,
)
from prefix_rft_rllib.envs.rows.problem_rows import fingerprint
from prefix_rft_rllib.envs.rows.row_fields import RawProblem
from prefix_rft_rllib.envs.settings import EnvSettings
from prefix_rft_rllib.envs.verifiers.grading import Grader, reward_of
from prefix_rft_rllib.envs.verifiers.verdict import Graded

_NUM_CACHED_SETS = 8
TRAIN = "train"
"""The split of training problems."""


class ProblemSet:
    """Problems in file order, the tokenizer of their token ids, and how they were selected.

    Attributes:
        problems: All problems, training problems first.
        tokenizer: The transformers tokenizer.
        settings: The checked `env_config`.
        counts: Rows, merged rows, drops by filter, demonstrations, demonstrations set aside or left
            out, problems by split.
        end_tokens: What ends a response; by default the tokenizer's end token alone.
    """

    def __init__(
        self,
        problems: Iterable[Problem],
        tokenizer: Any,
        settings: EnvSettings,
        counts: Mapping[str, int],
        end_tokens: EndTokens | None = None,
    ):
        self.problems = (
            problems if isinstance(problems, PackedProblems) else PackedProblems(problems)
        )
        self.tokenizer = tokenizer
        self.settings = settings
        self.counts = dict(counts)
        eos_token_id = int(tokenizer.eos_token_id)
        self.end_tokens = end_tokens or EndTokens((eos_token_id,), eos_token_id)
        self.answer_cuts: dict[tuple[str, int], int | None] = {}  # see `answer_cut`
        self.undecided_cuts: set[tuple[str, int]] = set()
        self.step_ends: dict[tuple[str, int], tuple[int, ...]] = {}  # see `step_ends`
        self.demonstration_rewards: dict[tuple[str, int], float] = {}  # `demonstration_reward`
        self.undecided_rewards: set[tuple[str, int]] = set()
        self._splits = np.array(self.problems.texts("split"))
        ids = self.problems.texts("problem_id")
        self._number_of = {problem_id: number for number, problem_id in enumerate(ids)}
        assert len(self._number_of) == len(ids), "the loader makes problem ids unique"

    def __reduce__(self) -> tuple[Any, ...]:
        """What is pickled: the arrays, the tokenizer and the settings; what is computed is not."""
        state = (self.problems, self.tokenizer, self.settings, self.counts, self.end_tokens)
        return type(self), state

    @cached_property
    def train(self) -> SelectedProblems:
        """The training problems."""
        return self.problems.where(self._splits == TRAIN)

    @cached_property
    def train_with_demonstration(self) -> SelectedProblems:
        """The training problems that have a demonstration."""
        has_one = self.problems.num_demonstrations() > 0
        return self.problems.where((self._splits == TRAIN) & has_one)

    @cached_property
    def held_out(self) -> dict[str, SelectedProblems]:
        """The held-out problems by set name, in the order of `held_out_data`."""
        names = dict.fromkeys(name for name in self._splits.tolist() if name != TRAIN)
        return {name: self.problems.where(self._splits == name) for name in names}

    @cached_property
    def grader(self) -> Grader:
        """The verifier of the settings."""
        return Grader(self.settings.verifier, self.settings.verifier_config)

    @cached_property
    def smallest_vocab_size(self) -> int:
        """The number of ids that covers every token of the tokenizer."""
        return smallest_vocab_size(self.tokenizer)

    @cached_property
    def renderers(self) -> PromptRenderers:
        """How prompts are written, by data source."""
        return PromptRenderers(self.tokenizer, self.settings)

    def by_id(self, problem_id: str) -> Problem:
        """Return one problem of any split.

        Raises:
            ValueError: If there is none with this id.
        """
        number = self._number_of.get(problem_id)
        if number is None:
            examples = ", ".join(repr(p.problem_id) for p in self.problems[:3])
            raise ValueError(
                f"There is no problem with the id {problem_id!r} among the {len(self.problems)} "
                f"loaded ones; ids look like {examples}."
            )
        return self.problems[number]

    def demonstration(self, problem_id: str, demonstration_index: int) -> Sequence[int]:
        """Return the token ids of one demonstration, end token included.

        Raises:
            ValueError: If there is no such problem or demonstration.
        """
        problem = self.by_id(problem_id)
        if not 0 <= demonstration_index < len(problem.demonstrations):
            raise ValueError(
                f"demonstration_index ({demonstration_index}) is out of range: problem "
                f"{problem_id!r} has {len(problem.demonstrations)} demonstrations."
            )
        return problem.demonstrations[demonstration_index]

    def response_text(self, response_ids: Sequence[int]) -> str:
        """Decode a response as the verifier sees it: without the end token and special tokens."""
        return decode_response(self.tokenizer, self.end_tokens.without(response_ids))

    def grade_response(self, problem: Problem, response_ids: Sequence[int]) -> tuple[Graded, float]:
        """Grade a whole response, prefix and end token included.

        Args:
            problem: What it responds to.
            response_ids: Its token ids; see `response_text`.

        Returns:
            The verifier's outcome with its details, and the reward that the settings pay for it.
        """
        response = self.response_text(response_ids)
        graded = self.grader.grade_with_details(response, problem)
        return graded, reward_of(graded.outcome, self.settings.rewards)


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
    problems = _build(raw, "train", renderers, encoders, settings, counts)
    problems = split_off(problems, settings.held_out_fraction)
    problems = keep_demonstrations(problems, settings.demonstration_fraction, counts)
    for name, sources in settings.held_out_data.items():
        raw = read_problems(sources, settings, counts)
        held_out = _build(raw, name, renderers, encoders, settings, counts)
        problems += without_clashes(held_out, name, problems, counts)
    for problem in problems:
        counts["problems"] += 1
        split = problem.split
        counts["train" if split == "train" else f"held_out:{split}"] += 1
        counts["demonstrations"] += len(problem.demonstrations)
        counts["demonstrations_set_aside"] += problem.num_long_demonstrations
    if not counts["train"]:
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
        complete = [next(demonstration_ids) for _ in item.demonstrations]
        if len(ids) > settings.max_prompt_tokens:
            if "prompt_too_long" not in filters[item.source_number]:
                raise ValueError(_too_long_message(item, len(ids), settings))
            counts["dropped_prompt_too_long"] += 1
            continue
        fits = [len(token_ids) <= settings.max_response_tokens for token_ids in complete]
        needs_one = split == "train" and "no_demonstration" in filters[item.source_number]
        if needs_one and not any(fits):
            counts["dropped_no_demonstration"] += 1
            continue
        kept = [entry for entry, fit in zip(item.demonstrations, fits, strict=True) if fit]
        problem = Problem(
            problem_id=item.problem_id,
            domain=item.domain,
            prompt=item.prompt,
            prompt_ids=ids,
            answer=item.answer,
            demonstrations=tuple(t for t, fit in zip(complete, fits, strict=True) if fit),
            split=split,
            source=item.source,
            num_long_demonstrations=fits.count(False),
            demonstration_texts=tuple(text for _, text in kept),
            demonstration_sources=tuple(source for source, _ in kept),
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
