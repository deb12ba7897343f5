"""Imports Beam without what it has no use for here."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator


@contextlib.contextmanager
def without_pandas() -> Iterator[None]:
    """Keep Beam, imported here for the first time, from importing pandas for its types.

    That is a third of what starting takes. What wants pandas later gets it.
    """
    if "pandas" in sys.modules:
        yield
        return
    sys.modules["pandas"] = None  # type: ignore[assignment]  # Python: there is none
    try:
        yield
    finally:
        del sys.modules["pandas"]
