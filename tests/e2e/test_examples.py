"""Every example runs as it stands, on a few rows and a scripted server."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import beam_batch
from tests.fakes import Answer
from tests.support import ROOT, read_jsonl, write_jsonl
from tests.transforms.support import serving

RUNNER = "--runner=apache_beam.runners.portability.fn_api_runner.FnApiRunner"
REVIEWS = [{"id": "a", "review": "great"}, {"id": "b", "review": "cut"}]
Found = list[tuple[Any, bool, Any]]
"""What each row was, whether it was answered, and with what."""


def _script(number: int, body: dict[str, Any]) -> Answer:
    said = body["messages"][-1]["content"]
    return Answer(finish_reason="length" if "cut" in said else "stop")


def _main(name: str, folder: Path, *flags: str) -> None:
    spec = importlib.util.spec_from_file_location(name, ROOT / "examples" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.main([*flags, "--output", f"{folder}/out", "--model", "generic.m", RUNNER])


def _lines(folder: Path) -> list[Any]:
    return [line for path in folder.rglob("*.jsonl") for line in read_jsonl(path)]


def _parquet(folder: Path) -> Found:
    pq.write_table(pa.Table.from_pylist(REVIEWS), folder / "rows.parquet")
    _main("parquet_to_parquet", folder, "--input", f"{folder}/rows.parquet")
    records = [r for path in folder.glob("out*.parquet") for r in pq.read_table(path).to_pylist()]
    return [(record["id"], record["ok"], record["result"]) for record in records]


def _text(folder: Path) -> Found:
    (folder / "notes.txt").write_text("great\ncut\n")
    _main("text_to_jsonl", folder, "--input", f"{folder}/notes.txt")
    assert (folder / "out" / "failed" / "type=Truncated").is_dir()
    lines = _lines(folder / "out")
    return [(line["input"]["line"], line["ok"], line["result"]) for line in lines]


def _bigquery(folder: Path) -> Found:
    _main("bigquery_rows", folder)
    return [(line["id"], line["ok"], line["result"]) for line in _lines(folder / "out")]


def _run_inference(folder: Path) -> Found:
    write_jsonl(folder / "rows.jsonl", REVIEWS)
    _main("run_inference", folder, "--input", f"{folder}/rows.jsonl")
    return [(line["id"], line["ok"], line["mood"]) for line in _lines(folder / "out")]


def _yaml(folder: Path) -> Found:
    pytest.importorskip("docstring_parser", reason="Beam YAML needs beam-batch[yaml]")
    pytest.importorskip("pandas", reason="Beam YAML needs beam-batch[yaml]")
    from apache_beam.yaml import main

    write_jsonl(folder / "rows.jsonl", REVIEWS)
    providers = Path(beam_batch.__file__).parent / "yaml_provider.yaml"
    variables = {
        "input": f"{folder}/rows.jsonl", "output": f"{folder}/out", "model": "generic.m",
        "providers": str(providers),
    }  # fmt: skip
    main.run(
        [
            f"--yaml_pipeline_file={ROOT}/examples/reviews.yaml",
            f"--jinja_variables={json.dumps(variables)}",
            RUNNER,
        ]
    )
    good, bad = _lines(folder / "out" / "ok"), _lines(folder / "out" / "failed")
    return [(line["id"], line["ok"], line["result"]) for line in good] + [
        (line["element"]["id"], False, None) for line in bad
    ]


MOOD = "Name the mood of: great"
EXAMPLES: dict[Callable[[Path], Found], Found] = {
    _parquet: [("a", True, MOOD), ("b", False, None)],
    _text: [("cut", False, None), ("great", True, "Say in five words: great")],
    _bigquery: [
        (
            "17",
            True,
            'Thank {"name": "Ada", "country": "UK"} for [{"item": "lamp", "price": "19.90"}, '
            '{"item": "bulb", "price": "2.50"}] of 2026-03-01T09:30:00+00:00',
        ),
        ("18", True, 'Thank {"name": "Bo", "country": null} for [] of null'),
    ],
    _run_inference: [("a", True, MOOD), ("b", False, None)],
    _yaml: [("a", True, MOOD), ("b", False, None)],
}


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.__name__[1:])
def test_an_example_does_what_it_says(
    example: Callable[[Path], Found], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(monkeypatch, _script):
        assert sorted(example(tmp_path)) == EXAMPLES[example]


def test_every_example_is_tested() -> None:
    names = {path.stem for path in (ROOT / "examples").iterdir() if path.is_file()}
    assert names == {
        "parquet_to_parquet", "text_to_jsonl", "bigquery_rows", "run_inference", "reviews",
    }  # fmt: skip
