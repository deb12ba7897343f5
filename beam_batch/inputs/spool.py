"""Plain copies, in the work directory, of text that cannot be read from the middle.

Standard input, compressed files, other encodings, remote text and JSON arrays are copied once
while the run is planned; splits and a resumed run read the copy. JSON arrays become lines.
"""

from __future__ import annotations

import bz2
import codecs
import gzip
import itertools
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple

from beam_batch.errors import OptionsError, first_line
from beam_batch.inputs.jsonl import LineEnds
from beam_batch.inputs.opening import open_stream
from beam_batch.inputs.resolve import STDIN, Origin
from beam_batch.places.remote import scheme_of

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
    elements = ArrayElements()
    for block in itertools.chain([head[1:]], blocks):
        yield from elements.of(block)
    elements.end()


class ArrayElements:
    """Cuts the text of a JSON array, behind its first bracket, into one line an element.

    Only brackets, quotes and commas are looked at; what an element says is judged when its line is
    read, as any other line. A raw newline can stand between tokens only, so a space does as well.
    """

    def __init__(self) -> None:
        self._element: list[bytes] = []
        self._depth = 1
        self._in_string = False
        self._skip = 0  # bytes of the next block that a backslash has taken
        self._count = 0

    def of(self, block: bytes) -> Iterator[bytes]:
        """Take the next bytes; yield the lines of the elements that end in them."""
        start, place = 0, self._skip
        self._skip = 0
        while True:
            found = (_IN_STRING if self._in_string else _OUTSIDE).search(block, place)
            if found is None:
                break
            mark, place = found[0], found.end()
            if mark == b"\\":
                place += 1
                self._skip = max(0, place - len(block))
            elif mark == b'"':
                self._in_string = not self._in_string
            elif self._depth == 0:
                raise EOFError("not a JSON array: something follows its end")
            elif mark == b"," and self._depth == 1:
                yield self._line(block[start : found.start()], last=False)
                start = place
            elif mark in b"[{":
                self._depth += 1
            elif mark in b"]}":
                self._depth -= 1
                if self._depth == 0:
                    line = self._line(block[start : found.start()], last=True)
                    if line:
                        yield line
                    start = place
        rest = block[start:]
        if self._depth == 0 and rest.strip():
            raise EOFError("not a JSON array: something follows its end")
        self._element.append(rest)

    def end(self) -> None:
        """Raise EOFError where the array has not ended."""
        if self._depth:
            raise EOFError(f"the JSON array ends in the midst of element {self._count + 1}")

    def _line(self, tail: bytes, last: bool) -> bytes:
        text = b"".join([*self._element, tail]).strip()
        self._element = []
        if not text:
            if last and not self._count:
                return b""
            raise EOFError(f"not a JSON array: element {self._count + 1} is missing")
        self._count += 1
        return text.replace(b"\n", b" ").replace(b"\r", b" ") + b"\n"


_OUTSIDE = re.compile(rb'["\[\]{},]')
_IN_STRING = re.compile(rb'["\\]')
