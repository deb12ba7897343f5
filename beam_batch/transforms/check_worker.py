"""CheckWorker: whether a worker sees what the driver counts on, before it reads a row."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import apache_beam as beam

from beam_batch.outputs.stopping import StopFlag
from beam_batch.workers import WorkerSpec, check_place, problem_of

_seen: dict[str, str | None] = {}
"""What this process has found, by the name of the driver's file."""


class CheckWorker(beam.PTransform):
    """Pass elements on in worker processes that have what they need.

    Input and output: anything. In any other process nothing comes out, and the stop flag of the run
    says what is missing, and where. A process is looked at once.

    Raises:
        OptionsError: in the worker, where it does not see the work directory.
    """

    def __init__(self, spec: WorkerSpec, stop: StopFlag, exit_code: int) -> None:
        super().__init__()
        self._fn = _CheckWorkerFn(spec, stop, exit_code)

    def expand(self, elements: beam.PCollection) -> beam.PCollection:
        """Apply to a collection."""
        return elements | beam.ParDo(self._fn)


class _CheckWorkerFn(beam.DoFn):
    def __init__(self, spec: WorkerSpec, stop: StopFlag, exit_code: int) -> None:
        self._exit_code = exit_code
        self._spec = spec
        self._stop = stop
        self._problem: str | None = None

    def setup(self) -> None:
        spec = self._spec
        if spec.file not in _seen:
            check_place(spec)
            _seen[spec.file] = problem_of(spec, os.environ)
        self._problem = _seen[spec.file]
        if self._problem is not None:
            self._stop.set(self._problem, self._exit_code)

    def process(self, element: Any) -> Iterator[Any]:
        if self._problem is None:
            yield element
