"""The engines that tests run on, each with what it needs: worker pools, a scheduler with workers.

What is started here ends with the block that started it, each process by its own number.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from beam_batch.runners.direct import WORKER
from tests.support import environment, wait_until

PRISM = os.environ.get("BEAM_BATCH_PRISM", "")
NO_PRISM = "BEAM_BATCH_PRISM names no Prism binary; `make portable` builds one"


@dataclass(frozen=True)
class Started:
    """An engine that is up.

    Attributes:
        arguments: what asks for it on the command line.
        workers: given the driver's number, those of the processes that answer rows; none where the
            driver itself does.
        splits: how many worker processes share the rows.
        heals: work of a worker that dies is done by another; else the run fails.
    """

    name: str
    arguments: tuple[str, ...]
    workers: Callable[[int], list[int]] | None = None
    splits: int = 1
    heals: bool = False


Start = Callable[[Path], AbstractContextManager[Started]]


@contextlib.contextmanager
def direct(_: Path) -> Iterator[Started]:
    """Beam's runner in the driver."""
    yield Started("direct", ())


@contextlib.contextmanager
def two_processes(_: Path) -> Iterator[Started]:
    """Beam's runner with two worker processes."""
    yield Started(
        "two-processes",
        ("--", "--direct_num_workers=2"),
        workers=lambda driver: [pid for pid in children(driver) if _runs(pid, WORKER.encode())],
        splits=2,
    )


@contextlib.contextmanager
def prism_loopback(_: Path) -> Iterator[Started]:
    """Prism, with its worker in the driver."""
    yield Started("prism-loopback", ("--runner", "prism"))


@contextlib.contextmanager
def prism_pools(_: Path, count: int = 2) -> Iterator[Started]:
    """Prism, with workers of several pools, each a process of its own."""
    with contextlib.ExitStack() as stack:
        pools = [stack.enter_context(worker_pool()) for _ in range(count)]
        addresses = ",".join(f"localhost:{port}" for _, port in pools)
        yield Started(
            "prism-pools",
            ("--runner", "prism", "--environment", "external", "--environment-config", addresses),
            workers=lambda _: [pid for pool, _ in pools for pid in children(pool.pid)],
            splits=count,
        )


@contextlib.contextmanager
def dask_workers(folder: Path, count: int = 2) -> Iterator[Started]:
    """A Dask scheduler with some workers; each is watched by a process that starts it again."""
    file = folder / "scheduler.json"
    with contextlib.ExitStack() as stack:
        common = (f"--scheduler-file={file}", "--no-dashboard", "--host=127.0.0.1")
        stack.enter_context(_process("distributed.cli.dask_scheduler", *common, "--port=0"))
        nannies = [
            stack.enter_context(
                _process(
                    "distributed.cli.dask_worker",
                    *common,
                    "--nthreads=2",
                    "--nworkers=1",
                    f"--local-directory={folder}",
                )
            )
            for _ in range(count)
        ]
        wait_until(lambda: file.exists() and bool(file.read_text()), nannies[0])
        address = json.loads(file.read_text())["address"]
        wait_until(lambda: all(children(nanny.pid) for nanny in nannies), nannies[0])

        def workers(_: int = 0) -> list[int]:
            found = [pid for nanny in nannies for pid in children(nanny.pid)]
            return [pid for pid in found if _runs(pid, b"spawn_main")]  # and no helper of Python's

        wait_until(lambda: len(workers()) == count, nannies[0])
        yield Started(
            "dask",
            ("--runner", "dask", "--", f"--dask_client_address={address}"),
            workers=workers,
            splits=count,
            heals=True,
        )


HERE: dict[str, Start] = {"direct": direct, "two-processes": two_processes}
DASK: dict[str, Start] = {"dask": dask_workers}
PORTABLE: dict[str, Start] = {"prism-loopback": prism_loopback, "prism-pools": prism_pools}


def started(starts: dict[str, Start]) -> Any:
    """Make the fixture `engine`: each of some engines in turn, kept for a module's tests."""

    @pytest.fixture(scope="module", params=list(starts), name="engine")
    def engine(
        request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
    ) -> Iterator[Started]:
        with starts[request.param](tmp_path_factory.mktemp("engine")) as found:
            yield found

    return engine


@contextlib.contextmanager
def worker_pool(**variables: str) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """A worker pool in a process of its own, with its port; `variables` are for its workers."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    module = "apache_beam.runners.worker.worker_pool_main"
    with _process(module, f"--service_port={port}", **variables) as pool:
        wait_until(lambda: answers(port), pool)
        yield pool, port


@contextlib.contextmanager
def _process(module: str, *arguments: str, **variables: str) -> Iterator[subprocess.Popen[bytes]]:
    # A pool starts its workers as `python`, whichever that is on its PATH.
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    process = subprocess.Popen(
        [sys.executable, "-m", module, *arguments],
        cwd="/",  # not where the package lies
        env=environment(PATH=path, **variables),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def children(pid: int) -> list[int]:
    """Return the processes that a process has started and that still run."""
    found = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            found += [int(word) for word in task.read_text().split()]
    return found


def _runs(pid: int, module: bytes) -> bool:
    """Whether a process was started with this in its command."""
    with contextlib.suppress(OSError):
        return module in Path(f"/proc/{pid}/cmdline").read_bytes()
    return False


def answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
