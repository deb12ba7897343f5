"""The plan: number the rows, choose some, cut splits, check ids. Every resume reads it again."""

from __future__ import annotations

import hashlib
import itertools
import time
from array import array
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from beam_batch.errors import OptionsError
from beam_batch.inputs.base import SPLIT_ROWS
from beam_batch.inputs.digest import content_digest, is_whole
from beam_batch.inputs.formats import FORMATS
from beam_batch.inputs.ids import check_ids
from beam_batch.inputs.reading import read_rows
from beam_batch.inputs.resolve import resolve, stamp_of
from beam_batch.inputs.scanning import Read, Scanned, scan_origins
from beam_batch.inputs.selection import Selection, select
from beam_batch.options import SourceSpec
from beam_batch.records import Row, Source, Split

MOST_SHARDS = 4_096
"""Results are kept in this many groups of consecutive rows at most, and so in so many files."""


class Plan(NamedTuple):
    """Which rows are worked on, in splits.

    Attributes:
        reads: the files as the user named them, with what was read of each.
        sources: the files that are read: the same, or copies of them.
        shards: selected rows of each shard.
        input_rows: rows in the input, or None where a limit made counting them needless.
        digest: of the whole input.
        notes: what the user should know.
        plan_ms, ids_ms: what planning took, and the check of the ids.
    """

    reads: list[Read]
    sources: list[Source]
    splits: list[Split]
    shards: list[int]
    input_rows: int | None
    selected_rows: int
    digest: str
    notes: list[str]
    plan_ms: float
    ids_ms: float


def plan_rows(source: SourceSpec, folder: Path, rows_a_split: int = SPLIT_ROWS) -> Plan:
    """Read the input once, as far as the selection needs it, and cut the selected rows into splits.

    `folder` takes what has to be kept: copies, a query's result, chosen row numbers.

    Raises:
        OptionsError: the input cannot be read, or ids are unusable or not unique.
    """
    started = time.monotonic()
    scanned = scan_origins(resolve(source), source, folder, rows_a_split)
    selection = _selection(source, scanned, folder)
    splits, shards = _cut(scanned.chunks, selection, rows_a_split)
    planned = time.monotonic()
    if source.id_field is not None:
        _check(source.id_field, splits, folder)
    return Plan(
        reads=scanned.reads,
        sources=scanned.sources,
        splits=splits,
        shards=shards,
        input_rows=scanned.rows if scanned.whole else None,
        selected_rows=len(selection.numbers),
        digest=_joined(read.digest for read in scanned.reads),
        notes=_differences(scanned.sources),
        plan_ms=round((planned - started) * 1000, 1),
        ids_ms=round((time.monotonic() - planned) * 1000, 1),
    )


def _selection(source: SourceSpec, scanned: Scanned, folder: Path) -> Selection:
    numbers: Any = range(1, scanned.rows + 1)
    if source.ids is not None:
        numbers = _listed(source, scanned)
    return select(source, numbers, folder)


def _listed(source: SourceSpec, scanned: Scanned) -> Any:
    """Return the numbers of the rows whose ids are listed in the file of ``--ids``.

    Takes some 20 bytes a listed id.
    """
    import numpy as np

    path = str(source.ids)
    hashes = np.unique(np.fromiter((hash(text) for text in read_ids(path)), dtype=np.int64))
    seen = np.zeros(len(hashes), dtype=bool)
    found = array("q")
    for row in _rows(scanned.chunks, source.id_field):
        if row.failure is not None and source.id_field is not None:
            continue
        value = hash(str(row.id))
        place = int(hashes.searchsorted(value))
        if place < len(hashes) and hashes[place] == value:
            found.append(row.number or 0)
            seen[place] = True
    if not seen.all():
        lost = (t for t in read_ids(path) if not seen[hashes.searchsorted(hash(t))])
        shown = ", ".join(itertools.islice(lost, 5))
        raise OptionsError(
            f"--ids {path}: {len(seen) - int(seen.sum())} of {len(seen)} ids are not in the "
            f"input, such as {shown}."
        )
    return np.frombuffer(found, dtype=np.int64)


