"""A lane: one bundle's share of the window of requests in flight."""

from __future__ import annotations

import threading
from queue import SimpleQueue
from typing import TYPE_CHECKING

from beam_batch.records import Outcome, Prompt

if TYPE_CHECKING:
    from beam_batch.calling.window import Window

Result = Outcome | BaseException | None
"""What comes back for a prompt: its outcome, a bug to raise, or None where it is recorded or the
run has stopped."""


class Lane:
    """One bundle processor's share of a window: submit prompts, take results."""

    def __init__(self, window: Window) -> None:
        self._window = window
        self.recorder = window.new_recorder()
        self._results: SimpleQueue[Result] = SimpleQueue()
        self._abandoned = False
        self._lock = threading.Lock()
        self._changed = threading.Event()
        self.pending = 0

    def put(self, result: Result) -> None:
        """Take a result from the window; one that nobody waits for any more frees its slot."""
        with self._lock:
            if not self._abandoned and not (result is None and self.recorder is not None):
                self._results.put(result)
                self._changed.set()
                return
            self.pending -= 1
            if not self.pending:
                self._changed.set()
                if self._abandoned:  # this is the event loop, and closing may take a while
                    threading.Thread(target=self.close, daemon=True).start()
        self._window.release()

    def abandon(self) -> None:
        """Give all slots back, at once or when their requests end: the bundle has failed.

        What is in flight is recorded all the same when it comes back.
        """
        with self._lock:
            self._abandoned = True
            ready = self._results.qsize()
            self.pending -= ready
            if not self.pending:
                self.close()
        for _ in range(ready):
            self._window.release()

    def close(self) -> None:
        """Close the part files of this bundle."""
        if self.recorder is not None:
            self.recorder.close()

    def try_submit(self, prompt: Prompt) -> bool:
        """Submit a prompt if the window has room; wait a moment where nothing else can be done."""
        nothing_to_take = self.recorder is not None or not self.pending
        if not self._window.try_acquire(0.1 if nothing_to_take else 0):
            return False
        with self._lock:
            self.pending += 1
        self._window.submit(prompt, self)
        return True

    def wait(self) -> None:
        """Wait until a result can be taken, or nothing is pending, or a moment has passed."""
        self._changed.clear()
        if self.pending and self._results.empty():
            self._changed.wait(0.5)

    def take(self) -> Outcome | None:
        """Take a result; None where a stopped run left a prompt without an outcome.

        The slot is kept until `settle`, which the caller runs once the outcome is on disk.

        Raises:
            Empty: nothing is ready.
        """
        result = self._results.get(block=False)
        with self._lock:
            self.pending -= 1
        if isinstance(result, BaseException):
            self._window.release()
            raise result
        return result

    def settle(self) -> None:
        """Free the slot of a result that was taken."""
        self._window.release()

    def ready(self) -> bool:
        """Whether a result can be taken."""
        return not self._results.empty()
