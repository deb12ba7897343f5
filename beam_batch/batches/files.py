"""Request files: what a provider is sent, cut at its limits, and beside each the rows it is for.

``NAME.jsonl`` has one request a line, ``NAME.rows`` its row on the same line: ``[shard,number,id,
data]``. A custom id is ``NAME-LINE-ROW``, so that an answer is looked up by its line's number.
"""

from __future__ import annotations

import hashlib
import os
import re
import uuid
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from beam_batch import jsonio
from beam_batch.batches.journal import RequestFile
from beam_batch.errors import RequestRejected
from beam_batch.outputs import parts
from beam_batch.places import Place
from beam_batch.records import Row

_ROW = re.compile(rb"\[(\d+),(\d+),")


class Limits(NamedTuple):
    """What a provider takes in one file: requests, and bytes."""

    requests: int
    size: int


class RequestWriter:
    """Writes request files, a new one whenever a limit is reached."""

    def __init__(self, folder: Path, limits: Limits, attempt: int = 1) -> None:
        self._folder = folder
        self._limits = limits
        self._prefix = f"r{attempt}-{uuid.uuid4().hex[:8]}"
        self._closed: list[RequestFile] = []
        self._opened = 0
        self._lines = self._size = 0

    def add(self, row: Row, request: bytes, include_input: bool) -> None:
        """Append one row's request: an object without its custom id, which comes first here.

        Raises:
            RequestRejected: it is larger than a whole file may be.
        """
        data = row.data if include_input else None
        self._append(request, jsonio.dumps([row.shard, row.number, row.id, data]), row.number)

    def copy(self, request: bytes, row: bytes) -> None:
        """Append a line of another request file."""
        match = _ROW.match(row)
        assert match is not None
        end_of_id = request.index(b'",') + 2
        self._append(b"{" + request[end_of_id:].rstrip(b"\n"), row.rstrip(b"\n"), int(match[2]))

    def close(self) -> list[RequestFile]:
        """Sync and close, and say what was written."""
        self._finish_file()
        return self._closed

    def _append(self, request: bytes, row: bytes, number: int | None) -> None:
        room = 96  # more than a custom id takes
        size = len(request) + room
        if size > self._limits.size:
            raise RequestRejected(
                f"the request has {size / 1e6:.0f} MB; the provider takes batches of "
                f"{self._limits.size / 1e6:.0f} MB"
            )
        if self._lines and (
            self._lines >= self._limits.requests or self._size + size > self._limits.size
        ):
            self._finish_file()
        if not self._lines:
            self._start_file()
        head = f'{{"custom_id":"{self._name}-{self._lines}-{number}",'.encode()
        line = head + request[1:] + b"\n"
        self._requests.write(line)
        self._rows.write(row + b"\n")
        self._digest.update(line)
        self._lines += 1
        self._size += len(line)

    def _start_file(self) -> None:
        self._name = f"{self._prefix}-{self._opened}"
        self._opened += 1
        self._requests = requests_path(self._folder, self._name).open("wb")
        self._rows = rows_path(self._folder, self._name).open("wb")
        self._digest = hashlib.blake2b(digest_size=8)

    def _finish_file(self) -> None:
        if not self._lines:
            return
        for file in (self._requests, self._rows):
            sync_and_close(file)
        self._closed.append(
            RequestFile(self._name, self._lines, self._size, self._digest.hexdigest())
        )
        self._lines = self._size = 0


def sync_and_close(file: Any) -> None:
    """Close a file whose content is to survive the death of the machine."""
    file.flush()
    os.fsync(file.fileno())
    file.close()


def requests_path(folder: Path, name: str) -> Path:
    """Name a request file."""
    return folder / f"{name}.jsonl"


def rows_path(folder: Path, name: str) -> Path:
    """Name the file of the rows beside it."""
    return folder / f"{name}.rows"


class RowTable:
    """The rows of one request file by line; holds 24 bytes a row, reads the rest when asked.

    Attributes:
        done: of each line, whether its row has an outcome.
    """

    def __init__(self, folder: Path, file: RequestFile) -> None:
        import numpy as np

        self._name = file.name
        self._file = rows_path(folder, file.name).open("rb")
        columns = [array("q") for _ in range(3)]
        offset = 0
        for line in self._file:
            match = _ROW.match(line)
            assert match is not None
            for column, value in zip(columns, (int(match[1]), int(match[2]), offset), strict=True):
                column.append(value)
            offset += len(line)
        self._shards, self._numbers, self._offsets = (
            np.frombuffer(column, dtype=np.int64) for column in columns
        )
        self.done: Any = np.zeros(len(self._offsets), dtype=bool)

    def find_outcomes(self, place: Place, since: int) -> None:
        """Mark the rows that were answered, or have failed in session `since` or later."""
        import numpy as np

        known = parts.by_shard(place)
        for shard in np.unique(self._shards):
            rows = parts.finished_rows(known.get(int(shard), []), since)
            here = self._shards == shard
            finished = np.fromiter(rows, dtype=np.int64, count=len(rows))
            self.done[here] |= np.isin(self._numbers[here], finished)

    def line_of(self, custom_id: Any) -> int | None:
        """Return the line that a custom id names, or None where it is none of this file's."""
        start = f"{self._name}-"
        if not isinstance(custom_id, str) or not custom_id.startswith(start):
            return None
        line, _, number = custom_id[len(start) :].partition("-")
        if not line.isdecimal() or int(line) >= len(self._numbers):
            return None
        return int(line) if number == str(self._numbers[int(line)]) else None

    def row(self, line: int) -> Row:
        """Read the row of a line."""
        self._file.seek(int(self._offsets[line]))
        shard, number, row_id, data = jsonio.loads(self._file.readline(), jsonio.RECORD_DEEPEST)
        return Row(shard, number, row_id, data)

    @property
    def left(self) -> int:
        """How many rows have no outcome."""
        return int((~self.done).sum())

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def lines_left(folder: Path, file: RequestFile, done: Any) -> Iterator[tuple[bytes, bytes]]:
    """Yield request and row of each line that is not done."""
    with (
        requests_path(folder, file.name).open("rb") as requests,
        rows_path(folder, file.name).open("rb") as rows,
    ):
        for line, (request, row) in enumerate(zip(requests, rows, strict=True)):
            if not done[line]:
                yield request, row
