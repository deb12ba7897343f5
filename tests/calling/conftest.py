"""What stands here runs on the event loop that runs use."""

from __future__ import annotations

import asyncio

import pytest
import uvloop


@pytest.fixture(autouse=True)
def _loop_of_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asyncio, "run", uvloop.run)
