"""The stop flag: says to every worker of a session that no further row is to be sent."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
import time
from dataclasses import dataclass
from functools import cached_property

from beam_batch import jsonio
from beam_batch.errors import InvalidJSON, OptionsError
from beam_batch.outputs.workdir import STORE_INTERVAL, WorkDir

_STOPPED_HERE: dict[str, tuple[str, int]] = {}
"""Stop flags that this process has seen, with reason and exit code."""
_TOLD: set[str] = set()
"""Stop flags that this process has put into an object store, or is about to."""
_NEXT_LOOK: dict[str, float] = {}
"""When this process may look for a flag in an object store again, on its monotonic clock."""


@dataclass(frozen=True)
class StopFlag:
    """Says to every worker of a session that no further row is to be sent."""

    work: WorkDir
    name: str

    def set(self, reason: str, exit_code: int) -> None:
        """Raise the flag; the first reason stays. An event loop does not wait for a store."""
        _STOPPED_HERE.setdefault(self._key, (reason, exit_code))
        if not self.work.is_folder:
            self._tell()
            return
        data = jsonio.dumps({"reason": reason, "exit_code": exit_code})
        with contextlib.suppress(OSError):  # set already, or the disk is full: stopped all the same
            path = self.work.root / self.name
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
            with os.fdopen(fd, "wb") as file:
                file.write(data)

    def is_set(self) -> bool:
        """Whether the run is to stop; in an object store, as it was two seconds ago."""
        if self._key in _STOPPED_HERE:
            if not self.work.is_folder:
                self._tell()
            return True
        if self.work.is_folder:
            is_there = os.path.exists(self.work.root / self.name)
        else:
            is_there = self._look()
        if is_there:
            _STOPPED_HERE.setdefault(self._key, ("stopped", 1))
        return is_there

    def is_set_here(self) -> bool:
        """Whether this process has seen the flag; costs nothing."""
        return self._key in _STOPPED_HERE

    def read(self) -> tuple[str, int] | None:
        """Return the reason and the exit code, or None."""
        try:
            data = jsonio.loads(self.work.place.get(self.name) or b"")
        except (OSError, InvalidJSON):
            return _STOPPED_HERE.get(self._key)
        return data["reason"], data["exit_code"]

    @cached_property
    def _key(self) -> str:
        return f"{self.work.path}/{self.name}"

    def _tell(self) -> None:
        """Put the flag into a store, once; where the store does not take it, the next look does."""
        if self._key in _TOLD:
            return
        _TOLD.add(self._key)
        reason, exit_code = _STOPPED_HERE[self._key]
        data = jsonio.dumps({"reason": reason, "exit_code": exit_code})

        def put() -> None:
            try:
                if self.work.place.get(self.name) is None:
                    self.work.place.put(self.name, data)
            except OSError:
                _TOLD.discard(self._key)

        try:
            asyncio.get_running_loop()
        except RuntimeError:
            put()
        else:
            threading.Thread(target=put).start()

    def _look(self) -> bool:
        now = time.monotonic()
        if now < _NEXT_LOOK.get(self._key, 0.0):
            return False
        _NEXT_LOOK[self._key] = now + STORE_INTERVAL
        try:
            return self.work.place.get(self.name) is not None
        except OSError:  # who cannot write either will stop by that
            return False


def latest_flag(work: WorkDir) -> StopFlag | None:
    """Return the flag of the session that has begun last, or None where there is none."""
    with contextlib.suppress(OptionsError):  # a damaged manifest is spoken of elsewhere
        manifest = work.read_manifest() or {}
        if "stop" in manifest:
            return StopFlag(work, manifest["stop"])
    return None
