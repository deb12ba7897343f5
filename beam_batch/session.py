"""A session: one start of a run in its work directory, new or resumed."""

from __future__ import annotations

import os
import shutil
import time
import uuid
from collections.abc import Sequence
from typing import Any, NamedTuple

from beam_batch import jsonio
from beam_batch.errors import InvalidJSON, OptionsError, first_line
from beam_batch.existing import (
    keep_answers,
    look_at,
    lost_file,
    pin_new_targets,
    refuse_unclear,
)
from beam_batch.inputs.base import SPLIT_ROWS
from beam_batch.inputs.plan import Plan, plan_rows, recheck
from beam_batch.manifest import fingerprint, plan_from, plan_to, refuse_changes
from beam_batch.options import OutputSpec, RunSpec
from beam_batch.outputs.commit import APPEND, REWRITE, CommitSpec
from beam_batch.outputs.ledger import LedgerSpec, Sum, spent_by_sessions
from beam_batch.outputs.stopping import StopFlag
from beam_batch.outputs.trace_files import WORKER, TraceFolder, new_run_id
from beam_batch.outputs.workdir import COMMIT, FINISHED, WorkDir, settings_file
from beam_batch.places import write_atomically

PLAN, PRIOR = "plan.json", "prior.sqlite"
LEAST_SPLIT_ROWS = 100
"""Rows of a split at least: each costs its engine some milliseconds."""
SPLITS_A_SLOT = 16
LOOK = 1 << 16
"""Bytes from which the length of rows is guessed."""


class Session(NamedTuple):
    """A session that is ready to run.

    Attributes:
        marks: fingerprint of the settings.
        torn: lines of an earlier, finished output that were no records.
        kept: rows that this output has an answer for.
        since: session whose failures, and later ones, are final; None for this session.
    """

    work: WorkDir
    stop: StopFlag
    plan: Plan
    commit: CommitSpec
    marks: dict[str, Any]
    torn: int
    kept: int
    since: int | None = None


def open_session(spec: RunSpec, work: WorkDir, output: str, slots: int = 1) -> Session:
    """Decide between a new run and a resumed one, and write the manifest.

    `output` is the output's name where the user wants it, which may be on the Hub; `spec` names
    the place where it is made.

    Raises:
        OptionsError: the input cannot be read, or it is unclear what is to become of earlier work.
    """
    out = spec.output
    manifest = _unfinished(out, work)
    refuse_unclear(spec, work, manifest)
    plan = None
    if manifest is not None and out.resume:
        plan = _earlier_plan(spec, work, manifest, output)
    if plan is None or manifest is None:
        plan, manifest = _new_plan(spec, work, output, _split_rows(spec, slots))
    if out.overwrite and manifest["mode"] == APPEND:
        unkept = {path: 0 for path in (out.output, out.error_output) if path}
        manifest |= {"mode": REWRITE, "keep_bytes": manifest["keep_bytes"] | unkept}
    pin_new_targets(spec, manifest)
    manifest.setdefault("run_id", new_run_id())
    manifest.setdefault("began", time.time())
    if work.read_commit() is not None:  # all rows had their attempts; its files were not in place
        manifest.setdefault("committed", manifest["session"])
    manifest["session"] += 1
    # A name of its own each time: this process may have seen a flag of an earlier run here.
    manifest["stop"] = f"stop-{manifest['session']:04d}-{uuid.uuid4().hex[:8]}"
    work.write_manifest(manifest)
    work.place.remove([FINISHED, COMMIT])
    if spec.budget.is_set:
        _charge(work, manifest)
        work.write_manifest(manifest)
    return _session(spec, work, manifest, plan)


