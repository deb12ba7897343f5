"""What a summary says of money is what the server's own journal comes to."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.batches.server import BatchServer
from tests.fakes import Answer, ScriptedServer, completion
from tests.support import beam_batch, environment, read_jsonl, write_jsonl

INPUT, CACHED, OUTPUT = 0.75, 0.075, 4.5
"""US dollars per million tokens of gpt-5.4-mini at the default tier."""
FACTORS = {"default": 1.0, "flex": 0.5, "priority": 2.0}


class Metered(ScriptedServer):
    """Answers with some usage, and keeps a journal of it."""

    def __init__(self, served: str) -> None:
        super().__init__(self._meter)
        self._served = served
        self.journal: list[tuple[int, int, int]] = []

    def _meter(self, number: int, body: dict[str, Any]) -> Answer:
        given, cached, made = 1000 + 37 * number, 512 * (number % 3), 50 + 11 * number
        self.journal.append((given, cached, made))
        whole = completion(body, Answer(text="fine")) | {
            "model": "gpt-5.4-mini-2026-03-17",
            "service_tier": self._served,
            "usage": {
                "input_tokens": given,
                "input_tokens_details": {"cached_tokens": cached},
                "output_tokens": made,
                "total_tokens": given + made,
            },
        }
        return Answer(body=json.dumps(whole).encode())

    def usd(self) -> float:
        """Add the journal up at list prices."""
        millionths = sum(
            (given - cached) * INPUT + cached * CACHED + made * OUTPUT
            for given, cached, made in self.journal
        )
        return millionths * FACTORS[self._served] / 1e6


@pytest.mark.parametrize("tier", ["default", "flex", "priority"])
def test_cost_is_the_sum_of_the_server_s_journal_on_every_tier(tmp_path: Path, tier: str) -> None:
    write_jsonl(tmp_path / "rows.jsonl", [{"n": n} for n in range(60)])
    with Metered(tier) as server:
        done = beam_batch(
            "run", "-i", tmp_path / "rows.jsonl", "-o", tmp_path / "out.jsonl", "-p", "row {{n}}",
            "-m", f"responses.gpt-5.4-mini?service_tier={tier}", "--telemetry-output",
            tmp_path / "t.jsonl",
            env=environment(OPENAI_BASE_URL=server.base_url, OPENAI_API_KEY="key-of-a-test"),
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert len(server.journal) == 60
    assert summary["cost_usd"] == pytest.approx(server.usd(), abs=1e-5)
    rows = [record["cost_usd"] for record in read_jsonl(tmp_path / "t.jsonl")]
    assert sum(rows) == pytest.approx(summary["cost_usd"], abs=1e-5)
    cached = sum(entry[1] for entry in server.journal)
    assert summary["cached_share"] == pytest.approx(
        cached / sum(entry[0] for entry in server.journal), abs=1e-4
    )
    saved = cached * (INPUT - CACHED) * FACTORS[tier] / 1e6
    assert summary["saved_by_prompt_cache_usd"] == pytest.approx(saved, abs=1e-5)
    assert {body["service_tier"] for body in server.bodies} == {tier}


def test_a_batch_costs_half(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "rows.jsonl", [{"n": n} for n in range(40)])
    with BatchServer() as server:
        done = beam_batch(
            "run", "-i", tmp_path / "rows.jsonl", "-o", tmp_path / "out.jsonl", "-p", "row {{n}}",
            "-m", "responses.gpt-5.4-mini", "--backend", "batch", "--batch-poll", "0.02",
            env=environment(OPENAI_BASE_URL=server.base_url, OPENAI_API_KEY="key-of-a-test"),
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    by_hand = 40 * (5 * INPUT + 2 * OUTPUT) / 2 / 1e6  # the server counts 5 in and 2 out a row
    assert json.loads(done.stdout)["cost_usd"] == pytest.approx(by_hand, abs=1e-6)


def test_an_unknown_price_is_unknown_and_not_nothing(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "rows.jsonl", [{"n": 1}])
    with ScriptedServer() as server:
        done = beam_batch(
            "run", "-i", tmp_path / "rows.jsonl", "-o", tmp_path / "out.jsonl", "-m", "generic.m",
            env=environment(GENERIC_BASE_URL=server.base_url),
        )  # fmt: skip
    summary = json.loads(done.stdout)
    assert summary["cost_usd"] == "unknown"
    assert summary["rows_without_price"] == 1


def test_identical_rows_cost_one_request_and_a_cache_serves_the_next_run(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "rows.jsonl", [{"kind": n % 4} for n in range(40)])

    def run(*more: object) -> dict[str, Any]:
        done = beam_batch(
            "run", "-i", tmp_path / "rows.jsonl", "-o", tmp_path / "out.jsonl", "-p", "{{kind}}",
            "-m", "generic.m", "--overwrite", "--price", "input=1,output=1", *more,
            env=environment(GENERIC_BASE_URL=server.base_url),
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        summary: dict[str, Any] = json.loads(done.stdout)
        return summary

    with ScriptedServer() as server:
        first = run("--cache", tmp_path / "cache")
        assert server.requests == 4
        assert first["rows_from_duplicate"] == 36
        assert first["cost_usd"] == pytest.approx(4 * 6 / 1e6)
        second = run("--cache", tmp_path / "cache")
        assert server.requests == 4
        assert second["rows_from_cache"] + second.get("rows_from_duplicate", 0) == 40
        assert second["cost_usd"] == 0
        run("--no-dedupe")
        assert server.requests == 44
    rows = read_jsonl(tmp_path / "out.jsonl")
    assert [row["result"] for row in rows] == [str(n % 4) for n in range(40)]


def test_rows_of_a_group_are_asked_together_and_written_in_their_order(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "rows.jsonl", [{"n": n, "book": n % 3} for n in range(30)])
    with ScriptedServer() as server:
        done = beam_batch(
            "run", "-i", tmp_path / "rows.jsonl", "-o", tmp_path / "out.jsonl", "-m", "generic.m",
            "-p", "{{book}} {{n}}", "--group-by", "book", "--parallel", "1",
            env=environment(GENERIC_BASE_URL=server.base_url),
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    books = [body["messages"][-1]["content"].split()[0] for body in server.bodies]
    assert books == ["0"] * 10 + ["1"] * 10 + ["2"] * 10
    assert [row["row_number"] for row in read_jsonl(tmp_path / "out.jsonl")] == [*range(1, 31)]
