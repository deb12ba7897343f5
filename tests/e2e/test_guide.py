"""Every command of the guide's sections 1 to 7, as it stands there but for the program's name.

The command with --agent-card waits for agents. The server is llmock, which nobody here wrote: it
answers structured requests from the schema it was sent, and keeps the raw requests.
"""

from __future__ import annotations

import json
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Llmock
from tests.support import beam_batch, environment, read_jsonl, write_jsonl

REVIEWS = [
    {"id": "r1", "review": "The battery lasts all day.", "product": "phone"},
    {"id": "r2", "review": "Arrived late and the box was damaged.", "product": "speaker"},
]
SCHEMA = {
    "type": "object",
    "properties": {
        "sentiment": {"type": "string", "enum": ["positive", "neutral", "negative"]},
        "reason": {"type": "string"},
    },
    "required": ["sentiment", "reason"],
    "additionalProperties": False,
}
INSTRUCTION = """You classify customer reviews.
Return a concise answer with:
- sentiment: positive, neutral, or negative
- reason: one short sentence
"""
TEMPLATE = "Review of {{product}}: {{review}}\n\nFull record:\n{{row_json}}\n"

Guide = Callable[[str], subprocess.CompletedProcess[str]]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_jsonl(tmp_path / "reviews.jsonl", REVIEWS)
    write_jsonl(tmp_path / "rows.jsonl", [{"n": n} for n in range(1, 13)])
    (tmp_path / "sentiment-instructions.md").write_text(INSTRUCTION)
    (tmp_path / "review-template.md").write_text(TEMPLATE)
    (tmp_path / "sentiment.schema.json").write_text(json.dumps(SCHEMA))
    return tmp_path


@pytest.fixture
def guide(folder: Path, llmock: Llmock) -> Guide:
    """Runs a command of the guide, and expects it to succeed."""
    env = environment(OPENAI_BASE_URL=llmock.base_url, OPENAI_API_KEY="sk-test")

    def run(command: str) -> subprocess.CompletedProcess[str]:
        program, *arguments = shlex.split(command.replace("\\\n", " "))
        assert program == "beam-batch"
        done = beam_batch(*arguments, env=env, cwd=folder)
        assert done.returncode == 0, done.stderr
        return done

    return run


def _results(folder: Path) -> list[Any]:
    return read_jsonl(folder / "review-results.jsonl")


def _check_structured(folder: Path) -> None:
    for row, envelope in zip(REVIEWS, _results(folder), strict=True):
        assert list(envelope) == ["id", "row_number", "ok", "result", "error"]
        assert envelope["ok"] is True
        assert envelope["result"]["sentiment"] in ("positive", "neutral", "negative")
        assert isinstance(envelope["result"]["reason"], str)
        assert envelope["id"] in (row["id"], envelope["row_number"])


def test_first_command_sends_the_first_ten_rows_as_json(
    guide: Guide, folder: Path, llmock: Llmock
) -> None:
    done = guide(r"""beam-batch run \
--input rows.jsonl \
--output results.jsonl \
--limit 10 \
--model "responses.gpt-5.4-mini?reasoning=low"
""")
    assert [r["row_number"] for r in read_jsonl(folder / "results.jsonl")] == list(range(1, 11))
    bodies = llmock.bodies()
    assert sorted(json.loads(body["input"])["n"] for body in bodies) == list(range(1, 11))
    assert {body["model"] for body in bodies} == {"gpt-5.4-mini"}
    assert {body["reasoning"]["effort"] for body in bodies} == {"low"}
    assert json.loads(done.stdout)["selected_rows"] == 10


def test_flex_command_asks_for_the_flex_tier(guide: Guide, folder: Path, llmock: Llmock) -> None:
    guide(r"""beam-batch run \
--input rows.jsonl \
--output results.jsonl \
--model "responses.gpt-5.4-mini?service_tier=flex"
""")
    assert len(read_jsonl(folder / "results.jsonl")) == 12
    assert {body["service_tier"] for body in llmock.bodies()} == {"flex"}


def test_section_1_quick_batch(guide: Guide, folder: Path, llmock: Llmock) -> None:
    guide(r"""beam-batch run \
--input reviews.jsonl \
--output review-results.jsonl \
--model "responses.gpt-5.5"
""")
    assert [(r["id"], r["row_number"], r["ok"]) for r in _results(folder)] == [
        (1, 1, True),
        (2, 2, True),
    ]
    assert {body["model"] for body in llmock.bodies()} == {"gpt-5.5"}


def test_section_1_include_input_and_id_field(guide: Guide, folder: Path) -> None:
    guide(r"""beam-batch run \
--input reviews.jsonl \
--output review-results.jsonl \
--include-input \
--id-field id \
--model "responses.gpt-5.5"
""")
    assert [r["id"] for r in _results(folder)] == ["r1", "r2"]
    assert [r["input"] for r in _results(folder)] == REVIEWS


def test_section_2_instruction(guide: Guide, folder: Path, llmock: Llmock) -> None:
    guide(r"""beam-batch run \
--input reviews.jsonl \
--output review-results.jsonl \
--instruction sentiment-instructions.md \
--model "responses.gpt-5.5"
""")
    assert len(_results(folder)) == 2
    assert {body["instructions"] for body in llmock.bodies()} == {INSTRUCTION}


