"""An outcome as one flat record, for tables: the columns are always the same."""

from __future__ import annotations

from typing import Any

from beam_batch import jsonio
from beam_batch.records import Outcome

COLUMNS: dict[str, type] = {
    "id": str,
    "row_number": int,
    "ok": bool,
    "result": str,
    "error_type": str,
    "error_message": str,
    "model": str,
    "attempts": int,
    "input_tokens": int,
    "output_tokens": int,
    "cost_usd": float,
    "duration_ms": float,
}
"""Columns and their Python types; all but `ok` may be null."""


def flat_record(outcome: Outcome) -> dict[str, Any]:
    """Return an outcome's columns.

    `result` is the reply's text, or JSON where the reply is no text; the failure's columns are null
    where `ok` is true. `cost_usd` is null where no price is known.
    """
    envelope, told = outcome.envelope, outcome.telemetry
    error = envelope["error"] or {}
    turn = told["usage"].get("turn") or {}
    number, result = envelope["row_number"], envelope["result"]
    named = envelope["id"]
    return {
        "id": None if named is None else str(named),
        "row_number": number,
        "ok": outcome.ok,
        "result": result if result is None or isinstance(result, str) else to_text(result),
        "error_type": error.get("type"),
        "error_message": error.get("message"),
        "model": told.get("model"),
        "attempts": told.get("attempts") or 0,
        "input_tokens": turn.get("input_tokens"),
        "output_tokens": turn.get("output_tokens"),
        "cost_usd": told.get("cost_usd"),
        "duration_ms": told["timing"].get("duration_ms"),
    }


def to_text(value: Any) -> str:
    """Write a value as compact JSON."""
    return jsonio.dumps(value).decode()
