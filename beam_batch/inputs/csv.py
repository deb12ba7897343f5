"""CSV as Python's csv module reads it: a header, quoted fields with newlines (RFC 4180)."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from typing import IO

from beam_batch.errors import InvalidEncoding, InvalidRow, OptionsError, RowError
from beam_batch.inputs.base import SPLIT_BYTES, Chunk, Value
from beam_batch.inputs.jsonl import BOM

LARGEST_FIELD = 64 << 20
"""A quote that is never closed swallows no more than this before its row is given up."""
_BUFFER = 1 << 20


class _Records:
    """The records of a file from an offset on, each with the offset behind it.

    A record that is not CSV costs its first line only: reading goes on behind that.
    """

    def __init__(self, file: IO[bytes], start: int) -> None:
        csv.field_size_limit(LARGEST_FIELD)
        file.seek(start)
        self._file = file
        self.place = start
        self._reader = csv.reader(self._lines(), strict=True)

    def __iter__(self) -> Iterator[list[str] | RowError]:
        """Yield cells, or the error of a record that cannot be read; blank lines are left out."""
        while True:
            start = self.place
            try:
                cells = next(self._reader)
            except StopIteration:
                return
            except csv.Error as error:
                self._go_behind_line(start)
                yield InvalidRow(f"not readable as CSV: {error}")
                continue
            if cells:
                yield cells

    def _go_behind_line(self, start: int) -> None:
        self._file.seek(start)
        self.place = start + len(self._file.readline())
        self._reader = csv.reader(self._lines(), strict=True)

    def _lines(self) -> Iterator[str]:
        for line in iter(self._file.readline, b""):
            text = line.removeprefix(BOM) if self.place == 0 else line
            self.place += len(line)
            yield text.decode("utf-8", "surrogateescape")


def _header(path: str, records: _Records) -> list[str]:
    cells = next(iter(records), None)
    if cells is None:
        return []
    if isinstance(cells, RowError):
        raise OptionsError(f"--input {path}: the header is {cells}.")
    blank = [str(place) for place, name in enumerate(cells, 1) if not name.strip()]
    if blank:
        raise OptionsError(f"--input {path}: column {', '.join(blank)} has no name in the header.")
    if not all(map(_is_unicode, cells)):
        raise OptionsError(f"--input {path}: the header is not UTF-8; convert the file to UTF-8.")
    twice = sorted({name for name in cells if cells.count(name) > 1})
    if twice:
        raise OptionsError(f"--input {path}: the header names {', '.join(twice)} more than once.")
    return cells


def scan(path: str, rows_a_chunk: int) -> Iterator[Chunk]:
    """Count the records of a file, in chunks that end with a record."""
    with open(path, "rb", buffering=_BUFFER) as file:
        records = _Records(file, 0)
        if not _header(path, records):
            return
        start, rows = records.place, 0
        for _ in records:
            rows += 1
            if rows >= rows_a_chunk or records.place - start >= SPLIT_BYTES:
                yield Chunk(start, records.place, rows)
                start, rows = records.place, 0
        if rows:
            yield Chunk(start, records.place, rows)


def read(path: str, start: int, stop: int) -> Iterator[Value]:
    """Yield the records of a range as rows of strings; an unusable one yields its error."""
    with open(path, "rb", buffering=_BUFFER) as file:
        header = _header(path, _Records(file, 0))
        records = _Records(file, start)
        for cells in records:
            yield cells if isinstance(cells, RowError) else _row(header, cells)
            if records.place >= stop:
                return


def _row(header: list[str], cells: list[str]) -> Value:
    if len(cells) != len(header):
        return InvalidRow(f"{len(cells)} cells, but the header has {len(header)} columns")
    for name, cell in zip(header, cells, strict=True):
        if not cell.isascii() and not _is_unicode(cell):
            return InvalidEncoding(f"not UTF-8 in column {name!r}")
    return dict(zip(header, cells, strict=True))


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
