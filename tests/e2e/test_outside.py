"""An outside reader's pipeline: Parquet in, JSONL by mood out, through the public API alone."""

from pathlib import Path

import apache_beam as beam
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from beam_batch import CallModel, RenderPrompts, WriteEnvelopes
from tests.fakes import Answer, ScriptedServer
from tests.support import read_jsonl


def test_reviews_by_mood(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    moods = {"Great": Answer(text="good"), "Awful": Answer(text="bad"), "?": Answer(text="")}
    table = pa.table({"id": ["a", "b", "c"], "review": ["Great", "Awful", "?"]})
    pq.write_table(table, tmp_path / "reviews.parquet")
    with ScriptedServer(lambda _, body: moods[body["messages"][-1]["content"]]) as server:
        monkeypatch.setenv("GENERIC_BASE_URL", server.base_url)
        with beam.Pipeline("apache_beam.runners.portability.fn_api_runner.FnApiRunner") as p:
            rows = p | beam.io.ReadFromParquet(f"{tmp_path}/reviews.parquet")
            prompts = rows | RenderPrompts("{{review}}", id_field="id")
            answers = prompts.prompts | CallModel("generic.m", instruction="Name the mood.")
            answers.ok | "Ok" >> WriteEnvelopes(f"{tmp_path}/ok", partition_by="result")
            answers.failed | "Bad" >> WriteEnvelopes(f"{tmp_path}/bad", partition_by="error.type")
    found = {(x["id"], f.parent.name) for f in tmp_path.rglob("*.jsonl") for x in read_jsonl(f)}
    assert found == {("a", "result=good"), ("b", "result=bad"), ("c", "type=EmptyReply")}
