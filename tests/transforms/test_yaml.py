"""`type: CallModel` in pipelines that Beam YAML reads, builds and runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import beam_batch
from tests.fakes import Answer
from tests.support import read_jsonl, write_jsonl
from tests.transforms.support import saying, serving

pytest.importorskip("docstring_parser", reason="Beam YAML needs beam-batch[yaml]")
pytest.importorskip("pandas", reason="Beam YAML needs beam-batch[yaml]")

PROVIDERS = Path(beam_batch.__file__).parent / "yaml_provider.yaml"
RUNNER = "apache_beam.runners.portability.fn_api_runner.FnApiRunner"


def _run(folder: Path, transforms: str) -> None:
    """Run what `python -m apache_beam.yaml.main` would."""
    from apache_beam.yaml import main

    (folder / "pipeline.yaml").write_text(
        f"pipeline:\n  transforms:\n{transforms}\nproviders:\n  - include: {PROVIDERS}\n"
    )
    main.run([f"--yaml_pipeline_file={folder}/pipeline.yaml", f"--runner={RUNNER}"])


def _lines(folder: Path) -> list[Any]:
    return [line for path in folder.rglob("*.jsonl") for line in read_jsonl(path)]


def test_rows_get_answers_and_failed_rows_go_their_own_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [{"id": 1, "review": "fine"}, {"id": 2, "review": "cut"}]
    write_jsonl(tmp_path / "rows.jsonl", rows)
    answers = {"Mood of fine?": Answer(text="good"), "Mood of cut?": Answer(finish_reason="length")}
    with serving(monkeypatch, saying(answers)):
        _run(
            tmp_path,
            f"""
    - type: ReadFromJson
      name: Read
      config: {{path: {tmp_path}/rows.jsonl}}
    - type: CallModel
      name: Ask
      input: Read
      config:
        model: generic.m
        template: "{{% raw %}}Mood of {{{{review}}}}?{{% endraw %}}"
        error_handling: {{output: failed}}
    - type: WriteEnvelopes
      name: Keep
      input: Ask
      config: {{path: {tmp_path}/ok, partition_by: result}}
    - type: WriteEnvelopes
      name: KeepFailed
      input: Ask.failed
      config: {{path: {tmp_path}/failed}}
""",
        )
    (good,) = _lines(tmp_path / "ok" / "result=good")
    assert (good["id"], good["review"], good["ok"], good["result"]) == (1, "fine", True, "good")
    assert (good["attempts"], good["input_tokens"], good["model"]) == (1, 5, "m-served")
    (bad,) = _lines(tmp_path / "failed")
    assert (bad["element"], bad["error_type"]) == (rows[1], "Truncated")
    assert len(list(tmp_path.glob("*/**/*.jsonl"))) == 2


def test_a_schema_s_results_are_json_and_fields_may_have_a_prefix(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(monkeypatch, lambda *_: Answer(text='{"n": 1}')) as server:
        _run(
            tmp_path,
            f"""
    - type: Create
      config: {{elements: [{{ok: "mine", n: 5}}]}}
    - type: CallModel
      input: Create
      config:
        model: generic.m
        schema: {{type: object, properties: {{n: {{type: integer}}}}, required: [n]}}
        added_prefix: llm_
    - type: WriteEnvelopes
      input: CallModel
      config: {{path: {tmp_path}/out}}
""",
        )
    (line,) = _lines(tmp_path / "out")
    assert (line["ok"], line["llm_ok"], line["llm_result"]) == ("mine", True, '{"n":1}')
    assert json.loads(server.bodies[0]["messages"][-1]["content"]) == {"ok": "mine", "n": 5}
    sent = server.bodies[0]["response_format"]["json_schema"]["schema"]
    assert sent["properties"] == {"n": {"type": "integer"}}


def test_a_field_that_rows_have_already_is_refused_before_anything_is_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(monkeypatch) as server, pytest.raises(Exception, match="added_prefix: llm_"):
        _run(
            tmp_path,
            """
    - type: Create
      config: {elements: [{ok: "mine"}]}
    - type: CallModel
      input: Create
      config: {model: generic.m}
""",
        )
    assert server.requests == 0
