"""Every command of the guide's section 8, as it stands there but for the program's name.

The Hub is the counterpart of tests/hub.py, the provider is llmock.
"""

from __future__ import annotations

import json
import shlex
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.conftest import Llmock
from tests.hub import Hub
from tests.support import beam_batch, read_jsonl

REPO = "evalstate/my-dataset"
ROWS = [
    {"id": "a", "text": "first", "split": "eval"},
    {"id": "b", "text": "second", "split": "train"},
    {"id": "c", "text": "third", "split": "eval"},
]
OTHERS = [{"id": "x", "text": "other", "split": "none"}]

Guide = Callable[[str], subprocess.CompletedProcess[str]]


def _parquet(rows: list[dict[str, str]], path: Path) -> bytes:
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path.read_bytes()


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    lines = "".join(json.dumps(row) + "\n" for row in ROWS).encode()
    with Hub() as hub:
        hub.add(
            REPO,
            {"README.md": b"#", "data/train.jsonl": lines, "data/test.jsonl": b'{"id": "x"}\n'},
            {
                "default/test/0000.parquet": _parquet(OTHERS, tmp_path / "scratch"),
                "default/train/0000.parquet": _parquet(ROWS[:2], tmp_path / "scratch"),
                "default/train/0001.parquet": _parquet(ROWS[2:], tmp_path / "scratch"),
                "other/train/0000.parquet": _parquet(OTHERS, tmp_path / "scratch"),
            },
        )
        yield hub


@pytest.fixture
def guide(hub: Hub, tmp_path: Path, llmock: Llmock) -> Guide:
    """Runs a command of the guide, and expects it to succeed."""
    env = hub.environment(tmp_path, OPENAI_BASE_URL=llmock.base_url, OPENAI_API_KEY="sk-test")

    def run(command: str) -> subprocess.CompletedProcess[str]:
        program, *arguments = shlex.split(command.replace("\\\n", " "))
        assert program == "beam-batch"
        done = beam_batch(*arguments, env=env, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        return done

    return run


def _check_results(folder: Path, count: int) -> None:
    results = read_jsonl(folder / "results.jsonl")
    assert [(r["id"], r["row_number"], r["ok"]) for r in results] == [
        (n, n, True) for n in range(1, count + 1)
    ]
    assert all(r["result"] for r in results)


def _inputs(llmock: Llmock) -> list[Any]:
    rows = [json.loads(body["input"]) for body in llmock.bodies()]
    return sorted(rows, key=lambda row: row["id"])


def test_section_8_config_and_split_of_a_dataset(
    guide: Guide, hub: Hub, tmp_path: Path, llmock: Llmock
) -> None:
    (tmp_path / "record-template.md").write_text("Record {{id}}: {{text}}\n")
    done = guide(r"""beam-batch run \
--input 'hf://datasets/evalstate/my-dataset?config=default&split=train' \
--output results.jsonl \
--template record-template.md \
--model "responses.gpt-5.5?service_tier=flex"
""")
    _check_results(tmp_path, 3)
    bodies = llmock.bodies()
    assert sorted(body["input"] for body in bodies) == [
        "Record a: first\n",
        "Record b: second\n",
        "Record c: third\n",
    ]
    assert {body["model"] for body in bodies} == {"gpt-5.5"}
    assert {body["service_tier"] for body in bodies} == {"flex"}
    summary = json.loads(done.stdout)
    assert summary["input"] == "hf://datasets/evalstate/my-dataset?config=default&split=train"
    assert (summary["input_rows"], summary["selected_rows"], summary["ok_rows"]) == (3, 3, 3)
    files = {asked.path.rpartition("/default/")[2] for asked in hub.log if asked.is_bytes}
    assert files == {"train/0000.parquet", "train/0001.parquet"}


def test_section_8_a_file_of_a_dataset(guide: Guide, tmp_path: Path, llmock: Llmock) -> None:
    guide(r"""beam-batch run \
--input hf://datasets/evalstate/my-dataset/data/train.jsonl \
--output results.jsonl \
--model "responses.gpt-5.5"
""")
    _check_results(tmp_path, 3)
    assert _inputs(llmock) == ROWS


def test_section_8_sql_over_local_parquet(
    guide: Guide, hub: Hub, tmp_path: Path, llmock: Llmock
) -> None:
    _parquet(ROWS, tmp_path / "rows.parquet")
    done = guide(r"""beam-batch run \
--input rows.parquet \
--output results.jsonl \
--sql "SELECT id, text FROM input WHERE split = 'eval'" \
--model "responses.gpt-5.5"
""")
    _check_results(tmp_path, 2)
    assert _inputs(llmock) == [{"id": "a", "text": "first"}, {"id": "c", "text": "third"}]
    assert json.loads(done.stdout)["sql"] == "SELECT id, text FROM input WHERE split = 'eval'"
    assert hub.log == []
