"""What every input format offers: a scan that counts rows, and a read of a range."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from beam_batch.errors import RowError
from beam_batch.inputs.digest import whole_digest

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
        scan: path, rows a chunk.
        read: path, start, stop.
        digest: path; changes when the content does.
    """

    scan: Callable[[str, int], Iterator[Chunk]]
    read: Callable[[str, int, int], Iterator[Value]]
    digest: Callable[[str], str] = whole_digest
