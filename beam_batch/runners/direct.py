"""Direct: Beam's runner in this process, with worker processes of its own where several are asked
for."""

from __future__ import annotations

import contextlib
import os
import shlex
import sys
import threading
from collections.abc import Iterator
from typing import Any

from beam_batch.options.engine import RunnerSpec
from beam_batch.outputs.stopping import latest_flag
from beam_batch.outputs.workdir import WorkDir
from beam_batch.runners.base import FAILED, Opened, Setup

DIED = "a worker process has died"
WORKER = "beam_batch.runners.worker_process"
"""The module that a worker process runs."""


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
        children=workers > 1,
        remote=False,
        shielded=workers > 1,
    )


def _runner(workers: int, work: WorkDir) -> Any:
    """Return Beam's in-process runner; several workers are processes that log to run.log."""
    from apache_beam.runners.portability.fn_api_runner import FnApiRunner
    from apache_beam.transforms.environments import SubprocessSDKEnvironment

    if workers == 1:
        return FnApiRunner()
    _notice_deaths(work)
    log = shlex.quote(str(work.log))
    command = f"exec {shlex.quote(sys.executable)} -m {WORKER} >>{log} 2>&1"
    return FnApiRunner(SubprocessSDKEnvironment.from_command_string(command))


def _notice_deaths(work: WorkDir) -> None:
    """Have a run fail where a worker process dies; Beam's runner would wait for it for ever.

    Seen with apache_beam 2.77 (runners/portability/fn_api_runner/worker_handlers.py): what is asked
    of a worker is answered by the worker alone.
    """
    from apache_beam.portability import python_urns
    from apache_beam.portability.api import beam_fn_api_pb2
    from apache_beam.runners.portability import local_job_service
    from apache_beam.runners.portability.fn_api_runner import worker_handlers

    class Handler(worker_handlers.SubprocessSdkWorkerHandler):  # type: ignore[misc]
        def start_worker(self) -> None:
            self.worker = local_job_service.SubprocessSdkWorker(
                self._worker_command_line, self.control_address, self.provision_info, self.worker_id
            )
            self.worker_thread = threading.Thread(target=self._run, daemon=True)
            self.worker_thread.start()

        def _run(self) -> None:
            try:
                self.worker.run()
            except RuntimeError:  # it did not end by itself
                stop = latest_flag(work)
                if stop is not None:  # the others drain
                    stop.set(f"{FAILED}: {DIED}", 1)
                for future in list(self.control_conn._futures_by_id.values()):
                    name = future.instruction_id
                    future.set(beam_fn_api_pb2.InstructionResponse(instruction_id=name, error=DIED))

    register = worker_handlers.WorkerHandler.register_environment
    register(python_urns.SUBPROCESS_SDK, bytes)(Handler)
