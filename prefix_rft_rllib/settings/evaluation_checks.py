"""What `validate` checks of evaluations: RLlib's settings of them, sets and probes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prefix_rft_rllib.envs.problems.problem import TRAIN
from prefix_rft_rllib.envs.settings import EnvSettings
from prefix_rft_rllib.evaluation.sets import EvaluationSet, benchmark_env_config, sets_to_evaluate
from prefix_rft_rllib.settings.rllib_settings import (
    ENV_RUNNER_OVERRIDES,
    SAMPLING_OVERRIDES,
    UNUSED_BY_SETS,
)
from prefix_rft_rllib.settings.settings import DECLARATIONS, Settings

_RLLIBS_OWN = "For RLlib's own evaluation set `custom_evaluation_function=None`."


def check_rllibs_evaluation_settings(config: Settings, plain: Mapping[str, Any]) -> None:
    """Check RLlib's settings of evaluations, each of which has an effect or is an error.

    Args:
        config: The settings.
        plain: All defaults by name.

    Raises:
        ValueError: Naming the setting, its value, why it has no effect and what to use instead.
    """
    if not config.evaluates_sets:
        return
    for name, reason in UNUSED_BY_SETS.items():
        value = getattr(config, name)
        if value != plain[name] and (value or plain[name]):
            config._value_error(f"`{name}` ({value!r}) has no effect: {reason}. {_RLLIBS_OWN}")
    if config.evaluation_parallel_to_training and not config.evaluation_num_env_runners:
        config._value_error(
            "`evaluation_parallel_to_training=True` needs env runners that do not sample for "
            "training at the same time, but `evaluation_num_env_runners` is 0: set it to 1 or more."
        )
    if config.evaluation_config:
        _check_overrides(config, config.evaluation_config)


def _check_overrides(config: Settings, overrides: Any) -> None:
    """Check that each override of `evaluation_config` has an effect."""
    if not isinstance(overrides, Mapping):
        config._value_error(
            f"`evaluation_config` must be a dict of settings, got a {type(overrides).__name__}: "
            "evaluations use the run's settings but for those."
        )
    for name, value in overrides.items():
        if name in DECLARATIONS:
            config.check_value(f"`evaluation_config[{name!r}]`", value, DECLARATIONS[name].allowed)
        if name in SAMPLING_OVERRIDES:
            continue
        if name in ENV_RUNNER_OVERRIDES:
            if not config.evaluation_num_env_runners:
                config._value_error(
                    f"`evaluation_config[{name!r}]` ({value!r}) has no effect: the training env "
                    "runners evaluate. Set `evaluation_num_env_runners` to 1 or more, or use "
                    f"config.env_runners({name}=...) for both."
                )
            continue
        config._value_error(
            f"`evaluation_config[{name!r}]` ({value!r}) has no effect. It may change "
            f"{', '.join(SAMPLING_OVERRIDES)}, and of evaluation env runners "
            f"{', '.join(ENV_RUNNER_OVERRIDES)}; greedy attempts, numbers of samples, lengths and "
            f"benchmarks are set in `evaluation_sets`. {_RLLIBS_OWN}"
        )


def check_sets(config: Settings) -> None:
    """Check what is evaluated, without data.

    Args:
        config: The settings, each in its range, with a known environment.

    Raises:
        ValueError: Naming what is wrong.
    """
    if not config.evaluates_sets:
        for name in ("evaluation_sets", "demonstration_probes"):
            if value := getattr(config, name):
                config._value_error(
                    f"`{name}` ({value!r}) has no effect: `custom_evaluation_function` "
                    f"({config.custom_evaluation_function!r}) evaluates. Leave one of them out."
                )
        return
    env = EnvSettings.from_config(config.env_settings())
    held_out = [*(["held_out"] if env.held_out_fraction else []), *env.held_out_data]
    sets = sets_to_evaluate(config.evaluation_sets, held_out)
    for name, asked in sets.items():
        _check_set(config, name, asked, held_out, env)
    for name in config.demonstration_probes:
        if name != TRAIN and name not in held_out:
            config._value_error(
                f"`demonstration_probes` names {name!r}. Sets of problems: "
                f"{', '.join([TRAIN, *held_out])}."
            )
    if config.evaluation_interval and not sets and not config.demonstration_probes:
        config._value_error(
            f"`evaluation_interval` ({config.evaluation_interval}) is set, but no problem is "
            "held out: set env_config['held_out_fraction'] or env_config['held_out_data'], or name "
            "benchmarks in `evaluation_sets`."
        )


def _check_set(
    config: Settings, name: str, asked: EvaluationSet, held_out: list[str], env: EnvSettings
) -> None:
    where = f"`evaluation_sets[{name!r}]`"
    if asked.benchmark is None and name not in held_out:
        known = f"Held-out sets: {', '.join(held_out)}." if held_out else "No problem is held out."
        config._value_error(
            f"{where} is no held-out set. {known} For other problems give it a "
            f"'benchmark': the name of a recipe or a file (docs/evaluation.md)."
        )
    if asked.benchmark is not None:
        if name in held_out:
            config._value_error(
                f"{where} has a 'benchmark' and the name of a held-out set: their results would be "
                "called the same. Give it another name."
            )
        try:
            env = EnvSettings.from_config(benchmark_env_config(asked, config.env_settings()))
        except ValueError as error:
            config._value_error(f"{where}: {error}")
    budget = env.max_response_tokens
    if (asked.max_response_tokens or 0) > budget:
        config._value_error(
            f"{where} has max_response_tokens {asked.max_response_tokens}, but "
            f"env_config['max_response_tokens'] is {budget}. Raise that, or ask for less."
        )
