"""The documentation page of all methods, written from their code.

`python -m prefix_rft_rllib.methods.page` prints it; `make docs` puts it into `docs/methods.md`.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from prefix_rft_rllib.basics.markdown import table, with_links
from prefix_rft_rllib.methods import METHODS, PAPER_ROWS, Method
from prefix_rft_rllib.methods.neighbours import FITTING, UNFITTING

INTRODUCTION = """# Methods

<!-- Written by `make docs` from the docstrings in prefix_rft_rllib/methods/. Do not edit. -->

A method is a value, and the loss does not know which one it runs. Every method, supervised
fine-tuning included, is a list of *rules* that give each token a weight; one loss executes the
weights. A comparison of two methods therefore never compares two implementations.
[pieces.md](pieces.md) defines the pieces exactly; [CONTRIBUTING.md](../CONTRIBUTING.md) shows how
to add a method.

```python
from prefix_rft_rllib import methods

print(methods.prefix_rft(entropy_keep_fraction=0.5))
config.training(method="prefix_rft", method_config={"entropy_keep_fraction": 0.5})
```

`method_config` holds the keyword arguments of the method's function as plain data. An unknown name
or key is an error that lists the known ones. A ready `Method` may be given instead of a name."""

DATA_SETTINGS = """Fewer and flawed demonstrations are settings of the data, for every method:
`env_config={"demonstration_fraction": 0.1}` keeps the demonstrations of a tenth of the training
problems ([problems.md](problems.md)), and the generated task writes wrong ones with
`data_config={"flawed_fraction": 0.3, ...}` ([toy_arithmetic.md](toy_arithmetic.md))."""

SEARCH = """## Choosing and changing methods with Tune

Name and settings are plain data, so both can be search spaces:

```python
config.training(method=tune.grid_search(["prefix_rft", "update_all", "rft"]))
config.training(
    method="prefix_rft", method_config={"entropy_keep_fraction": tune.uniform(0.1, 0.5)}
)
tune.Tuner(PrefixRFT, param_space=config)
```

A key that the drawn method does not know is an error of that trial. Population-based training
changes settings, and methods, between checkpoints:
`PopulationBasedTraining(time_attr="training_iteration", hyperparam_mutations={"method_config":
{"entropy_keep_fraction": [...]}})`. Settings that depend on the drawn method are a
`tune.sample_from(lambda spec: SETTINGS[spec.config.method])`.
A trial that goes on with another method keeps weights, iteration and the state of the first
optimizer; [pieces.md](pieces.md#state) says what else is kept and what starts anew."""

_SECTIONS = ("Args:", "Returns:", "Raises:")
_SETTING = re.compile(r"(\w+): (.*)")


class Documentation(NamedTuple):
    """What the docstring of a method's function says.

    Attributes:
        summary: Its first line.
        description: The paragraphs after it; may be empty.
        source: Where the method is from.
        settings: Meaning of every keyword argument, in the order of the signature.
    """

    summary: str
    description: tuple[str, ...]
    source: str
    settings: dict[str, str]


def documentation_of(function: Callable[..., Method]) -> Documentation:
    """Read the docstring of a method's function.

    Args:
        function: A function with a docstring in Google's style and a paragraph "Source: ...".

    Returns:
        Its parts, each as one line per paragraph.

    Raises:
        ValueError: If there is no source, or the settings described are not those of the signature.
    """
    name = function.__name__
    blocks: dict[str, list[str]] = {"": []}
    title = ""
    for line in (inspect.getdoc(function) or "").splitlines():
        if line in _SECTIONS:
            title = line
        blocks.setdefault(title, []).append(line)
    paragraphs = [" ".join(text.split()) for text in "\n".join(blocks[""]).split("\n\n")]
    sources = [text for text in paragraphs if text.startswith("Source: ")]
    if len(sources) != 1:
        raise ValueError(
            f"The docstring of method {name!r} has {len(sources)} paragraphs 'Source: ...', it "
            "needs one. Name the paper, or 'this project'."
        )
    described = _described_settings(blocks.get("Args:", [])[1:])
    known = list(inspect.signature(function).parameters)
    _check_described(name, known, described)
    return Documentation(
        summary=paragraphs[0],
        description=tuple(text for text in paragraphs[1:] if not text.startswith("Source: ")),
        source=sources[0].removeprefix("Source: "),
        settings={key: described[key] for key in known},
    )


def _check_described(name: str, known: Sequence[str], described: Mapping[str, str]) -> None:
    """Check that exactly the settings of a method are described."""
    for key in known:
        if not described.get(key):
            raise ValueError(
                f"Setting {key!r} of method {name!r} is not described. Add a line '{key}: ...' to "
                "the Args of its docstring."
            )
    for key in described:
        if key not in known:
            raise ValueError(
                f"The docstring of method {name!r} describes {key!r}, which is no setting. "
                f"Settings: {', '.join(known) or 'none'}."
            )


def _described_settings(lines: Sequence[str]) -> dict[str, str]:
    """Names and meanings in an Args section; deeper indented lines go on with the one before."""
    settings: dict[str, str] = {}
    key = ""
    for line in filter(str.strip, lines):
        entry = _SETTING.fullmatch(line[4:])
        if entry:
            key, settings[entry[1]] = entry[1], entry[2]
        elif key:
            settings[key] += f" {line.strip()}"
    return settings


def methods_page(methods: Mapping[str, Callable[..., Method]] = METHODS) -> str:
    """Write the page.

    Args:
        methods: The methods to describe, by name.

    Returns:
        Markdown.

    Raises:
        ValueError: If a docstring has no source, or does not describe exactly its settings.
    """
    documented = {name: documentation_of(function) for name, function in methods.items()}
    overview = [
        (f"[`{name}`](#{name})", text.summary, with_links(text.source))
        for name, text in documented.items()
    ]
    rows = [
        (row, f"`{name}`", f"`{settings}`" if settings else "")
        for row, (name, settings) in PAPER_ROWS.items()
    ]
    parts = [
        INTRODUCTION,
        "## Overview",
        table(("method", "what it is", "source"), overview),
        *(_section(name, methods[name], text) for name, text in documented.items()),
        "## The ablations of the paper",
        table(("row", "method", "method_config"), rows),
        DATA_SETTINGS,
        neighbours(),
        SEARCH,
    ]
    return "\n\n".join(parts) + "\n"


def neighbours() -> str:
    """The section on methods that are no functions of the package."""
    rows = [(with_links(names), missing) for names, missing in UNFITTING]
    missing = table(("method", "what is missing"), rows)
    return f"{with_links(FITTING)}\n\n{missing}"


def _section(name: str, function: Callable[..., Method], text: Documentation) -> str:
    method = function()
    parts = [
        f"## `{name}`",
        text.summary,
        *text.description,
        f"Source: {with_links(text.source)}",
        f"```text\n{method}\n```",
    ]
    objectives = method.objectives()
    if len(objectives) > 1:
        names = ", ".join(f"`{objective.name}`" for objective in objectives)
        parts.append(f"Objectives, each with an optimizer of its own: {names}.")
    defaults = inspect.signature(function).parameters
    rows = [
        (f"`{key}`", f"`{defaults[key].default!r}`", meaning)
        for key, meaning in text.settings.items()
    ]
    parts.append(table(("setting", "default", "meaning"), rows) if rows else "No settings.")
    return "\n\n".join(parts)


def main() -> None:
    """Print the page."""
    sys.stdout.write(methods_page())


if __name__ == "__main__":
    main()
