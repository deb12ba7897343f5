"""From settings to a finished run: check, plan, build, run, finish."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import sys
import time
import traceback
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from beam_batch import checks, jsonio
from beam_batch.errors import OptionsError, RunStopped
from beam_batch.manifest import fingerprint, plan_from, plan_to, refuse_changes
from beam_batch.options import ModelSpec, RunSpec
from beam_batch.outputs import prior
from beam_batch.outputs.commit import APPEND, NEW, REWRITE, CommitSpec
from beam_batch.outputs.summary import Summary
from beam_batch.outputs.workdir import Lock, StopFlag, WorkDir, default_work_dir, write_atomically
from beam_batch.progress import Progress
from beam_batch.providers import resolve_model


def run(spec: RunSpec) -> Summary:
    """Run a batch to its end and put its files in place.

    Raises:
        OptionsError: a setting cannot work; nothing was sent.
        RunStopped: the run ended early; finished rows are in the work directory.
    """
    started = time.time()
    if isinstance(spec.model, str):
        spec = dataclasses.replace(spec, model=resolve_model(spec.model, os.environ))
    checks.check(spec, os.environ)
    work = WorkDir(
        str(Path(spec.output.work_dir or default_work_dir(spec.output.output)).absolute())
    )
    fresh = not work.root.exists()
    lock = Lock(work)
    try:
        prepared = _prepare(spec, work)
    except BaseException:
        lock.release()
        if fresh:
            work.remove()
        raise
    try:
        _execute(spec, prepared)
        summary = _finish(spec, prepared, started)
        if not spec.output.keep_temp:
            work.remove()
        return summary
    except OptionsError:  # nothing was sent
        if fresh:
            work.remove()
        raise
    finally:
        lock.release()


class _Prepared(NamedTuple):
    """A session that is ready to run."""

    work: WorkDir
    stop: StopFlag
    manifest: dict[str, Any]
    commit: CommitSpec


def _prepare(spec: RunSpec, work: WorkDir) -> _Prepared:
    """Decide between a new run and a resumed one, and write the manifest."""
    from beam_batch.inputs.plan import plan_rows

    manifest = None
    try:
        manifest = work.read_manifest()
    except OptionsError:
        if not spec.output.overwrite:
            raise
    _refuse_unclear(spec, work, manifest)
    plan = plan_rows(spec.source)
    marks = fingerprint(spec, plan.digest)
    if manifest is not None and spec.output.resume:
        if not refuse_changes(manifest["fingerprint"], marks, spec.output.overwrite):
            manifest = None
    elif manifest is not None:
        manifest = None
    if manifest is None:
        work.clear()
        work.create()
        manifest = {"session": 0, "fingerprint": marks, "plan": plan_to(plan)}
        manifest |= _mode(spec, work)
    work.create()
    manifest["session"] += 1
    write_atomically(work.manifest, jsonio.dumps(manifest))
    work.commit.unlink(missing_ok=True)
    splits = plan_from(manifest["plan"]).splits
    commit = CommitSpec(
        work=work,
        output=spec.output.output,
        error_output=spec.output.error_output,
        telemetry_output=spec.output.telemetry_output,
        mode=manifest["mode"],
        session=manifest["session"],
        rows=tuple(split.selected for split in splits),
        keep_bytes=tuple(manifest["keep_bytes"].items()),
    )
    # A name of its own each time: this process may have seen a flag of an earlier run here.
    stop = StopFlag(str(work.root / f"stop-{manifest['session']:04d}-{uuid.uuid4().hex[:8]}"))
    return _Prepared(work, stop, manifest, commit)


def _refuse_unclear(spec: RunSpec, work: WorkDir, manifest: dict[str, Any] | None) -> None:
    """Refuse to guess what is to become of earlier work."""
    out = spec.output
    if out.resume or out.overwrite:
        return
    if manifest is not None:
        raise OptionsError(
            f"--work-dir {work.path} holds an unfinished run. Add --resume to go on with it, or "
            "--overwrite to start again."
        )
    path = Path(out.output)
    if path.is_dir() and any(path.iterdir()) if out.is_directory else path.exists():
        raise OptionsError(
            f"--output {out.output} exists. Add --resume to answer the rows that it lacks, or "
            "--overwrite to replace it."
        )


def _mode(spec: RunSpec, work: WorkDir) -> dict[str, Any]:
    """Decide how the commit treats existing final files, and index their answers."""
    out = spec.output
    old = Path(out.output.rstrip("/"))
    if not out.resume or not old.exists():
        return {"mode": NEW, "keep_bytes": {}, "torn": 0}
    if out.is_directory and not out.overwrite:
        raise OptionsError(
            f"--output {out.output} is finished; shards cannot be appended to. Add --overwrite to "
            "--resume: answered rows are kept and not sent again."
        )
    files = sorted(old.glob("part-*.jsonl")) if out.is_directory else [old]
    built = prior.build(work.prior, files)
    keep = {out.output: built.size} if not out.overwrite else {}
    for path in (out.error_output, out.telemetry_output):
        if path and Path(path).exists() and (path == out.telemetry_output or not out.overwrite):
            keep[path] = prior.whole_lines(Path(path))
    mode = REWRITE if out.overwrite else APPEND
    return {"mode": mode, "keep_bytes": keep, "torn": built.torn}


def _execute(spec: RunSpec, prepared: _Prepared) -> None:
    rows = sum(prepared.commit.rows)
    try:
        with (
            _signals(prepared.stop),
            _model_server(spec, prepared.work) as resolved,
            Progress(spec.progress, prepared.work, prepared.commit.session, rows),
        ):
            if spec.output.max_errors == 0:
                prepared.stop.set("stopped by --max-errors 0: nothing was sent", 3)
            _run_pipeline(resolved, prepared)
    except RunStopped:
        raise
    except OptionsError:
        raise
    except Exception as error:
        _explain(prepared, error)
    stopped = prepared.stop.read()
    if stopped is not None and not prepared.work.commit.exists():
        reason, code = stopped
        raise RunStopped(f"{reason}. Finished rows are kept in {prepared.work.path}.", code)


def _explain(prepared: _Prepared, error: Exception) -> None:
    """Turn a failed pipeline into one line; the traceback goes to the work directory's log."""
    stopped = prepared.stop.read()
    with contextlib.suppress(OSError), prepared.work.log.open("a") as log:
        traceback.print_exc(file=log)
    if stopped is not None:
        raise RunStopped(
            f"{stopped[0]}. Finished rows are kept in {prepared.work.path}.", stopped[1]
        )
    lines = str(error).strip().splitlines()
    reason = lines[0] if isinstance(error, OSError) or len(lines) == 1 else (lines or [""])[-1]
    raise RunStopped(
        f"the run failed: {type(error).__name__}: {reason}. Finished rows are kept in "
        f"{prepared.work.path}; details are in {prepared.work.log}."
    ) from None


