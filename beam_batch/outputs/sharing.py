"""What the driver of a run sees of others: workers of an earlier session, and another driver."""

from __future__ import annotations

import contextlib
import fcntl
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from beam_batch.errors import OptionsError
from beam_batch.outputs.roll import BEAT, LOOK, Clock, Roll
from beam_batch.outputs.seats import FOLDER
from beam_batch.outputs.stopping import StopFlag, latest_flag
from beam_batch.outputs.workdir import WorkDir
from beam_batch.places import Place

LOCK = "lock/"
PATIENCE = 60.0
"""Seconds to wait for workers of an earlier session: they end when their driver is gone."""

Values = Mapping[str, Any]


def wait_for_workers(
    work: WorkDir,
    waiting: Callable[[], None],
    roll: Roll | None = None,
    clock: Clock = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> bool:
    """Wait until no worker of an earlier session is left; call `waiting` once if that takes time.

    Those that outlive their driver are told to drain: an engine elsewhere goes on without it.
    Returns False where some are left after a minute. The roll is that of a hold, which knows
    already who has not changed for long.

    Raises:
        OSError: the place cannot be used.
    """
    _stop_earlier(work)
    return wait(work.place, waiting, clock, sleep, roll)


def _stop_earlier(work: WorkDir) -> None:
    flag = latest_flag(work)
    if flag is not None:
        flag.set("another session has begun", 1)


def wait(
    place: Place,
    waiting: Callable[[], None],
    clock: Clock,
    sleep: Callable[[float], None],
    roll: Roll | None = None,
) -> bool:
    """Wait as above, in a place."""
    roll = roll or Roll(place, FOLDER, clock)
    end = clock() + PATIENCE
    while roll.others():
        if clock() > end:
            return False
        waiting()
        waiting = _nothing
        sleep(LOOK if place.is_folder else BEAT)
    return True


def _nothing() -> None:
    return None


class Hold(Protocol):
    """A work directory that is one driver's.

    Attributes:
        workers: those of all sessions, as far as they were looked at while this was taken.
        is_lost: whether another driver may have it.
    """

    workers: Roll | None
    is_lost: bool

    def stops(self, flag: StopFlag) -> None:
        """Raise this flag should the hold be lost."""

    def keep(self) -> None:
        """Make sure that the directory is still held; where it is lost, the flag is raised.

        Raises:
            OSError: the place does not take it.
        """

    def release(self) -> None:
        """Leave the directory to others."""


def hold(work: WorkDir, waiting: Callable[[], None]) -> Hold:
    """Hold a work directory for one run; call `waiting` once if that takes time.

    Raises:
        OptionsError: another run is using it.
        OSError: the place cannot be used.
    """
    place = work.place
    if place.is_folder:
        return FolderHold(work)
    found = StoreHold(place)
    found.take(waiting, time.sleep)
    found.start()
    return found


class FolderHold:
    """Held by a lock of the kernel, which frees it when the process dies and not before."""

    def __init__(self, work: WorkDir) -> None:
        self.workers: Roll | None = None
        self.is_lost = False
        self._file = (work.root / "lock").open("a")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._file.close()
            raise OptionsError(
                f"--work-dir {work.path}: another run is using it. Wait for it, or choose another "
                "--work-dir."
            ) from None

    def stops(self, flag: StopFlag) -> None:
        """Do nothing: it cannot be lost."""

    def keep(self) -> None:
        """Do nothing: it cannot be lost."""

    def release(self) -> None:
        """Free the directory."""
        self._file.close()


class StoreHold:
    """Held by an object that changes every two seconds.

    Who comes writes its own first, and then looks at all others. One that changes no more belongs
    to a driver that is dead. Of two that come at once the first by name goes on.
    """

    def __init__(self, place: Place, clock: Clock = time.monotonic) -> None:
        self._place = place
        self._roll = Roll(place, LOCK, clock)
        self.workers: Roll | None = Roll(place, FOLDER, clock)
        self._over, self._one = threading.Event(), threading.Lock()
        self.is_lost = False
        self._flag: StopFlag | None = None
        self._thread = threading.Thread(target=self._keep, daemon=True)

    def take(self, waiting: Callable[[], None], sleep: Callable[[float], None]) -> None:
        """Take it, once all others have proved to be dead; call `waiting` once if there are any.

        Raises:
            OptionsError: one of them lives.
        """
        self._roll.put({"sure": False})
        first = others = self._roll.others()
        while others:
            if any(self._yields_to(name, it, first.get(name)) for name, it in others.items()):
                self._roll.leave()
                raise OptionsError(
                    f"--work-dir {self._place.uri}: another run is using it. Wait for it, or "
                    "choose another --work-dir."
                )
            waiting()
            waiting = _nothing
            if self.workers is not None:
                self.workers.look()
            sleep(BEAT)
            self._roll.put({"sure": False})
            others = self._roll.others()
            first = others | first
        self._roll.put({"sure": True})

    def _yields_to(self, name: str, now: Values, before: Values | None) -> bool:
        """Whether another lives and is not behind this one."""
        lives = before is not None and now != before
        return lives and (now["sure"] or name < self._roll.id)

    def start(self) -> None:
        """Keep it from now on."""
        self._thread.start()

    def keep(self) -> None:
        """Say once more that its owner lives; where that came too late, it is lost."""
        reason = "for a while"
        try:
            with self._one:
                self._roll.put({"sure": True})
        except OSError as error:
            reason = f"({error.strerror})"
            raise
        finally:
            self.is_lost = self.is_lost or self._roll.is_lost
            if self.is_lost and self._flag is not None:
                self._flag.set(
                    f"the work directory could not be reached {reason}, so it may be another's", 1
                )

    def _keep(self) -> None:
        while not self._over.wait(BEAT):
            with contextlib.suppress(OSError):
                self.keep()

    def stops(self, flag: StopFlag) -> None:
        """Raise this flag should the hold be lost, or where it is lost already."""
        self._flag = flag

    def release(self) -> None:
        """Leave the directory to others."""
        self._over.set()
        if self._thread.is_alive():
            self._thread.join()
        self._roll.leave()
