"""Somebody else's pipeline, in this process, and what comes out of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import apache_beam as beam
import pytest
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from apache_beam.testing.util import assert_that, equal_to

from tests.fakes import Script, ScriptedServer


def pipeline(*flags: str, runner: Any = None) -> beam.Pipeline:
    return beam.Pipeline(runner or FnApiRunner(), PipelineOptions(list(flags)))


def expect(elements: beam.PCollection, expected: list[Any], label: str = "Expect") -> None:
    """Let the pipeline fail where a collection is another one, whatever the order."""
    assert_that(elements, equal_to(expected), label=label)


@contextmanager
def serving(
    monkeypatch: pytest.MonkeyPatch, script: Script | None = None, delay: float = 0
) -> Iterator[ScriptedServer]:
    """Serve `generic.` models."""
    with ScriptedServer(script, delay=delay) as server:
        monkeypatch.setenv("GENERIC_BASE_URL", server.base_url)
        yield server


def saying(answers: dict[str, Any]) -> Callable[[int, dict[str, Any]], Any]:
    """Make a script that answers by prompt."""
    return lambda _, body: answers[body["messages"][-1]["content"]]
