"""From settings to a finished run: check, plan, build, run, finish."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import logging
import os
import signal
import sys
import time
import traceback
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from beam_batch import checks, jsonio
from beam_batch.errors import OptionsError, RunStopped, first_line
from beam_batch.options import ModelSpec, RunSpec
from beam_batch.outputs.summary import Summary
from beam_batch.outputs.workdir import Lock, StopFlag, WorkDir, default_work_dir, write_atomically
from beam_batch.progress import Progress
from beam_batch.providers import resolve_model
from beam_batch.session import Session, open_session, record_settings


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
    options = _beam_options(spec)
    fresh = work.claim()
    lock = Lock(work)
    try:
        with _ending_on_sigterm():
            session = open_session(spec, work)
    except BaseException:  # nothing was sent
        if fresh:
            work.remove()
        lock.release()
        raise
    try:
        _execute(spec, session, options)
        record_settings(session)
        session.work.finished.touch()
        summary = _finish(spec, session, started)
        if not spec.output.keep_temp:
            work.remove()
        return summary
    except OptionsError:  # nothing was sent
        if fresh:
            work.remove()
        raise
    finally:
        lock.release()


def _execute(spec: RunSpec, session: Session, options: Any) -> None:
    for note in session.plan.notes:
        print(f"batch: {note}", file=sys.stderr, flush=True)
    rows = session.plan.selected_rows
    try:
        with (
            _signals(session.stop),
            _model_server(spec, session.work) as resolved,
            Progress(spec.progress, session.work, session.commit.session, rows),
        ):
            if spec.output.max_errors == 0:
                session.stop.set("stopped by --max-errors 0: nothing was sent", 3)
            _run_pipeline(resolved, session, options)
    except (RunStopped, OptionsError):
        raise
    except Exception as error:
        _explain(session, error)
    stopped = session.stop.read()
    if stopped is not None and not session.work.commit.exists():
        reason, code = stopped
        raise RunStopped(f"{reason}. Finished rows are kept in {session.work.path}.", code)


def _explain(session: Session, error: Exception) -> None:
    """Turn a failed pipeline into one line; the traceback goes to the work directory's log."""
    stopped = session.stop.read()
    with contextlib.suppress(OSError), session.work.log.open("a") as log:
        traceback.print_exc(file=log)
    if stopped is not None:
        raise RunStopped(
            f"{stopped[0]}. Finished rows are kept in {session.work.path}.", stopped[1]
        )
    lines = str(error).strip().splitlines() or ["no message"]
    reason = lines[0] if isinstance(error, OSError) else lines[-1]
    raise RunStopped(
        f"the run failed: {type(error).__name__}: {reason}. Finished rows are kept in "
        f"{session.work.path}; details are in {session.work.log}."
    ) from None


def _beam_options(spec: RunSpec) -> Any:
    """Read Beam's own flags.

    Raises:
        OptionsError: an unknown runner, or words that are no flags of Beam.
    """
    with _quiet(logging.CRITICAL):
        from apache_beam.options.pipeline_options import PipelineOptions
        from apache_beam.runners.runner import create_runner

    stray = [arg for arg in spec.beam_args[:1] if not arg.startswith("--")]
    if stray:
        raise OptionsError(f"unexpected argument {stray[0]!r}; flags of Beam go after --.")
    try:
        if spec.runner != "direct":
            create_runner(spec.runner)
    except (ValueError, ImportError) as error:
        raise OptionsError(f"--runner {spec.runner}: {first_line(error)}") from None
    options = PipelineOptions(flags=list(spec.beam_args), allow_abbrev=False)
    if spec.runner == "direct":
        _refuse_unknown(spec.beam_args, PipelineOptions)
    return options


def _refuse_unknown(beam_args: tuple[str, ...], base: Any) -> None:
    """Refuse flags that Beam would pass over with a warning; other runners may know more."""
    parser = argparse.ArgumentParser(allow_abbrev=False, add_help=False, conflict_handler="resolve")
    for options in base.__subclasses__():
        if hasattr(options, "_add_argparse_args"):
            options._add_argparse_args(parser)
    _, unknown = parser.parse_known_args(list(beam_args))
    if unknown:
        raise OptionsError(f"{unknown[0]!r} is no flag of Beam's direct runner.")


def _run_pipeline(spec: RunSpec, session: Session, options: Any) -> None:
    import apache_beam as beam

    from beam_batch.pipeline import Job, build

    job = Job(
        spec=spec,
        splits=tuple(session.plan.splits),
        commit=session.commit,
        stop=session.stop,
    )
    level = logging.CRITICAL if spec.runner == "direct" else logging.ERROR
    runner = _runner(spec.runner)
    with _quiet(level), beam.Pipeline(runner=runner, options=options) as pipeline:
        build(pipeline, job)


@contextlib.contextmanager
def _quiet(level: int) -> Iterator[None]:
    """Keep back what Beam logs: extras that we don't use, failures that go to run.log."""
    log, before = logging.getLogger(), logging.getLogger().level
    log.setLevel(level)
    try:
        yield
    finally:
        log.setLevel(before)


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
def _ending_on_sigterm() -> Iterator[None]:
    """Let SIGTERM unwind like an exit while nothing was sent, so that nothing is left behind."""

    def handle(number: int, _: Any) -> None:
        sys.exit(128 + number)

    try:
        old = signal.signal(signal.SIGTERM, handle)
    except ValueError:  # not in the main thread: whoever runs us handles signals
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, old)


@contextlib.contextmanager
def _signals(stop: StopFlag) -> Iterator[None]:
    """Drain on the first signal, leave on the second."""
    seen: list[int] = []

    def handle(number: int, _: Any) -> None:
        code = 128 + number
        if seen:
            os._exit(code)
        seen.append(number)
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


def _finish(spec: RunSpec, session: Session, started: float) -> Summary:
    """Make the summary of a committed run and write it."""
    assert isinstance(spec.model, ModelSpec)
    counts = jsonio.loads(session.work.commit.read_bytes())
    counts["torn_lines"] += session.torn
    plan = session.plan
    data = checks.describe(spec) | {
        "started_at": _utc(started),
        "completed_at": _utc(time.time()),
        "input_rows": plan.input_rows,
        "selected_rows": plan.selected_rows,
        "plan_ms": plan.plan_ms,
        "id_check_ms": plan.ids_ms,
        **counts,
        "duration_ms": round((time.time() - started) * 1000, 1),
    }
    if spec.output.summary_output:
        _write_summary(Path(spec.output.summary_output), data)
    none_ok = data["processed_rows"] > 0 and data["ok_rows"] == 0
    failed = none_ok or (spec.output.fail_on_error and data["failed_rows"] > 0)
    return Summary(exit_code=1 if failed else 0, data=data)


def _write_summary(path: Path, data: dict[str, Any]) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, jsonio.pretty(data).encode() + b"\n")
    except OSError as error:
        raise RunStopped(
            f"the results are in place, but --summary-output {path} cannot be written "
            f"({error.strerror})"
        ) from None


def _utc(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
