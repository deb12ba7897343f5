"""A run's batches from planned files to settled rows: submit, look, fetch, try the rest again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from beam_batch.batches.account import Stopped
from beam_batch.batches.base import CANCELLED, FAILED, BatchInfo, BatchService, Problem
from beam_batch.batches.fetching import Fetcher
from beam_batch.batches.files import Limits, RequestWriter, lines_left
from beam_batch.batches.journal import (
    CREATED,
    CREATING,
    ENDED,
    FETCHED,
    PLANNED,
    REFUSED,
    SEEN,
    UPLOADED,
    Batch,
    Journal,
    RequestFile,
)
from beam_batch.batches.judging import Judge
from beam_batch.batches.retrying import GROWTH, LONGEST_WAIT, Patience
from beam_batch.batches.submitting import Enqueued, Submitter, is_enqueued, reasons_by_line
from beam_batch.errors import FatalReply, ProviderError, RequestRejected
from beam_batch.options import BatchSpec, CallSpec
from beam_batch.outputs.gauges import Gauge
from beam_batch.outputs.recording import RecordSpec

SETTLED, LEFT, DETACHED, STOPPED = "settled", "left", "detached", "stopped"
"""How `BatchRun.run` ends: every row settled; some left for online; submitted; stopped."""


class BatchRun:
    """Drives the batches of one session."""

    def __init__(
        self,
        *,
        journal: Journal,
        service: BatchService,
        judge: Judge,
        record: RecordSpec,
        limits: Limits,
        batch: BatchSpec,
        call: CallSpec,
        say: Callable[[str], None],
    ) -> None:
        assert journal.planned is not None
        self._journal = journal
        self._service = service
        self._stop = record.stop
        self._limits = limits
        self._spec = batch
        self._call = call
        self._say = say
        self._folder: Path = record.work.batches
        self._patience = Patience(call, record.stop.is_set)
        self._submitter = Submitter(self._folder, journal, service, self._patience, say)
        since = journal.planned["session"]
        self._fetcher = Fetcher(
            folder=self._folder, service=service, judge=judge, record=record, since=since
        )
        self._gauge = Gauge(record.work, record.session)
        self._counts = {"ok": 0, "failed": 0}
        self._shown = ""
        self._cancelled_by_us = {b.file.name for b in journal.batches.values() if b.cancelling}

    def run(self) -> str:
        """Go on from where the journal is, to one of the four ends."""
        try:
            while True:
                self._submit_waiting()
                if self._spec.detach:
                    return DETACHED
                self._await_all()
                if not any(batch.left for batch in self._newest()):
                    return SETTLED
                if self._spec.batch_finish == "online":
                    return LEFT
                if not self._requeue():
                    return SETTLED
        except Stopped:
            at_work = len(self._in(CREATED))
            if at_work:
                self._say(f"{at_work} batches go on at the provider; --resume picks them up")
            return STOPPED
        except FatalReply as error:
            self._stop.set(str(error), 1)
            return STOPPED
        except ProviderError as error:
            self._stop.set(f"the provider's Batch API fails: {error}", 1)
            return STOPPED

    def _in(self, *states: str) -> list[Batch]:
        return [batch for batch in self._journal.batches.values() if batch.state in states]

    def _newest(self) -> list[Batch]:
        attempt = self._journal.attempt
        return [batch for batch in self._journal.batches.values() if batch.attempt == attempt]

    def _submit_waiting(self) -> None:
        """Submit what is not submitted, until the account's limit of waiting tokens is reached."""
        for batch in self._in(PLANNED, UPLOADED, CREATING):
            try:
                self._submitter.submit(batch)
            except Enqueued as error:
                self._say(f"{batch.file.requests} requests wait for their turn: {error}")
                self._cut_if_alone(batch)
                return

    def _await_all(self) -> None:
        """Look at the batches until every one is fetched, ever less often while nothing happens."""
        wait = self._spec.batch_poll
        while at_work := self._in(CREATED, ENDED, PLANNED, UPLOADED, CREATING):
            fetched = len(self._in(FETCHED))
            news = [self._look(batch) for batch in at_work if batch.state in (CREATED, ENDED)]
            freed = len(self._in(FETCHED)) > fetched
            self._show()
            wait = self._spec.batch_poll if any(news) else self._longer(wait)
            if self._in(CREATED) or (at_work and not freed):
                self._patience.pause(wait)
            if freed or not self._in(CREATED):  # there is room at the provider, as far as we know
                self._submit_waiting()

    def _longer(self, wait: float) -> float:
        return min(wait * GROWTH, max(LONGEST_WAIT, self._spec.batch_poll))

    def _look(self, batch: Batch) -> bool:
        """Ask how a batch is, and fetch it when it has ended; return whether something happened."""
        if batch.state == CREATED:
            try:
                info = self._patience.again(lambda: self._service.get(batch.id))
            except ProviderError as error:
                if isinstance(error, RequestRejected):
                    raise
                self._say(f"cannot ask how {batch.id} is, trying on: {error}")
                return False
            if info.ended == FAILED and not info.done:
                return self._refused(batch, info)
            changed = bool(info.status != batch.info["status"])
            batch.info = info._asdict()
            if not info.ended:
                if changed:
                    self._journal.note(batch, SEEN, info=info._asdict())
                return changed
            self._journal.note(batch, ENDED, info=info._asdict())
        self._fetch(batch)
        return True

    def _fetch(self, batch: Batch) -> None:
        info = BatchInfo.stored(batch.info)
        online = self._spec.batch_finish == "online"
        last = batch.attempt >= self._call.max_attempts and info.ended != CANCELLED and not online
        got = self._fetcher.fetch(batch, last, self._patience.again)
        if batch.adopted and got.lines and not got.ours:
            self._say(f"{batch.id} is another's batch; it is left alone")
            self._journal.note(batch, REFUSED, state=CREATING)
            return
        self._journal.note(batch, FETCHED, left=got.left)
        self._counts["ok"] += got.answered
        self._counts["failed"] += got.failed
        self._say(
            f"fetched {info.id} ({info.status}): {got.answered} answered, {got.failed} failed, "
            f"{got.left} left"
        )
        if got.fatal is not None:
            raise got.fatal
        ours = self._spec.send_cancelled and batch.file.name in self._cancelled_by_us
        if info.ended == CANCELLED and got.left and not ours:
            reason = f"{info.id} was cancelled; {got.left} rows have no answer"
            self._stop.set(f"{reason}, and are sent by the run's own command with --resume", 1)
            raise Stopped

    def _refused(self, batch: Batch, info: BatchInfo) -> bool:
        """See what becomes of a file that the provider refused; return whether it is settled."""
        problem = info.problems[0] if info.problems else Problem("failed", "no reason given", None)
        if is_enqueued(problem.code, problem.message):
            self._journal.note(batch, REFUSED, state=UPLOADED)
            self._say(f"{batch.file.requests} requests wait for their turn: {problem.message}")
            self._cut_if_alone(batch)
            return False
        reasons = reasons_by_line(info.problems, batch.file.requests)
        if not reasons:
            self._journal.note(batch, REFUSED, state=PLANNED)
            raise FatalReply(
                f"the provider refused the batch {info.id} ({problem.code}: {problem.message})"
            )
        self._journal.note(batch, ENDED, info=info._asdict())
        left = self._fetcher.fail_lines(batch, reasons)
        self._journal.note(batch, FETCHED, left=left)
        self._counts["failed"] += batch.file.requests - left
        self._say(f"{info.id}: {len(reasons)} requests are refused; {left} others are sent again")
        return True

    def _cut_if_alone(self, batch: Batch) -> None:
        """Halve a file that is refused, again and again, though nothing of ours waits before it."""
        if self._in(CREATED, ENDED) or batch.refusals < 2 or batch.file.requests < 2:
            return
        half = self._limits._replace(requests=-(-batch.file.requests // 2))
        halves = self._copy([batch], half, batch.attempt)
        self._journal.split(batch, halves)
        self._say(f"cut {batch.file.requests} requests into {len(halves)} batches")

    def _requeue(self) -> bool:
        """Write the rows that are left into new request files; return whether there are any."""
        attempt = self._journal.attempt + 1
        left = [batch for batch in self._newest() if batch.left]
        files = self._copy(left, self._limits, attempt)
        if not files:  # they were answered online meanwhile
            return False
        self._journal.plan(files, attempt)
        rows = sum(file.requests for file in files)
        self._say(f"{rows} rows are left; attempt {attempt} of {self._call.max_attempts}")
        return True

    def _copy(self, batches: list[Batch], limits: Limits, attempt: int) -> list[RequestFile]:
        writer = RequestWriter(self._folder, limits, attempt)
        for batch in batches:
            done = self._fetcher.done_lines(batch)
            for request, row in lines_left(self._folder, batch.file, done):
                writer.copy(request, row)
        return writer.close()

    def _show(self) -> None:
        """Say how the batches are, where that has changed."""
        infos = [BatchInfo.stored(batch.info) for batch in self._in(CREATED)]
        total = sum(batch.file.requests for batch in self._in(CREATED))
        self._gauge.show({**self._counts, "in_flight": total}, force=True)
        if not infos:
            return
        states = ", ".join(sorted({info.status for info in infos}))
        done = sum(info.done + info.failed for info in infos)
        text = f"{len(infos)} batches at work ({states}): {done} of {total} requests done"
        if text != self._shown:
            self._shown = text
            self._say(text)
