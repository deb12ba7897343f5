"""CallModel in a streaming pipeline: timestamps and windows of prompts are those of outcomes."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import apache_beam as beam
import pytest
from apache_beam.runners.direct.direct_runner import BundleBasedDirectRunner
from apache_beam.testing import test_stream
from apache_beam.transforms.periodicsequence import PeriodicImpulse
from apache_beam.transforms.window import FixedWindows, SlidingWindows, TimestampedValue

from beam_batch import CallModel, CallSpec, OptionsError, RenderPrompts, WriteEnvelopes
from tests.fakes import Answer
from tests.support import read_jsonl
from tests.transforms.support import expect, pipeline, serving


class _When(beam.DoFn):
    """Tell each outcome with its timestamp and the start of its window."""

    def process(
        self,
        outcome: Any,
        stamp: Any = beam.DoFn.TimestampParam,
        window: Any = beam.DoFn.WindowParam,
    ) -> Any:
        yield outcome.envelope["result"], float(stamp), float(window.start)


def test_answers_that_overtake_each_other_stay_in_their_windows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def script(number: int, body: dict[str, Any]) -> Answer:
        late = number % 3 == 0  # sent again after a while, so that later ones come back before
        return Answer(status=503 if late and number < 12 else 200)

    seconds = range(0, 120, 7)
    with serving(monkeypatch, script), pipeline() as p:
        prompts = (
            p
            | beam.Create(seconds, reshuffle=False)
            | beam.Map(lambda second: TimestampedValue({"t": f"{second}"}, second))
            | beam.WindowInto(FixedWindows(60))
            | RenderPrompts("{{t}}")
        )
        call = CallSpec(parallel=4, retry_wait=0.05)
        told = (prompts.prompts | CallModel("generic.m", call=call)).ok | beam.ParDo(_When())
        expect(told, [(f"{second}", second, second // 60 * 60) for second in seconds])


def test_an_unbounded_source_is_answered_and_written_by_window(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = int(time.time()) // 2 * 2 - 4
    with serving(monkeypatch), pipeline("--streaming") as p:
        prompts = (
            p
            | PeriodicImpulse(start, start + 4, 1.0)
            | beam.Map(lambda second: {"id": str(int(second) - start)})
            | beam.WindowInto(FixedWindows(2))
            | RenderPrompts("{{id}}", id_field="id")
        )
        assert not prompts.prompts.is_bounded
        answers = prompts.prompts | CallModel("generic.m")
        answers.ok | WriteEnvelopes(str(tmp_path))
    spans: dict[str, list[str]] = {}
    for path in tmp_path.glob("*.jsonl"):
        ids = [line["id"] for line in read_jsonl(path)]
        spans.setdefault(path.name.partition("-part-")[0], []).extend(ids)
    assert sorted(sorted(ids) for ids in spans.values()) == [["0", "1"], ["2", "3"]]


def test_a_test_stream_s_rows_are_counted_by_window(monkeypatch: pytest.MonkeyPatch) -> None:
    def at(second: int) -> TimestampedValue:
        return TimestampedValue({"t": f"{second}"}, second)

    stream = (
        test_stream.TestStream()
        .advance_watermark_to(0)
        .add_elements([at(1), at(2)])
        .advance_watermark_to(60)
        .add_elements([at(61)])
        .advance_watermark_to_infinity()
    )
    runner = BundleBasedDirectRunner()  # the one of Beam's in Python that takes a TestStream
    with serving(monkeypatch), pipeline("--streaming", runner=runner) as p:
        prompts = p | stream | beam.WindowInto(FixedWindows(60)) | RenderPrompts("{{t}}")
        answers = prompts.prompts | CallModel("generic.m")
        counts = answers.ok | beam.combiners.Count.Globally().without_defaults()
        expect(counts, [2, 1])


def test_sliding_windows_are_refused_when_the_graph_is_made() -> None:
    prompts = (
        pipeline()
        | beam.Create([{"t": "x"}])
        | beam.WindowInto(SlidingWindows(60, 30))
        | RenderPrompts("{{t}}")
    )
    with pytest.raises(OptionsError, match="once for each of its windows"):
        prompts.prompts | CallModel("echo")
