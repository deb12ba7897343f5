"""Files that grow line by line in an object store, where nothing can be appended to.

What was added since the last segment goes out as the next one as soon as that is worth it. In the
end a file is put in place whole, and its segments are removed; who finds both takes the whole.
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
    """A file in the making: how many segments it has, and all that they hold."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.segments = 0
        self.open: _Segment | None = None
        self.whole: IO[bytes] = TemporaryFile()  # noqa: SIM115

    def segment(self, number: int) -> str:
        """Name a segment."""
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
        self._thread: threading.Thread | None = None

    def add(self, start: str, line: bytes) -> Future[None]:
        """Add a line to the file whose name begins so; what follows is unique.

        The future is done when the line is in the store, or raises OSError.
        """
        with self._changed:
            if start not in self._files:
                self._files[start] = _File(f"{start}-{uuid.uuid4().hex[:8]}")
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
            OSError: the store does not take it.
        """
        with self._changed:
            self._ending = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join()
        for file in self._files.values():
            self._make_whole(file)
        self._files.clear()

    def _write(self) -> None:
        while (found := self._next()) is not None:
            file, segment = found
            data = b"".join(segment.lines)
            try:
                self._place.put(file.segment(file.segments), data)
            except Exception as error:
                segment.written.set_exception(error)
                continue
            file.whole.write(data)
            file.segments += 1
            segment.written.set_result(None)
            self._retire(file)

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
        """Be done with a file of many segments, or where there are many files, with the oldest."""
        with self._changed:
            start, file = next(iter(self._files.items()))
            if written.segments >= MOST_SEGMENTS or written.whole.tell() >= MOST_BYTES:
                start, file = written.name.rpartition("-")[0], written
            elif len(self._files) <= MOST_FILES:
                return
            if file.open is not None:
                return
            del self._files[start]
        with contextlib.suppress(OSError):  # its segments are there
            self._make_whole(file)

    def _make_whole(self, file: _File) -> None:
        with file.whole:
            if not file.segments:
                return
            file.whole.seek(0)
            self._place.put(f"{file.name}.jsonl", file.whole.read())
        self._place.remove([file.segment(number) for number in range(file.segments)])
