"""What the driver of a run sees of others: workers of an earlier session, and another driver."""

from __future__ import annotations

import time
from collections.abc import Callable

from beam_batch.outputs.roll import BEAT, LOOK, Clock, Roll
from beam_batch.outputs.seats import FOLDER, end_mark
from beam_batch.outputs.workdir import WorkDir
from beam_batch.places import Place, place_of

PATIENCE = 60.0
"""Seconds to wait for workers of an earlier session: they end when their driver is gone."""


def wait_for_workers(
    work: WorkDir,
    waiting: Callable[[], None],
    clock: Clock = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> bool:
    """Wait until no worker of an earlier session is left; call `waiting` once if that takes time.

    They are asked to end. Returns False where some are left after a minute.

    Raises:
        OSError: the place cannot be used.
    """
    return wait(place_of(work.path), waiting, clock, sleep)


def wait(
    place: Place, waiting: Callable[[], None], clock: Clock, sleep: Callable[[float], None]
) -> bool:
    """Wait as above, in a place."""
    roll = Roll(place, FOLDER, clock)
    end = clock() + PATIENCE
    asked: set[str] = set()
    while left := roll.others():
        if clock() > end:
            return False
        if not asked:
            waiting()
        for mark in {end_mark(int(name.partition("-")[0])) for name in left} - asked:
            place.put(mark, b"")
            asked.add(mark)
        sleep(LOOK if place.is_folder else BEAT)
    return True
