"""The engine that runs the graph: Beam's flags, the runner, its worker processes."""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import shlex
import sys
from collections.abc import Iterator
from typing import Any, NamedTuple

from beam_batch.errors import OptionsError, first_line
from beam_batch.options import RunSpec
from beam_batch.outputs.workdir import WorkDir
from beam_batch.session import Session
from beam_batch.signals import shielded

DIRECT = "direct"
ONLINE, REQUESTS = "build", "build_requests"
"""Graphs, by the names of their functions in `pipeline`."""


class Engine(NamedTuple):
    """A runner with its settings.

    Attributes:
        options: Beam's PipelineOptions.
        workers: processes on this machine among which limits are divided.
    """

    runner: str
    options: Any
    workers: int

    def run(
        self, spec: RunSpec, session: Session, graph: str = ONLINE, since: int | None = None
    ) -> None:
        """Run a graph to its end; failures of session `since` and later are not tried again."""
        if self.workers > 1:
            shielded(lambda: self._run(spec, session, graph, since))
        else:
            self._run(spec, session, graph, since)

    def _run(self, spec: RunSpec, session: Session, graph: str, since: int | None) -> None:
        import apache_beam as beam

        from beam_batch import pipeline as graphs

        job = graphs.Job(
            spec=spec,
            splits=tuple(session.plan.splits),
            commit=session.commit,
            stop=session.stop,
            workers=self.workers,
            alone=self.runner == DIRECT and self.workers == 1,
            since=since,
        )
        level = logging.CRITICAL if self.runner == DIRECT else logging.ERROR
        runner = _direct(self.workers, session.work) if self.runner == DIRECT else self.runner
        with quiet(level), beam.Pipeline(runner=runner, options=self.options) as pipeline:
            getattr(graphs, graph)(pipeline, job)


def make_engine(spec: RunSpec) -> Engine:
    """Read the runner and Beam's own flags.

    Raises:
        OptionsError: an unknown runner, or words that are no flags of Beam.
    """
    with quiet(logging.CRITICAL):
        from apache_beam.options.pipeline_options import DirectOptions, PipelineOptions
        from apache_beam.runners.runner import create_runner

    stray = [arg for arg in spec.beam_args[:1] if not arg.startswith("--")]
    if stray:
        raise OptionsError(f"unexpected argument {stray[0]!r}; flags of Beam go after --.")
    try:
        if spec.runner != DIRECT:
            create_runner(spec.runner)
    except (ValueError, ImportError) as error:
        raise OptionsError(f"--runner {spec.runner}: {first_line(error)}") from None
    options = PipelineOptions(flags=list(spec.beam_args), allow_abbrev=False)
    if spec.runner != DIRECT:
        return Engine(spec.runner, options, 1)
    _refuse_unknown(spec.beam_args, PipelineOptions)
    return Engine(spec.runner, options, _workers(options.view_as(DirectOptions), spec))


def _workers(direct: Any, spec: RunSpec) -> int:
    """Return how many processes the direct runner starts; one each for a request at least.

    Several workers are processes here, whatever mode is asked for, and we start them ourselves.
    """
    workers = direct.direct_num_workers or os.cpu_count() or 1
    if spec.call.parallel is not None:
        workers = min(workers, spec.call.parallel)
    direct.direct_num_workers = workers
    direct.direct_running_mode = "in_memory"
    return int(workers)


def _refuse_unknown(beam_args: tuple[str, ...], base: Any) -> None:
    """Refuse flags that Beam would pass over with a warning; other runners may know more."""
    parser = argparse.ArgumentParser(allow_abbrev=False, add_help=False, conflict_handler="resolve")
    for options in base.__subclasses__():
        if hasattr(options, "_add_argparse_args"):
            options._add_argparse_args(parser)
    _, unknown = parser.parse_known_args(list(beam_args))
    if unknown:
        raise OptionsError(f"{unknown[0]!r} is no flag of Beam's direct runner.")


@contextlib.contextmanager
def quiet(level: int) -> Iterator[None]:
    """Keep back what Beam logs: extras that we don't use, failures that go to run.log."""
    log, before = logging.getLogger(), logging.getLogger().level
    log.setLevel(level)
    try:
        yield
    finally:
        log.setLevel(before)


def _direct(workers: int, work: WorkDir) -> Any:
    """Return Beam's in-process runner; several workers are processes that log to run.log."""
    from apache_beam.runners.portability.fn_api_runner import FnApiRunner
    from apache_beam.transforms.environments import SubprocessSDKEnvironment

    if workers == 1:
        return FnApiRunner()
    module = "apache_beam.runners.worker.sdk_worker_main"
    log = shlex.quote(str(work.log))
    command = f"exec {shlex.quote(sys.executable)} -m {module} >>{log} 2>&1"
    return FnApiRunner(SubprocessSDKEnvironment.from_command_string(command))
