"""The window of requests in flight: one event loop thread and one pool a worker process."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass

from beam_batch.calling.answering import Answerer, Dropped
from beam_batch.calling.http import HttpClient
from beam_batch.calling.lane import Lane, Result
from beam_batch.calling.retrying import RetryPolicy
from beam_batch.errors import FatalReply
from beam_batch.options import CallSpec, ModelSpec, SchemaSpec
from beam_batch.outputs.recording import Recorder, RecordSpec
from beam_batch.outputs.sharing import Presence, Share
from beam_batch.outputs.workdir import GaugeSpec
from beam_batch.providers import headers, make_provider, read_key
from beam_batch.records import Outcome, Prompt

WATCH_INTERVAL = 0.1
STAGGER = 0.001
"""Seconds between the first requests of a window: sent at once, their answers would come back at
once as well, wait for each other, and go on doing so.
"""


@dataclass(frozen=True, kw_only=True)
class WindowSpec:
    """Everything a worker needs to answer prompts; picklable, no secret.

    Attributes:
        token: names the window, so that all bundles of one process share it.
        record: where outcomes are recorded, with the run's stop flag, or None in a pipeline of
            somebody's own, which takes the outcomes instead.
        workers: processes of this machine that share `call.parallel`.
    """

    token: str
    model: ModelSpec
    instruction: str
    schema: SchemaSpec | None
    call: CallSpec
    include_input: bool
    record: RecordSpec | None = None
    workers: int = 1


class Window:
    """Runs up to `parallel` prompts at once.

    The first request of a process goes alone: a refused key or an unknown model costs one
    request, not a window full. Where outcomes are recorded, a request's turn ends when its outcome
    is on disk, and as many prompts again wait for their turn; else a slot is free when its outcome
    has been taken.
    """

    def __init__(self, spec: WindowSpec) -> None:
        self._spec = spec
        self._presence = Presence(spec.record.work) if spec.record is not None else None
        self._share: Share | None = None
        parallel = spec.call.parallel
        if spec.record is not None and spec.workers > 1:
            self._share = Share(spec.record.work, spec.workers)
            parallel = max(1, self._share.of(parallel))
        self._parallel = parallel
        self._slots = threading.Semaphore(parallel if spec.record is None else 2 * parallel)
        self._turns = asyncio.Semaphore(1)
        self._open = parallel == 1
        self._flying = 0
        self._counts = {"ok": 0, "failed": 0}
        self._inbox: deque[tuple[Prompt, Lane]] = deque()
        self._woken = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._stopping = asyncio.Event()
        self._loop = asyncio.new_event_loop()
        ready: Future[None] = Future()
        self._thread = threading.Thread(target=self._serve, args=(ready,), daemon=True)
        self._thread.start()
        ready.result()

    def try_acquire(self, timeout: float = 0) -> bool:
        """Take a slot, waiting at most some seconds for one."""
        if timeout:
            return self._slots.acquire(timeout=timeout)
        return self._slots.acquire(blocking=False)

    def release(self) -> None:
        """Give a slot back."""
        self._slots.release()

    def new_recorder(self) -> Recorder | None:
        """Return a recorder for one bundle, or None where outcomes are not recorded."""
        return self._spec.record.open() if self._spec.record is not None else None

    def submit(self, prompt: Prompt, lane: Lane) -> None:
        """Start answering a prompt; its result goes to the lane. Needs a slot."""
        self._inbox.append((prompt, lane))
        if not self._woken:
            self._woken = True
            self._loop.call_soon_threadsafe(self._start_waiting)

    def close(self) -> None:
        """Cancel what is in flight and end the thread."""
        self._loop.call_soon_threadsafe(self._closing.set)
        self._thread.join()
        for lock in (self._share, self._presence):
            if lock is not None:
                lock.close()

    def _serve(self, ready: Future[None]) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_until_complete(self._main(ready))
        finally:
            self._loop.close()

    async def _main(self, ready: Future[None]) -> None:
        self._closing = asyncio.Event()
        try:
            client = self._make_client()
            self._answerer = self._make_answerer(client)
        except BaseException as error:
            ready.set_exception(error)
            return
        watcher = asyncio.create_task(self._watch())
        gc.freeze()  # what is there now is there to the end: not to be looked through every time
        ready.set_result(None)
        await self._closing.wait()
        gc.unfreeze()
        watcher.cancel()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(watcher, *self._tasks, return_exceptions=True)
        if client is not None:
            await client.close()

    def _make_client(self) -> HttpClient | None:
        model = self._spec.model
        if not model.base_url:
            return None
        key = read_key(model, os.environ)
        times = (self._spec.call.timeout, self._spec.call.stall_timeout)
        return HttpClient(model.base_url, headers(model, key, os.environ), key, times)

    def _make_answerer(self, client: HttpClient | None) -> Answerer:
        from beam_batch.prompts.schema import make_validator

        spec = self._spec
        provider = make_provider(spec.model, spec.schema)
        return Answerer(
            provider=provider,
            client=client,
            policy=RetryPolicy(
                max_attempts=spec.call.max_attempts,
                wait=spec.call.retry_wait,
                max_wait=spec.call.retry_max_wait,
            ),
            instruction=spec.instruction,
            validate=make_validator(spec.schema, provider.wraps),
            include_input=spec.include_input,
        )

    async def _watch(self) -> None:
        """Notice a stopped run, so that rows which wait to be retried are let go; show numbers."""
        record = self._spec.record
        if record is None:
            return
        gauge = GaugeSpec(record.work, record.session).open()
        try:
            while True:
                if self._spec.workers > 1 and self._presence and self._presence.driver_is_gone():
                    record.stop.set("the driver is gone", 1)
                if record.stop.is_set():
                    self._stopping.set()
                gauge.show({**self._counts, "in_flight": self._flying})
                await asyncio.sleep(WATCH_INTERVAL)
        finally:
            gauge.show({**self._counts, "in_flight": 0}, force=True)

    def _start_waiting(self) -> None:
        self._woken = False
        while self._inbox:
            prompt, lane = self._inbox.popleft()
            task = self._loop.create_task(self._run(prompt, lane))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _run(self, prompt: Prompt, lane: Lane) -> None:
        result: Result
        try:
            async with self._turns:
                result = await self._result(prompt, lane)
        except BaseException as error:  # whatever it is must reach process(), or the bundle hangs
            result = error
        lane.put(result)

    async def _result(self, prompt: Prompt, lane: Lane) -> Outcome | None:
        record = self._spec.record
        if record is not None and record.stop.is_set_here():
            return None
        self._flying += 1
        try:
            outcome = await self._answerer.answer(prompt, self._wait)
        except Dropped:
            return None
        except FatalReply as error:
            if record is None:
                raise
            record.stop.set(str(error), 1)
            return None
        finally:
            self._flying -= 1
        self._open_up()
        if lane.recorder is None:
            return outcome
        kind = "ok" if outcome.ok else "failed"
        self._counts[kind] += lane.recorder.record(outcome, kind)
        return None

    def _open_up(self) -> None:
        if not self._open:
            self._open = True
            for number in range(1, self._parallel):
                self._loop.call_later(number * STAGGER, self._turns.release)

    async def _wait(self, seconds: float) -> bool:
        self._open_up()
        try:
            await asyncio.wait_for(self._stopping.wait(), seconds)
        except TimeoutError:
            return False
        return True


_windows: dict[str, tuple[Window, int]] = {}
_windows_lock = threading.Lock()


def acquire_window(spec: WindowSpec, make: Callable[[WindowSpec], Window] = Window) -> Window:
    """Return this process's window, made at first use."""
    with _windows_lock:
        window, users = _windows.get(spec.token, (None, 0))
        if window is None:
            window = make(spec)
        _windows[spec.token] = (window, users + 1)
        return window


def release_window(spec: WindowSpec) -> None:
    """Close the process's window when its last user is done."""
    with _windows_lock:
        window, users = _windows.pop(spec.token)
        if users > 1:
            _windows[spec.token] = (window, users - 1)
            return
    window.close()
