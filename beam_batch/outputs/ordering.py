"""The outcomes of one shard in input order, out of part files that hold them as they came."""

from __future__ import annotations

from array import array
from collections import OrderedDict
from collections.abc import Iterator
from typing import IO

from beam_batch.outputs import parts

IN_MEMORY = 32 << 20
"""Bytes of part files up to which a shard is read whole; of a larger one, lines are sought."""


def in_order(files: list[parts.PartFile]) -> Iterator[parts.Found | None]:
    """Yield a shard's outcomes by row number; of one row the best last (answered, then newest).

    None stands for a torn line.
    """
    if sum(part.size for part in files) <= IN_MEMORY:
        return _read(files)
    return _sought(files)


def _read(files: list[parts.PartFile]) -> Iterator[parts.Found | None]:
    found: list[parts.Found] = []
    for number, part in enumerate(files):
        for item in parts.read(part, first=number * IN_MEMORY):
            if item is None:
                yield None
            else:
                found.append(item)
    found.sort()
    yield from found


def _sought(files: list[parts.PartFile]) -> Iterator[parts.Found | None]:
    import numpy as np

    columns = [array("q") for _ in range(5)]
    for file, part in enumerate(files):
        for entry in parts.scan(part):
            if entry is None:
                yield None
                continue
            values = (entry.row_number, entry.ok * 1_000_000 + part.session, file)
            for column, value in zip(columns, (*values, entry.offset, entry.length), strict=True):
                column.append(value)
    row, rank, file_of, offset, length = (np.frombuffer(c, dtype=np.int64) for c in columns)
    with _Handles() as handles:
        for i in np.lexsort((rank, row)):
            part = files[file_of[i]]
            handle = handles.open(part)
            handle.seek(offset[i])
            yield parts.decode(handle.read(length[i]), part.session)


class _Handles:
    """Files open for reading, a few of them at a time; use as a context manager."""

    def __init__(self) -> None:
        self._open: OrderedDict[str, IO[bytes]] = OrderedDict()

    def __enter__(self) -> _Handles:
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self._open.values():
            handle.close()

    def open(self, part: parts.PartFile) -> IO[bytes]:
        """Return a file, opened at first use or again."""
        if part.name in self._open:
            self._open.move_to_end(part.name)
            return self._open[part.name]
        if len(self._open) >= parts.OPEN_FILES:
            self._open.popitem(last=False)[1].close()
        self._open[part.name] = part.open()
        return self._open[part.name]
