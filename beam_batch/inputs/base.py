"""What every input format offers: a scan that counts rows, and a read of a range."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from beam_batch.errors import RowError
from beam_batch.records import Source

SPLIT_ROWS = 5_000
SPLIT_BYTES = 8 << 20


class Chunk(NamedTuple):
    """Consecutive rows of one file.

    Attributes:
        start, stop: byte range for text, row range for Parquet and Arrow.
        rows: how many rows the range holds; blank lines are none.
    """

    start: int
    stop: int
    rows: int


Value = dict[str, Any] | RowError
"""What a read yields for a row: its fields, or why it cannot be used."""

Columns = tuple[str, ...] | None
"""Fields that a read needs, or None for all; formats that store rows whole ignore it."""
Images = tuple[str, ...]
"""Fields whose bytes are images: they become data: URLs; formats without bytes ignore it."""


class Format(NamedTuple):
    """The functions of one input format. Each opens the source's path through `opening`.

    Attributes:
        scan: source, rows a chunk; raises OptionsError for a file that is not of the format.
        read: source, start, stop, columns, images.
        names: source; names of the columns, or () where rows carry their own.
    """

    scan: Callable[[Source, int], Iterator[Chunk]]
    read: Callable[[Source, int, int, Columns, Images], Iterator[Value]]
    names: Callable[[Source], tuple[str, ...]]
