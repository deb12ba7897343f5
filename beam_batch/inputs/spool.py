"""Plain copies, in the work directory, of text that cannot be read from the middle.

Standard input, compressed files, other encodings, remote text and JSON arrays are copied once
while the run is planned; splits and a resumed run read the copy. JSON arrays become lines.
"""

from __future__ import annotations

import bz2
import codecs
import gzip
import math
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple

import orjson

from beam_batch import jsonio
from beam_batch.errors import OptionsError, first_line
from beam_batch.inputs.jsonl import LineEnds
from beam_batch.inputs.opening import open_stream, scheme_of
from beam_batch.inputs.resolve import STDIN, Origin

_BLOCK = 1 << 20


class Copy(NamedTuple):
    """A copy of an input.

    Attributes:
        whole: False where a limit cut it.
    """

    path: str
    format: str
    whole: bool


def needs_copy(origin: Origin, encoding: str) -> bool:
    """Whether an input cannot be read in place."""
    if origin.format in ("parquet", "arrow"):
        return False
    return bool(
        origin.path == STDIN
        or origin.compression
        or origin.format == "json"
        or scheme_of(origin.path)
        or not _is_utf8(encoding)
    )


def copy_plain(
    origin: Origin, folder: Path, number: int, *, encoding: str, rows: int | None
) -> Copy:
    """Copy an input as plain UTF-8 lines; with `rows`, JSON lines only until there are so many.

    Raises:
        OptionsError: it is damaged, cut off, or not what its name says.
    """
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / f"{number:05d}"
    kind = "jsonl" if origin.format == "json" else origin.format
    try:
        with _opened(origin) as file, target.open("wb") as out:
            blocks = _decoded(_blocks(file), encoding)
            if origin.format == "json":
                blocks = _lines_of_json(blocks)
            # Where a CSV record ends is known to its reader only, so CSV is copied whole.
            whole = _write(blocks, out, rows if kind == "jsonl" else None)
            out.flush()
            os.fsync(out.fileno())
    except UnicodeError as error:
        raise OptionsError(
            f"--input {origin.uri}: not {encoding} at byte {error}; say what it is with --encoding."
        ) from None
    except (OSError, EOFError) as error:  # cut off or damaged; zlib and arrow say how
        raise OptionsError(
            f"--input {origin.uri}: cannot be read to its end: {first_line(error)}"
        ) from None
    return Copy(str(target), kind, whole)


def _is_utf8(encoding: str) -> bool:
    return codecs.lookup(encoding).name in ("utf-8", "utf-8-sig")


@contextmanager
def _opened(origin: Origin) -> Iterator[Any]:
    """Open an input as a stream of its plain bytes."""
    if origin.path == STDIN:
        if sys.stdin is None:
            raise OptionsError("--input -: standard input is closed.")
        yield sys.stdin.buffer
        return
    with open_stream(origin.path) as file:
        if origin.compression == "gzip":
            with gzip.GzipFile(fileobj=file) as plain:
                yield plain
        elif origin.compression == "bz2":
            with bz2.BZ2File(file) as plain:
                yield plain
        elif origin.compression == "zstd":
            import pyarrow

            with pyarrow.CompressedInputStream(file, "zstd") as plain:
                yield plain
        else:
            yield file


def _blocks(file: IO[bytes]) -> Iterator[bytes]:
    import zlib

    while True:
        try:
            block = file.read(_BLOCK)
        except zlib.error as error:
            raise OSError(str(error)) from None
        if not block:
            return
        yield block


def _decoded(blocks: Iterator[bytes], encoding: str) -> Iterator[bytes]:
    """Turn another encoding into UTF-8; UTF-8 passes as it is, so that a bad line fails alone."""
    if _is_utf8(encoding):
        yield from blocks
        return
    decoder = codecs.getincrementaldecoder(encoding)()
    place = 0
    for block in blocks:
        try:
            yield decoder.decode(block).encode()
        except UnicodeError as error:  # one about a missing byte order mark says no place
            raise UnicodeError(f"{place + getattr(error, 'start', 0) + 1}") from None
        place += len(block)
    try:
        yield decoder.decode(b"", final=True).encode()
    except UnicodeError:
        raise UnicodeError(f"{place}, where it ends") from None


def _write(blocks: Iterator[bytes], out: IO[bytes], rows: int | None) -> bool:
    """Write blocks, with `rows` until there are more lines than that; return whether all is in."""
    lines, seen = LineEnds(), 0
    for block in blocks:
        if rows is not None and seen > rows:
            return False
        out.write(block)
        if rows is not None and block:
            _, is_row = lines.of(block)
            seen += int(is_row.sum())
    return True


def _lines_of_json(blocks: Iterator[bytes]) -> Iterator[bytes]:
    """Write the elements of a JSON array as lines; what does not begin with [ is lines already."""
    first = next(blocks, b"")
    head = first.removeprefix(codecs.BOM_UTF8).lstrip()
    if not head.startswith(b"["):
        yield first
        yield from blocks
        return
    import ijson

    try:
        for value in ijson.items(_File(head, blocks), "item"):
            yield _dumped(value) + b"\n"
    except ijson.JSONError as error:
        raise EOFError(f"not a JSON array: {first_line(error)}") from None


def _dumped(value: Any) -> bytes:
    """Write an element as a line; one that JSON lines cannot hold becomes a line that says so."""
    try:
        return orjson.dumps(value, default=_as_float)  # ijson reads 1.5 as a Decimal
    except TypeError:  # a long integer, a number beyond floats, or too deep
        pass
    try:
        return jsonio.dumps(_with_floats(value))
    except ValueError:
        return b"1e999"
    except RecursionError:
        return b"[" * (jsonio.DEEPEST + 1)


def _as_float(value: Any) -> float:
    number = float(value)
    if not math.isfinite(number):
        raise ValueError("out of range")
    return number


def _with_floats(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _with_floats(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_with_floats(item) for item in value]
    return value if isinstance(value, (str, int, type(None))) else _as_float(value)


class _File:
    """Reads blocks as a file, for a parser."""

    def __init__(self, head: bytes, rest: Iterator[bytes]) -> None:
        self._block = head
        self._rest = rest

    def read(self, size: int = -1) -> bytes:
        """Return the next bytes, b'' at the end."""
        if size == 0:
            return b""
        block, self._block = self._block, b""
        return block or next(self._rest, b"")