def read_ids(path: str) -> Iterator[str]:
    """Yield the ids of a file, one a line.

    Raises:
        OptionsError: it cannot be read.
    """
    try:
        with open(path, encoding="utf-8-sig") as file:
            yield from filter(None, map(str.strip, file))
    except (OSError, UnicodeDecodeError) as error:
        raise OptionsError(f"--ids {path}: cannot be read ({error}).") from None


def _cut(
    chunks: list[Split], selection: Selection, rows_a_split: int
) -> tuple[list[Split], list[int]]:
    """Keep the chunks that hold selected rows, and group them into shards."""
    target = max(rows_a_split, -(-len(selection.numbers) // MOST_SHARDS))
    splits: list[Split] = []
    shards: list[int] = []
    for chunk in chunks:
        low, high = _places(selection.numbers, chunk)
        if high <= low:
            continue
        if not shards or shards[-1] + (high - low) > target:
            shards.append(0)
        shards[-1] += high - low
        splits.append(
            chunk._replace(
                shard=len(shards) - 1,
                selected=high - low,
                first_pick=int(selection.numbers[low]) if selection.file is None else low,
                picks_file=selection.file,
            )
        )
    return splits, shards


def _places(numbers: Any, chunk: Split) -> tuple[int, int]:
    """Return where the rows of a chunk begin and end among the selected row numbers."""
    first, behind = chunk.first_row, chunk.first_row + chunk.rows
    if isinstance(numbers, range):
        low, high = first - numbers.start, behind - numbers.start
        return min(max(low, 0), len(numbers)), min(max(high, 0), len(numbers))
    return int(numbers.searchsorted(first)), int(numbers.searchsorted(behind))


def _check(field: str, splits: list[Split], folder: Path) -> None:
    check_ids(lambda: _rows(splits, field), field, folder)


def rows_of(plan: Plan, id_field: str | None) -> Iterator[Row]:
    """Yield the selected rows of a plan with no more of them than the id."""
    return _rows(plan.splits, id_field)


def _rows(splits: Iterable[Split], field: str | None) -> Iterator[Row]:
    """Yield the selected rows with no more of them than the id."""
    for split in splits:
        yield from read_rows(split, field, (field,) if field else ())


def _differences(sources: list[Source]) -> list[str]:
    """Say which files have other columns than the first."""
    notes: list[str] = []
    if len(sources) < 2:
        return notes
    first = FORMATS[sources[0].format].names(sources[0])
    for source in sources[1:]:
        names = FORMATS[source.format].names(source)
        if not (first and names) or set(names) == set(first):
            continue
        lacks, more = sorted(set(first) - set(names)), sorted(set(names) - set(first))
        words = [f"lacks {', '.join(lacks)}"] if lacks else []
        words += [f"has {', '.join(more)} besides"] if more else []
        notes.append(f"{source.uri} {' and '.join(words)}, compared with {sources[0].uri}")
    return notes


def _joined(digests: Iterable[str]) -> str:
    return hashlib.blake2b("".join(digests).encode(), digest_size=16).hexdigest()


def recheck(plan: Plan) -> tuple[Plan, list[str]]:
    """Return a stored plan with the files' present stamps, and the files that have changed.

    A file of the same size and time is the same; else its content decides where all of that was
    read, and the other time alone where only a copy or a part of it was.
    """
    changed: list[str] = []
    stamps: dict[str, str] = {}
    by_path = {source.path: source for source in plan.sources}
    for read in plan.reads:
        origin = read.origin
        if not origin.stamp:
            continue
        try:
            now = stamp_of(origin.path)
            source = by_path.get(origin.path)
            if now == origin.stamp:
                continue
            if (
                source is None
                or not is_whole(source)
                or content_digest(source, read.stop) != read.digest
            ):
                changed.append(origin.uri)
            stamps[origin.path] = now
        except OSError:
            changed.append(f"{origin.uri} (gone)")
    if changed or not stamps:
        return plan, changed
    return _restamped(plan, stamps), []


def _restamped(plan: Plan, stamps: dict[str, str]) -> Plan:
    def fresh(source: Source) -> Source:
        return source._replace(stamp=stamps.get(source.path, source.stamp))

    return plan._replace(
        sources=[fresh(source) for source in plan.sources],
        splits=[split._replace(source=fresh(split.source)) for split in plan.splits],
    )
