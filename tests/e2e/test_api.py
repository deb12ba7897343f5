"""The Python API: a run from a spec, and the transforms in somebody else's pipeline."""

from __future__ import annotations

from pathlib import Path

import apache_beam as beam
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.runners.portability.fn_api_runner import FnApiRunner

import beam_batch
from beam_batch import CallModel, RenderPrompts, ToJson
from tests.support import read_jsonl, write_jsonl


def _pipeline() -> beam.Pipeline:
    return beam.Pipeline(runner=FnApiRunner(), options=PipelineOptions([]))


def _spec(tmp_path: Path, **output: object) -> beam_batch.RunSpec:
    return beam_batch.RunSpec(
        source=beam_batch.SourceSpec(input=str(tmp_path / "rows.jsonl"), id_field="id"),
        prompt=beam_batch.PromptSpec(template="{{text}}"),
        output=beam_batch.OutputSpec(output=str(tmp_path / "out.jsonl"), **output),  # type: ignore[arg-type]
        model="echo",
    )


def test_run_returns_the_summary(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "rows.jsonl", [{"id": "a", "text": "one"}, {"id": "b"}])
    summary = beam_batch.run(_spec(tmp_path))
    assert (summary.exit_code, summary["ok_rows"], summary["failed_rows"]) == (0, 1, 1)
    assert summary["errors"] == {"MissingTemplateField": 1}
    assert [r["id"] for r in read_jsonl(tmp_path / "out.jsonl")] == ["a", "b"]


def test_a_stopped_run_does_not_stop_the_next_one_in_the_same_process(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "rows.jsonl", [{"id": "a"}, {"id": "b"}])
    for _ in range(2):
        with pytest.raises(beam_batch.RunStopped) as caught:
            beam_batch.run(_spec(tmp_path, max_errors=1, overwrite=True))
        assert caught.value.exit_code == 3
    assert beam_batch.run(_spec(tmp_path, overwrite=True))["failed_rows"] == 2


def test_run_raises_for_an_existing_output(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "rows.jsonl", [])
    (tmp_path / "out.jsonl").touch()
    with pytest.raises(beam_batch.OptionsError, match="--resume"):
        beam_batch.run(_spec(tmp_path))


def test_transforms_compose_with_read_from_text(tmp_path: Path) -> None:
    lines = [{"id": "a", "text": "one"}, {"id": "b"}, {"id": "c", "text": "three"}]
    write_jsonl(tmp_path / "rows.jsonl", lines)
    with (tmp_path / "rows.jsonl").open("a") as file:
        file.write("not json\n")
    with _pipeline() as p:
        prompts = (
            p
            | beam.io.ReadFromText(str(tmp_path / "rows.jsonl"))
            | RenderPrompts("{{text}}", id_field="id")
        )
        answers = prompts.prompts | CallModel("echo")
        bad = (prompts.failed, answers.failed) | beam.Flatten()
        answers.ok | "Ok" >> ToJson() | "WriteOk" >> beam.io.WriteToText(f"{tmp_path}/ok")
        bad | "Bad" >> ToJson() | "WriteBad" >> beam.io.WriteToText(f"{tmp_path}/bad")
    ok = [record for path in tmp_path.glob("ok-*") for record in read_jsonl(path)]
    bad_types = [r["error"]["type"] for path in tmp_path.glob("bad-*") for r in read_jsonl(path)]
    assert sorted((r["id"], r["row_number"], r["result"]) for r in ok) == [
        ("a", None, "one"),
        ("c", None, "three"),
    ]
    assert sorted(bad_types) == ["InvalidJSON", "MissingTemplateField"]


def test_transforms_compose_with_read_from_parquet(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": ["one", "two"]}), tmp_path / "rows.parquet")
    with _pipeline() as p:
        prompts = (
            p | beam.io.ReadFromParquet(str(tmp_path / "rows.parquet")) | RenderPrompts("{{text}}")
        )
        answers = prompts.prompts | CallModel("echo")
        answers.ok | ToJson() | beam.io.WriteToText(f"{tmp_path}/ok", ".jsonl")
    results = [r["result"] for path in tmp_path.glob("ok-*") for r in read_jsonl(path)]
    assert sorted(results) == ["one", "two"]


def test_call_model_refuses_unknown_models() -> None:
    with pytest.raises(beam_batch.OptionsError, match="provider"):
        CallModel("nobody.x")


def test_an_abandoned_lane_gives_its_slots_back() -> None:
    from beam_batch.calling.lane import Lane
    from beam_batch.calling.setup import WindowSpec
    from beam_batch.calling.window import Window
    from beam_batch.options import CallSpec
    from beam_batch.providers import resolve_model
    from beam_batch.records import Prompt, Row

    window = Window(
        WindowSpec(
            token="t", model=resolve_model("echo", {}), instruction="", schema=None,
            call=CallSpec(parallel=2), include_input=False,
        )
    )  # fmt: skip
    prompt = Prompt(Row(0, 1, 1, {}), "x")
    lost = Lane(window)
    assert lost.try_submit(prompt)
    lost.abandon()
    lane = Lane(window)
    for _ in range(5):
        while not lane.try_submit(prompt):
            pass
        while not lane.ready():
            lane.wait()
        assert lane.take().outcome is not None
        lane.settle()
    window.close()


def test_a_bug_in_answering_fails_the_run_instead_of_hanging_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from beam_batch.calling.answering import Answerer

    async def broken(*_: object) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(Answerer, "answer", broken)
    write_jsonl(tmp_path / "rows.jsonl", [{"id": "a", "text": "one"}])
    with pytest.raises(beam_batch.RunStopped, match="ZeroDivisionError"):
        beam_batch.run(_spec(tmp_path))