def _run_pipeline(spec: RunSpec, prepared: _Prepared) -> None:
    import logging

    # Beam warns of extras that no run of ours uses, and logs what `_explain` writes to run.log.
    logging.getLogger().setLevel(logging.CRITICAL if spec.runner == "direct" else logging.ERROR)
    import apache_beam as beam
    from apache_beam.options.pipeline_options import PipelineOptions

    from beam_batch.pipeline import Job, build

    options = PipelineOptions(flags=list(spec.beam_args), allow_abbrev=False)
    job = Job(
        spec=spec,
        splits=tuple(plan_from(prepared.manifest["plan"]).splits),
        commit=prepared.commit,
        stop=prepared.stop,
    )
    with beam.Pipeline(runner=_runner(spec.runner), options=options) as pipeline:
        build(pipeline, job)


def _runner(name: str) -> Any:
    if name == "direct":
        from apache_beam.runners.portability.fn_api_runner import FnApiRunner

        return FnApiRunner()
    return name


@contextlib.contextmanager
def _model_server(spec: RunSpec, work: WorkDir) -> Iterator[RunSpec]:
    """Start the local model where one is asked for; one server for all workers."""
    assert isinstance(spec.model, ModelSpec)
    if spec.model.provider != "local":
        yield spec
        return
    from beam_batch.providers.local import LocalServer

    with LocalServer(spec.model, work.log) as server:
        model = dataclasses.replace(spec.model, base_url=server.url)
        yield dataclasses.replace(spec, model=model)


@contextlib.contextmanager
def _signals(stop: StopFlag) -> Iterator[None]:
    """Drain on the first signal, leave on the second."""

    def handle(number: int, _: Any) -> None:
        code = 128 + number
        if stop.read() is not None:
            os._exit(code)
        name = "interrupted" if number == signal.SIGINT else "terminated"
        stop.set(name, code)
        print(
            f"batch: {name}: waiting for requests in flight; once more to leave now",
            file=sys.stderr,
            flush=True,
        )

    try:
        old = {n: signal.signal(n, handle) for n in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:  # not in the main thread: whoever runs us handles signals
        yield
        return
    try:
        yield
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)


def _finish(spec: RunSpec, prepared: _Prepared, started: float) -> Summary:
    """Make the summary of a committed run and write it."""
    assert isinstance(spec.model, ModelSpec)
    counts = jsonio.loads(prepared.work.commit.read_bytes())
    counts["torn_lines"] += prepared.manifest["torn"]
    plan = plan_from(prepared.manifest["plan"])
    data = checks.describe(spec) | {
        "started_at": _utc(started),
        "completed_at": _utc(time.time()),
        "input_rows": plan.input_rows,
        "selected_rows": plan.selected_rows,
        **counts,
        "duration_ms": round((time.time() - started) * 1000, 1),
    }
    if spec.output.summary_output:
        path = Path(spec.output.summary_output)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, jsonio.pretty(data).encode() + b"\n")
    none_ok = data["processed_rows"] > 0 and data["ok_rows"] == 0
    failed = none_ok or (spec.output.fail_on_error and data["failed_rows"] > 0)
    return Summary(exit_code=1 if failed else 0, data=data)


def _utc(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
