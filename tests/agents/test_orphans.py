"""No process of a server or a command outlives the worker, however that ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from beam_batch.agents.tools import supervisor
from tests.agents.support import children_of, is_running
from tests.support import ROOT, environment, wait_until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
SUPERVISOR = (sys.executable, "-I", "-S", supervisor.__file__)


def _supervised(*command: str, **settings: Any) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [*SUPERVISOR, str(os.getpid()), "--", *command],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
        **settings,
    )


class Worker:
    """A worker with two servers, one of them a row's own, and their stubborn children."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.agents.worker"],
            cwd=ROOT,
            env=environment(),
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        assert self.process.stdout is not None
        self.pids: list[int] = json.loads(self.process.stdout.readline())

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()


@pytest.fixture
def worker() -> Iterator[Worker]:
    made = Worker()
    yield made
    made.end()


def _gone(pids: list[int]) -> bool:
    return not any(map(is_running, pids))


def test_nothing_is_left_of_a_worker_that_was_killed(worker: Worker) -> None:
    assert len(worker.pids) == 8
    assert all(map(is_running, worker.pids))
    worker.process.kill()
    wait_until(lambda: _gone(worker.pids))


def test_ctrl_c_is_for_the_worker_which_then_stops_its_servers(worker: Worker) -> None:
    session = os.getsid(worker.process.pid)
    assert all(os.getsid(pid) != session for pid in worker.pids)
    os.killpg(worker.process.pid, signal.SIGINT)  # as a terminal does
    assert worker.process.wait(60) == 0
    assert _gone(worker.pids)


def test_a_server_goes_with_its_supervisor() -> None:
    with _supervised("sleep", "1000") as process:
        wait_until(lambda: bool(children_of(process.pid)))
        (child,) = children_of(process.pid)
        process.kill()
        wait_until(lambda: not is_running(child))


def test_what_a_command_leaves_running_is_ended_when_it_ends() -> None:
    script = "setsid sleep 1000 >/dev/null & echo $!; trap '' TERM; sleep 1000 >/dev/null & echo $!"
    with _supervised("sh", "-c", script) as process:
        output, _ = process.communicate(timeout=60)
        pids = [int(line) for line in output.split()]
        assert len(pids) == 2
        assert process.returncode == 0
        assert _gone(pids)


@pytest.mark.parametrize(
    ("script", "code"), [("exit 7", 7), ("kill -9 $$", 137), ("kill -PIPE $$", 141)]
)
def test_how_a_command_ends_is_passed_on(script: str, code: int) -> None:
    with _supervised("sh", "-c", script) as process:
        assert process.wait(60) == code


def test_a_command_that_is_not_there_is_said_so() -> None:
    with _supervised("bb-no-such", stderr=subprocess.PIPE) as process:
        _, said = process.communicate(timeout=60)
        assert process.returncode == 127
        assert said == b"cannot run bb-no-such: No such file or directory\n"


def test_a_supervisor_whose_parent_is_gone_already_starts_nothing() -> None:
    done = subprocess.run(
        [*SUPERVISOR, "1", "--", "echo", "started"], capture_output=True, check=False
    )
    assert (done.returncode, done.stdout) == (127, b"")


def test_the_end_of_the_thread_that_started_it_is_not_the_end_of_a_server() -> None:
    started: list[subprocess.Popen[bytes]] = []
    threads = len(os.listdir("/proc/self/task"))

    def start() -> None:
        process = _supervised("cat")
        started.append(process)
        _echo(process)

    thread = threading.Thread(target=start)
    thread.start()
    thread.join()
    wait_until(lambda: len(os.listdir("/proc/self/task")) <= threads)
    with started[0] as process:
        for _ in range(3):
            _echo(process)
        process.terminate()


def _echo(process: subprocess.Popen[bytes]) -> None:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(b"hello\n")
    process.stdin.flush()
    assert process.stdout.readline() == b"hello\n"
