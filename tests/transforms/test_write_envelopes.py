"""WriteEnvelopes: lines and folders, through Beam's file systems."""

from __future__ import annotations

import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import apache_beam as beam
import pytest
from apache_beam.transforms.window import FixedWindows, TimestampedValue

from beam_batch import CallModel, OptionsError, RenderPrompts, WriteEnvelopes
from tests.support import read_jsonl
from tests.transforms.support import expect, pipeline


def _written(folder: Path) -> dict[str, list[Any]]:
    """Return the lines of each file, by its path in the folder."""
    return {str(path.relative_to(folder)): read_jsonl(path) for path in folder.rglob("*.jsonl")}


def test_outcomes_dicts_and_beam_rows_are_lines_of_strict_json(tmp_path: Path) -> None:
    day = datetime.date(2026, 1, 2)
    with pipeline() as p:
        answers = p | beam.Create([{"t": "hi"}]) | RenderPrompts("{{t}}")
        outcomes = (answers.prompts | CallModel("echo")).ok
        dicts = p | "Dicts" >> beam.Create([{"d": day, "x": float("nan"), "y": Decimal("1.50")}])
        rows = p | "Rows" >> beam.Create([beam.Row(a=1, b="two")])
        uris = (outcomes, dicts, rows) | beam.Flatten() | WriteEnvelopes(f"{tmp_path}/out")
        folders = uris | beam.Map(lambda uri: uri.rpartition("/")[0]) | beam.Distinct()
        expect(folders, [f"{tmp_path}/out"])
    lines = [line for lines in _written(tmp_path / "out").values() for line in lines]
    assert sorted(lines, key=str) == sorted(
        [
            {"id": None, "row_number": None, "ok": True, "result": "hi", "error": None},
            {"d": "2026-01-02", "x": None, "y": "1.50"},
            {"a": 1, "b": "two"},
        ],
        key=str,
    )
    assert not list(tmp_path.rglob(".writing/*"))


def test_a_field_names_folders_and_none_leads_out(tmp_path: Path) -> None:
    moods = ["so so", None, "../up", "a/b", 7, "", {"x": 1}]
    with pipeline() as p:
        (
            p
            | beam.Create([{"r": {"mood": m}} for m in moods])
            | WriteEnvelopes(f"{tmp_path}/out", partition_by="r.mood")
        )
    found = {
        name.partition("/")[0]: [line["r"]["mood"] for line in lines]
        for name, lines in _written(tmp_path / "out").items()
    }
    null = found.pop("mood=__HIVE_DEFAULT_PARTITION__")
    assert sorted(null, key=str) == ["", None]
    assert found == {
        "mood=so%20so": ["so so"], "mood=..%2Fup": ["../up"], "mood=a%2Fb": ["a/b"],
        "mood=7": [7], "mood=%7B%22x%22%3A1%7D": [{"x": 1}],
    }  # fmt: skip
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_function_names_folders_and_none_leads_out(tmp_path: Path) -> None:
    with pipeline() as p:
        (
            p
            | beam.Create([{"to": "x/y"}, {"to": "../../z"}])
            | WriteEnvelopes(f"{tmp_path}/deep/out", partition_by=lambda record: record["to"])
        )
    found = _written(tmp_path)
    assert {Path(name).parent.as_posix() for name in found} == {
        "deep/out/x/y", "deep/out/%2E%2E/%2E%2E/z",
    }  # fmt: skip


def test_each_window_has_files_of_its_own(tmp_path: Path) -> None:
    with pipeline() as p:
        (
            p
            | beam.Create([{"n": n} for n in (0, 1, 60)])
            | beam.Map(lambda record: TimestampedValue(record, record["n"]))
            | beam.WindowInto(FixedWindows(60))
            | WriteEnvelopes(str(tmp_path))
        )
    spans: dict[str, list[int]] = {}
    for name, lines in _written(tmp_path).items():
        spans.setdefault(name.partition("-part-")[0], []).extend(line["n"] for line in lines)
    assert {span: sorted(numbers) for span, numbers in spans.items()} == {
        "19700101T000000-19700101T000100": [0, 1],
        "19700101T000100-19700101T000200": [60],
    }


def test_files_that_do_not_arrive_fail_the_pipeline(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "k=1").write_text("a file where a folder is to be")
    with pytest.raises(Exception, match="could not be put in place"), pipeline() as p:
        p | beam.Create([{"k": 1}]) | WriteEnvelopes(f"{tmp_path}/out", partition_by="k")
    with pytest.raises(OptionsError, match="needs a folder"):
        WriteEnvelopes("")
