"""The settings of a run, as RLlib keeps them in a checkpoint."""

import pickle
from pathlib import Path
from typing import Any

SETTINGS_FILE = "class_and_ctor_args.pkl"
"""Where RLlib keeps what an algorithm was built from."""


def saved_settings(checkpoint: Path) -> dict[str, Any]:
    """Read the settings of the run that wrote a checkpoint.

    They are pickled, and reading them may run code: take a checkpoint from where you trust it, as
    for `PrefixRFT.from_checkpoint`.

    Args:
        checkpoint: Its directory.

    Returns:
        The state of a config, for `PrefixRFTConfig.from_state`.

    Raises:
        ValueError: If they cannot be read.
    """
    file = checkpoint / SETTINGS_FILE
    try:
        with file.open("rb") as opened:
            (settings, *_), _ = pickle.load(opened)["ctor_args_and_kwargs"]
        return dict(settings)
    except (
        OSError,
        EOFError,
        pickle.UnpicklingError,
        LookupError,
        ImportError,
        AttributeError,
        TypeError,
        ValueError,
    ) as error:
        raise ValueError(
            f"The settings of the checkpoint cannot be read from {file} ({error!r})."
        ) from error
