"""What is there before a run: files of earlier runs, and what is to become of them."""

from __future__ import annotations

import dataclasses
import uuid
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from beam_batch import jsonio
from beam_batch.errors import InvalidJSON, OptionsError, RunStopped
from beam_batch.inputs.plan import Plan, rows_of
from beam_batch.manifest import refuse_mixing
from beam_batch.options import OutputSpec, RunSpec
from beam_batch.options.agents import TRACE_MANIFEST
from beam_batch.outputs import envelope, parts, prior
from beam_batch.outputs.commit import APPEND, NEW, REWRITE, shards_in
from beam_batch.outputs.recording import RecordSpec
from beam_batch.outputs.stopping import StopFlag
from beam_batch.outputs.trace_files import has_traces
from beam_batch.outputs.workdir import WorkDir, settings_file
from beam_batch.records import Row


def _targets(spec: RunSpec) -> list[tuple[str, str]]:
    """List the files that a run commits, each with its flag; the output first."""
    return [(flag, path) for flag, path in spec.files.items() if flag != "--summary-output"]


def refuse_unclear(spec: RunSpec, work: WorkDir, manifest: dict[str, Any] | None) -> None:
    """Refuse to guess what is to become of earlier work."""
    out = spec.output
    if out.resume or out.overwrite:
        return
    if manifest is not None:
        raise OptionsError(
            f"--work-dir {work.path} holds an unfinished run. Add --resume to go on with it, or "
            "--overwrite to start again."
        )
    for flag, path in spec.files.items():
        if _is_there(path):
            remedy = "to answer the rows that it lacks" if flag == "--output" else "to add to it"
            raise OptionsError(
                f"{flag} {path} exists. Add --resume {remedy}, or --overwrite to replace it."
            )


def _is_there(path: str) -> bool:
    found = Path(path)
    if found.name == TRACE_MANIFEST:
        return has_traces(found.parent)
    return any(shards_in(found)) if found.is_dir() else found.exists()


def look_at(spec: RunSpec, index: Path, marks: dict[str, Any], plan: Plan) -> dict[str, Any]:
    """Decide how the commit treats existing final files, and index their answers.

    ``keep_bytes`` says of each file how many bytes of it stay at the front of the new one.
    """
    out = spec.output
    old = Path(out.output.rstrip("/") or "/")
    if (
        out.resume
        and _is_there(out.output)
        and not refuse_mixing(_settings(out, marks), marks, out.overwrite)
    ):
        out = dataclasses.replace(out, resume=False)  # start again
    keep = {path: 0 for _, path in _targets(spec)}
    if out.resume:
        for path in (out.error_output, out.telemetry_output, spec.trace.manifest):
            if path and Path(path).exists() and (path != out.error_output or not out.overwrite):
                keep[path] = prior.whole_lines(Path(path))
    found = {"keep_bytes": keep, "replace_traces": not out.resume}
    if not out.resume or not _is_there(out.output):
        return found | {"mode": NEW, "torn": 0, "answers": []}
    if out.is_directory and not out.overwrite:
        raise OptionsError(
            f"--output {out.output} is finished; shards cannot be appended to. Add --overwrite to "
            "--resume: answered rows are kept and not sent again."
        )
    files = shards_in(old) if out.is_directory else [old]
    built = prior.build(index, files)
    if out.overwrite:
        _refuse_dropping(out, index, built.answers, plan, marks["--id-field"])
    else:
        keep[out.output] = built.size
    return found | {
        "mode": REWRITE if out.overwrite else APPEND,
        "torn": built.torn,
        "answers": [str(file) for file in files],
    }


def _refuse_dropping(
    out: OutputSpec, index: Path, answers: int, plan: Plan, id_field: str | None
) -> None:
    """Refuse to replace an output by one that lacks answers which it has."""
    with closing(prior.PriorAnswers(index)) as known:
        kept = sum(1 for _ in _answered(known, plan, id_field))
    if kept < answers:
        raise OptionsError(
            f"--output {out.output} holds {answers} answers, but only {kept} of their rows are "
            "selected: --resume --overwrite would drop the others. Select them too, or leave "
            "--overwrite out."
        )


def _answered(
    known: prior.PriorAnswers, plan: Plan, id_field: str | None
) -> Iterator[tuple[Row, tuple[str, int, int]]]:
    """Yield the selected rows whose ids have an answer, and where each stands."""
    for row in rows_of(plan, id_field):
        place = known.find(row.id)
        if place is not None:
            yield row, place


def keep_answers(work: WorkDir, index: Path, plan: Plan, id_field: str | None) -> int:
    """Record the rows that a finished output has an answer for; return how many there are.

    Raises:
        RunStopped: the work directory does not take them.
    """
    if not index.exists():
        return 0
    stop = StopFlag(work, f"stop-{uuid.uuid4().hex[:8]}")
    recorder = RecordSpec(work=work, session=parts.KEPT_SESSION, stop=stop).open()
    kept = 0
    with closing(prior.PriorAnswers(index)) as known, closing(recorder):
        for row, place in _answered(known, plan, id_field):
            if row.failure is not None:
                continue
            answer = known.read(place) | {"row_number": row.number}
            if not recorder.record(envelope.keep(row, answer), parts.KEPT):
                break
            kept += 1
    if stop.is_set_here():
        raise RunStopped(*(stop.read() or ("stopped", 1)))
    return kept


def _settings(out: OutputSpec, marks: dict[str, Any]) -> dict[str, Any]:
    """Return the settings that a finished output was made with, as far as anybody knows."""
    try:
        found = jsonio.loads(settings_file(out.output).read_bytes())
    except (OSError, InvalidJSON):
        return marks
    return found if isinstance(found, dict) else marks


def lost_file(out: OutputSpec, manifest: dict[str, Any]) -> str | None:
    """Return a file that an unfinished run builds on and that is gone, or shorter.

    Shards are not looked for: the commit itself replaces them.
    """
    needed = {path: size for path, size in manifest["keep_bytes"].items() if size}
    answers = [] if out.is_directory else manifest["answers"]
    for path in [*needed, *answers]:
        if not Path(path).exists() or Path(path).stat().st_size < needed.get(path, 0):
            return str(path)
    return None


def pin_new_targets(spec: RunSpec, manifest: dict[str, Any]) -> None:
    """Take up files that earlier sessions of this run were not asked for."""
    keep, overwrite = manifest["keep_bytes"], spec.output.overwrite
    for flag, path in _targets(spec):
        if path not in keep:
            if _is_there(path) and not overwrite:
                raise OptionsError(
                    f"{flag} {path} exists, and the unfinished run did not name it; choose another."
                )
            keep[path] = 0
            if path == spec.trace.manifest:
                manifest["replace_traces"] = overwrite
