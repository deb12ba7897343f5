"""Blocking work beside the event loop, which may hang without holding anything up."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

T = TypeVar("T")


MOST_THREADS = 64
"""Calls at a time; what waits for its turn has its time still before it."""
MOST_LEFT = 64
"""Calls that did not end in their time, until no more are made."""


class NoThread(Exception):
    """There is no thread for a call; the text is for the model."""


class Threads:
    """The threads of one worker: a bounded number, whatever models call at once."""

    def __init__(self, most: int = MOST_THREADS, most_left: int = MOST_LEFT) -> None:
        self._room = asyncio.Semaphore(most)
        self._most_left = most_left
        self._left = 0

    async def run(self, work: Callable[..., T], *arguments: Any, timeout: float) -> T:
        """Run a function in a thread of its own.

        Not in a pool: what never returns would take one of its threads, and keep Python from
        ending.

        Raises:
            TimeoutError: it did not end in its time; its thread is left behind.
            NoThread: the system has none, or too many were left behind.
        """
        async with self._room:
            if self._left >= self._most_left:
                raise NoThread(f"{self._left} earlier calls have not ended yet; no more are made.")
            done: asyncio.Future[T] = asyncio.get_running_loop().create_future()

            def settle(result: T | None, error: BaseException | None) -> None:
                if done.cancelled():
                    self._left -= 1
                elif error is None:
                    done.set_result(result)  # type: ignore[arg-type]
                else:
                    done.set_exception(error)

            _start(partial(work, *arguments), settle)
            try:
                async with asyncio.timeout(timeout):
                    return await done
            finally:
                self._left += done.cancelled()


def _start(work: Callable[[], T], settle: Callable[[T | None, BaseException | None], None]) -> None:
    """Run a function in a thread, and have the loop settle it afterwards."""
    loop = asyncio.get_running_loop()
    context = contextvars.copy_context()

    def run() -> None:
        result, error = None, None
        try:
            result = context.run(work)
        except Exception as raised:
            error = raised
        except BaseException as raised:  # sys.exit() of a function ends the function
            error = RuntimeError(f"{type(raised).__name__}: {raised}")
        if isinstance(error, StopIteration):  # no future can hold one
            error = RuntimeError("StopIteration")
        with suppress(RuntimeError):  # the loop may be closed by now
            loop.call_soon_threadsafe(settle, result, error)

    try:
        threading.Thread(target=run, name="tool", daemon=True).start()
    except RuntimeError as error:
        raise NoThread(f"There is no thread for it: {error}.") from None


class OwnLoop:
    """An event loop in the thread of one call, so that a coroutine which blocks blocks no other."""

    def __init__(self) -> None:
        self._running: tuple[asyncio.AbstractEventLoop, asyncio.Task[Any]] | None = None
        self._over = False

    def finish(self, work: Awaitable[T]) -> T:
        """Wait for what an async function does; to be called in the thread."""
        return asyncio.run(self._wait_for(work))

    def cancel(self) -> None:
        """Cancel what still runs; to be called when nobody waits for it any more."""
        self._over = True
        if self._running is not None:
            loop, task = self._running
            with suppress(RuntimeError):  # the loop may be closed by now
                loop.call_soon_threadsafe(task.cancel)

    async def _wait_for(self, work: Awaitable[T]) -> T:
        task = asyncio.current_task()
        assert task is not None
        self._running = asyncio.get_running_loop(), task
        if self._over:
            task.cancel()
        return await work
