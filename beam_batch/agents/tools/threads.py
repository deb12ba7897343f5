"""Blocking work beside the event loop, which may hang without holding anything up."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, TypeVar

T = TypeVar("T")


async def in_thread(work: Callable[..., T], *arguments: Any) -> T:
    """Run a function in a thread of its own.

    Not in a pool: what never returns would take one of its threads, and keep Python from ending.
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()
    context = contextvars.copy_context()

    def settle(result: T | None, error: BaseException | None) -> None:
        if done.done():
            return
        if error is None:
            done.set_result(result)  # type: ignore[arg-type]
        else:
            done.set_exception(error)

    def run() -> None:
        result, error = None, None
        try:
            result = context.run(work, *arguments)
        except Exception as raised:
            error = raised
        except BaseException as raised:  # sys.exit() of a function ends the function
            error = RuntimeError(f"{type(raised).__name__}: {raised}")
        if isinstance(error, StopIteration):  # no future can hold one
            error = RuntimeError("StopIteration")
        with suppress(RuntimeError):  # the loop may be closed by now
            loop.call_soon_threadsafe(settle, result, error)

    threading.Thread(target=run, name="tool", daemon=True).start()
    return await done


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
