"""JSON Lines: one object a line; lines of white space are no rows (https://jsonlines.org)."""

from __future__ import annotations

from collections.abc import Iterator

from beam_batch import jsonio
from beam_batch.errors import InvalidEncoding, InvalidJSON, InvalidRow
from beam_batch.inputs.base import SPLIT_BYTES, Chunk, Value

BOM = b"\xef\xbb\xbf"
_BUFFER = 1 << 20


def scan(path: str, rows_a_chunk: int) -> Iterator[Chunk]:
    """Count the rows of a file, in chunks that end with a line."""
    start = stop = rows = 0
    with open(path, "rb", buffering=_BUFFER) as file:
        for line in file:
            if stop == 0:
                rows += bool(line.removeprefix(BOM).strip())
            elif not line.isspace():
                rows += 1
            stop += len(line)
            if rows >= rows_a_chunk or stop - start >= SPLIT_BYTES:
                yield Chunk(start, stop, rows)
                start, rows = stop, 0
    if stop > start:
        yield Chunk(start, stop, rows)


def read(path: str, start: int, stop: int) -> Iterator[Value]:
    """Yield the rows of a range; an unusable line yields its error."""
    with open(path, "rb", buffering=_BUFFER) as file:
        file.seek(start)
        place = start
        while place < stop and (line := file.readline()):
            text = line.removeprefix(BOM) if place == 0 else line
            place += len(line)
            if text and not text.isspace():
                yield parse_line(text)


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
