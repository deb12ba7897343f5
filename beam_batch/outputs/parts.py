"""Part files: one line per outcome, appended and in the kernel's hands before the next stage.

A line is ``{"row_number":N,"ok":B,"size":S,"envelope":{…S bytes…},"telemetry":{…}}``; the size
lets a reader copy the envelope without parsing it. Where the row has a trace, its records follow as
``,"trace":[…]``, and ``"telemetry_size":T`` behind the size says how many bytes the telemetry has.
"""

from __future__ import annotations

import errno
import os
import re
import uuid
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, NamedTuple, TypeVar

from beam_batch import jsonio
from beam_batch.outputs.segments import whole_files
from beam_batch.places import Listed, Place
from beam_batch.records import Outcome

FOLDER = "parts/"
KEPT = "kept"
KINDS = ("failed", KEPT, "ok", "unrenderable")
OPEN_FILES = 16
KEPT_SESSION = 0
MOST_LISTS = 20
"""Times that part files are listed for one reading, where others put theirs together meanwhile."""
_HEAD = re.compile(
    rb'\{"row_number":(\d+),"ok":(true|false),"size":(\d+)(?:,"telemetry_size":(\d+))?,"envelope":'
)
_MIDDLE = b',"telemetry":'
_LAST = b',"trace":'
_ERROR_TYPE = re.compile(rb'"error":\{"type":"(\w+)"')


def encode(outcome: Outcome) -> bytes:
    """Write an outcome as one line."""
    envelope = jsonio.dumps(outcome.envelope)
    if outcome.trace is not None:
        return _with_trace(outcome, envelope)
    head = b'{"row_number":%d,"ok":%s,"size":%d,"envelope":' % (
        outcome.row_number or 0,
        b"true" if outcome.ok else b"false",
        len(envelope),
    )
    return b"".join((head, envelope, _MIDDLE, jsonio.dumps(outcome.telemetry), b"}\n"))


def _with_trace(outcome: Outcome, envelope: bytes) -> bytes:
    telemetry = jsonio.dumps(outcome.telemetry)
    head = b'{"row_number":%d,"ok":%s,"size":%d,"telemetry_size":%d,"envelope":' % (
        outcome.row_number or 0,
        b"true" if outcome.ok else b"false",
        len(envelope),
        len(telemetry),
    )
    trace = jsonio.dumps(outcome.trace)
    return b"".join((head, envelope, _MIDDLE, telemetry, _LAST, trace, b"}\n"))


class Entry(NamedTuple):
    """Where one outcome stands in a part file."""

    row_number: int
    ok: bool
    offset: int
    length: int


class PartFile(NamedTuple):
    """A part file that is there, and what its name says."""

    place: Place
    name: str
    size: int
    kind: str
    shard: int
    session: int

    @classmethod
    def of(cls, place: Place, listed: Listed) -> PartFile:
        """Read ``parts/<kind>-<shard>-<session>-<unique>.jsonl``, with or without a segment."""
        kind, shard, session, _ = listed.name[len(FOLDER) :].split("-")
        return cls(place, *listed, kind, int(shard), int(session))

    def open(self) -> IO[bytes]:
        """Open it for reading.

        Raises:
            FileNotFoundError: it was a segment, and has become a part of its whole.
        """
        return self.place.open(self.name)


def start_of(kind: str, shard: int, session: int) -> str:
    """Return what the names of such part files begin with; the rest is unique."""
    return f"{FOLDER}{kind}-{shard:06d}-{session:04d}"


def all_parts(place: Place) -> list[PartFile]:
    """List the part files of a work directory."""
    return [PartFile.of(place, item) for item in whole_files(place.list(FOLDER))]


def by_shard(place: Place) -> dict[int, list[PartFile]]:
    """Group the part files of a work directory by shard."""
    found: dict[int, list[PartFile]] = {}
    for part in all_parts(place):
        found.setdefault(part.shard, []).append(part)
    return found


def of_shard(place: Place, shard: int) -> list[PartFile]:
    """List the part files of one shard."""
    listed = (item for kind in KINDS for item in place.list(f"{FOLDER}{kind}-{shard:06d}-"))
    return [PartFile.of(place, item) for item in whole_files(listed)]


_Read = TypeVar("_Read")


def with_new_lists(place: Place, read: Callable[[], _Read]) -> _Read:
    """Have files listed and read, and do so again where a segment has vanished since the list.

    It has become a part of its whole, which the next list has; `read` begins anew each time. In a
    folder there are no segments, so what is not there is an error.

    Raises:
        FileNotFoundError: something else than an object of the place is not there.
        OSError: again and again, what is listed is not there; or the place cannot be read.
    """
    for _ in range(MOST_LISTS):
        try:
            return read()
        except FileNotFoundError as error:
            if place.is_folder or error.filename != place.uri:
                raise
    raise OSError(errno.EIO, "what it lists is not there when it is read", place.uri)


