"""Which rows a run works on: ids, then offset, then sample, then limit."""

from __future__ import annotations

import math
import random
from array import array
from pathlib import Path
from typing import Any, NamedTuple

from beam_batch.options import SourceSpec

Numbers = Any
"""Row numbers from 1, ascending: a range, or a numpy array of int64 (in memory or mapped)."""


class Selection(NamedTuple):
    """The selected row numbers.

    Attributes:
        numbers: see `Numbers`.
        file: where they are kept for workers to read, or None for a range.
    """

    numbers: Numbers
    file: str | None


def rows_needed(source: SourceSpec) -> int | None:
    """Return how many rows of the input decide the selection, or None for all of them."""
    if source.limit is None or source.sample is not None or source.ids is not None:
        return None
    return source.offset + source.limit


def select(source: SourceSpec, rows: Numbers, folder: Path) -> Selection:
    """Apply offset, sample and limit to row numbers, and keep what is no range in a file.

    The sample is the one of CPython's `random.sample` over (index, row) pairs, so that a seed
    chooses the same rows as the tool that this contract comes from.
    """
    import numpy as np

    numbers = rows[source.offset :]
    if source.sample is not None and source.sample < len(numbers):
        places = sample(len(numbers), source.sample, source.seed)
        numbers = (
            np.asarray(numbers)[places]
            if not isinstance(numbers, range)
            else (places + numbers.start)
        )
    if source.limit is not None:
        numbers = numbers[: source.limit]
    if isinstance(numbers, range):
        return Selection(numbers, None)
    path = folder / "picks"
    np.asarray(numbers, dtype=np.int64).tofile(path)
    if not len(numbers):
        return Selection(range(0), None)
    return Selection(np.memmap(path, dtype=np.int64, mode="r"), str(path))


def sample(population: int, count: int, seed: int) -> Any:
    """Return, sorted, what `random.Random(seed).sample(range(population), count)` takes.

    Takes 4 bytes a row of the population (1 where few are taken) instead of CPython's 40.

    >>> sample(10, 3, seed=0).tolist() == sorted(random.Random(0).sample(range(10), 3))
    True
    """
    import numpy as np

    draw = random.Random(seed).randrange
    taken = bytearray(population)
    if population <= _set_size(count):
        pool = array("I" if population < 1 << 32 else "Q", range(population))
        for done in range(count):
            place = draw(population - done)
            taken[pool[place]] = 1
            pool[place] = pool[population - done - 1]
    else:
        for _ in range(count):
            place = draw(population)
            while taken[place]:
                place = draw(population)
            taken[place] = 1
    return np.flatnonzero(np.frombuffer(taken, dtype=np.uint8)).astype(np.int64)


def _set_size(count: int) -> int:
    """Return the population up to which CPython draws from a list (random.py, `sample`)."""
    size = 21
    if count > 5:
        size += 4 ** math.ceil(math.log(count * 3, 4))
    return size
