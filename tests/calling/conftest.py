"""What stands here runs on the event loop that runs use."""

from __future__ import annotations

import asyncio
from functools import partial

import pytest
import uvloop

from beam_batch.calling.loop import Loop


@pytest.fixture(autouse=True)
def _loop_of_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asyncio, "run", partial(uvloop.run, loop_factory=Loop))
