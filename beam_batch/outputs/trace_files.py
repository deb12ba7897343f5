"""The folder of traces: one file a row, and a manifest that lists the rows in input order."""

from __future__ import annotations

import json
import os
import re
import shutil
import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import IO, Any

from beam_batch import jsonio
from beam_batch.errors import InvalidJSON
from beam_batch.options.agents import TRACE_MANIFEST
from beam_batch.outputs.parts import KEPT_SESSION, Found
from beam_batch.places import sync_folder

TRACE = re.compile(r"row-\d{6,}__id-[^/]+\.codex\.jsonl")
WORKER = "worker"
"""What a model is called that answers rows without a card."""
_NEXT = ".traces.tmp"
_UNSAFE = re.compile(r"[^\w.\-]+")
_LONGEST, _MOST_BYTES = 80, 100
_AT_ONCE = 1000


@dataclass(frozen=True, kw_only=True)
class TraceFolder:
    """Where a run's traces go; picklable, opens nothing by itself.

    Attributes:
        run_id: names the run in all sessions.
        agent: who answers rows.
        replace: whether traces that an earlier run left there go.
    """

    path: str
    run_id: str
    agent: str
    replace: bool = False

    @property
    def manifest(self) -> str:
        """The list of the rows."""
        return os.path.join(self.path, TRACE_MANIFEST)


def new_run_id() -> str:
    """Name a run: the time, and something that no other run has."""
    return f"{datetime.now(UTC):%y%m%d-%H%M%S}-{uuid.uuid4().hex[:8]}"


def file_name(row_number: int, row_id: str | int | None, agent: str) -> str:
    """Name the trace of a row; the number makes it unique, whatever the id is.

    >>> file_name(7, "a/../b c", "triage")
    'row-000007__id-a_.._b_c__triage.codex.jsonl'
    """
    return f"row-{row_number:06d}__id-{_safe(row_id)}__{_safe(agent)}.codex.jsonl"


def _safe(text: str | int | None) -> str:
    """Make a text part of a file's name: 80 characters at most, and not too many bytes."""
    found = _UNSAFE.sub("_", str(text))[:_LONGEST].encode()[:_MOST_BYTES]
    return found.decode("utf-8", "ignore") or "_"


def has_traces(folder: Path) -> bool:
    """Whether a folder holds traces, or a list of them."""
    return folder.is_dir() and ((folder / TRACE_MANIFEST).exists() or any(_traces(folder)))


def listed(folder: Path) -> Iterator[Path]:
    """List the manifest of a folder and the traces that it names, each once."""
    manifest = folder / TRACE_MANIFEST
    yield manifest
    seen: set[str] = set()
    with manifest.open("rb") as file:
        for line in file:
            found = _loads(line)
            name = str(found.get("trace")) if isinstance(found, dict) else ""
            if TRACE.fullmatch(name) and name not in seen and (folder / name).exists():
                seen.add(name)
                yield folder / name


class TraceFiles:
    """Traces while they are being written beside their places, in a folder of their own.

    The manifest is a file of the commit, like the others.
    """

    def __init__(self, folder: TraceFolder, manifest: IO[bytes], stack: ExitStack) -> None:
        self._spec = folder
        self._manifest = manifest
        self._folder = Path(folder.path)
        self._next = self._folder / _NEXT
        shutil.rmtree(self._next, ignore_errors=True)
        self._next.mkdir()
        stack.callback(shutil.rmtree, self._next, ignore_errors=True)
        self.count = 0

    def add(self, item: Found) -> None:
        """Write a row's trace, if it has one, and its line in the manifest."""
        if item.session == KEPT_SESSION:  # its line is among those of the run that answered it
            return
        envelope = _loads(item.envelope)
        records = _loads(item.trace) if item.trace else []
        name = None
        if records:
            name = file_name(item.row_number, envelope["id"], self._spec.agent)
            with (self._next / name).open("wb") as file:
                file.writelines(jsonio.dumps(record) + b"\n" for record in records)
            self.count += 1
        line = {
            "run_id": self._spec.run_id,
            "row_number": item.row_number,
            "id": envelope["id"],
            "ok": item.ok,
            "trace": name,
            "record_count": len(records),
            "agent": self._spec.agent,
        }
        if not item.ok:
            error = envelope["error"]
            line["error"] = {"type": error["type"], "message": error["message"]}
        self._manifest.write(jsonio.dumps(line) + b"\n")

    def place(self) -> None:
        """Rename the traces into their folder, and remove those of an earlier run."""
        if self.count:
            os.sync()  # one call, where a sync a file would take a minute for some thousands
        if self._spec.replace:
            for path in _traces(self._folder):
                if not (self._next / path.name).exists():
                    path.unlink()
        while batch := list(islice(_traces(self._next), _AT_ONCE)):
            for path in batch:
                os.replace(path, self._folder / path.name)
        sync_folder(self._folder)


def _traces(folder: Path) -> Iterator[Path]:
    """List what a folder holds of traces, without holding their names."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if TRACE.fullmatch(entry.name):
                yield folder / entry.name


def _loads(data: bytes) -> Any:
    """Parse what we wrote, or a line that somebody has damaged: that one is {}."""
    try:
        return jsonio.loads_own(data)
    except InvalidJSON:
        pass
    try:
        return json.loads(data)  # takes lone surrogates
    except ValueError:
        return {}
