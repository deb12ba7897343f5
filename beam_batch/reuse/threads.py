"""A remote store for an event loop: its calls run in threads, its writes behind the work."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from beam_batch.reuse.kept import KeptReply, ReplyStore

THREADS = 64
"""At 50 ms a request, some 1,200 requests a second."""
MOST_WRITES = 256
"""Writes under way; more wait, so that a slow store does not fill the memory."""


class Threads:
    """Calls a store's methods in threads of its own."""

    def __init__(self, store: ReplyStore) -> None:
        self._store = store
        self._pool = ThreadPoolExecutor(THREADS, "reuse")
        self._room = asyncio.Semaphore(MOST_WRITES)
        self._writes: dict[bytes, asyncio.Task[None]] = {}

    async def get(self, key: bytes) -> KeptReply | None:
        """Return the reply kept under a key."""
        kept: KeptReply | None = await self._call(self._store.get, key)
        return kept

    async def put(self, key: bytes, kept: KeptReply) -> None:
        """Begin to write a reply, as soon as there is room."""
        await self._begin(key, self._store.put, key, kept)

    async def forget(self, key: bytes) -> None:
        """Begin to remove a reply, after it has been written."""
        await self._begin(key, self._store.forget, key)

    async def close(self) -> None:
        """Finish all writes and close the store."""
        await asyncio.gather(*self._writes.values())
        await self._call(self._store.close)
        self._pool.shutdown()

    async def _begin(self, key: bytes, call: Callable[..., None], *args: Any) -> None:
        await self._room.acquire()
        before = self._writes.get(key)

        async def write() -> None:
            try:
                if before is not None:
                    await before
                await self._call(call, *args)
            finally:
                self._room.release()
                if self._writes.get(key) is task:
                    del self._writes[key]

        task = asyncio.create_task(write())
        self._writes[key] = task

    async def _call(self, call: Callable[..., Any], *args: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._pool, call, *args)
