"""The plan: number the rows, apply offset, sample and limit, cut splits, check ids."""

from __future__ import annotations

import random
from array import array
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

from beam_batch.errors import MissingIdField, OptionsError, RowError
from beam_batch.inputs import format_of
from beam_batch.inputs.base import SPLIT_ROWS
from beam_batch.options import SourceSpec
from beam_batch.records import Failure, Row, Split


class Plan(NamedTuple):
    """Which rows are worked on, in splits.

    Attributes:
        input_rows: rows in the input.
        selected_rows: rows in the splits.
        digest: of the input's bytes (of a large Parquet file: of its footer and some pages).
    """

    splits: list[Split]
    input_rows: int
    selected_rows: int
    digest: str


def plan_rows(source: SourceSpec, rows_a_split: int = SPLIT_ROWS) -> Plan:
    """Scan the input once and cut the selected rows into splits.

    Raises:
        OptionsError: the input cannot be read, or ids are unusable or not unique.
    """
    found = format_of(source.input)
    chunks: list[Split] = []
    total = 0
    with ThreadPoolExecutor(1) as pool:  # hashing leaves the interpreter to the scan
        digest = pool.submit(found.digest, source.input)
        for chunk in found.scan(source.input, rows_a_split):
            place, first = len(chunks), total + 1
            chunks.append(Split(place, source.input, chunk.start, chunk.stop, first, chunk.rows))
            total += chunk.rows
    splits = _cut(chunks, _selection(source, total))
    selected = sum(split.selected for split in splits)
    if source.id_field is not None:
        _check_ids(splits, source.id_field)
    return Plan(splits, total, selected, digest.result())


def _selection(source: SourceSpec, total: int) -> Sequence[int]:
    """Return the selected row numbers (from 1), in order: offset, then sample, then limit."""
    numbers: Sequence[int] = range(source.offset + 1, total + 1)
    if source.sample is not None and source.sample < len(numbers):
        numbers = sorted(random.Random(source.seed).sample(numbers, source.sample))
    return numbers if source.limit is None else numbers[: source.limit]


def _cut(chunks: list[Split], selection: Sequence[int]) -> list[Split]:
    """Keep the chunks that hold selected rows, each with the numbers of those rows."""
    splits: list[Split] = []
    for chunk in chunks:
        low = bisect_left(selection, chunk.first_row)
        high = bisect_left(selection, chunk.first_row + chunk.rows)
        if high > low:
            picks = None if high - low == chunk.rows else tuple(selection[low:high])
            splits.append(chunk._replace(number=len(splits), picks=picks))
    return splits


def read_split(split: Split, id_field: str | None) -> Iterator[Row]:
    """Yield the selected rows of a split; an unusable one carries its failure."""
    picks = None if split.picks is None else frozenset(split.picks)
    last = split.first_row + split.rows - 1 if split.picks is None else split.picks[-1]
    values = format_of(split.uri).read(split.uri, split.start, split.stop)
    for number, value in enumerate(values, split.first_row):
        if picks is None or number in picks:
            yield _row(split.number, number, value, id_field)
        if number >= last:
            return


def _row(split: int, number: int, value: dict[str, Any] | RowError, id_field: str | None) -> Row:
    if isinstance(value, RowError):
        return Row(split, number, number, None, Failure.of(value))
    try:
        return Row(split, number, row_id(id_field, value, number), value)
    except MissingIdField as error:
        return Row(split, number, number, value, Failure.of(error))


def row_id(field: str | None, data: Mapping[str, Any], number: int | None) -> str | int | None:
    """Return a row's id: the field's value as text, or the row number where there is no field.

    Raises:
        MissingIdField: the row lacks the field, or its value cannot be an id.
    """
    if field is None:
        return number
    if field not in data:
        raise MissingIdField(f"Missing id field {field!r}")
    value = data[field]
    if isinstance(value, str) and value:
        return value
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return str(value)
    raise UnusableId(f"id field {field!r} is {value!r:.60}")


class UnusableId(MissingIdField):
    """The id field is there, but its value cannot identify a row."""


def _check_ids(splits: list[Split], field: str) -> None:
    """Find unusable and repeated ids before money is spent; holds eight bytes a row."""
    import numpy as np

    hashes = array("q")
    for row in _rows_with_id(splits, field):
        hashes.append(hash(row.id))
    values, counts = np.unique(np.frombuffer(hashes, dtype=np.int64), return_counts=True)
    repeated = set(values[counts > 1].tolist())
    if not repeated:
        return
    seen: dict[str | int | None, int | None] = {}
    for row in _rows_with_id(splits, field):
        if hash(row.id) not in repeated:
            continue
        if row.id in seen:
            raise OptionsError(
                f"--id-field {field}: {row.id!r} is the id of rows {seen[row.id]} and "
                f"{row.number}; ids must be unique."
            )
        seen[row.id] = row.number


def _rows_with_id(splits: list[Split], field: str) -> Iterator[Row]:
    for split in splits:
        for row in read_split(split, field):
            if row.failure is None:
                yield row
            elif row.failure.type == UnusableId.__name__:
                raise OptionsError(
                    f"--id-field {field}: row {row.number}: {row.failure.message}; an id is a "
                    "non-empty string or a number."
                )
