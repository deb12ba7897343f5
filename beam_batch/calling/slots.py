"""How many prompts a window holds, in flight or waiting for their turn."""

from __future__ import annotations

import threading


class Slots:
    """Counts free places. Whoever waits is woken when there are enough, not for each one.

    A wake-up for each row would cost the event loop as much as the rest of recording it.
    """

    def __init__(self, number: int, enough: int = 1) -> None:
        self._number = self._free = number
        self._enough = enough
        self._waiting = 0
        self._changed = threading.Condition(threading.Lock())

    def acquire(self, timeout: float = 0) -> bool:
        """Take a place, waiting at most some seconds for one."""
        with self._changed:
            if self._free <= 0 and timeout > 0:
                self._waiting += 1
                self._changed.wait_for(lambda: self._free >= self._enough, timeout)
                self._waiting -= 1
            if self._free <= 0:
                return False
            self._free -= 1
            return True

    def resize(self, number: int, enough: int) -> None:
        """Have more places or fewer; those that are taken stay so."""
        with self._changed:
            self._free += number - self._number
            self._number, self._enough = number, enough
            self._changed.notify_all()

    def release(self) -> None:
        """Give a place back."""
        with self._changed:
            self._free += 1
            if self._waiting and self._free >= self._enough:
                self._changed.notify_all()
