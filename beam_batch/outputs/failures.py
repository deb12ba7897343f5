"""How many rows of a session have failed, over all workers: a byte each.

In a folder all append to one file, and see its length at once. In an object store each process has
an object of its own, put again every few seconds; one list shows the sizes of all. So there a run
may go on for some seconds after the limit is reached, and no longer.
"""

from __future__ import annotations

import threading
import uuid
from pathlib import Path

from beam_batch.outputs.workdir import WorkDir
from beam_batch.places import Place

_counts: dict[tuple[str, str], Failures] = {}
_counts_lock = threading.Lock()


class Failures:
    """This process's failures in a session, and as far as is known those of all others."""

    def __init__(self, place: Place, session: int) -> None:
        self._place = place
        self._prefix = f"failures-{session:04d}"
        self._name = f"{self._prefix}-{uuid.uuid4().hex[:12]}"
        self._one, self._at_place = threading.Lock(), threading.Lock()
        self._own = self._put = self._elsewhere = 0

    def add(self) -> int:
        """Count one, and return how many are known of. Does not wait for a store.

        Raises:
            OSError: the folder does not take it.
        """
        if self._place.is_folder:
            with (Path(self._place.uri) / self._prefix).open("ab", buffering=0) as file:
                file.write(b"x")
                return file.tell()
        with self._one:
            self._own += 1
            return self._own + self._elsewhere

    def sync(self) -> int:
        """Tell others, and return how many there are; waits for the store, and is for one only.

        Raises:
            OSError: the store does not answer.
        """
        with self._at_place:
            own = self._own
            if own > self._put:
                self._place.put(self._name, b"x" * own)
                self._put = own
            found = self._place.list(f"{self._prefix}-")
            self._elsewhere = sum(item.size for item in found if item.name != self._name)
            return self._own + self._elsewhere


def failures_of(work: WorkDir, session: int, name: str) -> Failures:
    """Return this process's count for a session; made at first use.

    `name` is the session's alone, as that of its stop flag is: numbers begin anew with --overwrite.
    """
    with _counts_lock:
        key = work.path, name
        if key not in _counts:
            _counts[key] = Failures(work.place, session)
        return _counts[key]
