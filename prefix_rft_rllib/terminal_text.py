"""Text that a model may have written, for a line of a log or a terminal."""

import re


def one_line(text: str, width: int) -> str:
    r"""Text in one line that a terminal shows and does not obey.

    Args:
        text: Any text.
        width: Most characters that are taken over; of a longer text the middle is left out.

    Returns:
        Printable ASCII: everything else, line breaks and terminal sequences too, is an escape such
        as `\n`, `\x1b` or `\ud800`.
    """
    if len(text) > width:
        text = f"{text[: width // 2]} ... {text[-(width // 2) :]}"
    return re.sub("[^ -~]", lambda found: found[0].encode("unicode_escape").decode("ascii"), text)
