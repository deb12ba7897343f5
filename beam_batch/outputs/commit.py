"""From part files to final files: in input order, exactly one envelope a row, all at once."""

from __future__ import annotations

import os
import re
import shutil
from collections import Counter
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from beam_batch import jsonio
from beam_batch.errors import BatchError
from beam_batch.outputs import parts, spent
from beam_batch.outputs.ordering import in_order
from beam_batch.outputs.parts import Found
from beam_batch.outputs.summary import Tally
from beam_batch.outputs.trace_files import TraceFiles, TraceFolder
from beam_batch.outputs.workdir import COMMIT, WorkDir
from beam_batch.places import sync_folder

SHARD = re.compile(r"part-\d{5,}-of-\d{5,}\.jsonl")
NEW, APPEND, REWRITE = "new", "append", "rewrite"


@dataclass(frozen=True, kw_only=True)
class CommitSpec:
    """What is to be put in place.

    Attributes:
        mode: new, append (resume of a finished output) or rewrite (resume with overwrite).
        session: number of this session in the work directory.
        rows: selected rows of each shard, by shard index.
        keep_bytes: how many bytes of each existing final file stay at its front, by path.
        traces: where the conversations of rows go, or None.
    """

    work: WorkDir
    output: str
    error_output: str | None
    telemetry_output: str | None
    mode: str
    session: int
    rows: tuple[int, ...]
    keep_bytes: tuple[tuple[str, int], ...]
    traces: TraceFolder | None = None


def shards_in(folder: Path) -> list[Path]:
    """List the shards of results in a folder, in order; other files are none of our business."""
    return sorted(path for path in folder.iterdir() if SHARD.fullmatch(path.name))


class IncompleteRun(BatchError):
    """Rows have no outcome; nothing was committed."""


class OutputChanged(BatchError):
    """A file that a run adds to was changed meanwhile; nothing was committed."""


def commit(spec: CommitSpec) -> dict[str, Any]:
    """Write the final files and return the counts of the run.

    Raises:
        IncompleteRun: a selected row has no outcome.
    """
    counts = _Counts(session=spec.session)
    counts.tally.lose(spent.lost(spec.work))
    files = parts.by_shard(spec.work.place)
    with ExitStack() as stack:
        sinks = _Sinks(spec, stack)
        for shard, rows in enumerate(spec.rows):
            sinks.begin_shard(shard)
            _commit_shard(in_order(files.get(shard, [])), sinks, counts)
            if counts.in_shard != rows:
                missing = rows - counts.in_shard
                raise IncompleteRun(f"{missing} of {rows} rows of shard {shard} have no outcome")
            counts.in_shard = 0
        sinks.finish()
    result = counts.as_dict() | sinks.traced()
    spec.work.place.put(COMMIT, jsonio.dumps(result))
    return result


class _Counts:
    """What the commit learns on its way."""

    def __init__(self, session: int) -> None:
        self.session = session
        self.in_shard = self.torn = self.skipped = self.ok = self.failed = self.attempted = 0
        self.errors: Counter[str] = Counter()
        self.tally = Tally()

    def as_dict(self) -> dict[str, Any]:
        return {
            "attempted_rows": self.attempted,
            "processed_rows": self.ok + self.failed,
            "ok_rows": self.ok,
            "skipped_rows": self.skipped,
            "failed_rows": self.failed,
            "errors": dict(self.errors.most_common()),
            "torn_lines": self.torn,
            **self.tally.as_dict(),
        }


def _commit_shard(found: Iterable[Found | None], sinks: _Sinks, counts: _Counts) -> None:
    best: Found | None = None
    for item in found:
        if item is None:
            counts.torn += 1
            continue
        if best is not None and best.row_number != item.row_number:
            _commit_row(best, sinks, counts)
        if item.session != parts.KEPT_SESSION:
            counts.tally.add(jsonio.loads_own(item.telemetry))
            sinks.telemetry(item.telemetry)
        best = item
    if best is not None:
        _commit_row(best, sinks, counts)


def _commit_row(item: Found, sinks: _Sinks, counts: _Counts) -> None:
    counts.in_shard += 1
    counts.attempted += item.session == counts.session
    if not item.ok:
        counts.failed += 1
        counts.errors[parts.error_type(item.envelope)] += 1
    elif item.session != counts.session:
        counts.skipped += 1
    else:
        counts.ok += 1
    sinks.envelope(item)


