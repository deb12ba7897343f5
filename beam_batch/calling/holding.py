"""One window a worker process, shared by its bundles, and closed after the last of them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

from beam_batch.calling.setup import WindowSpec
from beam_batch.calling.window import Window

LINGER = 5.0
"""Seconds that a window without a bundle stays open, where an engine ends bundles one by one."""


@dataclass
class _Held:
    """This process's window of a run, and who holds it."""

    window: Window
    users: int = 0
    closing: threading.Timer | None = None


_windows: dict[str, _Held] = {}
_windows_lock = threading.Lock()


def acquire_window(spec: WindowSpec, make: Callable[[WindowSpec], Window] = Window) -> Window:
    """Return this process's window, made at first use."""
    with _windows_lock:
        held = _windows.get(spec.token)
        if held is None:
            held = _windows[spec.token] = _Held(make(spec))
        if held.closing is not None:
            held.closing.cancel()
            held.closing = None
        held.users += 1
        return held.window


def release_window(spec: WindowSpec) -> None:
    """Close the process's window when its last user is done, or a little later."""
    with _windows_lock:
        held = _windows[spec.token]
        held.users -= 1
        if held.users:
            return
        if spec.linger and not (spec.record is not None and spec.record.stop.is_set()):
            held.closing = threading.Timer(spec.linger, _close_idle, (spec.token,))
            held.closing.daemon = True
            held.closing.start()
            return
        del _windows[spec.token]
    held.window.close()


def close_idle_windows() -> None:
    """Close the windows that nobody holds at this moment."""
    for token in list(_windows):
        _close_idle(token)


def _close_idle(token: str) -> None:
    with _windows_lock:
        held = _windows.get(token)
        if held is None or held.users:
            return
        del _windows[token]
        if held.closing is not None:
            held.closing.cancel()
    held.window.close()
