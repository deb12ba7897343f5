"""Gauges: what the workers of a session show of their work, meanwhile."""

from __future__ import annotations

import contextlib
import os
import time
import uuid
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from beam_batch import jsonio
from beam_batch.errors import InvalidJSON
from beam_batch.outputs.workdir import STORE_INTERVAL, WorkDir

INTERVAL = 0.25
"""Seconds between two notes of one worker in a folder."""
BEGAN, AT = "began_at", "at"
"""When a worker began, and when it wrote its last note: seconds since 1970, by its own clock."""


class Gauge:
    """A worker's own small file of numbers that the driver shows; rewritten every now and then."""

    def __init__(self, work: WorkDir, session: int) -> None:
        self._place = work.place
        self._name = f"gauges/{session:04d}-{uuid.uuid4().hex[:8]}.json"
        self._interval = INTERVAL if work.is_folder else STORE_INTERVAL
        self._due = 0.0
        self._began = time.time()

    def is_due(self) -> bool:
        """Whether the last numbers are old enough for new ones."""
        return time.monotonic() >= self._due

    def show(self, values: Mapping[str, Any], force: bool = False) -> None:
        """Publish numbers, and the time, unless some were published a moment ago."""
        if not force and not self.is_due():
            return
        self._due = time.monotonic() + self._interval
        data = jsonio.dumps({**values, BEGAN: self._began, AT: time.time()})
        with contextlib.suppress(OSError):  # a gauge that cannot be written is not worth a run
            if not self._place.is_folder:
                self._place.put(self._name, data)
                return
            path = Path(self._place.uri) / self._name
            temporary = path.with_suffix(".tmp")
            temporary.write_bytes(data)  # unsynced: the next one comes in a moment
            os.replace(temporary, path)


def gauges_of(work: WorkDir, session: int | None = None) -> dict[str, dict[str, float]]:
    """Return what each worker of a session, or of all, shows: by SESSION-WORKER."""
    found = {}
    for item in work.place.list("gauges/" if session is None else f"gauges/{session:04d}-"):
        if not item.name.endswith(".json"):
            continue
        try:
            values = jsonio.loads(work.place.get(item.name) or b"{}")
        except (OSError, InvalidJSON):
            continue
        numbers = {name: value for name, value in values.items() if isinstance(value, (int, float))}
        found[item.name.removeprefix("gauges/").removesuffix(".json")] = numbers
    return found


def total(gauges: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """Sum what workers show."""
    found: dict[str, float] = {}
    for gauge in gauges:
        for name, value in gauge.items():
            if name not in (BEGAN, AT):
                found[name] = found.get(name, 0) + value
    return found


def read_gauges(work: WorkDir, session: int) -> dict[str, Any]:
    """Sum what all workers of a session show."""
    return total(gauges_of(work, session).values())


def answered_before(work: WorkDir, session: int) -> int:
    """Count the rows that earlier sessions have answered, as far as they have shown it."""
    earlier = (
        values for name, values in gauges_of(work).items() if int(name.partition("-")[0]) < session
    )
    return int(total(earlier).get("ok", 0))
