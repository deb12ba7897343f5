"""What is done to a process for speed: to one of our own more than to somebody else's."""

from __future__ import annotations

import atexit
import contextlib
import gc
import sys
import threading
from collections.abc import Iterator

THRESHOLDS = 20_000, 20, 20
"""When Python looks for garbage in cycles. Its own are 700, 10, 10, which cost 8% of a row, and
starting and rows leave next to none.
"""

_is_ours = False
_lock = threading.Lock()
_users = 0
_usual = (0, 0, 0)


def mark_ours() -> None:
    """Note that this process is a command or a worker of ours; it starts and ends in less time.

    To look through all modules at its end takes a sixth of the shortest run.
    """
    global _is_ours
    _is_ours = True
    gc.set_threshold(*THRESHOLDS)
    atexit.register(gc.freeze)


@contextlib.contextmanager
def without_pandas() -> Iterator[None]:
    """Keep Beam, in a process of ours, from importing pandas for its types.

    That is a third of what starting takes. What wants pandas later gets it.
    """
    if not _is_ours or "pandas" in sys.modules:
        yield
        return
    sys.modules["pandas"] = None  # type: ignore[assignment]  # Python: there is none
    try:
        yield
    finally:
        sys.modules.pop("pandas", None)


@contextlib.contextmanager
def little_collecting() -> Iterator[None]:
    """Look for garbage seldom, and never at what is there now; for several users at once."""
    global _users, _usual
    with _lock:
        _users += 1
        if _users == 1:
            _usual = gc.get_threshold()
            if _usual[0]:  # else nobody is to look at all
                gc.set_threshold(*map(max, _usual, THRESHOLDS))
        gc.freeze()
    try:
        yield
    finally:
        with _lock:
            _users -= 1
            if not _users:
                gc.set_threshold(*_usual)
                gc.unfreeze()
