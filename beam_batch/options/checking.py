"""What all settings are checked by."""

from __future__ import annotations

import math

from beam_batch.errors import OptionsError


def at_least(flag: str, value: float | None, least: float) -> None:
    """Raise OptionsError where a setting is given and too small, or no number."""
    if value is not None and not least <= value < math.inf:
        raise OptionsError(f"{flag} must be {least:g} or more, got {value:g}.")


def flag_of(name: str) -> str:
    """Return the flag of a field."""
    return "--" + name.replace("_", "-")
