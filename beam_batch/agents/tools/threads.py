"""Blocking work beside the event loop, which may hang without holding anything up."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

T = TypeVar("T")


async def in_thread(work: Callable[..., T], *arguments: Any, timeout: float | None = None) -> T:
    """Run a function in a thread of its own.

    Not in a pool: what never returns would take one of its threads, and keep Python from ending.

    Raises:
        TimeoutError: it has not ended in time; nobody waits for it any more.
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
    async with asyncio.timeout(timeout):
        return await done
