"""Plain copies, in the work directory, of text that cannot be read from the middle.

Standard input, compressed files, other encodings, remote text and JSON arrays are copied once
while the run is planned; splits and a resumed run read the copy. JSON arrays become lines.
"""

from __future__ import annotations

import codecs
import os
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import IO, Any, NamedTuple

import orjson

from beam_batch import jsonio
from beam_batch.errors import InputLost, OptionsError, first_line
from beam_batch.inputs.opening import open_binary, scheme_of
from beam_batch.inputs.resolve import STDIN, Origin

_BLOCK = 1 << 20
SPARE_LINES = 1_000
"""Lines copied beyond those that a limit asks for: blank ones, and newlines inside CSV quotes."""


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
    """Copy an input as plain UTF-8 lines; with `rows`, as many of them as are surely enough.

    Raises:
        OptionsError: it is damaged, cut off, or not what its name says.
    """
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / f"{number:05d}"
    lines = None if rows is None else rows + SPARE_LINES
    try:
        with _opened(origin) as file, target.open("wb") as out:
            blocks = _decoded(_blocks(file), encoding)
            if origin.format == "json":
                blocks = _lines_of_json(blocks)
            whole = _write(blocks, out, lines)
            out.flush()
            os.fsync(out.fileno())
    except InputLost:
        raise
    except UnicodeDecodeError as error:
        raise OptionsError(
            f"--input {origin.uri}: not {encoding} at byte {error.start + 1}; say what it is with "
            "--encoding."
        ) from None
    except (OSError, EOFError) as error:  # cut off or damaged; zlib and arrow say how
        raise OptionsError(
            f"--input {origin.uri}: cannot be read to its end: {first_line(error)}"
        ) from None
    return Copy(str(target), "jsonl" if origin.format == "json" else origin.format, whole)


def _is_utf8(encoding: str) -> bool:
    return codecs.lookup(encoding).name in ("utf-8", "utf-8-sig")


def _opened(origin: Origin) -> AbstractContextManager[Any]:
    if origin.path == STDIN:
        return nullcontext(sys.stdin.buffer)
    file = open_binary(origin.path)
    if origin.compression == "gzip":
        import gzip

        return gzip.GzipFile(fileobj=file)
    if origin.compression == "bz2":
        import bz2

        return bz2.BZ2File(file)
    if origin.compression == "zstd":
        import pyarrow

        opened: AbstractContextManager[Any] = pyarrow.CompressedInputStream(file, "zstd")
        return opened
    return file


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
    for block in blocks:
        yield decoder.decode(block).encode()
    yield decoder.decode(b"", final=True).encode()


def _write(blocks: Iterator[bytes], out: IO[bytes], lines: int | None) -> bool:
    """Write blocks until there are so many lines; return whether that was all."""
    seen = 0
    for block in blocks:
        if lines is not None and seen >= lines:
            return False
        out.write(block)
        if lines is not None:
            seen += block.count(b"\n")
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
    try:
        return orjson.dumps(value, default=float)  # ijson reads 1.5 as a Decimal
    except TypeError:
        return jsonio.dumps(_with_floats(value))


def _with_floats(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _with_floats(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_with_floats(item) for item in value]
    return value if isinstance(value, (str, int, type(None))) else float(value)


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
