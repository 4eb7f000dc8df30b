"""Arguments of commands."""

from __future__ import annotations

import argparse
import json
from typing import Any


def json_object(text: str) -> dict[str, Any]:
    """Read an argument that must be a JSON object.

    Args:
        text: As it was given.

    Returns:
        Names to values.

    Raises:
        argparse.ArgumentTypeError: If it is something else.
    """
    try:
        value = json.loads(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not valid JSON ({error})") from error
    if not isinstance(value, dict):
        raise argparse.ArgumentTypeError(f"{text!r} is no JSON object of names to values")
    return value
