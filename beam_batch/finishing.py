"""The end of a run: what it counts, its summary, and its files where the user wants them."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from beam_batch import jsonio
from beam_batch.errors import RunStopped, first_line
from beam_batch.options import RunSpec
from beam_batch.outputs.remote import Upload, publish, store_of
from beam_batch.outputs.workdir import FINISHED
from beam_batch.places import scheme_of, write_atomically
from beam_batch.session import Session, record_settings


def count(session: Session, started: float) -> dict[str, Any]:
    """Return the counts of a committed run in the summary's form."""
    counts = session.work.read_commit()
    assert counts is not None
    counts["torn_lines"] += session.torn
    plan = session.plan
    return {
        "started_at": _utc(started),
        "completed_at": _utc(time.time()),
        "input_rows": plan.input_rows,
        "selected_rows": plan.selected_rows,
        "plan_ms": plan.plan_ms,
        "id_check_ms": plan.ids_ms,
        **counts,
        "duration_ms": round((time.time() - started) * 1000, 1),
    }


def put_in_place(
    local: RunSpec, session: Session, uploads: list[Upload], data: dict[str, Any]
) -> None:
    """Send what is for the Hub, write the summary, and note that the run is finished."""
    summary = local.output.summary_output
    is_for_hub = any(str(upload.path) == summary for upload in uploads)
    if summary and is_for_hub:
        _write_summary(summary, data)
    record_settings(session)
    publish(uploads, session.work)
    if summary and not is_for_hub:
        _write_summary(summary, data)
    session.work.place.put(FINISHED, b"")


def exit_code(spec: RunSpec, data: dict[str, Any], attempted: int) -> int:
    """Return the exit code of a finished run, whose session has attempted so many rows."""
    none_ok = attempted > 0 and data["ok_rows"] == 0
    return 1 if none_ok or (spec.output.fail_on_error and data["failed_rows"] > 0) else 0


def _write_summary(named: str, data: dict[str, Any]) -> None:
    text = jsonio.pretty(data).encode() + b"\n"
    try:
        if scheme_of(named):
            place, name = store_of(named)
            place.put(name, text)
            return
        path = Path(named)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, text)
    except OSError as error:
        raise RunStopped(
            f"the results are in place, but --summary-output {named} cannot be written "
            f"({error.strerror or first_line(error)})"
        ) from None


def _utc(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
