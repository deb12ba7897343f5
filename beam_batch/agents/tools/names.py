"""Names that every provider takes for a tool: letters, digits, _ and -, at most 64."""

from __future__ import annotations

import hashlib
import re

LONGEST_NAME = 64
NAME_RULE = f"may have letters, digits, _ and -, {LONGEST_NAME} at most"
_UNUSUAL = re.compile(r"[^A-Za-z0-9_-]")


def is_usable(name: str) -> bool:
    """Whether a name is as `NAME_RULE` says."""
    return 0 < len(name) <= LONGEST_NAME and not _UNUSUAL.search(name)


def without_spaces(name: str) -> str:
    """Write the name of an agent as one word.

    >>> without_spaces(" my agent")
    'my_agent'
    """
    return name.strip().replace(" ", "_")


def usable(name: str) -> str:
    """Write _ for what is not allowed, and shorten; long names that differ stay different."""
    name = _UNUSUAL.sub("_", name)
    if len(name) <= LONGEST_NAME:
        return name
    return name[: LONGEST_NAME - 9] + "_" + hashlib.sha256(name.encode()).hexdigest()[:8]
