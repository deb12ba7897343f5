"""Dask: tasks on the workers of a Dask scheduler, or on processes of this machine.

Beam's DaskRunner (apache_beam 2.77, runners/dask/transform_evaluator.py) gives every consumer all
outputs of a step whatever their tags, drops what a bundle's end puts out, holds a partition's
results of each step in memory, and reuses them when a task is tried again. None of that matters to
a graph of one step whose outputs are files; a partition is one split, so that workers share them.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import json
import logging
import os
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from beam_batch.errors import OptionsError, first_line
from beam_batch.options.engine import RunnerSpec
from beam_batch.outputs.stopping import StopFlag
from beam_batch.outputs.workdir import WorkDir
from beam_batch.runners.base import FAILED, PATIENCE, Opened, Setup, is_here, why

ADDRESS, FILE = "--dask_client_address", "--dask_scheduler_file"
LONGEST_ALONE = 60.0
"""Seconds without any worker after which a run fails."""
_LOOK = 0.5


def dask(spec: RunnerSpec, parallel: int | None, env: Mapping[str, str]) -> Setup:
    """Describe it.

    Raises:
        OptionsError: Dask is not installed, or no scheduler answers within some seconds.
    """
    if importlib.util.find_spec("distributed") is None:
        raise OptionsError("--runner dask needs: pip install 'beam-batch[dask]'.")
    from apache_beam.runners.dask.dask_runner import DaskRunner as make

    asked = _options(spec)
    address = asked.address or env.get("DASK_SCHEDULER_ADDRESS")
    sizes = () if asked.npartitions or asked.partition_size else ("--dask_partition_size=1",)
    if address is None and asked.scheduler_file is None:
        processes = min(os.cpu_count() or 1, parallel or sys.maxsize)

        @contextlib.contextmanager
        def opened(_: WorkDir) -> Iterator[Opened]:
            with _local_cluster(processes) as found:
                yield Opened(make, (f"{ADDRESS}={found}",))

        return _setup(spec, sizes, opened, workers=processes, children=True, remote=False)
    hosts = _workers_of(address, asked.scheduler_file, asked.timeout or PATIENCE)
    if not hosts:
        _say("the scheduler has no worker yet; the run waits for one")

    @contextlib.contextmanager
    def connected(_: WorkDir) -> Iterator[Opened]:
        yield Opened(make, (f"{ADDRESS}={address}",) if address else ())

    remote = not hosts or not all(map(is_here, hosts))
    return _setup(spec, sizes, connected, workers=None, remote=remote)


def _setup(spec: RunnerSpec, sizes: tuple[str, ...], opened: Any, **more: Any) -> Setup:
    return Setup(
        flags=(*spec.beam_args, *sizes),
        open=opened,
        wait=wait_until_done,
        fused=True,
        shielded=True,
        **more,
    )


def _options(spec: RunnerSpec) -> Any:
    from apache_beam.options.pipeline_options import PipelineOptions
    from apache_beam.runners.dask.dask_runner import DaskOptions

    options: Any = PipelineOptions(flags=list(spec.beam_args), allow_abbrev=False)
    return options.view_as(DaskOptions)


@contextlib.contextmanager
def _local_cluster(processes: int) -> Iterator[str]:
    import distributed

    _say(f"no {ADDRESS} is given, so {processes} worker processes of this machine do the work")
    with distributed.LocalCluster(
        n_workers=processes, threads_per_worker=1, dashboard_address="127.0.0.1:0", silence_logs=50
    ) as cluster:
        with distributed.Client(cluster, set_as_default=False) as client:
            client.run(logging.disable, logging.ERROR)  # Beam's imports say what they lack
        yield cluster.scheduler_address


def _workers_of(address: str | None, file: str | None, patience: float) -> list[str]:
    """Return the addresses of a scheduler's workers."""
    try:
        if address is None:
            address = str(json.loads(Path(str(file)).read_text())["address"])
        return asyncio.run(_ask(address, patience))
    except (OSError, ValueError, TypeError, KeyError, EOFError) as error:
        raise OptionsError(
            f"{FILE if file else ADDRESS}: no Dask scheduler answers at {address or file} "
            f"({first_line(error)})."
        ) from None


async def _ask(address: str, patience: float) -> list[str]:
    """Ask a scheduler for its workers; Dask's own client waits for ever for some answers."""
    from distributed.core import rpc

    scheduler = rpc(address, timeout=patience)
    try:
        found = await asyncio.wait_for(scheduler.identity(n_workers=-1), patience)
        return list(found["workers"])
    finally:
        await scheduler.close_rpc()


def wait_until_done(results: list[Any], stop: StopFlag) -> None:
    """Wait for the end of all tasks, and close what workers keep open for the next one.

    Where one fails, those that others are at work on drain.

    Raises:
        ConnectionError: the scheduler has gone, or the last worker, and none has come for a while.
    """
    (result,) = results
    try:
        _follow(result, stop)
        with contextlib.suppress(Exception):  # workers close it themselves, a little later
            result.client.run(close_idle_windows, on_error="ignore")
    except BaseException as error:
        stop.set(f"{FAILED}: {why(error)}", 1)
        raise
    finally:
        with contextlib.suppress(Exception):
            result.client.close(timeout=PATIENCE)


def _follow(result: Any, stop: StopFlag) -> None:
    import distributed

    try:
        if _last(result, stop):
            for future in result.futures:
                future.result()
    except distributed.client.FuturesCancelledError:
        raise ConnectionError("the Dask scheduler has gone, or has dropped the work") from None


def _last(result: Any, stop: StopFlag) -> bool:
    """Wait for all tasks; False where a stopped run has nobody left who would notice."""
    import distributed

    seen = time.monotonic()
    while True:
        with contextlib.suppress(TimeoutError):
            distributed.wait(result.futures, timeout=_LOOK)
            return True
        workers = result.client.scheduler_info()["workers"]
        if workers:
            seen = time.monotonic()
        elif stop.is_set():
            result.cancel()
            return False
        elif time.monotonic() > seen + LONGEST_ALONE:
            raise ConnectionError("the Dask scheduler has had no worker for a minute")


def close_idle_windows() -> None:
    """Close the windows of a worker process; runs there."""
    from beam_batch.calling.holding import close_idle_windows as close

    close()


def _say(text: str) -> None:
    print(f"batch: dask: {text}", file=sys.stderr, flush=True)
