"""Parquet and Arrow through pyarrow, a batch at a time; values become JSON."""

from __future__ import annotations

import base64
import datetime
import itertools
import math
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

from beam_batch.errors import InvalidRow, OptionsError, first_line
from beam_batch.inputs.base import Chunk, Columns, Images, Value
from beam_batch.inputs.opening import open_random
from beam_batch.places.remote import scheme_of
from beam_batch.records import Source

BATCH_ROWS = 1024
INTEGER = {"beam_batch": "integer"}
"""Metadata of a text column whose values are whole numbers beyond 64 bits."""
LARGEST_CHUNK = 100_000
"""Rows of a local chunk: a larger row group is cut, and its front decoded again for each piece."""


@lru_cache(maxsize=16)
def _metadata(path: str, stamp: str) -> Any:
    """Read the footer of a Parquet file, once a process as long as the file is the same."""
    import pyarrow.parquet

    return pyarrow.parquet.read_metadata(open_random(path))


def _open_parquet(source: Source) -> Any:
    import pyarrow
    import pyarrow.parquet

    try:
        metadata = _metadata(source.path, source.stamp)
        return pyarrow.parquet.ParquetFile(
            open_random(source.path), metadata=metadata, pre_buffer=bool(scheme_of(source.path))
        )
    except (pyarrow.ArrowException, OSError) as error:
        raise OptionsError(
            f"--input {source.uri}: not a readable Parquet file: {first_line(error)}"
        ) from None


