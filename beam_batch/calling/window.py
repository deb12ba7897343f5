"""The window of requests in flight: one event loop thread and one pool a worker process."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections import Counter, deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

from beam_batch.calling.answering import Answerer, Keeping, Worker
from beam_batch.calling.gate import Dropped, GateSpec
from beam_batch.calling.lane import Lane, Result
from beam_batch.calling.loop import Loop
from beam_batch.calling.setup import MakeWorker, WindowSpec, make_ladder, secrets_of
from beam_batch.calling.shares import open_share, whole
from beam_batch.calling.slots import Slots
from beam_batch.calling.tally import Tally
from beam_batch.errors import FatalReply, first_line
from beam_batch.outputs.gauges import Gauge
from beam_batch.outputs.recording import Recorder
from beam_batch.outputs.roll import BEAT
from beam_batch.outputs.spent import SpentLog
from beam_batch.process import little_collecting
from beam_batch.records import Outcome, Prompt
from beam_batch.redaction import redactor

T = TypeVar("T")
WATCH_INTERVAL = 0.1
SHOWN = ("requests", "retries", "input_tokens", "output_tokens")
"""Of a tally, what a worker of a run shows beside rows and money."""
LONGEST_CLOSE = 15.0
"""Seconds after which what does not close is left to the end of the process."""


class Window:
    """Answers prompts, as many at once as its gate lets through.

    Where outcomes are recorded in a folder, each is on disk before the next request is sent, and as
    many prompts again as may be in flight wait for their turn; else a slot is free when its outcome
    has been taken.
    """

    def __init__(self, spec: WindowSpec, make_worker: MakeWorker = make_ladder) -> None:
        self._spec = spec
        self._make_worker = make_worker
        self._driver = os.getppid()
        if spec.record is not None and spec.record.is_past():
            spec.record.stop.set("another session has begun", 1)
        self._share = open_share(spec)
        self._limits = limits = self._share.limits if self._share is not None else whole(spec)
        if spec.record is None:
            self._slots = Slots(limits.parallel or limits.most)
        else:
            self._slots = Slots(*_room(limits))
        self._spent: SpentLog | None = None
        if spec.record is not None and spec.crew is not None:
            self._spent = SpentLog(spec.record.work, spec.record.session)
        self._counts = {"ok": 0, "failed": 0}
        self._usd = 0.0
        self._tally = Tally()
        self._told = Counter[str]()
        self._inbox: deque[tuple[Prompt, Lane, Any]] = deque()
        self._woken = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._stopping = asyncio.Event()
        self._beat = ThreadPoolExecutor(1, "beat")
        self._loop = Loop()
        ready: Future[None] = Future()
        self._thread = threading.Thread(target=self._serve, args=(ready,), daemon=True)
        self._thread.start()
        try:
            ready.result()
        except BaseException:
            self._leave()
            raise

    def try_acquire(self, timeout: float = 0) -> bool:
        """Take a slot, waiting at most some seconds for one."""
        return self._slots.acquire(timeout)

    def release(self) -> None:
        """Give a slot back."""
        self._slots.release()

    def new_recorder(self) -> Recorder | None:
        """Return a recorder for one bundle, or None where outcomes are not recorded."""
        if self._spec.record is None:
            return None
        limits = self._share.limits if self._share is not None else self._limits
        return self._spec.record.open(enough=limits.parallel or limits.most)

    def submit(self, prompt: Prompt, lane: Lane, place: Any = None) -> None:
        """Start answering a prompt; its result goes to the lane, with its place. Needs a slot."""
        self._inbox.append((prompt, lane, place))
        if not self._woken:
            self._woken = True
            self._loop.call_soon_threadsafe(self._start_waiting)

    def close(self) -> None:
        """Cancel what is in flight and end the thread."""
        self._loop.call_soon_threadsafe(self._closing.set)
        self._leave()

    def _leave(self) -> None:
        self._thread.join()
        self._beat.shutdown()
        for thing in (self._share, self._spent):
            if thing is not None:
                thing.close()

    def _serve(self, ready: Future[None]) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_until_complete(self._main(ready))
        finally:
            self._loop.close()

    async def _main(self, ready: Future[None]) -> None:
        self._closing = asyncio.Event()
        try:
            worker = await self._make_worker(self._spec, self._limits, self._stopping)
        except BaseException as error:
            ready.set_exception(error)
            return
        self._answerer = Answerer(worker, self._keeping(worker), self._spec.call.row_deadline)
        watchers = [asyncio.create_task(watch) for watch in (self._watch(), self._renew())]
        for watcher in watchers:
            watcher.add_done_callback(self._look_at)
        ready.set_result(None)
        with little_collecting():
            await self._closing.wait()
        for task in (*watchers, *self._tasks):
            task.cancel()
        await asyncio.gather(*watchers, *self._tasks, return_exceptions=True)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._answerer.close(), LONGEST_CLOSE)

    def _keeping(self, worker: Worker) -> Keeping:
        run_id = self._spec.record.run_id if self._spec.record is not None else None
        return Keeping(
            include_input=self._spec.include_input,
            run_id=run_id,
            clean=redactor([*secrets_of(self._spec), *worker.secrets]),
            spent=self._spent,
        )

    def _look_at(self, watcher: asyncio.Task[None]) -> None:
        """Stop where a watcher has failed: nobody would renew what this worker may use."""
        error = None if watcher.cancelled() else watcher.exception()
        if error is None:
            return
        if self._spec.record is not None:
            reason = f"a worker failed: {type(error).__name__}: {first_line(error)}"
            self._spec.record.stop.set(reason, 1)
        self._stop(error)

    async def _watch(self) -> None:
        """Notice a stopped run, so that rows which wait are let go; show numbers."""
        record = self._spec.record
        if record is None:
            return
        gauge = Gauge(record.work, record.session)
        try:
            while True:
                if self._spec.is_child and os.getppid() != self._driver:
                    record.stop.set("the driver is gone", 1)
                if await self._aside(record.stop.is_set):
                    self._stop()
                self._count()
                if gauge.is_due():
                    await self._aside(gauge.show, self._shown(self._answerer.in_flight))
                await asyncio.sleep(WATCH_INTERVAL)
        finally:
            self._count()
            gauge.show(self._shown(0), force=True)

    async def _renew(self) -> None:
        """Renew what is divided among workers; each time waits for the place, in a thread."""
        record, share, budgets = self._spec.record, self._share, self._answerer.budgets
        if record is None:
            return
        while True:
            await asyncio.sleep(share.seconds if share is not None else BEAT)
            waits: list[Callable[[], object]] = [record.stop.is_set, record.count_failures]
            waits += [budget.renew for budget in budgets]
            if share is not None:
                rows = len(self._tasks) + len(self._inbox)
                waits.append(partial(share.step, self._answerer.most_in_flight, rows))
            await self._loop.run_in_executor(self._beat, _call_all, waits)
            if share is not None and share.is_cut_off:  # others could not tell it to stop either
                record.stop.set(f"{record.work.path} does not answer", 1)
            if record.stop.is_set_here():
                self._stop()
                if share is not None and record.work.is_folder and not self._tasks:
                    share.close()  # a later session need not wait for the end of this process
                    return
            if share is not None:
                self._answerer.resize(share.limits)
                self._slots.resize(*_room(share.limits))

    async def _aside(self, call: Callable[..., T], *values: Any) -> T:
        """Call what may go through a network; a folder is quick enough to be used here."""
        record = self._spec.record
        if record is None or record.work.is_folder:
            return call(*values)
        return await asyncio.to_thread(call, *values)

    def _count(self) -> None:
        """Add up what the last rows took."""
        if self._tally.waiting:
            totals = self._tally.take()
            latency = {"asked_rows": len(totals.latencies), "latency_ms": sum(totals.latencies)}
            self._told.update({name: totals.counts.get(name, 0) for name in SHOWN} | latency)

    def _shown(self, in_flight: int) -> dict[str, float]:
        return {**self._counts, "usd": self._usd, "in_flight": in_flight, **self._told}

    def _stop(self, error: BaseException | None = None) -> None:
        """Send nothing more; what is in flight comes back. Who waits gets the error, if any."""
        self._stopping.set()
        self._answerer.stop(error)

    def _start_waiting(self) -> None:
        self._woken = False
        while self._inbox:
            prompt, lane, place = self._inbox.popleft()
            task = self._loop.create_task(self._run(prompt, lane, place))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _run(self, prompt: Prompt, lane: Lane, place: Any) -> None:
        result: Result
        try:
            result = await self._result(prompt, lane)
        except BaseException as error:  # whatever it is must reach process(), or the bundle hangs
            result = error
        lane.put(result, place)

    async def _result(self, prompt: Prompt, lane: Lane) -> Outcome | None:
        record = self._spec.record
        try:
            outcome = await self._answerer.answer(prompt)
        except Dropped:
            return None
        except FatalReply as error:
            if record is None:  # the other bundles of this window end as well
                self._stop(error)
                raise
            record.stop.set(str(error), 1)
            self._stop()
            return None
        lane.tally.add(outcome)
        if lane.recorder is None or record is None:
            return outcome
        self._tally.add(outcome)
        kind = "ok" if outcome.ok else "failed"
        is_recorded = await lane.recorder.recorded(outcome, kind)
        self._counts[kind] += is_recorded  # not before: other rows are counted meanwhile
        if is_recorded and self._spent is not None and outcome.row_number is not None:
            self._spent.done(outcome.row_number)
        self._usd += outcome.telemetry.get("cost_usd") or 0.0
        if record.stop.is_set_here():
            self._stop()
        return None


def _room(limits: GateSpec) -> tuple[int, int]:
    """Return for how many prompts there is room, and how many free places are enough to wake for.

    It is little enough that the gate never runs dry.
    """
    most = (limits.parallel or limits.most) if limits.share else 1
    return 2 * most, max(1, most // 2)


def _call_all(calls: Sequence[Callable[[], object]]) -> None:
    for call in calls:
        call()
