"""What the commands beside a run do: say how its batches are, and cancel them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from beam_batch.batches.base import BatchInfo, BatchService
from beam_batch.batches.journal import CANCELLING, CREATED, CREATING, Batch
from beam_batch.batches.services import make_service
from beam_batch.batches.stored import load_run, planned_journal
from beam_batch.errors import BatchError
from beam_batch.options import ModelSpec
from beam_batch.outputs.workdir import WorkDir

Tell = Callable[[str], None]
_COLUMNS = ("batch", "attempt", "state", "requests", "done", "failed", "left")


def survey(work: WorkDir, tell: Tell) -> list[dict[str, Any]]:
    """Describe the batches of a run, as their provider sees them now where it can be asked."""
    journal = planned_journal(work)
    service = _service(work)
    return [_described(batch, service, tell) for batch in journal.batches.values()]


def cancel_all(work: WorkDir, tell: Tell) -> int:
    """Cancel the batches that are at work; return how many could not be cancelled.

    Each is journalled first, so that a resumed run knows that it was meant, and sends what they
    left open again.
    """
    journal = planned_journal(work)
    service = _service(work)
    failures = 0
    for batch in journal.batches.values():
        if batch.state == CREATING:
            failures += 1
            tell(
                f"a batch of {batch.file.requests} requests was perhaps created; --resume finds it"
            )
        if batch.state != CREATED:
            continue
        if batch.adopted and not service.marks:  # found by its time and size: perhaps another's
            failures += 1
            tell(f"{batch.id} is perhaps another's; cancel it where its requests can be seen")
            continue
        journal.note(batch, CANCELLING)
        try:
            tell(f"{batch.id}: {service.cancel(batch.id).status}")
        except BatchError as error:
            failures += 1
            tell(f"{batch.id} cannot be cancelled: {error}")
    return failures


def table(rows: list[dict[str, Any]]) -> str:
    """Write descriptions as a table."""
    cells = [_COLUMNS, *(tuple(str(row[name]) for name in _COLUMNS) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ("  ".join(map(str.ljust, line, widths)).rstrip() for line in cells)
    return "\n".join(lines)


def _service(work: WorkDir) -> BatchService:
    spec, _ = load_run(work)
    assert isinstance(spec.model, ModelSpec)
    return make_service(spec.model, spec.call.timeout_of(spec.model))


def _described(batch: Batch, service: BatchService, tell: Tell) -> dict[str, Any]:
    info = BatchInfo.stored(batch.info) if batch.info else None
    if batch.state == CREATED:
        try:
            info = service.get(batch.id)
        except BatchError as error:
            tell(f"cannot ask how {batch.id} is: {error}")
    state = batch.state if info is None else info.status
    return {
        "batch": batch.id or "-",
        "attempt": batch.attempt,
        "state": f"{state}, fetched" if batch.state == "fetched" else state,
        "requests": batch.file.requests,
        "done": info.done if info else 0,
        "failed": info.failed if info else 0,
        "left": batch.left if batch.state == "fetched" else batch.file.requests,
    }
