"""Recording: an outcome is on disk, and counted, before anybody else sees it."""

from __future__ import annotations

import asyncio
import contextlib
from concurrent.futures import Future
from dataclasses import dataclass

from beam_batch.errors import first_line
from beam_batch.outputs.failures import Failures, failures_of
from beam_batch.outputs.parts import KEPT, KEPT_SESSION, PartWriter, encode, start_of
from beam_batch.outputs.segments import Segments
from beam_batch.outputs.stopping import StopFlag
from beam_batch.outputs.workdir import WorkDir
from beam_batch.records import Outcome

ENOUGH = 500
"""Outcomes that are worth a segment, where nobody waits for them."""


@dataclass(frozen=True, kw_only=True)
class RecordSpec:
    """Where a session's outcomes are recorded; picklable, opens nothing by itself.

    Attributes:
        max_errors: failures after which the run stops, or None.
        run_id: name of the run where its rows leave traces, or None.
    """

    work: WorkDir
    session: int
    stop: StopFlag
    max_errors: int | None = None
    run_id: str | None = None

    def open(self, enough: int = ENOUGH) -> Recorder:
        """Return a recorder of one's own, for one bundle.

        `enough` outcomes are worth a segment of their own, where the work directory has segments.
        """
        return Recorder(self, enough)

    @property
    def failures(self) -> Failures:
        """This process's count of rows that failed."""
        return failures_of(self.work, self.session, self.stop.name)

    def is_past(self) -> bool:
        """Whether a later session has begun; a worker that an engine starts late belongs to none.

        Raises:
            OSError: the place cannot be read.
            OptionsError: its manifest is damaged.
        """
        manifest = self.work.read_manifest()
        if manifest is None:  # of a store the run is over; a folder would take nothing
            return not self.work.is_folder
        return manifest.get("stop") != self.stop.name

    def count_failures(self) -> None:
        """Tell other workers of failures, learn of theirs; waits for the place."""
        if self.max_errors is not None and not self.work.is_folder:  # there each is counted at once
            with contextlib.suppress(OSError):  # the next time it will be told
                count = self.failures.sync()
                self.stop_at(self.max_errors, count)

    def stop_at(self, limit: int, count: int) -> None:
        """Stop the run where so many failures are too many."""
        if count >= limit:
            self.stop.set(f"stopped by --max-errors {limit}: {count} rows failed", 3)


class Recorder:
    """Appends outcomes to part files by their kind and shard.

    Attributes:
        has_lost: whether some were not written, and the run stops.
    """

    def __init__(self, spec: RecordSpec, enough: int = ENOUGH) -> None:
        self._spec = spec
        self._place = spec.work.place
        self._writers: dict[str, PartWriter] = {}
        self._segments: Segments | None = None
        self.has_lost = False
        if not self._place.is_folder:
            self._segments = Segments(self._place, enough)

    def record(self, outcome: Outcome, kind: str) -> bool:
        """Write one outcome; False where the disk does not take it, and then the run stops.

        In an object store it is written when the recorder is closed, at the latest; where that does
        not take it, `close` stops the run.
        """
        try:
            if self._segments is not None:
                written = self._add(self._segments, outcome, kind)
                if self._segments.is_behind:
                    written.result()
            else:
                self._writer(kind).append(outcome)
        except OSError as error:
            return self._lost(error)
        self._count(outcome)
        return True

    async def recorded(self, outcome: Outcome, kind: str) -> bool:
        """Write one outcome, like `record`, and return once it is written."""
        if self._segments is None:
            return self.record(outcome, kind)
        written = self._add(self._segments, outcome, kind)
        try:
            await asyncio.shield(asyncio.wrap_future(written))
        except OSError as error:
            return self._lost(error)
        self._count(outcome)
        return True

    def close(self) -> None:
        """Sync and close the part files.

        The run stops where a store has not taken something, whether or not it was waited for.
        """
        self._spec.count_failures()
        for writer in self._writers.values():
            writer.close()
        if self._segments is not None:
            try:
                self._segments.close()
            except OSError as error:
                self._lost(error)

    def _add(self, segments: Segments, outcome: Outcome, kind: str) -> Future[None]:
        assert outcome.shard is not None
        start = start_of(kind, outcome.shard, self._session_of(kind))
        return segments.add(start, encode(outcome))

    def _lost(self, error: OSError) -> bool:
        """Stop the run: every further reply would be lost as well."""
        self.has_lost = True
        reason = f"cannot write to {self._spec.work.path}: {error.strerror or first_line(error)}"
        self._spec.stop.set(reason, 1)
        return False

    def _writer(self, kind: str) -> PartWriter:
        if kind not in self._writers:
            self._writers[kind] = PartWriter(self._place, kind, self._session_of(kind))
        return self._writers[kind]

    def _session_of(self, kind: str) -> int:
        return KEPT_SESSION if kind == KEPT else self._spec.session

    def _count(self, outcome: Outcome) -> None:
        if self._spec.max_errors is not None and not outcome.ok:
            self._count_failure(self._spec.max_errors)

    def _count_failure(self, limit: int) -> None:
        try:
            count = self._spec.failures.add()
        except OSError as error:
            self._spec.stop.set(f"cannot count failures: {error.strerror}", 1)
            return
        self._spec.stop_at(limit, count)
