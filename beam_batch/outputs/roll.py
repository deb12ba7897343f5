"""A roll: each process has one object in a place, and all see whose owners are still at work.

In a folder each owner holds a lock of the kernel, so a death is noticed at once, whatever the
clocks say. In an object store an owner puts its object again every two seconds. One that has not
changed for `TTL` seconds of the reader's own clock is dead, and an owner that could not put it for
half of that takes itself for dead: so it stops before anybody takes its place, and no two clocks
are ever compared. It goes on under another name, since the old one may be removed at any moment.
"""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import math
import os
import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any

from beam_batch import jsonio
from beam_batch.errors import InvalidJSON
from beam_batch.places import Place, write_atomically

TTL = 20.0
"""Seconds after which an object in a store that does not change has lost its owner."""
BEAT = 2.0
"""Seconds between two puts of an object in a store."""
LOOK = 0.15
"""Seconds between two looks at a folder."""
_SUFFIX = ".json"
READERS = 8
"""Objects that are got at once, where there are more."""

Clock = Callable[[], float]


class Roll:
    """One process's view of a roll, and its own object in it.

    Attributes:
        id: its name in the roll; another one after it was lost.
        until: when, by its clock, the object it has put ceases to count, unless put again.
    """

    def __init__(self, place: Place, prefix: str, clock: Clock = time.monotonic) -> None:
        self._place = place
        self._prefix = prefix
        self._clock = clock
        self._beats = itertools.count()
        self._owner: IO[bytes] | None = None
        self._seen: dict[str, tuple[bytes, float]] = {}
        self._due = -math.inf
        self.id = uuid.uuid4().hex[:12]
        self.until = math.inf

    @property
    def is_due(self) -> bool:
        """Whether the object is to be put again, though nothing in it has changed."""
        return not self._place.is_folder and self._clock() >= self._due

    @property
    def is_lost(self) -> bool:
        """Whether others may take the owner of this object for dead."""
        return self._clock() >= self.until

    def put(self, values: Mapping[str, Any]) -> None:
        """Put one's object.

        Raises:
            OSError: the place did not take it.
        """
        data = jsonio.dumps({**values, "beat": next(self._beats)})
        if self._place.is_folder:
            self._put_in_folder(Path(self._place.uri), data)
            return
        began = self._clock()
        self._place.put(self._name(self.id), data)
        if self.is_lost:  # it came too late: it may be gone already
            return
        self.until = began + TTL / 2
        self._due = began + BEAT

    def others(self) -> dict[str, dict[str, Any]]:
        """Read the objects of all others that live, by their names; remove those of the dead.

        Raises:
            OSError: the place cannot be read.
        """
        living, dead = self.look()
        self.remove(dead)
        return living

    def look(self) -> tuple[dict[str, dict[str, Any]], dict[str, dict[str, Any]]]:
        """Read the objects of all others: of the living, and of the dead.

        Raises:
            OSError: the place cannot be read.
        """
        names = [item.name for item in self._place.list(self._prefix)]
        names = [name for name in names if name.endswith(_SUFFIX) and name != self._name(self.id)]
        found: tuple[dict[str, dict[str, Any]], dict[str, dict[str, Any]]] = {}, {}
        for name, data in zip(names, self._read(names), strict=True):
            if data is not None:
                with contextlib.suppress(InvalidJSON):  # none of ours
                    values = jsonio.loads(data[0])
                    found[self._is_dead(name, *data)][name[len(self._prefix) : -len(_SUFFIX)]] = (
                        values
                    )
        self._seen = {name: seen for name, seen in self._seen.items() if name in names}
        return found

    def remove(self, owners: Iterable[str]) -> None:
        """Remove the objects of others; where that fails, others will."""
        self._remove([self._name(owner) for owner in owners])

    def renew(self) -> None:
        """Go on under another name."""
        self.leave()
        self.id = uuid.uuid4().hex[:12]
        self.until, self._due = math.inf, -math.inf

    def leave(self) -> None:
        """Remove one's own object; where that fails, others will."""
        self._remove([self._name(self.id)])
        if self._owner is not None:
            self._owner.close()
            self._owner = None

    def _put_in_folder(self, root: Path, data: bytes) -> None:
        """Lock, then write; a folder that the driver has removed is not made again."""
        if self._owner is None:
            self._owner = _locked(root / f"{self._prefix}{self.id}.lock")
        write_atomically(root / self._name(self.id), data)

    def _name(self, owner: str) -> str:
        return f"{self._prefix}{owner}{_SUFFIX}"

    def _read(self, names: list[str]) -> list[tuple[bytes, float, float] | None]:
        """Get objects, each with the times before and after."""

        def get(name: str) -> tuple[bytes, float, float] | None:
            before = self._clock()
            data = self._place.get(name)
            return None if data is None else (data, before, self._clock())

        if self._place.is_folder or len(names) <= READERS:
            return [get(name) for name in names]
        with ThreadPoolExecutor(READERS) as readers:
            return list(readers.map(get, names))

    def _is_dead(self, name: str, data: bytes, before: float, after: float) -> bool:
        if self._place.is_folder:
            return _is_free(Path(self._place.uri) / (name.removesuffix(_SUFFIX) + ".lock"))
        last, since = self._seen.get(name, (b"", 0.0))
        if last != data:
            self._seen[name] = data, after
            return False
        return before - since > TTL

    def _remove(self, names: list[str]) -> None:
        if self._place.is_folder:
            names = [*names, *(name.removesuffix(_SUFFIX) + ".lock" for name in names)]
        if names:
            with contextlib.suppress(OSError):
                self._place.remove(names)


def _locked(path: Path) -> IO[bytes]:
    """Make a file and hold its lock as long as it is open."""
    path.parent.mkdir(exist_ok=True)
    file = path.open("ab")
    fcntl.flock(file, fcntl.LOCK_EX)
    return file


def _is_free(path: Path) -> bool:
    """Whether nobody holds the lock of a file."""
    try:
        fd = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return True
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return False
    finally:
        os.close(fd)
    return True
