"""The outcomes of one shard in input order, out of part files that hold them as they came."""

from __future__ import annotations

from array import array
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from beam_batch.outputs import parts

IN_MEMORY = 32 << 20
"""Bytes of part files up to which a shard is read whole; of a larger one, lines are sought."""


def in_order(paths: list[Path]) -> Iterator[parts.Found | None]:
    """Yield a shard's outcomes by row number; of one row the best last (answered, then newest).

    None stands for a torn line.
    """
    if sum(path.stat().st_size for path in paths) <= IN_MEMORY:
        return _read(paths)
    return _sought(paths)


def _read(paths: list[Path]) -> Iterator[parts.Found | None]:
    found: list[parts.Found] = []
    for number, path in enumerate(paths):
        for item in parts.read(path, first=number * IN_MEMORY):
            if item is None:
                yield None
            else:
                found.append(item)
    found.sort()
    yield from found


def _sought(paths: list[Path]) -> Iterator[parts.Found | None]:
    import numpy as np

    columns = [array("q") for _ in range(5)]
    names = [parts.PartName.parse(path) for path in paths]
    for file, path in enumerate(paths):
        for entry in parts.scan(path):
            if entry is None:
                yield None
                continue
            values = (entry.row_number, entry.ok * 1_000_000 + names[file].session, file)
            for column, value in zip(columns, (*values, entry.offset, entry.length), strict=True):
                column.append(value)
    row, rank, file_of, offset, length = (np.frombuffer(c, dtype=np.int64) for c in columns)
    with _Handles() as handles:
        for i in np.lexsort((rank, row)):
            handle = handles.open(paths[file_of[i]])
            handle.seek(offset[i])
            yield parts.decode(handle.read(length[i]), names[file_of[i]].session)


class _Handles:
    """Files open for reading, a few of them at a time; use as a context manager."""

    def __init__(self) -> None:
        self._open: OrderedDict[Path, IO[bytes]] = OrderedDict()

    def __enter__(self) -> _Handles:
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self._open.values():
            handle.close()

    def open(self, path: Path) -> IO[bytes]:
        """Return a file, opened at first use or again."""
        if path in self._open:
            self._open.move_to_end(path)
            return self._open[path]
        if len(self._open) >= parts.OPEN_FILES:
            self._open.popitem(last=False)[1].close()
        self._open[path] = path.open("rb")
        return self._open[path]
