"""CSV as Python's csv module reads it: a header, quoted fields with newlines (RFC 4180)."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from typing import IO

from beam_batch.errors import InvalidEncoding, InvalidRow, OptionsError, RowError
from beam_batch.inputs.base import SPLIT_BYTES, Chunk, Columns, Images, Value
from beam_batch.inputs.jsonl import BOM
from beam_batch.inputs.opening import open_binary
from beam_batch.records import Source

LARGEST_FIELD = 64 << 20
"""A quote that is never closed swallows no more than this before its row is given up."""


class _Records:
    """The records of a file from an offset on, each with the offset behind it.

    A record that is not CSV costs its first line only: reading goes on behind that.
    """

    def __init__(self, file: IO[bytes], start: int, source: Source) -> None:
        csv.field_size_limit(LARGEST_FIELD)
        file.seek(start)
        self._file = file
        self._source = source
        self.place = start
        self._start_reader()

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

    def _start_reader(self) -> None:
        quote = self._source.quote
        self._reader = csv.reader(
            self._lines(),
            strict=True,
            delimiter=self._source.delimiter,
            quotechar=quote or None,
            quoting=csv.QUOTE_MINIMAL if quote else csv.QUOTE_NONE,
        )

    def _go_behind_line(self, start: int) -> None:
        self._file.seek(start)
        self.place = start + len(self._file.readline())
        self._start_reader()

    def _lines(self) -> Iterator[str]:
        for line in iter(self._file.readline, b""):
            text = line.removeprefix(BOM) if self.place == 0 else line
            self.place += len(line)
            yield text.decode("utf-8", "surrogateescape")


def _header(source: Source, records: _Records) -> list[str]:
    name = f"--input {source.uri}"
    cells = next(iter(records), None)
    if cells is None:
        return []
    if isinstance(cells, RowError):
        raise OptionsError(f"{name}: the header is {cells}.")
    blank = [str(place) for place, title in enumerate(cells, 1) if not title.strip()]
    if blank:
        raise OptionsError(f"{name}: column {', '.join(blank)} has no name in the header.")
    if not all(map(_is_unicode, cells)):
        raise OptionsError(f"{name}: the header is not UTF-8; say what it is with --encoding.")
    twice = sorted({title for title in cells if cells.count(title) > 1})
    if twice:
        raise OptionsError(f"{name}: the header names {', '.join(twice)} more than once.")
    return cells


def scan(source: Source, rows_a_chunk: int) -> Iterator[Chunk]:
    """Count the records of a file, in chunks that end with a record."""
    with open_binary(source.path) as file:
        records = _Records(file, 0, source)
        if not _header(source, records):
            return
        start, rows = records.place, 0
        for _ in records:
            rows += 1
            if rows >= rows_a_chunk or records.place - start >= SPLIT_BYTES:
                yield Chunk(start, records.place, rows)
                start, rows = records.place, 0
        if rows:
            yield Chunk(start, records.place, rows)


def read(
    source: Source, start: int, stop: int, columns: Columns = None, images: Images = ()
) -> Iterator[Value]:
    """Yield the records of a range as rows of strings; an unusable one yields its error."""
    with open_binary(source.path) as file:
        header = _header(source, _Records(file, 0, source))
        records = _Records(file, start, source)
        for cells in records:
            yield cells if isinstance(cells, RowError) else _row(header, cells)
            if records.place >= stop:
                return


def names(source: Source) -> tuple[str, ...]:
    """Return the names in the header."""
    with open_binary(source.path) as file:
        return tuple(_header(source, _Records(file, 0, source)))


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
