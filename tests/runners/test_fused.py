"""Several steps as one: every output goes where its tag says, whatever an engine does to tags."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apache_beam as beam
import pytest
from apache_beam.runners.portability.fn_api_runner import FnApiRunner

from beam_batch.outputs.stopping import StopFlag
from beam_batch.outputs.workdir import WorkDir
from beam_batch.transforms.fused import Fused, steps_of
from beam_batch.transforms.windows import in_global_window

SEEN: list[Any] = []


class _Sort(beam.DoFn):
    """Odd numbers on, even ones aside, and their sum when the bundle ends."""

    def setup(self) -> None:
        SEEN.append("up")

    def start_bundle(self) -> None:
        self._sum = 0

    def process(self, limit: int) -> Iterator[Any]:
        for number in range(limit):
            SEEN.append(f"made {number}")
            self._sum += number
            yield beam.pvalue.TaggedOutput("even", number) if number % 2 == 0 else number

    def finish_bundle(self) -> Iterator[Any]:
        yield in_global_window(beam.pvalue.TaggedOutput("even", self._sum))

    def teardown(self) -> None:
        SEEN.append("down")


class _Note(beam.DoFn):
    def __init__(self, name: str, fails_at: int | None = None) -> None:
        self._name = name
        self._fails_at = fails_at

    def process(self, number: int) -> Iterator[int]:
        if number == self._fails_at:
            raise ZeroDivisionError(number)
        SEEN.append(f"{self._name} {number}")
        yield number * 10

    def finish_bundle(self) -> None:
        SEEN.append(f"{self._name} finished")

    def teardown(self) -> None:
        SEEN.append(f"{self._name} down")


def _build(limits: beam.PCollection, fails_at: int | None = None) -> None:
    sorted_ = limits | "Sort" >> beam.ParDo(_Sort()).with_outputs("even", main="odd")
    sorted_.even | "NoteEven" >> beam.ParDo(_Note("even"))
    odd = sorted_.odd | "NoteOdd" >> beam.ParDo(_Note("odd", fails_at))
    odd | "NoteLast" >> beam.ParDo(_Note("last"))


@pytest.fixture
def stop(tmp_path: Path) -> StopFlag:
    SEEN.clear()
    return StopFlag(WorkDir(str(tmp_path)), "stop")


def _run(limits: list[int], build: Any, stop: StopFlag) -> None:
    options = beam.options.pipeline_options.PipelineOptions([])
    with beam.Pipeline(runner=FnApiRunner(), options=options) as pipeline:
        pipeline | beam.Create(limits) | Fused(build, stop)


def test_outputs_go_where_their_tags_say_one_after_the_other(stop: StopFlag) -> None:
    _run([4], _build, stop)
    assert SEEN == [
        "up", "made 0", "even 0", "made 1", "odd 1", "last 10", "made 2", "even 2", "made 3",
        "odd 3", "last 30", "even 6", "even finished", "odd finished", "last finished",
        "last down", "odd down", "even down", "down",
    ]  # fmt: skip


def test_steps_are_torn_down_where_one_of_them_fails(stop: StopFlag) -> None:
    with pytest.raises(Exception, match="ZeroDivisionError"):
        _run([4], lambda limits: _build(limits, fails_at=1), stop)
    assert SEEN == [
        "up",
        "made 0",
        "even 0",
        "made 1",
        "last down",
        "odd down",
        "even down",
        "down",
    ]


def test_a_stopped_run_leaves_elements_out(stop: StopFlag) -> None:
    stop.set("enough", 1)
    _run([4], _build, stop)
    assert SEEN == []


def test_the_steps_of_a_run_survive_a_pickle() -> None:
    first = pickle.loads(pickle.dumps(steps_of(_build)))
    assert [type(step.fn).__name__ for step in first] == ["_Sort"]
    assert {tag: len(takers) for tag, takers in first[0].takers.items()} == {None: 1, "even": 1}


def test_what_cannot_be_fused_is_named() -> None:
    with pytest.raises(TypeError, match="Reshuffle"):
        steps_of(lambda limits: limits | beam.Reshuffle())
