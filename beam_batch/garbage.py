"""When Python looks for garbage in cycles: seldom, since starting and rows leave next to none."""

from __future__ import annotations

import atexit
import contextlib
import gc
from collections.abc import Iterator

THRESHOLDS = 20_000, 20, 20
"""Python's own are 700, 10, 10, which cost 8% of a row."""


def quick_ends() -> None:
    """Have a process of ours start, and end, without looking through all modules again and again.

    At its end alone that takes a sixth of the shortest run.
    """
    gc.set_threshold(*THRESHOLDS)
    atexit.register(gc.freeze)


@contextlib.contextmanager
def little_collecting() -> Iterator[None]:
    """Look seldom while rows are answered, and never at what is there now."""
    usual = gc.get_threshold()
    gc.freeze()
    gc.set_threshold(*THRESHOLDS)
    try:
        yield
    finally:
        gc.set_threshold(*usual)
        gc.unfreeze()
