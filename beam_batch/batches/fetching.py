"""Fetching: the results of one batch to recorded outcomes, from disk and row by row."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

from beam_batch.batches.account import Stopped
from beam_batch.batches.base import Again, BatchInfo, BatchService, Result
from beam_batch.batches.files import RowTable
from beam_batch.batches.journal import Batch
from beam_batch.batches.judging import Judge
from beam_batch.errors import BatchError, ConnectionLost, FatalReply, InvalidResponse, ServerError
from beam_batch.outputs.recording import Recorder, RecordSpec
from beam_batch.records import Outcome


class Fetched(NamedTuple):
    """What the results of a batch gave.

    Attributes:
        left: rows without an outcome.
        lines: lines of results, and how many of them name rows of ours.
        fatal: why the run is to stop, or None.
    """

    answered: int
    failed: int
    left: int
    lines: int
    ours: int
    fatal: FatalReply | None


class Fetcher:
    """Fetches the results of batches into part files."""

    def __init__(
        self, *, folder: Path, service: BatchService, judge: Judge, record: RecordSpec, since: int
    ) -> None:
        self._folder = folder
        self._service = service
        self._judge = judge
        self._record = record
        self._since = since

    def fetch(self, batch: Batch, last: bool, again: Again) -> Fetched:
        """Record an outcome for each row that the batch settled, once over all sessions.

        With `last`, a row that it did not settle fails.

        Raises:
            Stopped: the run stopped; what was recorded stays.
        """
        info = BatchInfo.stored(batch.info)
        files = [
            self._download(batch, place, path, again) for place, path in enumerate(info.outputs)
        ]
        table = RowTable(self._folder, batch.file)
        pass_ = _Pass(self._record, self._judge, table, _notes(batch, info), last)
        try:
            table.find_outcomes(self._record.work.place, self._since)
            results = _Results(files, table, self._service.read)
            self._read(results, pass_)
            if last and pass_.fatal is None and (results.ours or not results.lines):
                pass_.fail_rest(f"the batch is {info.status} and has no result for this row")
        finally:
            pass_.recorder.close()
            table.close()
        for file in files:
            file.unlink()
        return pass_.fetched(results)

    def fail_lines(self, batch: Batch, reasons: Mapping[int, BatchError]) -> int:
        """Fail the rows of lines (from 0) that the provider refuses; return how many are left."""
        table = RowTable(self._folder, batch.file)
        notes = _notes(batch, BatchInfo.stored(batch.info))
        pass_ = _Pass(self._record, self._judge, table, notes, True)
        try:
            table.find_outcomes(self._record.work.place, self._since)
            for line, reason in reasons.items():
                pass_.settle(line, Result(None, None, reason, None))
            return table.left
        finally:
            pass_.recorder.close()
            table.close()

    def done_lines(self, batch: Batch) -> Any:
        """Return which lines of a file are done, as an array."""
        table = RowTable(self._folder, batch.file)
        try:
            table.find_outcomes(self._record.work.place, self._since)
            return table.done
        finally:
            table.close()

    def _download(self, batch: Batch, place: int, path: str, again: Again) -> Path:
        target = self._folder / f"{batch.file.name}.out{place}"

        def once() -> None:
            self._service.download(path, target)
            if _is_torn(target, self._service.read):
                target.unlink()
                raise ConnectionLost("the download ends in the middle of a line")

        if not target.exists():
            again(once)
        return target

    def _read(self, results: _Results, pass_: _Pass) -> None:
        """Settle rows in their order, whatever the order of the results: so few parts are open."""
        for line, result in results:
            if self._record.stop.is_set_here():
                raise Stopped
            pass_.settle(line, result)


class _Results:
    """Files of results by the lines of their request file; holds 9 bytes a row, reads the rest.

    Attributes:
        lines: of results, and `ours` those of them that name a row.
    """

    def __init__(self, files: list[Path], table: RowTable, read: Callable[[bytes], Result]) -> None:
        import numpy as np

        self._files = files
        self._read = read
        self._offsets = np.full(len(table.done), -1, dtype=np.int64)
        self._file_of = np.zeros(len(table.done), dtype=np.int8)
        self.lines = self.ours = 0
        for place, file in enumerate(files):
            self._index(place, file, table)

    def _index(self, place: int, file: Path, table: RowTable) -> None:
        offset = 0
        with file.open("rb") as content:
            for text in content:
                if text.strip():
                    self.lines += 1
                    line = table.line_of(self._custom_id(text))
                    if line is not None:
                        self.ours += 1
                        self._offsets[line], self._file_of[line] = offset, place
                offset += len(text)

    def _custom_id(self, text: bytes) -> Any:
        try:
            return self._read(text).custom_id
        except InvalidResponse:  # no row can be told from it: it stays open
            return None

    def __iter__(self) -> Iterator[tuple[int, Result]]:
        """Yield the result of each line that has one."""
        with ExitStack() as stack:
            opened = [stack.enter_context(file.open("rb")) for file in self._files]
            for line in (self._offsets >= 0).nonzero()[0]:
                content = opened[self._file_of[line]]
                content.seek(int(self._offsets[line]))
                yield int(line), self._read(content.readline())


class _Pass:
    """One reading of a batch's results."""

    def __init__(
        self, record: RecordSpec, judge: Judge, table: RowTable, notes: dict[str, Any], last: bool
    ) -> None:
        self.recorder: Recorder = record.open()
        self._judge = judge
        self._table = table
        self._notes = notes
        self._last = last
        self.answered = self.failed = 0
        self.fatal: FatalReply | None = None

    def settle(self, line: int, result: Result) -> None:
        """Record the outcome of a line's row, unless it has one."""
        if self._table.done[line]:
            return
        try:
            outcome = self._judge.judge(self._table.row(line), result, self._notes, self._last)
        except FatalReply as error:
            self.fatal = error
            return
        if outcome is not None:
            self._keep(line, outcome)

    def fail_rest(self, reason: str) -> None:
        """Fail the rows that are still open."""
        for line in (~self._table.done).nonzero()[0]:
            self.settle(int(line), Result(None, None, ServerError(reason), None))

    def fetched(self, results: _Results) -> Fetched:
        """Sum up."""
        left = self._table.left
        return Fetched(self.answered, self.failed, left, results.lines, results.ours, self.fatal)

    def _keep(self, line: int, outcome: Outcome) -> None:
        if not self.recorder.record(outcome, "ok" if outcome.ok else "failed"):
            raise Stopped
        self._table.done[line] = True
        self.answered += outcome.ok
        self.failed += not outcome.ok


def _notes(batch: Batch, info: BatchInfo) -> dict[str, Any]:
    """Note what is the same for all rows of a batch; its time in milliseconds."""
    start, end = info.created_at, info.ended_at
    if start is None or end is None:  # then by our clock
        start, end = batch.since, time.time()
    duration = round(max(0.0, end - start) * 1000, 1)
    return {
        "attempts": batch.attempt,
        "batch_id": info.id,
        "timing": {"duration_ms": duration, "time_to_response_ms": duration},
    }


def _is_torn(file: Path, read: Callable[[bytes], Result]) -> bool:
    """Whether a file ends in the middle of a line."""
    size = file.stat().st_size
    if size == 0:
        return False
    with file.open("rb") as content:
        content.seek(size - 1)
        if content.read(1) == b"\n":
            return False
        content.seek(0)
        last = deque(content, maxlen=1)[0]
    try:
        read(last)
    except InvalidResponse:
        return True
    return False
