"""Files that grow line by line in an object store, where nothing can be appended to.

What was added since the last segment goes out as the next one as soon as that is worth it. In the
end a file is put in place whole, and its segments are removed; who finds both takes the whole. That
holds what the store did not take as a segment as well: it may have taken it all the same, or do so
later, and no other segment is ever put under that number.
"""

from __future__ import annotations

import contextlib
import re
import threading
import time
import uuid
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from tempfile import TemporaryFile
from typing import IO

from beam_batch.places import Listed, Place

LONGEST = 1.0
"""Seconds after which a line is to be on its way at the latest."""
LARGEST = 8 << 20
"""Bytes of an open segment at most."""
MOST_FILES = 32
"""Files in the making; a bundle of many splits is done with the earlier ones."""
MOST_SEGMENTS, MOST_BYTES = 200, 64 << 20
"""Segments of one file, and bytes; then it is made whole, and another one is begun."""
_SEGMENT = re.compile(r"\.\d{6}\.jsonl$")


def whole_files(listed: Iterable[Listed]) -> Iterator[Listed]:
    """Leave out the segments of files that are there whole as well."""
    found = [item for item in listed if item.name.endswith(".jsonl")]
    names = {item.name for item in found}
    for item in found:
        if not _SEGMENT.search(item.name) or _SEGMENT.sub(".jsonl", item.name) not in names:
            yield item


class _Segment:
    """The segment of one file that is still open."""

    def __init__(self) -> None:
        self.lines: list[bytes] = []
        self.size = 0
        self.written: Future[None] = Future()
        self.due = time.monotonic() + LONGEST


class _File:
    """A file in the making: how many segments it has, and all that they hold.

    Attributes:
        start: what its name begins with; files that follow one another have it in common.
        segments: how many were put, or tried.
        is_kept: whether nothing is lacking in what is kept to be put whole.
    """

    def __init__(self, start: str) -> None:
        self.start = start
        self.name = f"{start}-{uuid.uuid4().hex[:8]}"
        self.segments = 0
        self.open: _Segment | None = None
        self.is_kept = True
        self._whole: IO[bytes] | None = None

    @property
    def is_full(self) -> bool:
        """Whether it is to be made whole, and another one begun."""
        size = self._whole.tell() if self._whole is not None else 0
        return self.segments >= MOST_SEGMENTS or size >= MOST_BYTES

    def next_segment(self) -> str:
        """Name a segment as no other one is named."""
        self.segments += 1
        return self._segment(self.segments - 1)

    def all_segments(self) -> list[str]:
        """Name all segments, also those that the store did not take."""
        return [self._segment(number) for number in range(self.segments)]

    def keep(self, data: bytes) -> None:
        """Add what a segment holds to the whole, on this machine's disk.

        Raises:
            OSError: the disk does not take it; then the file stays in segments.
        """
        is_kept, self.is_kept = self.is_kept, False
        if self._whole is None:
            self._whole = TemporaryFile()  # noqa: SIM115
        self._whole.write(data)
        self.is_kept = is_kept

    def take(self) -> bytes:
        """Return the whole, at most MOST_BYTES and a segment, and keep it no longer."""
        if self._whole is None:
            return b""
        with self._whole as whole:
            whole.seek(0)
            return whole.read()

    def discard(self) -> None:
        """Keep the whole no longer; what the store took of it is there in segments."""
        if self._whole is not None:
            with contextlib.suppress(OSError):
                self._whole.close()

    def _segment(self, number: int) -> str:
        return f"{self.name}.{number:06d}.jsonl"


class Segments:
    """Adds lines to files in a store; a thread of its own writes them.

    A segment is closed after a second, or once `enough` lines are in it.
    """

    def __init__(self, place: Place, enough: int) -> None:
        self._place = place
        self._enough = enough
        self._files: OrderedDict[str, _File] = OrderedDict()
        self._changed = threading.Condition()
        self._ending = False
        self._failure: Exception | None = None
        self._thread: threading.Thread | None = None

    def add(self, start: str, line: bytes) -> Future[None]:
        """Add a line to the file whose name begins so; what follows is unique.

        The future is done when the line is in the store, or raises OSError.
        """
        with self._changed:
            if start not in self._files:
                self._files[start] = _File(start)
            self._files.move_to_end(start)
            file = self._files[start]
            if file.open is None:
                file.open = _Segment()
            file.open.lines.append(line)
            file.open.size += len(line)
            if self._thread is None:
                self._thread = threading.Thread(target=self._write, daemon=True)
                self._thread.start()
            self._changed.notify()
            return file.open.written

    @property
    def is_behind(self) -> bool:
        """Whether more waits to be written than is good to hold in memory."""
        with self._changed:
            return any(file.open and file.open.size > LARGEST for file in self._files.values())

    def close(self) -> None:
        """Write what is left, and put every file in place whole.

        Raises:
            OSError: the store did not take a line, whoever waited for it, or does not take a file.
        """
        with self._changed:
            self._ending = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join()
        try:
            while self._files:
                self._make_whole(self._files.popitem(last=False)[1])
        except OSError as error:
            self._failure = self._failure or error
            for file in self._files.values():
                file.discard()
        if self._failure is not None:
            raise self._failure

    def _write(self) -> None:
        while (found := self._next()) is not None:
            file, segment = found
            try:
                self._put(file, b"".join(segment.lines))
            except Exception as error:
                self._failure = self._failure or error
                segment.written.set_exception(error)
            else:
                segment.written.set_result(None)
            self._retire(file)

    def _put(self, file: _File, data: bytes) -> None:
        try:
            self._place.put(file.next_segment(), data)
        finally:
            file.keep(data)

    def _next(self) -> tuple[_File, _Segment] | None:
        """Wait for a segment that is due; None once all are written and nothing more comes."""
        with self._changed:
            while True:
                now = time.monotonic()
                waiting = [(file.open.due, file) for file in self._files.values() if file.open]
                for due, file in sorted(waiting, key=lambda item: item[0]):
                    found = file.open
                    assert found is not None
                    is_full = len(found.lines) >= self._enough or found.size >= LARGEST
                    if self._ending or is_full or due <= now:
                        file.open = None
                        return file, found
                if self._ending:
                    return None
                self._changed.wait(min(due for due, _ in waiting) - now if waiting else None)

    def _retire(self, written: _File) -> None:
        """Be done with a file that is full, or where there are many, with one that rests."""
        with self._changed:
            file = written if written.is_full else self._spare()
            if file is None:
                return
            del self._files[file.start]
            if file.open is not None:  # its lines go to the next one
                following = self._files[file.start] = _File(file.start)
                following.open, file.open = file.open, None
        with contextlib.suppress(OSError):  # its segments are there, or `close` says which is not
            self._make_whole(file)

    def _spare(self) -> _File | None:
        """Return the oldest file to which nothing is added, where there are too many."""
        if len(self._files) <= MOST_FILES:
            return None
        return next((file for file in self._files.values() if file.open is None), None)

    def _make_whole(self, file: _File) -> None:
        data = file.take()
        if data and file.is_kept:
            self._place.put(f"{file.name}.jsonl", data)
            self._place.remove(file.all_segments())
