"""JSON Lines: one object a line; lines of white space are no rows (https://jsonlines.org)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from beam_batch import jsonio
from beam_batch.errors import InvalidEncoding, InvalidJSON, InvalidRow
from beam_batch.inputs.base import SPLIT_BYTES, Chunk, Columns, Images, Value
from beam_batch.inputs.opening import open_binary
from beam_batch.records import Source

BOM = b"\xef\xbb\xbf"
_BLOCK = 4 << 20
_BLANKS = b" \t\r\n\x0b\x0c"


def scan(source: Source, rows_a_chunk: int) -> Iterator[Chunk]:
    """Count the rows of a file a block at a time, in chunks that end with a line."""
    cutter = _Cutter(rows_a_chunk)
    lines = LineEnds()
    with open_binary(source.path) as file:
        while block := file.read(_BLOCK):
            yield from cutter.take(*lines.of(block))
    yield from cutter.finish(*lines.rest())


class LineEnds:
    """Finds in each block where lines end, and which of them are rows."""

    def __init__(self) -> None:
        self._place = 0
        self._open_blank = True  # whether the line that goes on is blank so far

    def of(self, block: bytes) -> tuple[Any, Any]:
        """Return offsets behind the lines that end in a block, and whether each is a row."""
        import numpy as np

        if self._place == 0:
            self._place += block.startswith(BOM) and len(BOM)
            block = block.removeprefix(BOM)
        data = np.frombuffer(block, dtype=np.uint8)
        ends = np.flatnonzero(data == 10)
        starts = np.empty_like(ends)
        starts[1:] = ends[:-1] + 1
        starts[:1] = 0
        is_row = data[starts] > 32  # a line that begins with a letter or a bracket is no blank one
        for index in np.flatnonzero(~is_row):
            is_row[index] = bool(block[starts[index] : ends[index]].strip(_BLANKS))
        if len(ends) and not self._open_blank:
            is_row[0] = True
        tail = block[ends[-1] + 1 :] if len(ends) else block
        blank = self._open_blank or len(ends) > 0
        self._open_blank = blank and not tail.strip(_BLANKS)
        offsets = ends + (self._place + 1)
        self._place += len(block)
        return offsets, is_row

    def rest(self) -> tuple[int, bool]:
        """Return the end of the file, and whether a last line without a newline is a row."""
        return self._place, not self._open_blank


class _Cutter:
    """Cuts lines into chunks of so many rows, or so many bytes."""

    def __init__(self, rows_a_chunk: int) -> None:
        self._rows_a_chunk = rows_a_chunk
        self._start = self._stop = self._rows = 0

    def take(self, offsets: Any, is_row: Any) -> Iterator[Chunk]:
        """Take the line ends of a block."""
        import numpy as np

        counts = np.cumsum(is_row)
        done = taken = 0
        while done < len(offsets):
            wanted = taken + self._rows_a_chunk - self._rows
            by_rows = int(np.searchsorted(counts, wanted))
            by_bytes = int(np.searchsorted(offsets, self._start + SPLIT_BYTES))
            cut = max(done, min(by_rows, by_bytes))
            if cut >= len(offsets):
                break
            self._rows += int(counts[cut]) - taken
            taken, done = int(counts[cut]), cut + 1
            yield from self._cut(int(offsets[cut]))
        if len(offsets):
            self._rows += int(counts[-1]) - taken
            self._stop = int(offsets[-1])

    def finish(self, size: int, is_row: bool) -> Iterator[Chunk]:
        """End the last chunk."""
        self._rows += is_row
        yield from self._cut(size)

    def _cut(self, stop: int) -> Iterator[Chunk]:
        if self._rows:
            yield Chunk(self._start, stop, self._rows)
        self._start, self._rows = stop, 0


def read(
    source: Source, start: int, stop: int, columns: Columns = None, images: Images = ()
) -> Iterator[Value]:
    """Yield the rows of a range; an unusable line yields its error."""
    with open_binary(source.path) as file:
        file.seek(start)
        place = start
        while place < stop and (line := file.readline()):
            text = line.removeprefix(BOM) if place == 0 else line
            place += len(line)
            if text and not text.isspace():
                yield parse_line(text)


def names(source: Source) -> tuple[str, ...]:
    """Return nothing: each line names its own fields."""
    return ()


def parse_line(line: bytes) -> Value:
    """Turn one line into a row, or into the error that says why not."""
    try:
        value = jsonio.loads(line)
    except InvalidJSON as error:
        try:
            line.decode()
        except UnicodeDecodeError as wrong:
            return InvalidEncoding(f"not UTF-8 at byte {wrong.start + 1} of the line")
        return error
    if not isinstance(value, dict):
        return InvalidRow(f"expected a JSON object, got {type(value).__name__}")
    return value
