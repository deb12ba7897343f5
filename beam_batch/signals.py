"""What SIGINT and SIGTERM do to a run."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

from beam_batch.outputs.stopping import StopFlag


@contextlib.contextmanager
def ending_on_sigterm() -> Iterator[None]:
    """Let SIGTERM unwind like an exit while nothing was sent, so that nothing is left behind."""

    def handle(number: int, _: Any) -> None:
        sys.exit(128 + number)

    with _handling({signal.SIGTERM: handle}):
        yield


@contextlib.contextmanager
def draining(stop: StopFlag) -> Iterator[None]:
    """Drain on the first signal, leave on the second."""
    seen: list[int] = []

    def handle(number: int, _: Any) -> None:
        code = 128 + number
        if seen:
            os._exit(code)
        seen.append(number)
        name = "interrupted" if number == signal.SIGINT else "terminated"
        stop.set(name, code)
        print(
            f"batch: {name}: waiting for requests in flight; once more to leave now",
            file=sys.stderr,
            flush=True,
        )

    with _handling({signal.SIGINT: handle, signal.SIGTERM: handle}):
        yield


@contextlib.contextmanager
def _handling(handlers: dict[signal.Signals, Callable[[int, Any], None]]) -> Iterator[None]:
    try:
        old = {number: signal.signal(number, handle) for number, handle in handlers.items()}
    except ValueError:  # not in the main thread: whoever runs us handles signals
        yield
        return
    try:
        yield
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)


def shielded(call: Callable[[], None]) -> None:
    """Call something whose child processes are not to see a Ctrl-C: the terminal sends it to all.

    A signal mask is inherited, so it is set in a thread that the children are started from.
    """
    failure: list[BaseException] = []

    def run() -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            call()
        except BaseException as error:
            failure.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if failure:
        raise failure[0]
