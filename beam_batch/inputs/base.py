"""What every input format offers: a scan that counts rows, and a read of a range."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from beam_batch.errors import RowError

SPLIT_ROWS = 5_000
SPLIT_BYTES = 8 << 20


class Chunk(NamedTuple):
    """Consecutive rows of one file.

    Attributes:
        start, stop: byte range for text, row range for Parquet.
        rows: how many rows the range holds; blank lines are none.
    """

    start: int
    stop: int
    rows: int


Value = dict[str, Any] | RowError
"""What a read yields for a row: its fields, or why it cannot be used."""


class Format(NamedTuple):
    """The functions of one input format.

    Attributes:
        scan: path, rows a chunk, observer of the bytes that identify the content.
        read: path, start, stop.
    """

    scan: Callable[[str, int, Callable[[bytes], object]], Iterator[Chunk]]
    read: Callable[[str, int, int], Iterator[Value]]