def scan(part: PartFile) -> Iterator[Entry | None]:
    """List the outcomes of a part file; None stands for a torn line."""
    offset = 0
    with part.open() as file:
        for line in file:
            match = _HEAD.match(line)
            if match is None or not line.endswith(b"}\n"):
                yield None
            else:
                yield Entry(int(match[1]), match[2] == b"true", offset, len(line))
            offset += len(line)


class Found(NamedTuple):
    """One outcome out of a part file; of one row the best sorts last (answered, then newest).

    Attributes:
        place: its number among those that were read.
        envelope, telemetry, trace: as they were written; no trace is empty.
    """

    row_number: int
    ok: bool
    session: int
    place: int
    envelope: bytes
    telemetry: bytes
    trace: bytes = b""


def decode(line: bytes, session: int, place: int = 0) -> Found | None:
    """Take a line apart without parsing what it holds; None for a torn one."""
    match = _HEAD.match(line)
    if match is None or not line.endswith(b"}\n"):
        return None
    row_number, ok, size, rest = match.groups()
    start = match.end()
    end = start + int(size)
    envelope, tail = line[start:end], line[end + len(_MIDDLE) : -2]
    if rest is None:
        return Found(int(row_number), ok == b"true", session, place, envelope, tail)
    telemetry, trace = tail[: int(rest)], tail[int(rest) + len(_LAST) :]
    return Found(int(row_number), ok == b"true", session, place, envelope, telemetry, trace)


def read(part: PartFile, first: int = 0) -> Iterator[Found | None]:
    """Read the outcomes of a part file, with places from `first`; None stands for a torn line."""
    with part.open() as file:
        for place, line in enumerate(file, first):
            yield decode(line, part.session, place)


def error_type(envelope: bytes) -> str:
    """Return the type of a failed envelope's error, without parsing what it holds."""
    match = _ERROR_TYPE.search(envelope)
    return match[1].decode() if match else "Unknown"


def finished_rows(parts: list[PartFile], session: int) -> set[int]:
    """Collect the numbers of the rows that were answered, or have failed in this session or later.

    The latter are there where an engine runs a bundle again, or where a batch that several sessions
    waited for has failed them: they had their attempts.
    """
    return {
        entry.row_number
        for part in parts
        for entry in scan(part)
        if entry and (entry.ok or part.session >= session)
    }


class FinishedRows:
    """The finished rows of shards, while other workers may be writing.

    A folder is listed once, at first use, and a store for each shard.
    """

    def __init__(self, place: Place, session: int) -> None:
        self._place = place
        self._session = session
        self._listed: dict[int, list[PartFile]] | None = None

    def of(self, shard: int) -> set[int]:
        """Collect the numbers of a shard's rows, as `finished_rows` does."""
        return with_new_lists(self._place, lambda: finished_rows(self._files(shard), self._session))

    def _files(self, shard: int) -> list[PartFile]:
        if not self._place.is_folder:
            return of_shard(self._place, shard)
        if self._listed is None:
            self._listed = by_shard(self._place)
        return self._listed.get(shard, [])


class PartWriter:
    """Appends outcomes to one part file a shard, a few of them open at a time."""

    def __init__(self, place: Place, kind: str, session: int) -> None:
        self._root = Path(place.uri)
        self._kind = kind
        self._session = session
        self._unique = uuid.uuid4().hex[:8]
        self._open: OrderedDict[int, int] = OrderedDict()

    def append(self, outcome: Outcome) -> None:
        """Write one outcome; returns when the operating system has it.

        Raises:
            OSError: the disk is full, or the directory cannot be written; nothing is left of
                the outcome.
        """
        assert outcome.shard is not None
        fd = self._descriptor(outcome.shard)
        data = encode(outcome)
        written = 0
        try:
            while written < len(data):
                written += os.write(fd, data[written:])
        except OSError:
            os.ftruncate(fd, os.fstat(fd).st_size - written)
            raise

    def close(self) -> None:
        """Sync and close every file."""
        while self._open:
            _, fd = self._open.popitem()
            _close(fd)

    def _path(self, shard: int) -> Path:
        return self._root / f"{start_of(self._kind, shard, self._session)}-{self._unique}.jsonl"

    def _descriptor(self, shard: int) -> int:
        fd = self._open.get(shard)
        if fd is not None:
            self._open.move_to_end(shard)
            return fd
        if len(self._open) >= OPEN_FILES:
            _, oldest = self._open.popitem(last=False)
            _close(oldest)
        fd = os.open(self._path(shard), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        self._open[shard] = fd
        return fd


def _close(fd: int) -> None:
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
