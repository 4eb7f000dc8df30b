"""A method as a readable table of its pieces: what `print(method)` shows."""

from __future__ import annotations

from prefix_rft_rllib.core.surrogates import PPOClip
from prefix_rft_rllib.methods.method import Method, Stage


def table_of(method: Method) -> str:
    """Write the table.

    Args:
        method: Any method.

    Returns:
        Several lines; one block per stage for a method of stages.
    """
    if not method.stages:
        return _block(method.name, _pieces(method))
    rows = [(f"stage {number}", _stage(stage)) for number, stage in enumerate(method.stages, 1)]
    blocks = [table_of(stage.method) for stage in method.stages]
    return "\n\n".join([_block(method.name, rows), *blocks])


def _stage(stage: Stage) -> str:
    length = "to the end" if stage.num_iterations is None else f"{stage.num_iterations} iterations"
    lr = "the config's lr" if stage.lr is None else f"lr {stage.lr:g}"
    if stage.num_warmup_iterations:
        lr += f" after a warm-up of {stage.num_warmup_iterations} iterations"
    return f"{stage.method.name}, {length}, {lr}"


def _pieces(method: Method) -> list[tuple[str, str]]:
    num_rollouts = "group_size" if method.num_sampled is None else str(method.num_sampled)
    if method.num_sampled is None and method.demonstration_rows.is_member:
        num_rollouts += f" - {method.demonstration_rows.num_rows}"
    rows = [("rollouts per group", num_rollouts)]
    if method.num_sampled != 0:
        rows.append(("prefix sampler", repr(method.prefix_sampler)))
        rows.append(("advantage", repr(method.advantage)))
    for rule in method.rules:
        rows.append((f"{rule.region} tokens", f"{rule.stream}: {rule.value!r}"))
        rows.append(("", f"keep {rule.keep!r}, scale {rule.scale!r}"))
    rows.append(("demonstration rows", repr(method.demonstration_rows)))
    if method.surrogates:
        is_configs = method.surrogate == PPOClip()
        text = "PPOClip with the config's bounds" if is_configs else repr(method.surrogate)
        rows.append(("surrogate", text))
    if method.after_step is not None:
        rows.append(("after each step", repr(method.after_step)))
    return rows


def _block(title: str, rows: list[tuple[str, str]]) -> str:
    width = max(len(name) for name, _ in rows)
    return "\n".join([title, *(f"  {name:<{width}}  {text}" for name, text in rows)])
