"""What one iteration drew, cut, kept and got, as text for people; read from a run directory."""

from collections.abc import Iterator
from pathlib import Path

from prefix_rft_rllib import metrics
from prefix_rft_rllib.basics.text import one_line
from prefix_rft_rllib.runs.rollout_records import RolloutRecord, read_rollouts
from prefix_rft_rllib.runs.run_directory import (
    ITERATION,
    ROLLOUTS_FOLDER,
    read_metrics,
    read_minibatches,
)

_SHOWN_DETAILS = {"reason": "", "test": "test ", "got": "got "}
_DETAIL_WIDTH = 80


def iteration_log(run_dir: str | Path, iteration: int) -> str:
    """The log of one finished iteration: verdicts, prefix rollouts, kept prefix tokens.

    Args:
        run_dir: The run directory; also of a run that goes on.
        iteration: Number of the iteration as in RLlib's results, from 1.

    Returns:
        Indented lines, each with a line break: one with groups and verdicts, one per rollout with
        a prefix, and one per optimizer step with a selection among prefix tokens. Where the
        verifier says more than the verdict, a rollout's line has it in brackets: the reason, the
        first failing test and what came back, shortened, with escapes for special characters.

    Raises:
        ValueError: If the run directory has no such iteration.
    """
    directory = Path(run_dir)
    rows = {int(row[ITERATION]): row for row in read_metrics(directory)}
    if iteration not in rows:
        found = f"{min(rows)} to {max(rows)}" if rows else "none"
        raise ValueError(f"`iteration` ({iteration}) is not in {directory}. It has: {found}.")
    lines = [_summary_line(rows[iteration])]
    path = directory / ROLLOUTS_FOLDER / f"iteration_{iteration:06d}.jsonl.gz"
    if path.exists():
        records = [record for record in read_rollouts(path) if record.prefix_fraction]
        lines += [_rollout_line(record) for record in records]
    lines += _kept_lines(directory, iteration)
    return "".join(f"  {line}\n" for line in lines)


def kept_prefix_weights(record: RolloutRecord) -> list[float]:
    """The different weights of a rollout's kept prefix tokens.

    Args:
        record: A rollout with per-token values.

    Returns:
        Weights before the rule's scale, in units of the advantage, rounded to six digits; in
        ascending order, each once.
    """
    if record.weight is None or record.kept is None:
        return []
    tokens = zip(record.region, record.kept, record.weight, strict=True)
    weights = {round(weight, 6) for region, kept, weight in tokens if region == "prefix" and kept}
    return sorted(weights)


def _summary_line(row: dict[str, float]) -> str:
    rollouts = metrics.ROLLOUTS
    verdicts = f"{rollouts}/{metrics.VERDICTS}/"
    counts = [
        f"{key.removeprefix(verdicts)} {value:.0f}"
        for key, value in row.items()
        if key.startswith(verdicts) and value
    ]
    num_without = row.get(f"{rollouts}/{metrics.NUM_WITHOUT_ISOLATION}", 0)
    return (
        f"groups with signal: {row[f'{rollouts}/{metrics.NUM_GROUPS_WITH_SIGNAL}']:.0f} of "
        f"{row[f'{rollouts}/{metrics.NUM_GROUPS}']:.0f}; verdicts: {', '.join(counts) or 'none'}"
        + (f"; code of {num_without:.0f} rollouts ran without isolation" if num_without else "")
    )


def _rollout_line(record: RolloutRecord) -> str:
    return (
        f"{record.problem_id}: u {record.prefix_fraction:.3f} in "
        f"[{record.window_low:.3f}, {record.window_high:.3f}], "
        f"drawn {record.drawn_prefix_tokens} tokens, "
        f"prefix {record.num_prefix_tokens}{' (cut)' if record.was_cut else ''}, "
        f"{record.verdict}{_why(record)}, advantage {record.advantage:+.3f}, "
        f"weights of kept tokens {kept_prefix_weights(record)}"
    )


def _why(record: RolloutRecord) -> str:
    details = record.verdict_details or {}
    shown = [
        f"{label}{one_line(str(details[name]), _DETAIL_WIDTH)}"
        for name, label in _SHOWN_DETAILS.items()
        if name in details
    ]
    return f" ({'; '.join(shown)})" if shown else ""


def _kept_lines(directory: Path, iteration: int) -> Iterator[str]:
    for row in read_minibatches(directory):
        if row[ITERATION] != iteration:
            continue
        for selection in row["selections"]:
            if selection["region"] == "prefix":
                yield (
                    f"minibatch {row['minibatch']}: kept {selection['num_kept_tokens']} of "
                    f"{selection['num_region_tokens']} prefix tokens"
                )
