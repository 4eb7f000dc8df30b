"""Verifiers: response and problem in; `Verdict` or number out, maybe with details."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

from prefix_rft_rllib.basics.import_paths import import_function
from prefix_rft_rllib.basics.old_names import renamed
from prefix_rft_rllib.basics.ranges import FLAG
from prefix_rft_rllib.envs.problems.problem import Problem
from prefix_rft_rllib.envs.verifiers import code_verifier, math_verifier
from prefix_rft_rllib.envs.verifiers.choice_verifier import ChoiceVerifier
from prefix_rft_rllib.envs.verifiers.code_tests import unpack_task
from prefix_rft_rllib.envs.verifiers.code_verifier import CodeVerifier
from prefix_rft_rllib.envs.verifiers.math_verifier import MathVerifier
from prefix_rft_rllib.envs.verifiers.verdict import Graded, Verdict

Result = Graded | Verdict | float
Verifier = Callable[[str, Problem], Result]

__all__ = [
    "ChoiceVerifier",
    "CodeVerifier",
    "Graded",
    "MathVerifier",
    "Verdict",
    "Verifier",
    "load_verifier",
    "max_threads",
]


def load_verifier(name_or_path: str, config: Mapping[str, Any] | None = None) -> Verifier:
    """Return the function that grades a response to a problem.

    Args:
        name_or_path: "math"; "code"; "choice"; "domain", the one of these three that the
            problem's domain names; or the import path of a function
            `verify(response, problem, **config)`, written "package.module:function" or
            "package.module.function". It returns a `Verdict` or a finite number or, to say
            more in the sample log, a `Graded` of one of them and details.
        config: Keyword arguments: of `MathVerifier` for "math", of `ChoiceVerifier` for "choice",
            of `CodeVerifier` and `share_reward` (False: a verdict; True: the share of tests
            passed) for "code", for "domain" a dict of these by domain; else of the function, given
            with every call. One worker pool is shared by equal configurations of a process.

    Returns:
        `verify(response, problem)`. "code" answers with a `Graded`, whose details are those of
        `CodeResult`; "choice" with one whose detail is the letter; "math" with a verdict; a
        function as it likes.

    Raises:
        ValueError: If the name is unknown, the path cannot be imported or does not name a
            function, or a setting is unknown.
    """
    config = dict(config or {})
    if name_or_path in _BY_NAME:
        return _BY_NAME[name_or_path](config)
    function = _import_function(name_or_path)
    return functools.partial(function, **config) if config else function


def max_threads(name_or_path: str, config: Mapping[str, Any]) -> int:
    """Return how many threads may call a verifier at a time: 1 for a user's own function.

    Args:
        name_or_path: As in `load_verifier`.
        config: Likewise.
    """
    if name_or_path == "domain":
        return max(max_threads(domain, config.get(domain, {})) for domain in _DOMAINS)
    if name_or_path not in _DEFAULT_NUM_WORKERS:
        return 1
    return int(config.get("num_workers") or _DEFAULT_NUM_WORKERS[name_or_path]())


def _math(config: Mapping[str, Any]) -> Verifier:
    verifier = MathVerifier.shared(**config)
    return lambda response, problem: verifier.verify(response, problem.answer)


def _code_verifier(config: Mapping[str, Any]) -> CodeVerifier:
    config = {"run_all": config.get("share_reward", False), **config}
    return CodeVerifier.shared(**{k: v for k, v in config.items() if k != "share_reward"})


def _code(config: Mapping[str, Any]) -> Verifier:
    share_reward = config.get("share_reward", False)
    FLAG.check("share_reward", share_reward)
    verifier = _code_verifier(config)

    def verify(response: str, problem: Problem) -> Graded:
        tests, entry_point = unpack_task(problem.answer)
        result = verifier.verify(response, tests, entry_point, problem.prompt)
        is_share = share_reward and result.verdict in (Verdict.CORRECT, Verdict.WRONG)
        outcome = result.passed_fraction if is_share else result.verdict
        return Graded(outcome, result.details)

    return verify


def _choice(config: Mapping[str, Any]) -> Verifier:
    verifier = ChoiceVerifier.shared(**config)

    def verify(response: str, problem: Problem) -> Graded:
        result = verifier.verify(response, problem.answer, problem.prompt)
        return Graded(result.verdict, result.details)

    return verify


def _by_domain(config: Mapping[str, Any]) -> Verifier:
    """Return a verifier that starts the pool of a domain with its first problem."""
    unknown = sorted(set(config) - set(_DOMAINS))
    if unknown or not all(isinstance(value, Mapping) for value in config.values()):
        raise ValueError(
            f"the settings of the verifier 'domain' are dicts by domain ({list(_DOMAINS)}), for "
            f'example {{"code": {{"timeout_s": 5.0}}}}, got {dict(config)!r}.'
        )
    load = functools.cache(lambda domain: _BY_NAME[domain](config.get(domain, {})))

    def verify(response: str, problem: Problem) -> Result:
        if problem.domain not in _DOMAINS:
            raise ValueError(
                f"no verifier is known for the domain {problem.domain!r}; known: {list(_DOMAINS)}."
            )
        return load(problem.domain)(response, problem)

    return verify


_DOMAINS = ("math", "code", "choice")
_DEFAULT_NUM_WORKERS = {
    "math": math_verifier.default_num_workers,
    "code": code_verifier.default_num_workers,
    "choice": lambda: 1,  # plain text work in the caller's thread
}
_BY_NAME: dict[str, Callable[[Mapping[str, Any]], Verifier]] = {
    "math": _math,
    "code": _code,
    "choice": _choice,
    "domain": _by_domain,
}


def _import_function(path: str) -> Callable[..., Any]:
    if not path.replace(":", ".").rpartition(".")[0]:
        known = ", ".join(map(repr, _BY_NAME))
        raise ValueError(
            f"unknown verifier {path!r}; known: {known}, or the import path of your own "
            "function, such as 'my_package.my_module:verify'."
        )
    return import_function(path, "verifier", "my_package.my_module:verify")


__getattr__ = functools.partial(renamed, __name__)
