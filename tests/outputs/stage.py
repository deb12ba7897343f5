"""A place in memory, and actors whose every call of it waits for its turn.

So a test decides in which order the puts, gets and lists of several processes happen, and where
one of them dies: before a put has landed, after it, or between two reads.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import IO, Any

from beam_batch.places import Listed


class Killed(BaseException):
    """Raised in an actor that dies at the place where it waits."""


class Memory:
    """Objects that all actors see."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}


class Actor:
    """A process, as a thread that runs only when it is let; a place, with time of its own.

    Attributes:
        breaks: whether the place answers nothing.
        waits_for: the kind of call that it is about to make, or "" where it has made it.
    """

    is_folder = False
    uri = "memory://"

    def __init__(self, memory: Memory, clock: Callable[[], float]) -> None:
        self._memory = memory
        self._turn, self._back = threading.Semaphore(0), threading.Semaphore(0)
        self._call: Callable[[], Any] | None = None
        self._killed = False
        self.clock = clock
        self.breaks = False
        self.waits_for = ""
        self.result: Any = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    @property
    def is_busy(self) -> bool:
        return self._call is not None

    def call(self, what: Callable[[], Any]) -> None:
        """Have something done; it waits at its first use of the place."""
        assert self._call is None
        self._call = what
        self.advance()

    def advance(self) -> None:
        """Let it go on to its next use of the place."""
        self._turn.release()
        self._back.acquire()
        if isinstance(self.result, BaseException):
            raise self.result

    def finish(self) -> Any:
        """Let it come to its end, while all others wait."""
        while self.is_busy:
            self.advance()
        return self.result

    def kill(self) -> None:
        self._killed = True
        self._turn.release()
        self._thread.join()

    def _run(self) -> None:
        try:
            while True:
                self._turn.acquire()
                if self._killed:
                    return
                assert self._call is not None
                self.result = self._call()
                self._call = None
                self._back.release()
        except Killed:
            return
        except BaseException as error:  # else whoever let it go on waits for ever
            self.result = error
            self._back.release()

    def rest(self) -> None:
        """Wait for its turn, as for a call."""
        self._wait("rest")

    def _wait(self, call: str = "") -> None:
        self.waits_for = call
        self._back.release()
        self._turn.acquire()
        if self._killed:
            raise Killed
        if self.breaks:
            raise OSError("the place does not answer")

    def put(self, name: str, data: bytes) -> None:
        self._wait("put")
        self._memory.objects[name] = data
        self._wait()  # it has landed, and its sender does not know yet

    def get(self, name: str) -> bytes | None:
        self._wait("get")
        return self._memory.objects.get(name)

    def list(self, prefix: str) -> list[Listed]:
        self._wait("list")
        named = sorted(name for name in self._memory.objects if name.startswith(prefix))
        return [Listed(name, len(self._memory.objects[name])) for name in named]

    def remove(self, names: Iterable[str]) -> None:
        for name in names:
            self._wait("remove")
            self._memory.objects.pop(name, None)

    def open(self, name: str) -> IO[bytes]:
        raise NotImplementedError
