"""Direct: Beam's runner in this process, with worker processes of its own where several are asked
for."""

from __future__ import annotations

import contextlib
import os
import shlex
import sys
from collections.abc import Iterator
from typing import Any

from beam_batch.options.engine import RunnerSpec
from beam_batch.outputs.workdir import WorkDir
from beam_batch.runners.base import Opened, Setup


def direct(spec: RunnerSpec, parallel: int | None) -> Setup:
    """Describe it; a worker process more than requests in flight would have nothing to do.

    Several workers are processes here, whatever mode is asked for, and we start them ourselves.
    """
    from apache_beam.options.pipeline_options import DirectOptions, PipelineOptions

    asked: Any = PipelineOptions(flags=list(spec.beam_args), allow_abbrev=False)
    workers = int(asked.view_as(DirectOptions).direct_num_workers or os.cpu_count() or 1)
    if parallel is not None:
        workers = min(workers, parallel)
    ours = (f"--direct_num_workers={workers}", "--direct_running_mode=in_memory")

    @contextlib.contextmanager
    def opened(work: WorkDir) -> Iterator[Opened]:
        yield Opened(lambda: _runner(workers, work))

    return Setup(
        flags=(*spec.beam_args, *ours),
        open=opened,
        workers=workers,
        remote=False,
        shielded=workers > 1,
    )


def _runner(workers: int, work: WorkDir) -> Any:
    """Return Beam's in-process runner; several workers are processes that log to run.log."""
    from apache_beam.runners.portability.fn_api_runner import FnApiRunner
    from apache_beam.transforms.environments import SubprocessSDKEnvironment

    if workers == 1:
        return FnApiRunner()
    module = "apache_beam.runners.worker.sdk_worker_main"
    log = shlex.quote(str(work.log))
    command = f"exec {shlex.quote(sys.executable)} -m {module} >>{log} 2>&1"
    return FnApiRunner(SubprocessSDKEnvironment.from_command_string(command))
