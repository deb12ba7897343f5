"""The engine that runs the graph: Beam's options, its runner, one run of a graph."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import importlib
import logging
import os
import threading
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from beam_batch.errors import OptionsError, RunStopped, first_line
from beam_batch.options import ModelSpec, RunSpec
from beam_batch.options.engine import DASK, DIRECT, RunnerSpec
from beam_batch.outputs.workdir import default_work_dir
from beam_batch.places import scheme_of
from beam_batch.process import without_pandas
from beam_batch.runners.base import FAILED, Opened, Setup, why
from beam_batch.runners.choosing import choose, inherits_environment
from beam_batch.session import Session
from beam_batch.signals import shielded
from beam_batch.workers import LACKS, PROBE, worker_spec

ONLINE, REQUESTS, CHECK = "build", "build_requests", "build_check"
"""Graphs, by the names of their functions in `pipeline`."""


class Engine(NamedTuple):
    """A runner with its settings."""

    name: str
    setup: Setup
    checks_workers: bool = False

    @property
    def slots(self) -> int:
        """Splits that are worked on at once; two, where nobody knows how many there will be."""
        return self.setup.slots or self.setup.workers or 2

    def run(
        self, spec: RunSpec, session: Session, graph: str = ONLINE, since: int | None = None
    ) -> None:
        """Run a graph to its end; failures of session `since` and later are not tried again."""
        if self.setup.shielded:
            shielded(lambda: self._run(spec, session, graph, since))
        else:
            self._run(spec, session, graph, since)

    def _run(self, spec: RunSpec, session: Session, graph: str, since: int | None) -> None:
        from beam_batch import pipeline as graphs

        job = graphs.Job(
            spec=spec,
            splits=tuple(session.plan.splits),
            commit=session.commit,
            stop=session.stop,
            is_child=self.setup.children,
            alone=self.name == DIRECT and self.slots == 1,
            since=since,
            fused=self.setup.fused,
        )
        with (
            quiet(logging.CRITICAL),
            threads_in(session.work.log),
            self.setup.open(session.work) as opened,
        ):
            if self.checks_workers:
                job = dataclasses.replace(job, worker=worker_spec(spec, session.work, job.splits))
                self._check_workers(job, opened)
            try:
                self._wait(job, opened, graph)
            except OptionsError as error:
                if not self.checks_workers:
                    raise
                # Of a worker that came late: others have sent rows.
                raise RunStopped(
                    f"{FAILED}: {first_line(error)} Finished rows are kept in {session.work.path}."
                ) from None

    def _wait(self, job: Any, opened: Opened, graph: str) -> None:
        import apache_beam as beam
        from apache_beam.options.pipeline_options import PipelineOptions

        from beam_batch import pipeline as graphs

        jobs = []
        try:
            for part, flags in self._parts(job):
                options = PipelineOptions(
                    flags=[*self.setup.flags, *opened.flags, *flags], allow_abbrev=False
                )
                pipeline = beam.Pipeline(runner=opened.make(), options=options)
                getattr(graphs, graph)(pipeline, part)
                jobs.append(pipeline.run())
            self.setup.wait(jobs, job.stop)
        except Exception as error:
            if self.checks_workers:  # they may go on without us, and are to drain
                job.stop.set(f"{FAILED}: {why(error)}", 1)
            raise

    def _check_workers(self, job: Any, opened: Opened) -> None:
        """Have workers say what they lack, before there is anything to pay.

        Raises:
            OptionsError: one lacks something, or what it wrote is not seen here.
        """
        place, file = job.commit.work.place, job.worker.file
        place.remove([item.name for item in place.list(PROBE)])
        place.put(file, b"")  # it stays: workers that come later look for it as well
        try:
            self._wait(job, opened, CHECK)
        except Exception as error:
            said = why(error).partition("OptionsError: ")[2]
            if said:
                raise OptionsError(f"{said} Nothing was sent.") from None
            raise
        stopped = job.stop.read()
        if stopped is not None and stopped[1] == LACKS:
            raise OptionsError(f"{stopped[0]}. Nothing was sent.")
        if stopped is None and len(place.list(file)) == 1:
            raise OptionsError(
                f"--work-dir {job.commit.work.path}: workers have run, and what they wrote there "
                "is not seen here. Name a place that all share, such as s3://bucket/folder."
            )

    def _parts(self, job: Any) -> Iterator[tuple[Any, tuple[str, ...]]]:
        """Divide the splits among worker pools; yields each job with its flags."""
        pools = self.setup.pools
        if len(pools) < 2:
            yield job, ()
            return
        for index, pool in enumerate(pools):
            part = dataclasses.replace(job, splits=job.splits[index :: len(pools)], alone=False)
            yield part, (f"--environment_config={pool}",)


def make_engine(spec: RunSpec) -> Engine:
    """Look for the runner and what it needs, and read Beam's own flags.

    Raises:
        OptionsError: an unknown runner, words that are no flags of Beam, or nothing answers where
            something is to answer.
    """
    with quiet(logging.CRITICAL):
        unknown = _unknown(spec.runner)
        setup = choose(spec.runner, spec.call.parallel, os.environ)
    if setup.knows is not None:
        unknown = [arg for arg in unknown if arg.partition("=")[0] not in setup.knows]
        if any(arg.startswith("-") or not setup.knows for arg in unknown):
            raise OptionsError(f"{unknown[0]!r} is no flag of Beam's {spec.runner.kind} runner.")
    if setup.remote and isinstance(spec.model, ModelSpec) and spec.model.provider == "local":
        raise OptionsError(
            f"--model {spec.model.text}: the model's server is on this machine, where workers of "
            f"--runner {spec.runner.name} may not reach it; name one that they do reach, such as "
            "generic."
        )
    if setup.remote:
        _check_place(spec)
    return Engine(spec.runner.kind, setup, not inherits_environment(spec.runner, os.environ))


def _check_place(spec: RunSpec) -> None:
    path = spec.output.work_dir or default_work_dir(spec.output.output)
    if not scheme_of(path) and not spec.runner.work_dir_is_shared:
        raise OptionsError(
            f"--work-dir {path}: workers of --runner {spec.runner.name} may be on other machines. "
            "Name a place that all see, such as s3://bucket/folder, or add --work-dir-is-shared if "
            "this is a folder of a shared file system."
        )


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise OptionsError(f"flags of Beam, after --: {message}.")


def _unknown(runner: RunnerSpec) -> list[str]:
    """Return the arguments that Beam would pass over with a warning."""
    with without_pandas():
        from apache_beam.options.pipeline_options import PipelineOptions

    if runner.kind == DASK:
        with contextlib.suppress(ImportError):  # its flags are known once it is imported
            importlib.import_module("apache_beam.runners.dask.dask_runner")
    parser = _Parser(allow_abbrev=False, add_help=False, conflict_handler="resolve")
    for options in PipelineOptions.__subclasses__():
        if hasattr(options, "_add_argparse_args"):
            options._add_argparse_args(parser)
    _, unknown = parser.parse_known_args(list(runner.beam_args))
    return unknown


@contextlib.contextmanager
def quiet(level: int) -> Iterator[None]:
    """Keep back what Beam logs: extras that we don't use, failures that go to run.log."""
    before = logging.root.manager.disable
    logging.disable(level - 1)
    try:
        yield
    finally:
        logging.disable(before)


@contextlib.contextmanager
def threads_in(log: Path) -> Iterator[None]:
    """Have failures of Beam's own threads in a log: what they mean is said by the run's end."""

    def note(failed: threading.ExceptHookArgs) -> None:
        with contextlib.suppress(OSError), log.open("a") as file:
            file.writelines(traceback.format_exception(failed.exc_value))

    before = threading.excepthook
    threading.excepthook = note
    try:
        yield
    finally:
        threading.excepthook = before
