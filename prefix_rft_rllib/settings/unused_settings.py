"""Settings that would do nothing are errors: RLlib's that are not used here, and unknown ones."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from ray.rllib.core import DEFAULT_MODULE_ID

from prefix_rft_rllib.engines.sampling_options import refuse_sampling_options
from prefix_rft_rllib.settings.evaluation_checks import check_rllibs_evaluation_settings
from prefix_rft_rllib.settings.rllib_settings import (
    OTHER_NAMES,
    REFUSED,
    UNCALLED_HOOKS,
)
from prefix_rft_rllib.settings.settings import Settings

OTHER_KEYS = {
    "class",
    "multiagent",
    "callbacks",
    "framework",
    "input",
    "num_workers",
    "num_cpus_for_driver",
    "create_env_on_driver",
    "custom_eval_function",
}
"""Keys of dicts that RLlib translates, and the one that it adds to a restored config."""


def check_known(config: Settings, names: Iterable[str]) -> None:
    """Check that names are settings.

    Args:
        config: The config whose settings they should be.
        names: Attributes, or keys of a dict of settings. Those that begin with an underscore
            are RLlib's and Tune's own.

    Raises:
        ValueError: For a name that is none, with the nearest that are, or with the reason why this
            option of sampling is not possible.
    """
    known = {name for name in vars(type(config)()) if not name.startswith("_")}
    known |= {name for name in dir(type(config)) if not callable(getattr(type(config), name))}
    for name in map(str, names):
        if name in known or name in OTHER_KEYS or name.startswith("_"):
            continue
        refuse_sampling_options([name], "a config")
        near = OTHER_NAMES.get(name)
        hints = [near] if near else difflib.get_close_matches(name, sorted(known), n=3)
        hint = f" Did you mean {' or '.join(f'`{hint}`' for hint in hints)}?" if hints else ""
        config._value_error(
            f"Unknown setting `{name}`: it would have no effect.{hint} The settings are the "
            "arguments of config.training(), .env_runners(), .learners(), .evaluation(), "
            ".reporting(), .checkpointing() and RLlib's own; those of a method belong into "
            "`method_config`, those of problems into `env_config`."
        )


def check_used(config: Settings) -> None:
    """Check that nothing was set which this algorithm does not use.

    Args:
        config: The settings.

    Raises:
        ValueError: Naming the setting, its value, why it has no effect and what to use instead.
    """
    check_known(config, vars(config))
    plain = vars(Settings())
    for name, reason in REFUSED.items():
        value = vars(config).get(name, plain[name])
        if value != plain[name]:
            config._value_error(f"`{name.lstrip('_')}` ({value!r}) {reason}.")
    if config.input_ != "sampler":
        config._value_error(f"`input_` ({config.input_!r}) {REFUSED['input_config']}.")
    if set(config.policies) != {DEFAULT_MODULE_ID}:
        config._value_error(
            f"`policies` ({sorted(config.policies)}) {REFUSED['policy_mapping_fn']}. Leave out "
            "config.multi_agent()."
        )
    if not config.explore:
        config._value_error(
            "`explore=False` is for evaluations: greedy rollouts of a group are all the same. "
            "Evaluations attempt every problem greedily too, beside the samples."
        )
    _check_callbacks(config)
    check_rllibs_evaluation_settings(config, plain)


def _check_callbacks(config: Settings) -> None:
    given = config.callbacks_class
    for callbacks in given if isinstance(given, list | tuple) else [given]:
        for hook, reason in UNCALLED_HOOKS.items():
            module = getattr(getattr(callbacks, hook, None), "__module__", None) or "ray"
            if module.split(".")[0] != "ray":
                config._value_error(f"`{callbacks.__name__}.{hook}` {reason}.")
