"""Names that every provider takes for a tool: letters, digits, _ and -, at most 64."""

from __future__ import annotations

import hashlib
import re

LONGEST_NAME = 64
_UNUSUAL = re.compile(r"[^A-Za-z0-9_-]")


def usable(name: str) -> str:
    """Write _ for what is not allowed, and shorten; long names that differ stay different."""
    name = _UNUSUAL.sub("_", name)
    if len(name) <= LONGEST_NAME:
        return name
    return name[: LONGEST_NAME - 9] + "_" + hashlib.sha256(name.encode()).hexdigest()[:8]
