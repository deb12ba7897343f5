"""Recording: an outcome is on disk, and counted, before anybody else sees it."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

from beam_batch.outputs.failures import failures_of
from beam_batch.outputs.parts import KEPT_SESSION, PartWriter
from beam_batch.outputs.workdir import StopFlag, WorkDir
from beam_batch.records import Outcome, Receipt

KEPT = "kept"


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

    def open(self) -> Recorder:
        """Return a recorder of one's own, for one bundle."""
        return Recorder(self)

    def count_failures(self) -> None:
        """Tell other workers of failures, learn of theirs; waits for the place."""
        if self.max_errors is not None:
            with contextlib.suppress(OSError):  # the next time it will be told
                count = failures_of(self.work, self.session).sync()
                self.stop_at(self.max_errors, count)

    def stop_at(self, limit: int, count: int) -> None:
        """Stop the run where so many failures are too many."""
        if count >= limit:
            self.stop.set(f"stopped by --max-errors {limit}: {count} rows failed", 3)


class Recorder:
    """Appends outcomes to part files by their kind and shard."""

    def __init__(self, spec: RecordSpec) -> None:
        self._spec = spec
        self._writers: dict[str, PartWriter] = {}

    def record(self, outcome: Outcome, kind: str) -> bool:
        """Write one outcome; False where the disk does not take it, and then the run stops."""
        try:
            self._writer(kind).append(outcome)
        except OSError as error:  # every further reply would be lost as well: send no more
            self._spec.stop.set(f"cannot write to {self._spec.work.path}: {error.strerror}", 1)
            return False
        if self._spec.max_errors is not None and not outcome.ok:
            self._count_failure(self._spec.max_errors)
        return True

    def close(self) -> list[Receipt]:
        """Sync and close the part files, and say what was written."""
        self._spec.count_failures()
        return [receipt for writer in self._writers.values() for receipt in writer.close()]

    def _writer(self, kind: str) -> PartWriter:
        if kind not in self._writers:
            session = KEPT_SESSION if kind == KEPT else self._spec.session
            self._writers[kind] = PartWriter(self._spec.work.parts, kind, session)
        return self._writers[kind]

    def _count_failure(self, limit: int) -> None:
        try:
            count = failures_of(self._spec.work, self._spec.session).add()
        except OSError as error:
            self._spec.stop.set(f"cannot count failures: {error.strerror}", 1)
            return
        self._spec.stop_at(limit, count)
