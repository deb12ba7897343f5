"""The web search example, as its README has it: against aimock, and with citations."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.conftest import Aimock
from tests.fakes import Answer, ScriptedServer
from tests.support import ROOT, beam_batch, environment, read_jsonl

FOLDER = ROOT / "templates" / "competitors"
THREE = [{"manufacturer": name, "product": f"{name} One"} for name in ("Belkin", "Bose", "Apple")]


def _command(tmp_path: Path) -> list[str]:
    """Return the arguments of the command in the README, with its files found from anywhere."""
    text = (FOLDER / "README.md").read_text()
    block = text[text.index("beam-batch run") : text.index("\n\nEach envelope")]
    words = shlex.split(block.replace("\\\n", " "))[1:]
    placed = [str(ROOT / word) if word.startswith("templates/") else word for word in words]
    return [str(tmp_path / word) if word.startswith("competitors") else word for word in placed]


def _outputs(tmp_path: Path) -> tuple[list[Any], list[Any]]:
    return (
        read_jsonl(tmp_path / "competitors.jsonl"),
        read_jsonl(tmp_path / "competitors-telemetry.jsonl"),
    )


def test_the_example_runs_as_written(
    tmp_path: Path, aimock: Callable[[list[dict[str, Any]]], Aimock]
) -> None:
    fixtures = [
        {
            "match": {"userMessage": name},
            "response": {
                "content": json.dumps({"competitors": THREE[:count]}),
                "webSearches": [f"best {name}", f"{name} alternatives"],
            },
        }
        for name, count in (("Anker", 3), ("Sony", 3), ("Moccamaster", 2))
    ]
    server = aimock(fixtures)
    env = environment(OPENAI_BASE_URL=server.base_url, OPENAI_API_KEY="sk-example-1")
    done = beam_batch(*_command(tmp_path), "--no-final-summary", env=env)
    assert done.returncode == 0, done.stderr
    results, telemetry = _outputs(tmp_path)
    assert [row["id"] for row in results] == ["p1", "p2", "p3"]
    assert results[0]["result"] == {"competitors": THREE}
    assert results[1]["ok"]
    assert results[2]["error"]["type"] == "StructuredOutputError"
    assert "competitors" in results[2]["error"]["message"]
    assert [row["web_searches"] for row in telemetry] == [2, 2, 2]


def test_citations_are_kept_in_telemetry(tmp_path: Path) -> None:
    text = json.dumps({"competitors": THREE})
    note = {"type": "url_citation", "url": "https://a.example", "title": "A", "start_index": 3,
            "end_index": 9}  # fmt: skip
    body = {
        "object": "response", "id": "r", "status": "completed", "model": "m",
        "output": [
            {"type": "web_search_call", "status": "completed", "action": {"type": "search"}},
            {"type": "message", "role": "assistant", "content": [
                {"type": "output_text", "text": text, "annotations": [note]}]},
        ],
    }  # fmt: skip
    asked = []

    def script(number: int, body_sent: dict[str, Any]) -> Answer:
        asked.append(body_sent)
        return Answer(body=json.dumps(body).encode())

    with ScriptedServer(script) as server:
        env = environment(OPENAI_BASE_URL=server.base_url, OPENAI_API_KEY="sk-example-1")
        done = beam_batch(*_command(tmp_path), "--no-final-summary", env=env)
    assert done.returncode == 0, done.stderr
    results, telemetry = _outputs(tmp_path)
    assert all(row["ok"] for row in results)
    assert {"type": "web_search"} in asked[0]["tools"]
    cited = {"url": "https://a.example", "title": "A", "start_index": 3, "end_index": 9}
    assert [row["citations"] for row in telemetry] == [[cited]] * 3
