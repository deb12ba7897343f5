"""Claims of keys among the worker processes of one machine.

A claim is a lock on one byte of a file, at a place that the key says, so that any number of keys
cost no memory; the kernel frees it when its process dies, however it dies. Two things of POSIX
locks matter here (fcntl(2)): they do not exclude within a process, and a process that closes any
descriptor of the file loses all of them. So each process opens the file once, and knows its own.
"""

from __future__ import annotations

import fcntl
import os
import threading
from pathlib import Path

from beam_batch.reuse.kept import say

FILE = "claims"
_PLACE_BYTES = 7
"""Bytes of a key that make its place: 2**56 is less than what a file may be long."""


class _File:
    """The file as this process has it open."""

    def __init__(self, path: Path) -> None:
        self.fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        self.held: set[int] = set()
        self.users = 0


_files: dict[str, _File] = {}
_lock = threading.Lock()


class Claims:
    """Claims keys in a folder; at most one holder of a key at a time."""

    def __init__(self, folder: Path) -> None:
        """Open the file.

        Raises:
            OSError: the folder cannot be used.
        """
        self._path = str((folder / FILE).resolve())
        with _lock:
            if self._path not in _files:
                _files[self._path] = _File(folder / FILE)
            self._file = _files[self._path]
            self._file.users += 1

    def take(self, key: bytes) -> bool:
        """Claim a key; False where another process or another user in this one has it."""
        place = int.from_bytes(key[:_PLACE_BYTES])
        file = self._file
        with _lock:
            if place in file.held:
                return False
            try:
                fcntl.lockf(file.fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, place)
            except (BlockingIOError, PermissionError):  # POSIX allows EAGAIN and EACCES
                return False
            except OSError as error:  # a file system without locks
                _say_once(
                    f"{self._path}: no locks ({error.strerror}), so worker processes may "
                    "send the same request"
                )
            file.held.add(place)
        return True

    def free(self, key: bytes) -> None:
        """Give a claim of one's own back."""
        place = int.from_bytes(key[:_PLACE_BYTES])
        with _lock:
            self._file.held.discard(place)
            try:
                fcntl.lockf(self._file.fd, fcntl.LOCK_UN, 1, place)
            except OSError:  # it was none
                return

    def close(self) -> None:
        """Leave; the last user in this process gives up all that is held."""
        with _lock:
            self._file.users -= 1
            if not self._file.users:
                os.close(self._file.fd)
                del _files[self._path]


_said: set[str] = set()


def _say_once(text: str) -> None:
    if text not in _said:
        _said.add(text)
        say(text)
