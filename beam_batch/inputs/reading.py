"""Reading the rows of a split; the same for the plan, a preview and a worker."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from beam_batch import jsonio
from beam_batch.errors import InputLost, MissingIdField, RowError
from beam_batch.inputs.base import Columns, Images
from beam_batch.inputs.formats import FORMATS
from beam_batch.inputs.ids import row_id
from beam_batch.inputs.opening import open_binary
from beam_batch.inputs.resolve import stamp_of
from beam_batch.places import scheme_of
from beam_batch.records import Failure, Row, Source, Split

_NUMBER = 8
"""Bytes of a row number in a file of picks."""


def read_rows(
    split: Split, id_field: str | None, columns: Columns = None, images: Images = ()
) -> Iterator[Row]:
    """Yield the selected rows of a split; an unusable one carries its failure.

    Raises:
        InputLost: the file is gone, cannot be read, or is another than the one that was planned.
    """
    _check_stamp(split.source)
    wanted = _wanted(split)
    last = split.first_row + split.rows - 1 if wanted is None else wanted[-1]
    picked = wanted if wanted is None or isinstance(wanted, range) else frozenset(wanted.tolist())
    read = FORMATS[split.source.format].read
    values = read(split.source, split.start, split.stop, columns, images)
    number = split.first_row - 1
    for number, value in enumerate(values, split.first_row):
        if picked is None or number in picked:
            yield _row(split.shard, number, value, id_field)
        if number >= last:
            break
    if number < last:
        raise InputLost(f"{split.source.uri} ended at row {number}; the plan knows row {last}")
    _check_stamp(split.source)


def _check_stamp(source: Source) -> None:
    if not source.stamp:
        return
    try:
        now = stamp_of(source.path)
    except FileNotFoundError:
        raise InputLost(f"{source.uri} is gone") from None
    if now != source.stamp:
        raise InputLost(f"{source.uri} has changed since the run was planned")


def _wanted(split: Split) -> Any:
    """Return the selected row numbers of a split: None for all, a range, or an array."""
    if split.selected == split.rows:
        return None
    if split.picks_file is None:
        return range(split.first_pick, split.first_pick + split.selected)
    import numpy as np

    if scheme_of(split.picks_file):
        with open_binary(split.picks_file) as file:
            file.seek(split.first_pick * _NUMBER)
            return np.frombuffer(file.read(split.selected * _NUMBER), dtype=np.int64)
    picks = np.memmap(split.picks_file, dtype=np.int64, mode="r")
    return picks[split.first_pick : split.first_pick + split.selected]


def _row(shard: int, number: int, value: dict[str, Any] | RowError, id_field: str | None) -> Row:
    if isinstance(value, RowError):
        return Row(shard, number, number, None, Failure.of(value))
    try:
        return Row(shard, number, row_id(id_field, value, number), value)
    except MissingIdField as error:
        return Row(shard, number, number, value, Failure.of(error))


def grouped(rows: Iterator[Row], field: str) -> Iterator[Row]:
    """Yield rows with the same value of a field one after another, else in their order.

    Those of one split are held meanwhile.
    """

    def value(row: Row) -> bytes:
        return jsonio.dumps(row.data.get(field)) if row.data is not None else b""

    yield from sorted(rows, key=value)