def _split_rows(spec: RunSpec, slots: int) -> int:
    """Return how many rows a split has: few, where slots are to share a small input.

    Each is to have some, so that all have work and the last splits are short.
    """
    if slots == 1 or spec.output.is_directory:
        return SPLIT_ROWS
    rows = _rows_about(spec.source.inputs)
    if rows is None:
        return SPLIT_ROWS
    return min(SPLIT_ROWS, max(LEAST_SPLIT_ROWS, rows // (slots * SPLITS_A_SLOT)))


def _rows_about(inputs: Sequence[str]) -> int | None:
    """Guess the rows of local files from their size and the length of the first lines."""
    if not all(os.path.isfile(path) for path in inputs):
        return None
    with open(inputs[0], "rb") as file:
        start = file.read(LOOK)
    return sum(map(os.path.getsize, inputs)) * (start.count(b"\n") + 1) // max(1, len(start))


def _charge(work: WorkDir, manifest: dict[str, Any]) -> None:
    """Count as spent what killed workers had in flight, and what sessions without a cap spent."""
    known = set(manifest.setdefault("charged", []))
    usd, tokens = spent_by_sessions(work, lambda session: session not in known)
    ledger = LedgerSpec(work).open()
    ledger.charge_reserved()
    ledger.settle(Sum(0, 0), Sum.of(usd, tokens))
    ledger.close()
    manifest["charged"] = list(range(1, manifest["session"] + 1))


def _earlier_plan(
    spec: RunSpec, work: WorkDir, manifest: dict[str, Any], output: str
) -> Plan | None:
    """Return the plan of an unfinished run, or None where --overwrite asks to start again.

    Raises:
        OptionsError: settings or input have changed, and nothing asks to start again.
    """
    folder = f"{work.place.uri}/{manifest['plan']}"
    try:
        stored = jsonio.loads(work.place.get(f"{manifest['plan']}/{PLAN}") or b"")
        plan, changed = recheck(plan_from(stored, folder))
    except (OSError, InvalidJSON, LookupError, TypeError, ValueError) as error:
        if spec.output.overwrite:
            return None
        raise OptionsError(
            f"--work-dir {work.path}: its plan is damaged ({first_line(error)}). Add --overwrite "
            "to start again."
        ) from None
    marks = fingerprint(spec, plan.digest, output)
    if not refuse_changes(manifest["fingerprint"], marks, spec.output.overwrite):
        return None
    if changed and not spec.output.overwrite:
        raise OptionsError(
            f"--resume: the input has changed since the run was planned: {', '.join(changed)}. "
            "Restore it, or add --overwrite to start again."
        )
    if lost := lost_file(spec.output, manifest):
        if spec.output.overwrite:
            return None
        raise OptionsError(
            f"--output {spec.output.output}: {lost} was there when the unfinished run began, which "
            "adds to it, and is gone or shorter now. Put it back, or add --overwrite to start "
            "again."
        )
    return None if changed else plan


def _new_plan(
    spec: RunSpec, work: WorkDir, output: str, rows_a_split: int
) -> tuple[Plan, dict[str, Any]]:
    """Plan the input beside what is there, and only then remove that."""
    folder = work.new_plan()
    try:
        plan = plan_rows(spec.source, folder, rows_a_split)
        marks = fingerprint(spec, plan.digest, output)
        manifest = {"session": 0, "fingerprint": marks, "plan": folder.name}
        manifest |= look_at(spec, folder / PRIOR, marks, plan)
        stored = plan_to(plan, str(folder))
        write_atomically(folder / PLAN, jsonio.dumps(stored))
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    work.clear(keep=folder)
    work.create()
    manifest["kept"] = keep_answers(work, folder / PRIOR, plan, spec.source.id_field)
    if not work.is_folder:
        (folder / PRIOR).unlink(missing_ok=True)
        plan = plan_from(stored, work.publish(folder))
    return plan, manifest


def _session(spec: RunSpec, work: WorkDir, manifest: dict[str, Any], plan: Plan) -> Session:
    out, traces = spec.output, None
    if spec.trace.folder:
        traces = TraceFolder(
            path=spec.trace.folder,
            run_id=manifest["run_id"],
            agent=spec.crew.selected if spec.crew else WORKER,
            replace=manifest["replace_traces"],
        )
    commit = CommitSpec(
        work=work,
        output=out.output,
        error_output=out.error_output,
        telemetry_output=out.telemetry_output,
        mode=manifest["mode"],
        session=manifest["session"],
        rows=tuple(plan.shards),
        keep_bytes=tuple(manifest["keep_bytes"].items()),
        traces=traces,
    )
    stop = StopFlag(work, manifest["stop"])
    return Session(
        work,
        stop,
        plan,
        commit,
        manifest["fingerprint"],
        manifest["torn"],
        manifest["kept"],
        manifest.get("committed"),
    )


def _unfinished(out: OutputSpec, work: WorkDir) -> dict[str, Any] | None:
    """Return the manifest of an unfinished run, or None where there is none."""
    if work.place.get(FINISHED) is not None:  # its files are in place, so they speak for it
        return None
    try:
        return work.read_manifest()
    except OptionsError:
        if not out.overwrite:
            raise
        return None


def record_settings(session: Session) -> None:
    """Leave word of the settings beside a finished output."""
    path = settings_file(session.commit.output)
    write_atomically(path, jsonio.dumps(session.marks))
