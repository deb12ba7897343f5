"""A folder of a file system as a place."""

from __future__ import annotations

import contextlib
import os
import shutil
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO

from beam_batch.places.base import Listed

BUFFER = 1 << 20


class Folder:
    """A folder, made at the first `put`."""

    is_folder = True

    def __init__(self, path: str) -> None:
        self.uri = path
        self._root = Path(path)

    def put(self, name: str, data: bytes) -> None:
        """Write beside, sync, rename."""
        path = self._root / name
        try:
            write_atomically(path, data)
        except FileNotFoundError:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, data)

    def put_file(self, name: str, path: Path) -> None:
        """Copy beside, sync, rename."""
        target = self._root / name
        target.parent.mkdir(parents=True, exist_ok=True)
        with replacing(target) as file, path.open("rb") as source:
            shutil.copyfileobj(source, file, BUFFER)

    def get(self, name: str) -> bytes | None:
        """Read a file."""
        try:
            return (self._root / name).read_bytes()
        except FileNotFoundError:
            return None

    def list(self, prefix: str) -> list[Listed]:
        """List files, also of folders below; only those folders are read that may have some."""
        folder, _, start = prefix.rpartition("/")
        return sorted(self._below(f"{folder}/" if folder else "", start))

    def _below(self, folder: str, start: str) -> Iterator[Listed]:
        """Yield the files below a folder ("" or with / at its end) by the beginning of names."""
        missing = contextlib.suppress(FileNotFoundError, NotADirectoryError)  # or removed meanwhile
        with missing, os.scandir(self._root / folder) as entries:
            for entry in entries:
                if not entry.name.startswith(start) or entry.name.endswith(".tmp"):
                    continue
                if entry.is_dir(follow_symlinks=False):
                    yield from self._below(f"{folder}{entry.name}/", "")
                elif entry.is_file():
                    with contextlib.suppress(FileNotFoundError):
                        yield Listed(f"{folder}{entry.name}", entry.stat().st_size)

    def names(self) -> set[str]:
        """List the folder itself."""
        try:
            return set(os.listdir(self._root))
        except FileNotFoundError:
            return set()

    def open(self, name: str) -> IO[bytes]:
        """Open a file."""
        return (self._root / name).open("rb", buffering=BUFFER)

    def remove(self, names: Iterable[str]) -> None:
        """Unlink files."""
        for name in names:
            (self._root / name).unlink(missing_ok=True)


def write_atomically(path: Path, data: bytes) -> None:
    """Put a file in place whole: written beside, synced, renamed."""
    with replacing(path) as file:
        file.write(data)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """Yield a file that is put in place whole at the end, unless an error ends it."""
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Make renames in a folder survive the death of the machine."""
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
