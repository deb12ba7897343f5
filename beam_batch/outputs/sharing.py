"""What the worker processes of one machine share by locks in the work directory.

The kernel frees a lock when its process dies, however it dies.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO

from beam_batch.errors import OptionsError
from beam_batch.outputs.workdir import StopFlag, WorkDir

PATIENCE = 60.0
"""Seconds to wait for workers of an earlier session: they end when their driver is gone."""
_PAUSE = 0.05


class Presence:
    """Says that a worker is at work in a directory, as long as it is open."""

    def __init__(self, work: WorkDir) -> None:
        self._driver = os.getppid()
        self._file = (work.root / "workers").open("a")
        fcntl.flock(self._file, fcntl.LOCK_SH)

    def driver_is_gone(self) -> bool:
        """Whether the process that started this worker process has died."""
        return os.getppid() != self._driver

    def close(self) -> None:
        """Leave."""
        self._file.close()


def wait_for_workers(work: WorkDir, waiting: Callable[[], None]) -> bool:
    """Wait until no worker of an earlier session is left; call `waiting` once if that takes time.

    Those that outlive their driver are told to drain: an engine elsewhere goes on without it.
    Returns False where some are left after a minute.
    """
    _stop_earlier(work)
    end = time.monotonic() + PATIENCE
    with (work.root / "workers").open("a") as file:
        while not _try(file, fcntl.LOCK_EX):
            if time.monotonic() > end:
                return False
            waiting()
            waiting = _nothing
            time.sleep(_PAUSE)
    return True


def _stop_earlier(work: WorkDir) -> None:
    with contextlib.suppress(OptionsError):  # a damaged manifest is spoken of later
        manifest = work.read_manifest() or {}
        if "stop" in manifest:
            StopFlag(work, manifest["stop"]).set("another session has begun", 1)


class Share:
    """One worker's part of a limit that is for all workers of a machine together."""

    def __init__(self, work: WorkDir, workers: int) -> None:
        self._workers = workers
        self._file, self._index = _claim(work.root, workers)

    def of(self, limit: int) -> int:
        """Return this worker's part of a whole number; all parts add up to it."""
        return limit // self._workers + (self._index < limit % self._workers)

    def close(self) -> None:
        """Leave the part to another worker."""
        self._file.close()


def _claim(folder: Path, workers: int) -> tuple[IO[str], int]:
    while True:
        for index in range(workers):
            file = (folder / f"share-{index}").open("a")
            if _try(file, fcntl.LOCK_EX):
                return file, index
            file.close()
        time.sleep(_PAUSE)  # a worker that is being replaced has not gone yet


def _try(file: IO[str], kind: int) -> bool:
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _nothing() -> None:
    return None