class _Sinks:
    """The final files while they are being written beside their places."""

    def __init__(self, spec: CommitSpec, stack: ExitStack) -> None:
        self._spec = spec
        self._keep = dict(spec.keep_bytes)
        self._stack = stack
        self._done: list[tuple[Path, Path]] = []
        self._shards = spec.output.endswith("/")
        self._output: IO[bytes] | None = None
        if self._shards:
            self._folder = Path(os.path.abspath(spec.output))
            self._next = self._folder.with_name(f".{self._folder.name}.tmp")
            shutil.rmtree(self._next, ignore_errors=True)
            self._next.mkdir(parents=True)
            stack.callback(shutil.rmtree, self._next, ignore_errors=True)
        else:
            self._output = self._open(spec.output)
        self._errors = self._open(spec.error_output) if spec.error_output else None
        self._telemetry = self._open(spec.telemetry_output) if spec.telemetry_output else None
        self._manifest: IO[bytes] | None = None
        self._traces: TraceFiles | None = None
        if spec.traces is not None:
            self._manifest = self._open(spec.traces.manifest)
            self._traces = TraceFiles(spec.traces, self._manifest, stack)

    def _open(self, path: str) -> IO[bytes]:
        final = Path(path)
        final.parent.mkdir(parents=True, exist_ok=True)
        temporary = final.with_name(f".{final.name}.tmp")
        file = self._stack.enter_context(temporary.open("wb"))
        self._stack.callback(temporary.unlink, missing_ok=True)
        self._done.append((temporary, final))
        keep = self._keep.get(path, 0)
        if keep:
            _copy_front(final, keep, file)
        return file

    def begin_shard(self, shard: int) -> None:
        """Start the next shard, where results are shards."""
        if self._shards:
            if self._output is not None:
                _close(self._output)
            name = f"part-{shard:05d}-of-{len(self._spec.rows):05d}.jsonl"
            self._output = (self._next / name).open("wb")

    def envelope(self, item: Found) -> None:
        """Write a row's envelope, its copy in the error file, and its trace."""
        kept = item.session == parts.KEPT_SESSION
        if self._output is not None and not (kept and self._spec.mode == APPEND):
            self._output.write(item.envelope + b"\n")
        if self._errors is not None and not item.ok:
            self._errors.write(item.envelope + b"\n")
        if self._traces is not None:
            self._traces.add(item)

    def telemetry(self, data: bytes) -> None:
        """Write one telemetry record."""
        if self._telemetry is not None:
            self._telemetry.write(data + b"\n")

    def traced(self) -> dict[str, Any]:
        """Return the summary's word on traces."""
        if self._traces is None or self._spec.traces is None:
            return {}
        return {"traces": {"run_id": self._spec.traces.run_id, "rows": self._traces.count}}

    def finish(self) -> None:
        """Sync everything, then rename it into place, the output last."""
        for file in (self._errors, self._telemetry, self._manifest, self._output):
            if file is not None:
                _close(file)
        if self._traces is not None:
            self._traces.place()
        for temporary, final in reversed(self._done):
            os.replace(temporary, final)
            sync_folder(final.parent)
        if self._shards:
            self._place_shards()

    def _place_shards(self) -> None:
        """Rename the shards into their folder, and remove those of an earlier result."""
        self._folder.mkdir(parents=True, exist_ok=True)
        names = {path.name for path in self._next.iterdir()}
        for name in sorted(names):
            os.replace(self._next / name, self._folder / name)
        for path in shards_in(self._folder):
            if path.name not in names:
                path.unlink()
        sync_folder(self._folder)


def _close(file: IO[bytes]) -> None:
    file.flush()
    os.fsync(file.fileno())
    file.close()


def _copy_front(source: Path, size: int, target: IO[bytes]) -> None:
    """Copy the first bytes of a file and end them with a newline."""
    if not source.exists() or source.stat().st_size < size:
        raise OutputChanged(f"{source} was there when the run began, and is gone or shorter now")
    last = b"\n"
    with source.open("rb") as file:
        while size > 0 and (block := file.read(min(size, 1 << 20))):
            target.write(block)
            size -= len(block)
            last = block[-1:]
    if last != b"\n":
        target.write(b"\n")
