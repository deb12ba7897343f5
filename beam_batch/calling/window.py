"""The window of requests in flight: one event loop thread and one pool a worker process."""

from __future__ import annotations

import asyncio
import os
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Protocol

from beam_batch.calling.answering import Answerer, Dropped
from beam_batch.calling.http import HttpClient
from beam_batch.calling.retrying import RetryPolicy
from beam_batch.errors import FatalReply
from beam_batch.options import CallSpec, ModelSpec, SchemaSpec
from beam_batch.outputs.workdir import GaugeSpec
from beam_batch.providers import headers, make_provider, read_key
from beam_batch.records import Outcome, Prompt

WATCH_INTERVAL = 0.1


class Stop(Protocol):
    """The part of a stop flag that calling needs."""

    def set(self, reason: str, exit_code: int) -> None:
        """Stop the run."""

    def is_set(self) -> bool:
        """Whether the run is to stop."""

    def is_set_here(self) -> bool:
        """Whether this process has seen that the run is to stop; costs nothing."""


@dataclass(frozen=True, kw_only=True)
class WindowSpec:
    """Everything a worker needs to answer prompts; picklable, no secret.

    Attributes:
        token: names the window, so that all bundles of one process share it.
        stop: the run's stop flag, or None in a pipeline that has none.
        gauge: where the number of requests in flight is shown, or None.
    """

    token: str
    model: ModelSpec
    instruction: str
    schema: SchemaSpec | None
    call: CallSpec
    include_input: bool
    stop: Stop | None
    gauge: GaugeSpec | None = None


Result = Outcome | BaseException | None
"""What comes back for a prompt: its outcome, a bug to raise, or None where the run stopped."""


class Window:
    """Runs up to `parallel` prompts at once.

    The first request of a process goes alone: a refused key or an unknown model costs one
    request, not a window full. A slot is free again when its outcome has been taken.
    """

    def __init__(self, spec: WindowSpec) -> None:
        self._spec = spec
        self._slots = threading.Semaphore(1)
        self._open = spec.call.parallel == 1
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
        ready.set_result(None)
        await self._closing.wait()
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
        stop = self._spec.stop
        gauge = self._spec.gauge.open() if self._spec.gauge is not None else None
        while True:
            if stop is not None and stop.is_set():
                self._stopping.set()
            if gauge is not None:
                gauge.show({"in_flight": len(self._tasks)})
            await asyncio.sleep(WATCH_INTERVAL)

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
            result = await self._result(prompt)
        except BaseException as error:  # whatever it is must reach process(), or the bundle hangs
            result = error
        lane.put(result)

    async def _result(self, prompt: Prompt) -> Outcome | None:
        try:
            outcome = await self._answerer.answer(prompt, self._wait)
        except Dropped:
            return None
        except FatalReply as error:
            if self._spec.stop is None:
                raise
            self._spec.stop.set(str(error), 1)
            return None
        self._open_up()
        return outcome

    def _open_up(self) -> None:
        if not self._open:
            self._open = True
            self._slots.release(self._spec.call.parallel - 1)

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


class Lane:
    """One bundle processor's share of a window: submit prompts, take results."""

    def __init__(self, window: Window) -> None:
        self._window = window
        self._results: SimpleQueue[Result] = SimpleQueue()
        self._abandoned = False
        self._lock = threading.Lock()
        self.pending = 0

    def put(self, result: Result) -> None:
        """Take a result from the window; one that nobody waits for any more frees its slot."""
        with self._lock:
            if not self._abandoned:
                self._results.put(result)
                return
        self._window.release()

    def abandon(self) -> None:
        """Give all slots back, at once or when their requests end: the bundle has failed."""
        with self._lock:
            self._abandoned = True
            ready = self._results.qsize()
        for _ in range(ready):
            self._window.release()
        self.pending = 0

    def try_submit(self, prompt: Prompt) -> bool:
        """Submit a prompt if the window has room; wait a moment where nothing else can be done."""
        if not self._window.try_acquire(0 if self.pending else 0.1):
            return False
        self.pending += 1
        self._window.submit(prompt, self)
        return True

    def take(self, block: bool) -> Outcome | None:
        """Take one result; None where a stopped run left a prompt without an outcome.

        The slot is kept until `settle`, which the caller runs once the outcome is on disk.

        Raises:
            Empty: nothing is ready and `block` is false.
        """
        result = self._results.get(block=block)
        self.pending -= 1
        if isinstance(result, BaseException):
            self._window.release()
            raise result
        return result

    def settle(self) -> None:
        """Free the slot of a result that was taken."""
        self._window.release()

    def ready(self) -> bool:
        """Whether a result can be taken without waiting."""
        return not self._results.empty()


__all__ = ["Empty", "Lane", "Window", "WindowSpec", "acquire_window", "release_window"]
