"""Starts of the command line that are forks of one process in which Beam is imported already.

A fork has arguments, environment, folder, streams and process id of its own, runs as
`python -m beam_batch` does, and ends as a process does. It is spared the imports, which take longer
than a small run. What it shares with others is what Python decides at its start, such as the seed
of hashes: `fresh` in tests/support.py starts an interpreter instead.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import json
import logging
import os
import runpy
import socket
import subprocess
import sys
import time
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
PRELOADED = (
    "aiohttp",
    "apache_beam.runners.portability.fn_api_runner",
    "apache_beam.runners.worker.sdk_worker",
    "beam_batch.launch",
    "beam_batch.pipeline",
    "beam_batch.reuse.database",
)
"""What runs import; nothing that reads the environment at its import, as fsspec does."""


class Fork(subprocess.Popen[Any]):
    """A Popen of `python -m beam_batch ARGUMENTS` whose parent is the starter of this process."""

    def _execute_child(
        self, args, executable, preexec_fn, close_fds, pass_fds, cwd, env, startupinfo,
        creationflags, shell, p2cread, p2cwrite, c2pread, c2pwrite, errread, errwrite,
        restore_signals, gid, gids, uid, umask, start_new_session, process_group,
    ) -> None:  # fmt: skip
        try:
            self.pid = _ask(
                {"args": args, "env": env, "cwd": str(cwd or Path.cwd()), "group": process_group},
                [fd if fd >= 0 else own for own, fd in enumerate((p2cread, c2pwrite, errwrite))],
            )
            self._child_created = True
        finally:
            self._close_pipe_fds(p2cread, p2cwrite, c2pread, c2pwrite, errread, errwrite)

    def _try_wait(self, wait_flags: int) -> tuple[int, int]:
        if not wait_flags & os.WNOHANG:
            time.sleep(0.005)  # the caller asks again; the starter waits for nobody
        status = _ask({"pid": self.pid})
        return (0, 0) if status is None else (self.pid, status)

    def _internal_poll(self, *_: Any, **__: Any) -> int | None:
        if self.returncode is None:
            pid, status = self._try_wait(os.WNOHANG)
            if pid:
                self._handle_exitstatus(status)
        return self.returncode


@cache
def _starter() -> socket.socket:
    ours, theirs = socket.socketpair()
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.starter", str(theirs.fileno())],
        cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, pass_fds=[theirs.fileno()],
    )  # fmt: skip
    theirs.close()

    @atexit.register
    def end() -> None:
        ours.close()
        process.wait()

    return ours


def _ask(question: dict[str, Any], fds: list[int] | None = None) -> Any:
    channel = _starter()
    socket.send_fds(channel, [b"?"], fds or [])
    with channel.makefile("rw") as stream:
        stream.write(json.dumps(question) + "\n")
        stream.flush()
        return json.loads(stream.readline())


def _serve(channel: socket.socket) -> dict[str, Any] | None:
    """Answer until the other end is closed; in a fork, return what it shall be."""
    stream = channel.makefile("rw")
    while True:
        more, fds, _, _ = socket.recv_fds(channel, 1, 3)
        if not more:
            return None
        question = json.loads(stream.readline())
        answer: int | None
        if fds:
            answer = os.fork()
            if answer == 0:
                for own, fd in enumerate(fds):
                    os.dup2(fd, own)
                    os.close(fd)
                stream.close()
                channel.close()
                return question
            for fd in fds:
                os.close(fd)
            if question["group"] >= 0:
                os.setpgid(answer, question["group"] or answer)
        else:
            pid, status = os.waitpid(question["pid"], os.WNOHANG)
            answer = status if pid else None
        stream.write(json.dumps(answer) + "\n")
        stream.flush()


def _become(task: dict[str, Any], paths: list[str]) -> None:
    """Set up what Python sets up at its start, and run the command line."""
    os.environ.clear()
    os.environ.update(task["env"])
    os.chdir(task["cwd"])
    sys.stdin = sys.__stdin__ = open(0, closefd=False)  # noqa: SIM115
    sys.stdout = sys.__stdout__ = open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = sys.__stderr__ = open(  # noqa: SIM115
        2, "w", buffering=1, errors="backslashreplace", closefd=False
    )
    sys.path[:] = [task["cwd"], *filter(None, task["env"]["PYTHONPATH"].split(os.pathsep)), *paths]
    sys.modules.pop("sitecustomize", None)
    with contextlib.suppress(ImportError):
        import_module("sitecustomize")
    sys.argv = ["beam_batch", *task["args"]]
    runpy.run_module("beam_batch", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    from beam_batch.cli import main as _  # noqa: F401
    from beam_batch.engine import quiet

    with quiet(logging.CRITICAL):
        for name in PRELOADED:
            import_module(name)
    gc.freeze()
    found = _serve(socket.socket(fileno=int(sys.argv[1])))
    if found is not None:
        _become(found, sys.path[2:])
