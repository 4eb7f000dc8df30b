"""A Gymnasium environment whose steps are tokens, and which can start inside a demonstration."""

from __future__ import annotations

import types
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np

from prefix_rft_rllib.envs.problems.loading import load_problem_set
from prefix_rft_rllib.envs.problems.problem import Problem
from prefix_rft_rllib.envs.problems.problem_set import ProblemSet
from prefix_rft_rllib.envs.verifiers.grading import outcome_name

RESET_OPTIONS = ("problem_id", "demonstration_index", "num_prefix_tokens", "max_response_tokens")
RESET_INFO_KEYS = ("problem_id", "prompt_ids", "num_prefix_tokens")
FINAL_INFO_KEYS = ("verdict", "verdict_details")
PADDING = -1


class TokenEnv(gym.Env[np.ndarray, int]):
    """Write a response to a problem, one token a step.

    ## Description
    The policy reads a prompt and writes a response token by token until it writes an end token or
    its budget is spent. A verifier then grades the whole response. A reset may put the first tokens
    of a demonstration in front of what the policy writes: a prefix state. The prefix is cut in
    token ids and never decoded and encoded again, so that resetting to n prefix tokens equals
    resetting to the prompt and stepping those n tokens.

    ## Action Space
    `Discrete(V)`: the next token id. V covers every id of the tokenizer, or is `vocab_size`.

    ## Observation Space
    `Box(-1, V - 1, (max_prompt_tokens + max_response_tokens,), int32)`: the tokens so far, prompt
    first, right-padded with -1. It is the whole state.

    ## Rewards
    0 at every step but the last. At the last step the reward of the verdict (`rewards`), or the
    number that the verifier returned.

    ## Starting State
    The prompt of a problem, followed by `num_prefix_tokens` tokens of a demonstration. Without
    options: a training problem drawn with the environment's generator, and no prefix.

    ## Episode End
    Termination: an end token was written: the tokenizer's, one of those that the model's files name
    (`generation_config.json`, else `config.json`), or, instead of these, of `eos_token_ids`.
    Truncation: the response, prefix included, has `max_response_tokens` tokens (the reset option's,
    if it was given) and the last is no end token. Truncated responses are graded like others.

    ## Arguments
    The keys of `env_config` as keyword arguments, for example
    `gymnasium.make("PrefixRFT/Math-v0", data="train.jsonl", tokenizer="model_directory")`.
    `docs/problems.md` lists them all.

    ## Reset Options
    - `problem_id`: which problem, of any split.
    - `demonstration_index`: which of its demonstrations (default 0).
    - `num_prefix_tokens`: how many of its tokens are given (default 0). At most one less than the
      demonstration and the response budget have, so that at least one token is written.
    - `max_response_tokens`: a smaller response budget in this episode (default the environment's).

    ## Info Keys
    At reset:
    - `problem_id`: text.
    - `prompt_ids`: tuple of int.
    - `num_prefix_tokens`: int.

    At the last step:
    - `verdict`: the name of a `Verdict`, or "SCORED" if the verifier returned a number.
    - `verdict_details`: dict of what the verifier says beside it, for people: of code `reason`, the
      first failing `test`, what the attempt `got` there, ... ; {} where it says nothing.

    ## Version History
    - v0: first version.
    """

    DEFAULT_SETTINGS: ClassVar[Mapping[str, Any]] = types.MappingProxyType({})
    """Settings of this class where `env_config` has none."""

    def __init__(self, **env_config: Any):
        self.problem_set: ProblemSet = load_problem_set({**self.DEFAULT_SETTINGS, **env_config})
        settings = self.problem_set.settings
        self.vocab_size = self.problem_set.smallest_vocab_size
        if settings.vocab_size is not None:
            if settings.vocab_size < self.vocab_size:
                raise ValueError(
                    f"env_config['vocab_size'] ({settings.vocab_size}) is smaller than the "
                    f"tokenizer's {self.vocab_size} ids. Leave it out or use the model's own size."
                )
            self.vocab_size = settings.vocab_size
        self.max_response_tokens = settings.max_response_tokens
        self._end_ids = frozenset(self.problem_set.end_tokens.ids)
        window = settings.max_prompt_tokens + settings.max_response_tokens
        self.action_space = gym.spaces.Discrete(self.vocab_size)
        self.observation_space = gym.spaces.Box(
            PADDING, self.vocab_size - 1, shape=(window,), dtype=np.int32
        )
        self._window = np.full(window, PADDING, dtype=np.int32)
        self._length = 0
        self._num_prompt = 0
        self._budget = self.max_response_tokens
        self._problem: Problem | None = None
        self._is_over = True

    def reset(
        self, *, seed: int | None = None, options: Mapping[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Start at the prompt of a problem, or inside one of its demonstrations.

        Args:
            seed: Seeds the draw of problems.
            options: See "Reset Options" in the class docstring; None or empty draws a problem.

        Returns:
            The observation and the info dict.

        Raises:
            ValueError: If an option is unknown, missing or out of range.
        """
        super().reset(seed=seed)
        if not options:
            train = self.problem_set.train
            problem = train[int(self.np_random.integers(len(train)))]
            prefix: Sequence[int] = ()
            self._budget = self.max_response_tokens
        else:
            problem, prefix, self._budget = self._chosen_start(options)
        prompt_ids = tuple(problem.prompt_ids)
        start = (*prompt_ids, *prefix)
        self._window[len(start) :] = PADDING
        self._window[: len(start)] = start
        self._length = len(start)
        self._problem = problem
        self._num_prompt = len(prompt_ids)
        self._is_over = False
        info = {
            "problem_id": problem.problem_id,
            "prompt_ids": prompt_ids,
            "num_prefix_tokens": len(prefix),
        }
        return self._window.copy(), info

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Append one token.

        Args:
            action: A token id in [0, V).

        Returns:
            Observation, reward, terminated, truncated and info.

        Raises:
            ValueError: If the episode is over or has not begun, or the action is no token id.
        """
        if self._problem is None or self._is_over:
            raise ValueError("step() needs a running episode: call reset() first.")
        # A plain int is checked here: asking the space takes as long as the rest of a step.
        is_token = type(action) is int and 0 <= action < self.vocab_size
        if not is_token and not self.action_space.contains(action):
            raise ValueError(
                f"The action must be a token id, a whole number in [0, {self.vocab_size}), got "
                f"{action!r}."
            )
        self._window[self._length] = action
        self._length += 1
        num_response = self._length - self._num_prompt
        terminated = int(action) in self._end_ids
        truncated = not terminated and num_response >= self._budget
        reward = 0.0
        info: dict[str, Any] = {}
        if terminated or truncated:
            self._is_over = True
            reward, info = self._graded()
        return self._window.copy(), reward, terminated, truncated, info

    @property
    def num_tokens_left(self) -> int:
        """How many tokens the response may still get."""
        return self._budget - (self._length - self._num_prompt)

    @property
    def state_ids(self) -> np.ndarray:
        """Prompt and response so far without padding: shape (length,), int32, a copy."""
        return self._window[: self._length].copy()

    def _graded(self) -> tuple[float, dict[str, Any]]:
        assert self._problem is not None
        response_ids = self._window[self._num_prompt : self._length].tolist()
        graded, reward = self.problem_set.grade_response(self._problem, response_ids)
        verdict = outcome_name(graded.outcome)
        return reward, {"verdict": verdict, "verdict_details": dict(graded.details)}

    def _chosen_start(self, options: Mapping[str, Any]) -> tuple[Problem, Sequence[int], int]:
        """Check the reset options; the problem, the prefix and the budget that they name."""
        unknown = [key for key in options if key not in RESET_OPTIONS]
        if unknown:
            raise ValueError(
                f"Unknown reset option {unknown[0]!r}. Known options: {', '.join(RESET_OPTIONS)}."
            )
        if "problem_id" not in options:
            raise ValueError(
                f"Reset options {dict(options)!r} lack 'problem_id': a prefix belongs to a problem."
            )
        problem = self.problem_set.by_id(options["problem_id"])
        index = _whole_number("demonstration_index", options)
        num_prefix_tokens = _whole_number("num_prefix_tokens", options)
        budget = _whole_number("max_response_tokens", options, default=self.max_response_tokens)
        if not 1 <= budget <= self.max_response_tokens:
            raise ValueError(
                f"Reset option 'max_response_tokens' must be in [1, {self.max_response_tokens}], "
                f"the environment's own, got {budget}. Raise env_config['max_response_tokens']."
            )
        num_demonstrations = len(problem.demonstration_ids)
        if not 0 <= index < max(num_demonstrations, 1):
            raise ValueError(
                f"Reset option 'demonstration_index' ({index}) is out of range: problem "
                f"{problem.problem_id!r} has {num_demonstrations} demonstrations."
            )
        if num_prefix_tokens == 0:
            return problem, (), budget
        if num_demonstrations == 0:
            raise ValueError(
                f"Reset option 'num_prefix_tokens' is {num_prefix_tokens}, but problem "
                f"{problem.problem_id!r} has no demonstration: only 0 is possible."
            )
        demonstration = problem.demonstration_ids[index]
        limit = min(len(demonstration), budget) - 1
        if not 0 <= num_prefix_tokens <= limit:
            raise ValueError(
                f"Reset option 'num_prefix_tokens' must be in [0, {limit}], got "
                f"{num_prefix_tokens}: demonstration {index} of problem {problem.problem_id!r} has "
                f"{len(demonstration)} tokens, the response budget is {budget}, "
                "and at least one token is written by the policy."
            )
        return problem, demonstration[:num_prefix_tokens], budget


def _whole_number(name: str, options: Mapping[str, Any], default: int = 0) -> int:
    value = options.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise ValueError(
            f"Reset option {name!r} must be a whole number, got {value!r}: a fraction is turned "
            "into a number of tokens by the one who plans the rollout."
        )
    return int(value)


def make_token_env(env: str | type, env_config: Mapping[str, Any]) -> gym.Env:
    """Make one environment of a config.

    Args:
        env: A registered id, or a class.
        env_config: Settings, the model's vocabulary size among them.

    Returns:
        The environment; wrapped by Gymnasium if it was made by id.

    Raises:
        ValueError: If it is no `TokenEnv`, or its settings or data are wrong.
    """
    message = (
        f"The environment {env!r} is no `TokenEnv`: its steps are not tokens. Use "
        "'PrefixRFT/Math-v0' or a subclass of `prefix_rft_rllib.envs.TokenEnv`."
    )
    try:
        made = gym.make(env, **env_config) if isinstance(env, str) else env(**env_config)
    except TypeError as error:  # a constructor that does not know these settings
        raise ValueError(f"{message} ({error})") from error
    if not isinstance(made.unwrapped, TokenEnv):
        raise ValueError(message)
    return made
