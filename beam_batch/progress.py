"""What the driver shows on stderr meanwhile: a live line on a terminal, else plain lines."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from types import TracebackType
from typing import Any

from beam_batch.options import ProgressSpec
from beam_batch.outputs.gauges import read_gauges
from beam_batch.outputs.workdir import STORE_INTERVAL, WorkDir

INTERVAL = 0.25


class Progress:
    """Follows the gauges of a session in a thread of its own; use as a context manager."""

    def __init__(
        self, spec: ProgressSpec, work: WorkDir, session: int, rows: int, kept: int = 0
    ) -> None:
        self._spec = spec
        self._work = work
        self._session = session
        self._rows = rows
        self._kept = kept
        self._end = threading.Event()
        self._gauges: dict[str, Any] = {}
        self._due = 0.0
        self._live = sys.stderr.isatty() and spec.every is None
        self._thread = threading.Thread(target=self._follow, daemon=True)

    def __enter__(self) -> Progress:
        if self._spec.enabled:
            if not self._live:
                _line(f"start selected_rows={self._rows}")
            self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._end.set()
        if self._spec.enabled:
            self._thread.join()

    def _follow(self) -> None:
        if self._live:
            self._follow_live()
        elif self._spec.every is not None:
            self._follow_plain(self._spec.every)

    def _counts(self) -> tuple[int, int, int, int, float]:
        """Return processed, failed, kept and in-flight numbers, and US dollars."""
        now = time.monotonic()
        if self._work.is_folder or now >= self._due or self._end.is_set():
            self._due = now + STORE_INTERVAL
            with contextlib.suppress(OSError):  # numbers are not worth a run
                self._gauges = read_gauges(self._work, self._session)
        gauges = self._gauges
        failed = gauges.get("failed", 0) + gauges.get("unrenderable", 0)
        done = gauges.get("ok", 0) + failed
        return (
            done,
            failed,
            self._kept,
            gauges.get("in_flight", 0),
            gauges.get("usd", 0.0),
        )

    def _follow_plain(self, every: int) -> None:
        shown = 0
        while True:
            ended = self._end.wait(INTERVAL)
            done, failed, kept, _, usd = self._counts()
            if done // every > shown // every:
                shown = done
                cost = f" cost_usd={usd:.4f}" if usd else ""
                _line(f"processed={done} failed={failed} skipped={kept}{cost}")
            if ended:
                return

    def _follow_live(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar

        columns = (
            TextColumn("batch"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("ok {task.fields[ok]} failed {task.fields[failed]}"),
            TextColumn("{task.fields[speed]:,.0f} rows/s"),
            TextColumn("{task.fields[in_flight]} in flight{task.fields[cost]}"),
            TimeRemainingColumn(),
        )
        with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task(
                "", total=self._rows, ok=0, failed=0, in_flight=0, speed=0.0, cost=""
            )
            while not self._end.wait(INTERVAL):
                done, failed, kept, flying, usd = self._counts()
                speed = bar.tasks[0].speed or 0.0
                numbers: Any = {"ok": done - failed, "failed": failed, "in_flight": flying}
                numbers["cost"] = f", {usd:,.2f} USD" if usd else ""
                bar.update(task, completed=done + kept, speed=speed, **numbers)


def _line(text: str) -> None:
    print(f"batch: {text}", file=sys.stderr, flush=True)
