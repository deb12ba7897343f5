"""The two records of a row: the envelope a user reads, and its telemetry."""

from __future__ import annotations

from typing import Any

from beam_batch.records import Failure, Outcome, Row


def succeed(row: Row, result: Any, telemetry: dict[str, Any], include_input: bool) -> Outcome:
    """Make the outcome of an answered row."""
    envelope = {"id": row.id, "row_number": row.number, "ok": True, "result": result, "error": None}
    return _outcome(row, True, envelope, telemetry, include_input)


def fail(row: Row, failure: Failure, telemetry: dict[str, Any], include_input: bool) -> Outcome:
    """Make the outcome of a failed row; a reply that was paid for is kept in the error."""
    error = {"type": failure.type, "message": failure.message}
    if failure.reply:
        error["reply"] = failure.reply
    envelope = {"id": row.id, "row_number": row.number, "ok": False, "result": None, "error": error}
    return _outcome(row, False, envelope, telemetry, include_input)


def keep(row: Row, envelope: dict[str, Any]) -> Outcome:
    """Make the outcome of a row that an earlier, finished run answered."""
    return Outcome(row.shard, row.number, True, envelope, {})


def _outcome(
    row: Row, ok: bool, envelope: dict[str, Any], extra: dict[str, Any], include_input: bool
) -> Outcome:
    if include_input:
        envelope["input"] = row.data
    telemetry = {
        "id": row.id,
        "row_number": row.number,
        "ok": ok,
        "timing": {},
        "usage": {},
    } | extra
    return Outcome(row.shard, row.number, ok, envelope, telemetry)
