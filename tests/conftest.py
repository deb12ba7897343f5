"""Fixtures that start real counterparts."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from tests.support import wait_until

# How long an example takes says more about the machine than about the code.
settings.register_profile(
    "any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("any machine")

LLMOCK = os.environ.get("BEAM_BATCH_LLMOCK", "")
AIMOCK = os.environ.get("BEAM_BATCH_AIMOCK", "")


class Llmock:
    """A running llmock: a provider that nobody here wrote, with a journal of raw requests."""

    def __init__(self, port: int) -> None:
        self.root = f"http://127.0.0.1:{port}"
        self.base_url = f"{self.root}/v1"

    def get(self, path: str) -> Any:
        with urllib.request.urlopen(self.root + path) as response:
            return json.load(response)

    def reset(self) -> None:
        request = urllib.request.Request(self.root + "/_llmock/reset", method="POST")
        urllib.request.urlopen(request).close()

    def bodies(self) -> list[dict[str, Any]]:
        return [request["body"] for request in self.get("/_llmock/requests")["requests"]]

    def answers(self) -> bool:
        try:
            self.get("/_llmock/requests")
        except (urllib.error.URLError, ConnectionError):
            return False
        return True


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def running(
    command: list[str], ready: Callable[[], bool], env: dict[str, str] | None = None
) -> Iterator[None]:
    """Run a server until the block ends."""
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=env
    )
    try:
        wait_until(ready, process)
        yield
    finally:
        process.terminate()
        process.wait(30)


@pytest.fixture(scope="session")
def _llmock() -> Iterator[Llmock]:
    if not LLMOCK:
        pytest.skip("BEAM_BATCH_LLMOCK names no llmock; `make test` installs one")
    port = free_port()
    server = Llmock(port)
    with running(
        [LLMOCK, "serve", "--host", "127.0.0.1", "-p", str(port), "--log-level", "error"],
        server.answers,
    ):
        yield server


@pytest.fixture
def llmock(_llmock: Llmock) -> Llmock:
    """llmock with an empty journal."""
    _llmock.reset()
    return _llmock


class Aimock:
    """A running aimock: Responses over HTTP, events and WebSockets, which nobody here wrote."""

    def __init__(self, port: int) -> None:
        self.root = f"http://127.0.0.1:{port}"
        self.base_url = f"{self.root}/v1"

    def methods(self) -> list[str]:
        """Return how each request came: WS or POST."""
        with urllib.request.urlopen(self.root + "/__aimock/journal") as response:
            return [entry["method"] for entry in json.load(response)]

    def answers(self) -> bool:
        try:
            self.methods()
        except (urllib.error.URLError, ConnectionError):
            return False
        return True


@pytest.fixture
def aimock(tmp_path: Path) -> Iterator[Callable[[list[dict[str, Any]]], Aimock]]:
    """Starts aimock with fixtures: what it answers to which message."""
    if not AIMOCK:
        pytest.skip("BEAM_BATCH_AIMOCK names no aimock; `make test` installs one where npm is")
    with ExitStack() as servers:

        def start(fixtures: list[dict[str, Any]]) -> Aimock:
            path = tmp_path / "aimock.json"
            path.write_text(json.dumps({"fixtures": fixtures}))
            port = free_port()
            server = Aimock(port)
            command = [AIMOCK, "-p", str(port), "-f", str(path), "--journal-max", "0"]
            servers.enter_context(running([*command, "--log-level", "silent"], server.answers))
            return server

        yield start
