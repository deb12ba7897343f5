"""From settings to a finished run: check, plan, build, run, finish."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import sys
import time
import traceback
from collections.abc import Iterator

from beam_batch.agents.cards.models import at_local_server, resolve
from beam_batch.backend import detached, note_left_behind, run_batches
from beam_batch.batches.stored import at_work
from beam_batch.checks import check, describe
from beam_batch.engine import Engine, make_engine
from beam_batch.errors import InputLost, OptionsError, RunStopped
from beam_batch.finishing import count, exit_code, put_in_place
from beam_batch.options import ModelSpec, RunSpec
from beam_batch.outputs.commit import commit
from beam_batch.outputs.gauges import answered_before
from beam_batch.outputs.parts import with_new_lists
from beam_batch.outputs.remote import (
    Upload,
    check_dataset,
    stage,
    traces_upload,
)
from beam_batch.outputs.sharing import Hold, hold, wait_for_workers
from beam_batch.outputs.summary import Summary
from beam_batch.outputs.workdir import WorkDir, work_of
from beam_batch.progress import Progress
from beam_batch.providers import chosen_model, resolve_model
from beam_batch.runners.base import FAILED, why
from beam_batch.session import Session, open_session
from beam_batch.signals import draining, ending_on_sigterm


def run(spec: RunSpec) -> Summary:
    """Run a batch to its end and put its files in place.

    Raises:
        OptionsError: a setting cannot work; nothing was sent.
        RunStopped: the run ended early; finished rows are in the work directory.
    """
    started = time.time()
    spec = _resolved(spec)
    check(spec, os.environ)
    work = work_of(spec.output.work_dir, spec.output.output)
    engine = make_engine(spec)
    fresh = work.claim()
    held = _hold(work)
    try:
        with ending_on_sigterm():
            work.root.mkdir(parents=True, exist_ok=True)
            _wait_for_workers(work, held)
            check_dataset(spec.trace)
            out, uploads = stage(spec.output, work)
            local = dataclasses.replace(spec, output=out)
            left_behind = at_work(work)
            session = open_session(local, work, spec.output.output, engine.slots)
            held.stops(session.stop)
            uploads += traces_upload(spec.trace, session.commit.traces)
            note_left_behind(left_behind, work)
    except BaseException as error:  # nothing was sent
        if fresh:
            work.remove()
        held.release()
        raise _early(work, error) from None
    try:
        if not _execute(local, session, engine, spec, held):
            return Summary(exit_code=0, data=describe(spec) | detached(session))
        return _finish(spec, local, session, uploads, held, started)
    except OptionsError:  # nothing was sent
        if fresh:
            work.remove()
        raise
    except KeyboardInterrupt:  # no more signals are heard in order: all is answered
        raise RunStopped(
            f"interrupted while the results were put in place; they are kept in {work.path}", 130
        ) from None
    except OSError as error:
        raise _late(work, error) from None
    finally:
        held.release()


def _finish(
    asked: RunSpec,
    local: RunSpec,
    session: Session,
    uploads: list[Upload],
    held: Hold,
    started: float,
) -> Summary:
    """Put the files of a committed run in place, and leave nothing else behind."""
    work = session.work
    counts = count(session, started)
    attempted = counts.pop("attempted_rows")
    data = describe(asked) | counts
    held.keep()
    if held.is_lost:
        raise RunStopped(
            f"the outputs are in place, and --work-dir {work.path} is left as it is: it could "
            "not be reached for a while, so another run may be using it"
        )
    put_in_place(local, session, uploads, data)
    if not asked.output.keep_temp:
        work.remove()
    return Summary(exit_code=exit_code(asked, data, attempted), data=data)


def _early(work: WorkDir, error: BaseException) -> BaseException:
    """Return what to raise where nothing was sent."""
    if isinstance(error, OSError) and work.is_at_fault(error):
        return work.refused(error)
    if isinstance(error, InputLost):
        return OptionsError(
            f"--input {error}. Nothing was sent; look at the address and the network."
        )
    return error


def _late(work: WorkDir, error: OSError) -> Exception:
    """Return what to raise where a file, or the store, cannot be used after rows were answered."""
    if not work.is_at_fault(error):
        return error
    return RunStopped(
        f"--work-dir {work.path} cannot be used any more ({error.strerror}). What it took is there."
    )


def _hold(work: WorkDir) -> Hold:
    def say() -> None:
        print("batch: waiting to see whether another run is at work", file=sys.stderr, flush=True)

    try:
        return hold(work, say)
    except OSError as error:
        raise work.refused(error) from None


def _resolved(spec: RunSpec) -> RunSpec:
    """Read the model strings."""
    env = os.environ
    if spec.crew is not None:
        model, crew = resolve(
            spec.crew, spec.model, env.get("BEAM_BATCH_MODEL"), env, has_schema=bool(spec.schema)
        )
        spec = dataclasses.replace(spec, model=model, crew=crew)
    elif not isinstance(spec.model, ModelSpec):
        model = resolve_model(chosen_model(spec.model, env), env)
        spec = dataclasses.replace(spec, model=model)
    if isinstance(spec.repair.fallback, str):
        fallback = resolve_model(spec.repair.fallback, env, "--fallback-model")
        spec = dataclasses.replace(spec, repair=dataclasses.replace(spec.repair, fallback=fallback))
    return spec


def _wait_for_workers(work: WorkDir, held: Hold) -> None:
    def say() -> None:
        print("batch: waiting for workers of the earlier session", file=sys.stderr, flush=True)

    if not wait_for_workers(work, say, held.workers):
        raise OptionsError(
            f"--work-dir {work.path}: worker processes of an earlier session are still at work. "
            "Wait until they have ended, or end them."
        )


def _execute(spec: RunSpec, session: Session, engine: Engine, asked: RunSpec, held: Hold) -> bool:
    """Run to the commit; return False where the run is left to the provider meanwhile."""
    committed = True
    for note in session.plan.notes:
        print(f"batch: {note}", file=sys.stderr, flush=True)
    number, rows = session.commit.session, session.plan.selected_rows
    kept = session.kept + answered_before(session.work, number)
    try:
        with (
            draining(session.stop),
            _model_server(spec, session.work) as resolved,
            Progress(spec.progress, session.work, number, rows, kept),
        ):
            if spec.output.max_errors == 0:
                session.stop.set("stopped by --max-errors 0: nothing was sent", 3)
            if spec.batch.is_batch:
                committed = run_batches(resolved, session, engine, asked)
            else:
                engine.run(resolved, session, since=session.since)
            held.keep()
            if committed and not session.stop.is_set():
                with_new_lists(session.work.place, lambda: commit(session.commit))
    except (RunStopped, OptionsError):
        raise
    except Exception as error:
        _explain(session, error)
    stopped = session.stop.read()
    if stopped is not None and session.work.read_commit() is None:
        reason, code = stopped
        raise RunStopped(f"{reason}. Finished rows are kept in {session.work.path}.", code)
    return committed


def _explain(session: Session, error: Exception) -> None:
    """Turn a failed pipeline into one line; the traceback goes to the work directory's log."""
    stopped = session.stop.read()
    with contextlib.suppress(OSError), session.work.log.open("a") as log:
        traceback.print_exc(file=log)
    if stopped is not None and not stopped[0].startswith(FAILED):
        raise RunStopped(
            f"{stopped[0]}. Finished rows are kept in {session.work.path}.", stopped[1]
        )
    raise RunStopped(
        f"{FAILED}: {why(error)}. Finished rows are kept in {session.work.path}; details are "
        f"in {session.work.log}."
    ) from None


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
        spec = dataclasses.replace(spec, model=model)
        if spec.crew is not None:
            spec = dataclasses.replace(spec, crew=at_local_server(spec.crew, server.url))
        yield spec
