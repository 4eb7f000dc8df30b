"""Loading and saving models without the progress bars of transformers."""

import contextlib
from collections.abc import Iterator


@contextlib.contextmanager
def no_progress_bars() -> Iterator[None]:
    """Hide the bars of transformers until the end; then the user's setting is back.

    Where the environment variable `HF_HUB_DISABLE_PROGRESS_BARS` is set, it decides.
    """
    from huggingface_hub import constants
    from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars
    from transformers.utils import logging

    if constants.HF_HUB_DISABLE_PROGRESS_BARS is not None or not logging.is_progress_bar_enabled():
        yield
        return
    hub_is_quiet = are_progress_bars_disabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.enable_progress_bar()
        if hub_is_quiet:
            disable_progress_bars()
