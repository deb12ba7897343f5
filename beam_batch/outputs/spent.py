"""The journal of model calls: what rows have cost that never got their outcome.

A row of an agent makes several calls, and its telemetry is written with its outcome. A process that
is killed in between leaves the calls that were answered in its own file here, a line each:
``{"row_number":N,"run":R,"usd":…,"usage":{…}}``, where R is unique to this attempt of the row, and
``{"row_number":N,"run":R,"done":true}`` once the outcome is recorded.
"""

from __future__ import annotations

import contextlib
import os
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from beam_batch import jsonio
from beam_batch.errors import InvalidJSON
from beam_batch.outputs import parts
from beam_batch.outputs.segments import Segments, whole_files
from beam_batch.outputs.workdir import WorkDir
from beam_batch.places import Place

FOLDER = "spent/"
ENOUGH = 1_000
"""Notes that are worth a segment before a second has passed."""


class SpentLog:
    """Notes a worker's model calls for rows that make more than one, each in one unsynced write.

    What cannot be written is not noted: a full disk stops the run where outcomes are recorded.
    """

    def __init__(self, work: WorkDir, session: int) -> None:
        self._unique = uuid.uuid4().hex[:8]
        self._place = work.place
        self._start = f"{FOLDER}{session:04d}-{self._unique}"
        self._segments: Segments | None = None
        if not self._place.is_folder:
            self._segments = Segments(self._place, ENOUGH)
        self._fd: int | None = None
        self._runs: dict[int, str] = {}
        self._begun = 0
        self._is_torn = False

    def begin(self, row_number: int) -> None:
        """Note that a row is begun anew; what an earlier attempt has cost stays noted as lost."""
        self._runs.pop(row_number, None)

    def paid(self, row_number: int, usd: float | None, usage: Mapping[str, int]) -> None:
        """Note an answered call, after which the row goes on; USD is None where nobody knows."""
        run = self._runs.get(row_number)
        if run is None:
            self._begun += 1
            run = self._runs[row_number] = f"{self._unique}-{self._begun}"
        self._write({"row_number": row_number, "run": run, "usd": usd, "usage": dict(usage)})

    def done(self, row_number: int) -> None:
        """Note that the outcome of a row is recorded, with all that it has cost."""
        run = self._runs.pop(row_number, None)
        if run is not None:
            self._write({"row_number": row_number, "run": run, "done": True})

    def close(self) -> None:
        """Close the file."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None
        if self._segments is not None:
            with contextlib.suppress(OSError):
                self._segments.close()

    def _write(self, line: dict[str, Any]) -> None:
        data = jsonio.dumps(line) + b"\n"
        if self._segments is not None:
            self._segments.add(self._start, data)
            return
        if self._is_torn:
            data = b"\n" + data
        written = 0
        with contextlib.suppress(OSError):
            if self._fd is None:
                path = Path(self._place.uri) / f"{self._start}-0.jsonl"
                path.parent.mkdir(exist_ok=True)
                self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
            written = os.write(self._fd, data)
        self._is_torn = written != len(data) and (self._is_torn or written > 0)


class Lost(NamedTuple):
    """What attempts without an outcome have cost; USD is None where that of some is unknown."""

    usage: dict[str, int]
    usd: float | None
    rows: int


def lost(work: WorkDir, counts: Callable[[int], bool] = lambda session: True) -> Lost:
    """Add up the calls of attempts that have no outcome, in those sessions that count.

    A process may have died between an outcome and the note that it is recorded: an attempt whose
    row has an outcome of its session is none of these, unless another attempt has made that.
    """
    logs = [log for log in _logs(work) if counts(log.session)]
    open_ones = [attempt for log in logs for attempt in _without_end(log)]
    if open_ones:
        places = {attempt.place for attempt in open_ones}
        recorded = _recorded(work, places) - _ended(logs, places)
        open_ones = [attempt for attempt in open_ones if attempt.place not in recorded]
    usage: Counter[str] = Counter()
    usd: float | None = 0.0
    for attempt in open_ones:
        usage.update(attempt.usage)
        usd = None if usd is None or attempt.usd is None else usd + attempt.usd
    return Lost(dict(usage), usd, len({attempt.place[1] for attempt in open_ones}))


_Place = tuple[int, int]
"""Session and row number."""


@dataclass
class _Attempt:
    place: _Place
    usd: float | None = 0.0
    usage: Counter[str] = field(default_factory=Counter)

    def add(self, line: dict[str, Any]) -> None:
        self.usage.update(line["usage"])
        usd = line["usd"]
        self.usd = None if usd is None or self.usd is None else self.usd + usd


class _Log(NamedTuple):
    """The notes of one process, in one file or several."""

    place: Place
    session: int
    names: list[str]


def _without_end(log: _Log) -> list[_Attempt]:
    """Read the attempts of one process that have no end; only they are in memory."""
    found: dict[str, _Attempt] = {}
    for line in _lines(log):
        if "done" in line:
            found.pop(line["run"], None)
        else:
            place = (log.session, line["row_number"])
            found.setdefault(line["run"], _Attempt(place)).add(line)
    return list(found.values())


def _ended(logs: list[_Log], places: set[_Place]) -> set[_Place]:
    """Return which of these have an attempt that was noted as recorded."""
    noted = (
        (log.session, line["row_number"]) for log in logs for line in _lines(log) if "done" in line
    )
    return {place for place in noted if place in places}


def _recorded(work: WorkDir, places: set[_Place]) -> set[_Place]:
    """Return which of these have an outcome in the part files."""
    found: set[_Place] = set()
    for part in parts.all_parts(work.place):
        if any(part.session == of for of, _ in places):
            rows = ((part.session, entry.row_number) for entry in parts.scan(part) if entry)
            found.update(place for place in rows if place in places)
    return found


def _logs(work: WorkDir) -> list[_Log]:
    found: dict[tuple[int, str], list[str]] = {}
    for item in whole_files(work.place.list(FOLDER)):
        session, process, _ = item.name[len(FOLDER) :].split("-")
        found.setdefault((int(session), process), []).append(item.name)
    return [_Log(work.place, session, names) for (session, _), names in found.items()]


def _lines(log: _Log) -> Iterator[dict[str, Any]]:
    """Read a process's notes; torn lines are passed over."""
    for name in log.names:
        with log.place.open(name) as file:
            for data in file:
                try:
                    line = jsonio.loads_own(data)
                except InvalidJSON:
                    continue
                if isinstance(line, dict) and "run" in line:
                    yield line
