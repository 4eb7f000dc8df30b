"""TensorBoard events of a run: scalars and sample rollouts as text."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from prefix_rft_rllib.basics.text import LINE_ABOUT_THE_MIDDLE, without_middle
from prefix_rft_rllib.basics.whole_files import written_in_one_step
from prefix_rft_rllib.runs.rollout_records import RolloutRecord

FILE_SUFFIX = ".prefix_rft"
"""Ends the names of our event files: Tune writes its own into the same directory."""
SAMPLE_WITH_PREFIX = "rollouts/with_prefix"
"""Text: one rollout of the iteration that started from a prefix."""
SAMPLE_PLAIN = "rollouts/plain"
"""Text: one rollout without a prefix, of the same group if one was recorded."""
MAX_SHOWN_CHARACTERS = 20_000
"""Longer parts of a sample rollout are cut in the middle; the rollouts file has all of it."""


class TensorBoardEvents:
    """Writes one event file.

    Args:
        directory: Where the file is created.
    """

    def __init__(self, directory: Path) -> None:
        # Imported here: it takes seconds, and readers of a run directory do not need it.
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(directory), filename_suffix=FILE_SUFFIX)

    def write_scalars(self, iteration: int, row: Mapping[str, float]) -> None:
        """Write one iteration's metrics and flush.

        Args:
            iteration: The step of all points.
            row: Numbers by tag. TensorBoard stores them as float32.
        """
        for tag, value in row.items():
            self._writer.add_scalar(tag, value, iteration)
        self._writer.flush()

    def write_samples(self, iteration: int, records: Sequence[RolloutRecord]) -> None:
        """Write a rollout with a prefix and one without.

        Args:
            iteration: The step.
            records: Rollouts of the iteration with their texts.
        """
        for tag, record in choose_samples(records).items():
            self._writer.add_text(tag, sample_markdown(record), iteration)

    def close(self) -> None:
        """Flush and close the file."""
        self._writer.close()


def choose_samples(records: Sequence[RolloutRecord]) -> dict[str, RolloutRecord]:
    """The rollouts that are shown, by tag.

    Args:
        records: Rollouts of one iteration.

    Returns:
        The first rollout with a prefix and the first without, of the first group that has both;
        else the first of each kind. Demonstration rows are not shown.
    """
    with_prefix = {
        r.group_id: r for r in reversed(records) if r.num_prefix_tokens and _is_rollout(r)
    }
    plain = {r.group_id: r for r in reversed(records) if not r.num_prefix_tokens and _is_rollout(r)}
    groups = [r.group_id for r in records]
    both = next((g for g in groups if g in with_prefix and g in plain), None)
    samples = {}
    for tag, candidates in ((SAMPLE_WITH_PREFIX, with_prefix), (SAMPLE_PLAIN, plain)):
        first = both if both is not None else next((g for g in groups if g in candidates), None)
        if first is not None:
            samples[tag] = candidates[first]
    return samples


def _is_rollout(record: RolloutRecord) -> bool:
    return "demonstration" not in record.region


def sample_markdown(record: RolloutRecord) -> str:
    """A rollout as the Markdown that TensorBoard's text page renders.

    Args:
        record: A rollout with its texts.

    Returns:
        Verdict, reward and u, then prompt, prefix (if any), sampled text and the verifier's details
        (if any) apart. Texts are shown character by character, whatever Markdown or HTML they hold.
    """
    num_sampled = len(record.response_ids) - record.num_prefix_tokens
    facts = {
        "problem": record.problem_id,
        "verdict": record.verdict,
        "reward": f"{record.reward:g}",
        "advantage": f"{record.advantage:g}",
        "finish": record.finish_reason,
    }
    parts = [("Prompt", f"{len(record.prompt_ids)} tokens", record.prompt_text)]
    if record.num_prefix_tokens:
        assert record.prefix_fraction is not None
        facts["u"] = f"{record.prefix_fraction:.4f}" + (" (cut)" if record.was_cut else "")
        given = f"GIVEN from the demonstration, {record.num_prefix_tokens} tokens"
        parts.append(("Prefix", given, record.prefix_text))
    parts.append(("Sampled by the policy", f"{num_sampled} tokens", record.sampled_text))
    if record.verdict_details:
        found = "\n".join(f"{name}: {value}" for name, value in record.verdict_details.items())
        parts.append(("Verifier", "beside the verdict", found))
    lines = [", ".join(f"{name} **{shown_text(str(v))}**" for name, v in facts.items())]
    for title, note, text in parts:
        lines.append(f"**{title}** ({note}):")
        shown = without_middle(text or "", MAX_SHOWN_CHARACTERS, LINE_ABOUT_THE_MIDDLE)
        lines.append(f"<pre>{shown_text(shown)}</pre>")
    return "\n\n".join(lines)


def shown_text(text: str) -> str:
    r"""Text as HTML entities, so that neither Markdown nor HTML in it has any meaning.

    Control characters and lone surrogates, which event files cannot hold or browsers hide, become
    visible escapes such as `\x00`.
    """
    visible = re.sub(
        r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]",
        lambda match: match[0].encode("unicode_escape").decode("ascii"),
        text,
    )
    # Every ASCII character that is no letter, digit or blank may have a meaning in Markdown; a
    # line break may start a list or a fence.
    return re.sub(r"[!-/:-@\[-`{-~\t\n]", lambda match: f"&#{ord(match[0])};", visible)


def remove_events_after(directory: Path, iteration: int) -> int:
    """Remove our events of later steps from all event files in the directory.

    Args:
        directory: Holds the files. Those of other writers are left alone.
        iteration: Last step to keep.

    Returns:
        Number of steps of which events were removed.
    """
    from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.summary.writer.record_writer import RecordWriter

    removed: set[int] = set()
    for path in sorted(directory.glob(f"events.out.tfevents.*{FILE_SUFFIX}")):
        events = list(RawEventFileLoader(str(path)).Load())
        steps = [Event.FromString(event).step for event in events]
        if max(steps, default=0) <= iteration:
            continue
        with written_in_one_step(path) as file:
            writer = RecordWriter(file)
            for event, step in zip(events, steps, strict=True):
                if step <= iteration:
                    writer.write(event)
        removed.update(step for step in steps if step > iteration)
    return len(removed)
