"""Runs one command so that nothing of it outlives the process that started it.

    python -I -S supervisor.py PARENT -- COMMAND ARGUMENTS

Run as a file, with the standard library alone: it is up in some milliseconds. The command has the
standard streams, this process keeps none of them. When the command ends, when SIGTERM comes, or
when the parent is gone (Linux says so by a signal, other systems are asked), all that the command
has started is told to end, and then killed: its process group, and on Linux also what left the
group, since orphans become children of this process.
"""

import ctypes
import os
import select
import signal
import sys
import time

GRACE = 1.0
"""Seconds between SIGTERM and SIGKILL."""
LONGEST_KILL = 5.0
POLL = 0.5
SET_DEATH_SIGNAL, SET_CHILD_SUBREAPER = 1, 36  # of prctl(2)
NOT_STARTED = 127
STREAMS = (0, 1, 2)


def main(arguments: list[str]) -> int:
    """Run the command and return its exit code (128 and the signal where it was killed)."""
    parent, command = int(arguments[0]), arguments[2:]
    if os.getpgrp() != os.getpid():
        os.setsid()
    awake = _woken_by_signals()
    _prctl(SET_DEATH_SIGNAL, signal.SIGHUP)  # not SIGTERM: the end of a thread of the parent does
    _prctl(SET_CHILD_SUBREAPER, 1)  # the same, and is not meant
    if os.getppid() != parent:
        return NOT_STARTED
    child = _start(command)
    _let_go_of_streams()
    code: int | None = None
    while os.getppid() == parent:
        code, _ = _reap(child, code)
        if code is not None or signal.SIGTERM in _wait(awake, POLL):
            break
    return _end_all(child, code, awake)


def _woken_by_signals() -> int:
    """Have signals written to a pipe; return its reading end."""
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    os.set_blocking(writing, False)
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD):
        signal.signal(number, lambda *_: None)
    return reading


def _wait(awake: int, seconds: float) -> bytes:
    """Wait for a signal; return the numbers of those that came."""
    ready, _, _ = select.select([awake], [], [], max(0.0, seconds))
    return os.read(awake, 4096) if ready else b""


def _prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0)


def _start(command: list[str]) -> int:
    this = os.getpid()
    child = os.fork()
    if child:
        return child
    try:
        for number in (signal.SIGPIPE, signal.SIGXFSZ):  # ignored by Python, and so by its children
            signal.signal(number, signal.SIG_DFL)
        _prctl(SET_DEATH_SIGNAL, signal.SIGKILL)
        if os.getppid() == this:  # else it was killed before the signal was set
            os.execvp(command[0], command)
    except OSError as error:
        os.write(2, f"cannot run {command[0]}: {error.strerror}\n".encode())
    finally:
        os._exit(NOT_STARTED)


def _let_go_of_streams() -> None:
    nothing = os.open(os.devnull, os.O_RDWR)
    for stream in STREAMS:
        os.dup2(nothing, stream)


def _reap(child: int, code: int | None) -> tuple[int | None, bool]:
    """Collect what has ended; return the command's exit code, and whether anything still runs."""
    try:
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return code, True
            if pid == child:
                ended = os.waitstatus_to_exitcode(status)
                code = ended if ended >= 0 else 128 - ended
    except ChildProcessError:
        return code, False


def _end_all(child: int, code: int | None, awake: int) -> int:
    os.killpg(0, signal.SIGTERM)  # this process hears it too, and goes on
    start = time.monotonic()
    left = True
    while left and time.monotonic() < start + GRACE:
        code, left = _reap(child, code)
        if left:
            _wait(awake, min(0.05, start + GRACE - time.monotonic()))
    if sys.platform != "linux":  # what has left its parent is not ours to see: all of us go
        os.killpg(0, signal.SIGKILL)
    while left and time.monotonic() < start + GRACE + LONGEST_KILL:
        for pid in _children():
            os.kill(pid, signal.SIGKILL)
        _wait(awake, 0.02)
        code, left = _reap(child, code)
    return 128 + signal.SIGTERM if code is None else code


def _children() -> list[int]:
    """Return the children of this process; only it can reap them, so the numbers hold."""
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{name}/stat", "rb") as file:
                fields = file.read().rpartition(b")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == os.getpid():
            found.append(int(name))
    return found


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
