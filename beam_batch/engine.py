"""The engine that runs the graph: Beam's options, its runner, one run of a graph."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import importlib
import logging
import os
from collections.abc import Iterator
from typing import Any, NamedTuple, NoReturn

from beam_batch.errors import OptionsError
from beam_batch.options import ModelSpec, RunSpec
from beam_batch.options.engine import DASK, DIRECT, RunnerSpec
from beam_batch.runners.base import Setup
from beam_batch.runners.choosing import choose
from beam_batch.session import Session
from beam_batch.signals import shielded

ONLINE, REQUESTS = "build", "build_requests"
"""Graphs, by the names of their functions in `pipeline`."""


class Engine(NamedTuple):
    """A runner with its settings."""

    name: str
    setup: Setup

    @property
    def workers(self) -> int:
        """Processes that share the splits; two, where nobody knows how many there will be."""
        return self.setup.workers or 2

    def run(
        self, spec: RunSpec, session: Session, graph: str = ONLINE, since: int | None = None
    ) -> None:
        """Run a graph to its end; failures of session `since` and later are not tried again."""
        if self.setup.shielded:
            shielded(lambda: self._run(spec, session, graph, since))
        else:
            self._run(spec, session, graph, since)

    def _run(self, spec: RunSpec, session: Session, graph: str, since: int | None) -> None:
        import apache_beam as beam
        from apache_beam.options.pipeline_options import PipelineOptions

        from beam_batch import pipeline as graphs

        job = graphs.Job(
            spec=spec,
            splits=tuple(session.plan.splits),
            commit=session.commit,
            stop=session.stop,
            workers=self.setup.workers or 1,
            alone=self.name == DIRECT and self.workers == 1,
            since=since,
            fused=self.setup.fused,
        )
        with quiet(logging.CRITICAL), self.setup.open(session.work) as opened:
            jobs = []
            for part, flags in self._parts(job):
                options = PipelineOptions(
                    flags=[*self.setup.flags, *opened.flags, *flags], allow_abbrev=False
                )
                pipeline = beam.Pipeline(runner=opened.make(), options=options)
                getattr(graphs, graph)(pipeline, part)
                jobs.append(pipeline.run())
            self.setup.wait(jobs, session.stop)

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
    return Engine(spec.runner.kind, setup)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise OptionsError(f"flags of Beam, after --: {message}.")


def _unknown(runner: RunnerSpec) -> list[str]:
    """Return the arguments that Beam would pass over with a warning."""
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
