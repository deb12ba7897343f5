"""A process that uses servers as a worker does: in an event loop of another thread.

It prints the processes that it has started, then works until it is ended, or fails.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import threading

from tests.agents.support import Caller, faulty, parent_of, started


async def main(stopping: threading.Event, failing: bool) -> None:
    shared, own = faulty(), faulty(name="own", session="row")
    async with started(shared, own) as servers:
        pids = []
        for spec in (shared, own):
            caller = Caller(servers, spec)
            pids += [int(await caller.text("spawn", away=away)) for away in (False, True)]
            pids += [int(await caller.text("stay"))]
            pids += [parent_of(pids[-1])]
        print(json.dumps(pids), flush=True)
        if failing:
            os._exit(1)
        await asyncio.to_thread(stopping.wait)
        await caller.run.open.aclose()


def _work(stopping: threading.Event, done: threading.Event) -> None:
    asyncio.run(main(stopping, "fail" in sys.argv))
    done.set()


if __name__ == "__main__":
    stop, ended = threading.Event(), threading.Event()
    signal.signal(signal.SIGINT, lambda *_: stop.set())
    threading.Thread(target=_work, args=(stop, ended)).start()
    while not ended.wait(0.1):
        pass