def scan_parquet(source: Source, rows_a_chunk: int) -> Iterator[Chunk]:
    """List the row groups of a file, small ones together, large local ones in pieces.

    Only the footer is read.
    """
    largest = max(LARGEST_CHUNK, rows_a_chunk)
    with _open_parquet(source) as file:
        start = stop = 0
        for group in range(file.metadata.num_row_groups):
            stop += file.metadata.row_group(group).num_rows
            if stop - start < rows_a_chunk:
                continue
            pieces = 1 if scheme_of(source.path) else -(-(stop - start) // largest)
            yield from _pieces(start, stop, pieces)
            start = stop
        if stop > start:
            yield Chunk(start, stop, stop - start)


def _pieces(start: int, stop: int, count: int) -> Iterator[Chunk]:
    places = [start + (stop - start) * n // count for n in range(count + 1)]
    for low, high in itertools.pairwise(places):
        yield Chunk(low, high, high - low)


def read_parquet(
    source: Source, start: int, stop: int, columns: Columns = None, images: Images = ()
) -> Iterator[Value]:
    """Yield the rows of a range of row numbers from 0; an unusable one yields its error."""
    with _open_parquet(source) as file:
        wanted = None if columns is None else [n for n in columns if n in file.schema_arrow.names]
        for group, first, behind in _groups(file.metadata, start, stop):
            batches = file.iter_batches(BATCH_ROWS, row_groups=[group], columns=wanted)
            rows = (max(start, first), min(stop, behind))
            yield from _slices(batches, first, rows, images)


def names_parquet(source: Source) -> tuple[str, ...]:
    """Return the names of the columns."""
    with _open_parquet(source) as file:
        return tuple(file.schema_arrow.names)


def _groups(metadata: Any, start: int, stop: int) -> Iterator[tuple[int, int, int]]:
    """Yield the row groups that overlap a range: number, first row and the row behind."""
    place = 0
    for group in range(metadata.num_row_groups):
        rows = metadata.row_group(group).num_rows
        if place < stop and place + rows > start:
            yield group, place, place + rows
        place += rows


def _open_arrow(source: Source) -> Any:
    import pyarrow
    import pyarrow.ipc

    try:
        return pyarrow.ipc.open_file(open_random(source.path))
    except (pyarrow.ArrowException, OSError) as error:
        raise OptionsError(
            f"--input {source.uri}: not a readable Arrow file: {first_line(error)}"
        ) from None


def scan_arrow(source: Source, rows_a_chunk: int) -> Iterator[Chunk]:
    """List the record batches of an Arrow (Feather version 2) file."""
    with _open_arrow(source) as file:
        start = 0
        for batch in _batches(file, source):
            if len(batch):
                yield Chunk(start, start + len(batch), len(batch))
            start += len(batch)


def read_arrow(
    source: Source, start: int, stop: int, columns: Columns = None, images: Images = ()
) -> Iterator[Value]:
    """Yield the rows of a range of row numbers from 0; an unusable one yields its error."""
    with _open_arrow(source) as file:
        yield from _slices(_batches(file, source), 0, (start, stop), images)


def _batches(file: Any, source: Source) -> Iterator[Any]:
    """Yield the batches of an Arrow file, each checked: damaged offsets would crash who reads them.

    Raises:
        OptionsError: one is damaged.
    """
    import pyarrow

    for index in range(file.num_record_batches):
        try:
            batch = file.get_batch(index)
            batch.validate(full=True)
        except (pyarrow.ArrowException, OSError) as error:
            raise OptionsError(
                f"--input {source.uri}: record batch {index + 1} is damaged: {first_line(error)}"
            ) from None
        yield batch


def arrow_to_parquet(source: Source, target: str) -> None:
    """Write a checked Arrow file as Parquet.

    Raises:
        OptionsError: it is damaged.
    """
    import pyarrow.parquet

    with _open_arrow(source) as file, pyarrow.parquet.ParquetWriter(target, file.schema) as writer:
        for batch in _batches(file, source):
            writer.write_batch(batch)


def names_arrow(source: Source) -> tuple[str, ...]:
    """Return the names of the columns."""
    with _open_arrow(source) as file:
        return tuple(file.schema.names)


def _slices(
    batches: Iterator[Any], place: int, rows: tuple[int, int], images: Images
) -> Iterator[Value]:
    """Yield the rows of a range of batches whose first row is number `place`."""
    import pyarrow

    start, stop = rows
    done = start
    try:
        for batch in batches:
            if place >= stop:
                return
            low, high = max(0, start - place), min(len(batch), stop - place)
            place += len(batch)
            if high > low:
                yield from _rows(batch.slice(low, high - low), images)
                done += high - low
    except (pyarrow.ArrowException, OSError) as error:  # a damaged page: its rows have failed
        for _ in range(done, stop):
            yield InvalidRow(f"the row group cannot be read: {first_line(error)}")


def _rows(batch: Any, images: Images) -> Iterator[Value]:
    """Yield the rows of a batch, all at once where every value can be had."""
    batch = _without_nanoseconds(batch)
    longs = [f.name for f in batch.schema if (f.metadata or {}).get(b"beam_batch") == b"integer"]
    try:
        rows = batch.to_pylist(maps_as_pydicts="lossy")
    except (ValueError, TypeError, OverflowError, ImportError, LookupError):
        rows = None
    for index in range(len(batch)):
        try:
            row = rows[index] if rows is not None else _one(batch, index)
            row |= {name: int(row[name]) for name in longs if row[name] is not None}
            row |= {name: as_url(row[name]) for name in images if name in row}
            yield {str(name): normalise(value) for name, value in row.items()}
        except (ValueError, TypeError, OverflowError, ImportError, LookupError) as error:
            yield InvalidRow(f"a value has no JSON form: {first_line(error)}")


def as_url(value: Any) -> Any:
    """Write the bytes of an image as a data: URL, also in the form {"bytes": …, "path": …}."""
    if isinstance(value, dict) and isinstance(value.get("bytes"), bytes):
        return value | {"bytes": as_url(value["bytes"])}
    if isinstance(value, bytes):
        return f"data:;base64,{base64.b64encode(value).decode()}"
    return value


def _one(batch: Any, index: int) -> Any:
    return batch.slice(index, 1).to_pylist(maps_as_pydicts="lossy")[0]


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
    """Turn a value of a row into a JSON value; NaN and infinities become null.

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
    return _normalise_foreign(value)


def _normalise_foreign(value: Any) -> Any:
    """Turn what other libraries put into rows into a JSON value.

    Known are named tuples and Beam Rows, Beam's Timestamp, and the numbers and arrays of numpy.
    """
    if hasattr(value, "_asdict"):
        return normalise(value._asdict())
    if hasattr(value, "to_utc_datetime"):
        return value.to_utc_datetime().isoformat()
    if type(value).__module__ == "numpy":
        return normalise(value.tolist())
    return str(value)
