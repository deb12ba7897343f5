"""Fixtures that start real counterparts."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support import wait_until

LLMOCK = os.environ.get("BEAM_BATCH_LLMOCK", "")


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


@pytest.fixture(scope="session")
def _llmock() -> Iterator[Llmock]:
    if not LLMOCK:
        pytest.skip("BEAM_BATCH_LLMOCK names no llmock; `make test` installs one")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen(
        [LLMOCK, "serve", "--host", "127.0.0.1", "-p", str(port), "--log-level", "error"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        server = Llmock(port)
        wait_until(server.answers, process)
        yield server
    finally:
        process.terminate()
        process.wait(30)


@pytest.fixture
def llmock(_llmock: Llmock) -> Llmock:
    """llmock with an empty journal."""
    _llmock.reset()
    return _llmock
