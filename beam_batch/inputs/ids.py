"""Ids: what a row's is, and the check that none comes twice. Memory does not grow with rows."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from beam_batch.errors import MissingIdField, OptionsError, UnusableId
from beam_batch.records import Row

BUCKETS = 64
BUFFER = 1 << 15
"""Hashes held per bucket before they go to its file: 64 buckets of 256 KiB."""


def row_id(field: str | None, data: Mapping[str, Any], number: int | None) -> str | int | None:
    """Return a row's id: the field's value as text, or the row number where there is no field.

    Raises:
        MissingIdField: the row lacks the field.
        UnusableId: its value is no non-empty text and no number.
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


def check_ids(rows: Callable[[], Iterable[Row]], field: str, folder: Path) -> None:
    """Find unusable and repeated ids before money is spent.

    `rows` starts a new pass over the selected rows; a second one is made only where two ids have
    the same hash.

    Raises:
        OptionsError: naming the rows and the id.
    """
    hashes = _Hashes(folder)
    for row in _usable(rows(), field):
        hashes.add(hash(row.id))
    repeated = hashes.repeated()
    if not repeated:
        return
    seen: dict[Any, int | None] = {}
    for row in _usable(rows(), field):
        if hash(row.id) not in repeated:
            continue
        if row.id in seen:
            raise OptionsError(
                f"--id-field {field}: {row.id!r} is the id of rows {seen[row.id]} and "
                f"{row.number}; ids must be unique."
            )
        seen[row.id] = row.number


def _usable(rows: Iterable[Row], field: str) -> Iterator[Row]:
    for row in rows:
        if row.failure is None:
            yield row
        elif row.failure.type == UnusableId.__name__:
            raise OptionsError(
                f"--id-field {field}: row {row.number}: {row.failure.message}; an id is a "
                "non-empty string or a number."
            )


class _Hashes:
    """Hashes of 64 bits in buckets, each sorted by itself; large ones are files."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._buckets = [array("q") for _ in range(BUCKETS)]

    def add(self, value: int) -> None:
        """Take one hash."""
        number = value % BUCKETS
        bucket = self._buckets[number]
        bucket.append(value)
        if len(bucket) >= BUFFER:
            with self._path(number).open("ab") as file:
                bucket.tofile(file)
            del bucket[:]

    def repeated(self) -> set[int]:
        """Return the hashes that came more than once, and remove the files."""
        import numpy as np

        found: set[int] = set()
        for number, bucket in enumerate(self._buckets):
            values = np.frombuffer(bucket, dtype=np.int64)
            path = self._path(number)
            if path.exists():
                values = np.concatenate([values, np.fromfile(path, dtype=np.int64)])
                path.unlink()
            values = np.sort(values)
            found.update(values[1:][values[1:] == values[:-1]].tolist())
        return found

    def _path(self, number: int) -> Path:
        return self._folder / f"ids-{number:02d}"
