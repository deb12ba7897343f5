"""Parquet through pyarrow, a row group at a time; values become JSON."""

from __future__ import annotations

import datetime
import math
from collections.abc import Iterator
from typing import Any

from beam_batch.errors import InvalidRow, OptionsError, first_line
from beam_batch.inputs.base import Chunk, Value
from beam_batch.inputs.digest import sampled_digest

BATCH_ROWS = 1024


def _open(path: str) -> Any:
    import pyarrow
    import pyarrow.parquet

    try:
        return pyarrow.parquet.ParquetFile(path)
    except (pyarrow.ArrowException, OSError) as error:
        raise OptionsError(
            f"--input {path}: not a readable Parquet file: {first_line(error)}"
        ) from None


def scan(path: str, rows_a_chunk: int) -> Iterator[Chunk]:
    """List the row groups of a file; only its footer is read."""
    with _open(path) as file:
        start = 0
        for group in range(file.metadata.num_row_groups):
            rows = file.metadata.row_group(group).num_rows
            if rows:
                yield Chunk(start, start + rows, rows)
            start += rows


def digest(path: str) -> str:
    """Digest the footer, which ends with its length and PAR1 (Parquet format), and some pages."""
    with open(path, "rb") as file:
        file.seek(max(0, file.seek(0, 2) - 8))
        length = int.from_bytes(file.read(4), "little")
    return sampled_digest(path, length + 8)


def read(path: str, start: int, stop: int) -> Iterator[Value]:
    """Yield the rows of a range of row numbers from 0; an unusable one yields its error."""
    import pyarrow

    with _open(path) as file:
        groups, place = _groups(file, start, stop)
        done = start
        try:
            for batch in file.iter_batches(batch_size=BATCH_ROWS, row_groups=groups):
                if place >= stop:
                    return
                kept = batch.slice(max(0, start - place), stop - max(start, place))
                place += len(batch)
                yield from _rows(kept)
                done += len(kept)
        except (pyarrow.ArrowException, OSError) as error:  # a damaged page: its rows have failed
            for _ in range(done, stop):
                yield InvalidRow(f"the row group cannot be read: {first_line(error)}")


def _groups(file: Any, start: int, stop: int) -> tuple[list[int], int]:
    """Return the row groups that overlap a range, and the first row of the first of them."""
    groups: list[int] = []
    first = place = 0
    for group in range(file.metadata.num_row_groups):
        rows = file.metadata.row_group(group).num_rows
        if place < stop and place + rows > start:
            if not groups:
                first = place
            groups.append(group)
        place += rows
    return groups, first


def _rows(batch: Any) -> Iterator[Value]:
    batch = _without_nanoseconds(batch)
    for index in range(len(batch)):
        try:
            for row in batch.slice(index, 1).to_pylist(maps_as_pydicts="lossy"):
                yield {str(name): normalise(value) for name, value in row.items()}
        except (ValueError, TypeError, OverflowError, ImportError, LookupError) as error:
            yield InvalidRow(f"a value has no JSON form: {first_line(error)}")


def _without_nanoseconds(batch: Any) -> Any:
    """Cast nanosecond times to microseconds, which is what Python's datetime holds."""
    import pyarrow as pa

    schema = pa.schema([field.with_type(_microseconds(field.type)) for field in batch.schema])
    return batch if schema == batch.schema else batch.cast(schema, safe=False)


def _microseconds(kind: Any) -> Any:
    """Return an Arrow type with microseconds for nanoseconds, at any depth."""
    import pyarrow as pa

    if pa.types.is_timestamp(kind) and kind.unit == "ns":
        return pa.timestamp("us", tz=kind.tz)
    if pa.types.is_time64(kind) and kind.unit == "ns":
        return pa.time64("us")
    if pa.types.is_duration(kind) and kind.unit == "ns":
        return pa.duration("us")
    if pa.types.is_struct(kind):
        return pa.struct([field.with_type(_microseconds(field.type)) for field in kind])
    if pa.types.is_map(kind):
        return pa.map_(_microseconds(kind.key_type), _microseconds(kind.item_type))
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        make = pa.list_ if pa.types.is_list(kind) else pa.large_list
        return make(kind.value_field.with_type(_microseconds(kind.value_type)))
    return kind


def normalise(value: Any) -> Any:
    """Turn a Parquet value into a JSON value; NaN and infinities become null.

    >>> normalise({"price": Decimal("1.50")})
    {'price': '1.50'}
    """
    if value is None or isinstance(value, (str, bool, int)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(key): normalise(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)) and not hasattr(value, "_fields"):
        return [normalise(item) for item in value]
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, (datetime.datetime, datetime.date, datetime.time)):
        return value.isoformat()
    return str(value)