def test_section_3_template(guide: Guide, folder: Path, llmock: Llmock) -> None:
    guide(r"""beam-batch run \
--input reviews.jsonl \
--output review-results.jsonl \
--instruction sentiment-instructions.md \
--template review-template.md \
--model "responses.gpt-5.5"
""")
    text = "Review of {}: {}\n\nFull record:\n{}\n"
    expected = {
        text.format(row["product"], row["review"], json.dumps(row, indent=2)) for row in REVIEWS
    }
    assert {body["input"] for body in llmock.bodies()} == expected
    assert len(_results(folder)) == 2


def test_section_3_prompt(guide: Guide, folder: Path, llmock: Llmock) -> None:
    guide(r"""beam-batch run \
--input reviews.jsonl \
--output review-results.jsonl \
--instruction sentiment-instructions.md \
--prompt "Classify this {{product}} review into positive, neutral, or negative: {{review}}" \
--model "responses.gpt-5.5"
""")
    text = "Classify this {} review into positive, neutral, or negative: {}"
    assert {body["input"] for body in llmock.bodies()} == {
        text.format(row["product"], row["review"]) for row in REVIEWS
    }
    assert len(_results(folder)) == 2


def test_section_4_schema(guide: Guide, folder: Path, llmock: Llmock) -> None:
    guide(r"""beam-batch run \
--input reviews.jsonl \
--output review-results.jsonl \
--instruction sentiment-instructions.md \
--template review-template.md \
--schema sentiment.schema.json \
--model "responses.gpt-5.5"
""")
    _check_structured(folder)
    for body in llmock.bodies():
        assert body["text"]["format"]["schema"] == SCHEMA
        assert body["text"]["format"]["strict"] is True


def test_section_5_parallel(guide: Guide, folder: Path, llmock: Llmock) -> None:
    guide(r"""beam-batch run \
--input reviews.jsonl \
--output review-results.jsonl \
--instruction sentiment-instructions.md \
--template review-template.md \
--schema sentiment.schema.json \
--parallel 4 \
--model "responses.gpt-5.5?transport=auto"
""")
    _check_structured(folder)
    assert len(llmock.bodies()) == 2


def test_section_5_work_dir(guide: Guide, folder: Path) -> None:
    guide(r"""beam-batch run \
--input reviews.jsonl \
--output review-results.jsonl \
--parallel 4 \
--work-dir .batch/reviews \
--model "responses.gpt-5.5"
""")
    assert len(_results(folder)) == 2
    assert not (folder / ".batch/reviews").exists()


def test_section_6_resume(guide: Guide, folder: Path, llmock: Llmock) -> None:
    first = {"id": "r1", "row_number": 1, "ok": True, "result": {"kept": 1}, "error": None}
    failed = {"id": "r2", "row_number": 2, "ok": False, "result": None, "error": {"type": "X"}}
    write_jsonl(folder / "review-results.jsonl", [first, failed])
    done = guide(r"""beam-batch run \
--input reviews.jsonl \
--output review-results.jsonl \
--instruction sentiment-instructions.md \
--template review-template.md \
--schema sentiment.schema.json \
--resume \
--id-field id \
--model "responses.gpt-5.5"
""")
    results = _results(folder)
    assert results[:2] == [first, failed]
    assert [(r["id"], r["ok"]) for r in results[2:]] == [("r2", True)]
    assert len(llmock.bodies()) == 1
    summary = json.loads(done.stdout)
    assert (summary["processed_rows"], summary["skipped_rows"]) == (1, 1)


def test_section_6_parallel_resume(guide: Guide, folder: Path, llmock: Llmock) -> None:
    command = r"""beam-batch run \
--input reviews.jsonl \
--output review-results.jsonl \
--parallel 4 \
--work-dir .batch/reviews \
--resume \
--id-field id \
--model "responses.gpt-5.5"
"""
    guide(command)
    assert [r["id"] for r in _results(folder)] == ["r1", "r2"]
    guide(command)
    assert [r["id"] for r in _results(folder)] == ["r1", "r2"]
    assert len(llmock.bodies()) == 2


def test_section_7_telemetry_and_summaries(guide: Guide, folder: Path) -> None:
    done = guide(r"""beam-batch run \
--input reviews.jsonl \
--output review-results.jsonl \
--instruction sentiment-instructions.md \
--template review-template.md \
--schema sentiment.schema.json \
--telemetry-output review-telemetry.jsonl \
--summary-output review-summary.json \
--error-output review-errors.jsonl \
--progress-every 100 \
--model "responses.gpt-5.5"
""")
    _check_structured(folder)
    for number, record in enumerate(read_jsonl(folder / "review-telemetry.jsonl"), 1):
        assert list(record)[:5] == ["id", "row_number", "ok", "timing", "usage"]
        assert record["row_number"] == number
        assert record["timing"]["duration_ms"] > 0
        assert record["usage"]["turn"]["output_tokens"] > 0
        assert record["attempts"] == 1
    summary = json.loads((folder / "review-summary.json").read_text())
    assert json.loads(done.stdout) == summary
    assert summary["processed_rows"] == 2
    assert summary["timing_ms"]["duration"]["count"] == 2
    assert (folder / "review-errors.jsonl").read_text() == ""
