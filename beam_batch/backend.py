"""A run through a provider's Batch API: graphs for the rows, and the driver for the wait between.

A batch may take a day. No bundle is open meanwhile: the first graph ends with request files, the
driver submits them and records what comes back.
"""

from __future__ import annotations

import shutil
import sys
from typing import Any

from beam_batch.batches.journal import Journal
from beam_batch.batches.judging import Judge
from beam_batch.batches.running import DETACHED, LEFT, BatchRun
from beam_batch.batches.services import limits_of, make_service
from beam_batch.batches.stored import journal_path, store_run
from beam_batch.engine import ONLINE, REQUESTS, Engine
from beam_batch.options import ModelSpec, RunSpec
from beam_batch.outputs.recording import RecordSpec
from beam_batch.outputs.workdir import WorkDir
from beam_batch.session import Session


def run_batches(spec: RunSpec, session: Session, engine: Engine, asked: RunSpec) -> bool:
    """Get every row its outcome; return False where that is left to the provider meanwhile.

    `asked` is what the user asked for; `spec` names the places where outputs are made.
    """
    work = session.work
    journal = Journal(journal_path(work))
    if journal.planned is None:
        shutil.rmtree(work.batches, ignore_errors=True)  # requests of a session that was stopped
    store_run(work, asked)
    if journal.planned is None:
        engine.run(spec, session, REQUESTS)
        journal = Journal(journal_path(work))
    if session.stop.is_set() or journal.planned is None:
        return True
    end = _batches(spec, session, journal).run()
    since = int(journal.planned["session"])
    if end == LEFT:
        engine.run(spec, session, ONLINE, since)
    return end != DETACHED


def _batches(spec: RunSpec, session: Session, journal: Journal) -> BatchRun:
    model = spec.model
    assert isinstance(model, ModelSpec)

    def say(text: str) -> None:
        if spec.progress.enabled:
            print(f"batch: {text}", file=sys.stderr, flush=True)

    return BatchRun(
        journal=journal,
        service=make_service(model, spec.call.timeout_of(model), session.stop.is_set),
        judge=Judge(model, spec.schema, spec.output.include_input, spec.budget.price),
        record=RecordSpec(
            work=session.work,
            session=session.commit.session,
            stop=session.stop,
            max_errors=spec.output.max_errors,
        ),
        limits=limits_of(model, spec.batch.batch_size),
        batch=spec.batch,
        call=spec.call,
        say=say,
    )


def note_left_behind(batches: list[str], work: WorkDir) -> None:
    """Say which batches of an earlier run nobody waits for any more, where it was replaced."""
    if batches and not journal_path(work).exists():
        names = ", ".join(batches)
        print(
            f"batch: {names} of the replaced run are still with the provider, and cost what they "
            "cost; cancel them there",
            file=sys.stderr,
            flush=True,
        )


def detached(session: Session) -> dict[str, Any]:
    """Say where a detached run is, in summary fields."""
    batches = Journal(journal_path(session.work)).batches.values()
    return {
        "detached": True,
        "work_dir": session.work.path,
        "selected_rows": session.plan.selected_rows,
        "batches": [batch.id for batch in batches if batch.id],
        "waiting_files": sum(not batch.id for batch in batches),
        "errors": {},
        "torn_lines": 0,
    }
