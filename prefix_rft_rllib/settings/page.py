"""The documentation page of all settings, written from their declarations.

`python -m prefix_rft_rllib.settings.page` prints it; `make docs` puts it into `docs/settings.md`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable

from prefix_rft_rllib.basics.declarations import NEEDED, Declaration, declarations
from prefix_rft_rllib.basics.markdown import table, with_links
from prefix_rft_rllib.envs.settings import ENV_DECLARATIONS
from prefix_rft_rllib.settings.settings import SETTERS

INTRODUCTION = """# Settings

<!-- Written by `make docs` from the declarations of the settings. Do not edit. -->

Every setting of this project, by the setter that takes it, and the settings of RLlib that have
another default or range here. A value out of range, a misspelled name, and a setting that would
have no effect are errors before anything starts. They name what is allowed.

```python
config.training(group_size=8, lr=1e-6).env_runners(temperature=1.0)
config.environment("PrefixRFT/Math-v0", env_config={"data": "problems.jsonl"})
```

*Paper* is the value in the paper's runs (arXiv 2507.01679, App. A.2, which follow LUFFY's recipe),
where it is known. Settings of one method alone are keys of `method_config` (docs/methods.md), those
of an engine keys of `engine_config` (docs/engines.md). RLlib's other settings keep RLlib's meaning
and default. The run directory's `config.json` has the values of a run (docs/run_directory.md)."""

ENVIRONMENT = """## `env_config`

Keys of `config.environment(env_config={...})`; docs/problems.md describes the data. An unknown
key is an error that lists the known ones."""

_HEADS = ("setting", "default", "meaning", "allowed", "paper", "when to change it")


def settings_page() -> str:
    """Write the page.

    Returns:
        Markdown.
    """
    parts = [with_links(INTRODUCTION)]
    for setter, group in SETTERS.items():
        parts += [
            f"## `config.{setter}()`",
            with_links(str(group.__doc__)),
            _table(declarations(group)),
        ]
    parts += [with_links(ENVIRONMENT), _table(ENV_DECLARATIONS)]
    return "\n\n".join(parts) + "\n"


def _table(settings: Iterable[Declaration]) -> str:
    return table(_HEADS, [tuple(map(with_links, _cells(setting))) for setting in settings])


def _cells(setting: Declaration) -> tuple[str, ...]:
    default = "needed" if setting.default is NEEDED else f"`{setting.default!r}`"
    allowed = setting.allowed.allowed
    return f"`{setting.name}`", default, setting.meaning, allowed, setting.paper, setting.change


def main() -> None:
    """Print the page."""
    sys.stdout.write(settings_page())


if __name__ == "__main__":
    main()
