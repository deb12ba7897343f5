"""The journal of a run's batches: each step is on disk before the next is taken.

A line is ``{"at":T,"event":E,…}``, T in seconds of the Unix clock. What a file's last events say is
where a resumed run goes on:

    planned ─→ uploaded ─→ creating ─→ created ─→ ended ─→ fetched
       ↑           ↑           ↑          │
       └───────────┴───────────┴─ refused ┘  the whole file, or another's batch was taken for ours

`creating` without `created` means that the provider may have taken the batch: it is looked for
there before it is created again.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from beam_batch import jsonio
from beam_batch.errors import InvalidJSON

PLANNED, UPLOADED, CREATING, CREATED, ENDED, FETCHED = (
    "planned", "uploaded", "creating", "created", "ended", "fetched",
)  # fmt: skip
REFUSED, SEEN, CANCELLING, SPLIT = "refused", "seen", "cancelling", "split"
_STATES = (UPLOADED, CREATING, CREATED, ENDED, FETCHED)


class RequestFile(NamedTuple):
    """A closed file of requests.

    Attributes:
        name: of the file, without its suffix; custom ids begin with it.
        size: bytes.
        digest: of its content.
    """

    name: str
    requests: int
    size: int
    digest: str

    @property
    def mark(self) -> str:
        """What a provider is asked to remember with the batch, so that it can be found again."""
        return f"{self.name}-{self.digest}"


@dataclass
class Batch:
    """What the journal knows of one request file and its batch.

    Attributes:
        attempt: how many times its rows were sent with it, from 1.
        state: planned, uploaded, creating, created, ended or fetched.
        adopted: whether it was found at the provider, and not by its answer to our request.
        left: rows that it left without an outcome, once it is fetched.
        since: when creating it began, on our clock.
        info: the batch as the provider last described it.
        not_ours: ids of batches that looked like this one and were another's.
    """

    file: RequestFile
    attempt: int
    state: str = PLANNED
    file_id: str = ""
    id: str = ""
    since: float = 0.0
    refusals: int = 0
    cancelling: bool = False
    adopted: bool = False
    left: int = 0
    info: dict[str, Any] = field(default_factory=dict)
    not_ours: set[str] = field(default_factory=set)

    def apply(self, record: dict[str, Any]) -> None:
        """Take in one event."""
        event = record["event"]
        if event in _STATES:
            self.state = event
        if event == UPLOADED:
            self.file_id = record["file_id"]
        elif event == CREATING:
            self.since = record["at"]
        elif event == REFUSED:
            self._refuse(record)
        elif event == CANCELLING:
            self.cancelling = True
        elif event == FETCHED:
            self.left = record["left"]
        if event in (CREATED, SEEN, ENDED):
            self.id = record["info"]["id"]
            self.info = record["info"]
            self.adopted = record.get("adopted", self.adopted)

    def _refuse(self, record: dict[str, Any]) -> None:
        """Go back to an earlier state; a batch that was another's is not looked at again."""
        self.state = record["state"]
        self.refusals += 1
        if record["state"] == CREATING:
            self.not_ours.add(self.id)
        self.id, self.info = "", {}


class Journal:
    """Appends events and knows where every file is."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.batches: dict[str, Batch] = {}
        self.planned: dict[str, Any] | None = None
        for record in _read(path):
            self._apply(record)

    def plan(self, files: list[RequestFile], attempt: int, **about: Any) -> None:
        """Note the request files of an attempt, all at once; the first also says what about."""
        self._append({"event": PLANNED, "files": files, "attempt": attempt, **about})

    def split(self, whole: Batch, halves: list[RequestFile]) -> None:
        """Note that a file was cut into smaller ones, which replace it."""
        self._append(
            {"event": SPLIT, "file": whole.file.name, "files": halves, "attempt": whole.attempt}
        )

    def note(self, batch: Batch, event: str, **what: Any) -> None:
        """Note what became of one file; returns when it is on disk."""
        self._append({"event": event, "file": batch.file.name, **what})

    @property
    def attempt(self) -> int:
        """The newest attempt, from 1; 0 where nothing was planned."""
        return max((batch.attempt for batch in self.batches.values()), default=0)

    def _append(self, record: dict[str, Any]) -> None:
        record = {"at": time.time(), **record}
        append_line(self._path, jsonio.dumps(record))
        self._apply(jsonio.loads(jsonio.dumps(record)))

    def _apply(self, record: dict[str, Any]) -> None:
        event = record["event"]
        if event == SPLIT:
            self.batches.pop(record["file"], None)
        if event in (PLANNED, SPLIT):
            if event == PLANNED and self.planned is None:
                self.planned = record
            for values in record["files"]:
                file = RequestFile(*values)
                self.batches[file.name] = Batch(file, record["attempt"])
        elif record["file"] in self.batches:
            self.batches[record["file"]].apply(record)


def append_line(path: Path, line: bytes) -> None:
    """Append a line and sync it; a torn line before it is ended first."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        size = os.fstat(fd).st_size
        torn = size > 0 and os.pread(fd, 1, size - 1) != b"\n"
        data = (b"\n" if torn else b"") + line + b"\n"
        while data:
            data = data[os.write(fd, data) :]
        os.fsync(fd)
    finally:
        os.close(fd)


def _read(path: Path) -> list[dict[str, Any]]:
    records = []
    try:
        with path.open("rb") as file:
            for line in file:
                try:
                    record = jsonio.loads(line)
                except InvalidJSON:  # torn by a kill: what it was to say had not begun
                    continue
                records.append(record)
    except FileNotFoundError:
        pass
    return records
