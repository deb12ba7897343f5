"""Caps that hold, whatever happens; outages; deadlines."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.fakes import PRICE, Answer, PayingServer, ScriptedServer, completion
from tests.support import beam_batch, environment, read_jsonl, write_jsonl


def _run(folder: Path, server: ScriptedServer, *more: object) -> Any:
    done = beam_batch(
        "run", "-i", folder / "rows.jsonl", "-o", folder / "out.jsonl", "-p", "row {{n}}",
        "-m", "generic.m?max_tokens=40", "--retry-wait", "0.01", "--no-final-summary",
        "--summary-output", folder / "s.json", *more, env=environment(
            GENERIC_BASE_URL=server.base_url
        ),
    )  # fmt: skip
    assert "Traceback" not in done.stderr
    return done


@pytest.mark.parametrize(("workers", "seed"), [(1, 1), (2, 2)])
def test_a_cap_on_money_is_never_passed(tmp_path: Path, workers: int, seed: int) -> None:
    write_jsonl(tmp_path / "rows.jsonl", [{"n": n} for n in range(400)])
    beam = ("--", f"--direct_num_workers={workers}")
    with PayingServer(seed) as server:
        done = _run(tmp_path, server, *PRICE, "--max-cost", "2.5", "--parallel", "64", *beam)
        assert done.returncode == 4, done.stderr
        assert "--max-cost 2.5" in done.stderr
        assert "--max-cost 5 " in done.stderr.split("Go on with:")[1]
        assert 1.0 < server.paid_usd <= 2.5
        done = _run(
            tmp_path, server, *PRICE, "--max-cost", "4", "--parallel", "64", "--resume", *beam
        )
        assert done.returncode == 4, done.stderr
        assert 2.5 < server.paid_usd <= 4
        done = _run(tmp_path, server, *PRICE, "--parallel", "64", "--resume", *beam)
        assert done.returncode == 0, done.stderr
    rows = read_jsonl(tmp_path / "out.jsonl")
    assert [row["row_number"] for row in rows] == list(range(1, 401))


def test_what_a_session_without_a_cap_spent_counts_under_a_later_cap(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "rows.jsonl", [{"n": n} for n in range(400)])
    with PayingServer(5) as server:
        flags = (*PRICE, "--parallel", "8", "--max-errors", "10")
        done = _run(tmp_path, server, *flags)
        assert done.returncode == 3, done.stderr
        before = server.paid_usd
        assert before > 0.2
        cap = f"{before + 2:.4f}"
        done = _run(tmp_path, server, *PRICE, "--max-cost", cap, "--parallel", "8", "--resume")
        assert done.returncode == 4, done.stderr
        lost = 0.06 * 8  # what the first session paid without an answer is nobody's knowledge
        assert before < server.paid_usd <= before + 2 + lost


def test_a_run_that_stops_in_mid_ladder_records_what_it_paid(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "rows.jsonl", [{"n": n} for n in range(60)])
    (tmp_path / "schema.json").write_text('{"type": "object"}')
    with ScriptedServer(lambda number, body: Answer(text="no object")) as server:
        flags = ("--schema", tmp_path / "schema.json", "--reask", "1", "--parallel", "4")
        done = _run(tmp_path, server, *flags, "--max-errors", "5")
        assert done.returncode == 3, done.stderr
        stopped_at = server.requests
        done = _run(tmp_path, server, "--schema", tmp_path / "schema.json", "--resume",
                    "--telemetry-output", tmp_path / "t.jsonl")  # fmt: skip
    telemetry = read_jsonl(tmp_path / "t.jsonl")
    assert sum(record["attempts"] for record in telemetry) == server.requests
    assert server.requests >= stopped_at + 55


def test_a_cap_on_tokens_is_never_passed(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "rows.jsonl", [{"n": n} for n in range(400)])
    with PayingServer(3) as server:
        done = _run(tmp_path, server, "--max-tokens-total", "30000", "--parallel", "32")
    assert done.returncode == 4, done.stderr
    assert 5_000 < server.paid_tokens <= 30_000


def test_a_cap_that_nothing_reaches_does_not_disturb(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "rows.jsonl", [{"n": n} for n in range(50)])
    with PayingServer(4) as server:
        done = _run(tmp_path, server, *PRICE, "--max-cost", "500")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("flags", "model", "words"),
    [
        (("--max-cost", "5"), "gpt-5.4-mini", "add max_tokens"),
        (("--max-cost", "5"), "generic.m?max_tokens=9", "price of generic.m?max_tokens=9 is unkno"),
        (("--max-tokens-total", "5"), "gpt-5.4-mini?web_search=true&max_tokens=9", "web_search"),
        (("--max-cost", "-1"), "echo", "--max-cost must be 0 or more"),
        (("--reask", "1"), "echo", "--reask 1 needs --schema"),
        (("--flex-fallback",), "echo", "needs service_tier=flex"),
        (("--fallback-model", "nobody.m"), "echo", "--fallback-model nobody.m"),
        (("--parallel", "many"), "echo", "--parallel must be auto or a whole number"),
        (("--rpm", "0"), "echo", "--rpm must be 1 or more"),
        (("--row-deadline", "0"), "echo", "--row-deadline must be more than 0 s"),
    ],
)
def test_what_cannot_work_is_said_before_anything_is_sent(
    tmp_path: Path, flags: tuple[str, ...], model: str, words: str
) -> None:
    write_jsonl(tmp_path / "rows.jsonl", [{"n": 1}])
    done = beam_batch(
        "run", "-i", tmp_path / "rows.jsonl", "-o", tmp_path / "out.jsonl", "-m", model, *flags,
        env=environment(OPENAI_API_KEY="key-of-a-test"),
    )  # fmt: skip
    assert done.returncode == 2
    assert words in done.stderr
    assert not (tmp_path / "out.jsonl").exists()


def test_a_row_has_no_longer_than_its_deadline(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "rows.jsonl", [{"n": n} for n in range(3)])

    def script(number: int, body: dict[str, Any]) -> Answer:
        return Answer(fault="hang") if "row 1" in str(body) else Answer()

    with ScriptedServer(script) as server:
        done = _run(tmp_path, server, "--row-deadline", "1")
    assert done.returncode == 0, done.stderr
    rows = read_jsonl(tmp_path / "out.jsonl")
    assert [row["ok"] for row in rows] == [True, False, True]
    assert rows[1]["error"] == {
        "type": "TimedOut", "message": "--row-deadline: no answer within 1 s"
    }  # fmt: skip


def test_an_outage_fails_no_row(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "rows.jsonl", [{"n": n} for n in range(300)])

    def script(number: int, body: dict[str, Any]) -> Answer:
        return Answer(status=503) if 50 < number <= 73 else Answer()

    with ScriptedServer(script) as server:
        done = _run(tmp_path, server, "--max-attempts", "3", "--parallel", "20")
    assert done.returncode == 0, done.stderr
    assert all(row["ok"] for row in read_jsonl(tmp_path / "out.jsonl"))


def test_refusals_for_ever_fail_rows_and_then_stop_the_run(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "rows.jsonl", [{"n": n} for n in range(3)])
    with ScriptedServer(lambda number, body: Answer(status=429)) as server:
        done = _run(tmp_path, server, "--max-attempts", "2")
        assert done.returncode == 1
        assert server.requests == 6
        write_jsonl(tmp_path / "rows.jsonl", [{"n": n} for n in range(50)])
        done = _run(tmp_path, server, "--max-outage", "3", "--overwrite")
    assert done.returncode == 1
    assert "the provider has answered nothing for" in done.stderr


def test_a_redirect_is_not_followed_so_that_the_key_goes_nowhere_else(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "rows.jsonl", [{"n": 1}])
    with ScriptedServer() as elsewhere:
        there = {"Location": f"{elsewhere.base_url}/chat/completions"}
        with ScriptedServer(lambda number, body: Answer(status=307, headers=there)) as server:
            done = _run(tmp_path, server)
        assert elsewhere.requests == 0
    assert done.returncode == 1
    assert read_jsonl(tmp_path / "out.jsonl")[0]["error"]["type"] == "RequestRejected"


def test_no_usage_and_another_model_s_name_are_no_failures(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "rows.jsonl", [{"n": n} for n in range(4)])

    def script(number: int, body: dict[str, Any]) -> Answer:
        whole = completion(body, Answer()) | {"usage": None, "model": f"other-{number}"}
        return Answer(body=json.dumps(whole).encode())

    with ScriptedServer(script) as server:
        done = _run(tmp_path, server, *PRICE, "--telemetry-output", tmp_path / "t.jsonl")
    assert done.returncode == 0, done.stderr
    telemetry = read_jsonl(tmp_path / "t.jsonl")
    assert all(record["model"].startswith("other-") for record in telemetry)
    assert all(record["usage"] == {} for record in telemetry)


def test_an_outage_that_lasts_stops_the_run_to_be_resumed(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "rows.jsonl", [{"n": n} for n in range(200)])

    def script(number: int, body: dict[str, Any]) -> Answer:
        return Answer(status=503) if number > 50 else Answer()

    with ScriptedServer(script) as server:
        done = _run(tmp_path, server, "--max-outage", "2", "--parallel", "20")
    assert done.returncode == 1
    assert "the provider has answered nothing for" in done.stderr
    with ScriptedServer() as server:
        done = _run(tmp_path, server, "--resume")
    assert done.returncode == 0, done.stderr
    rows = read_jsonl(tmp_path / "out.jsonl")
    assert len(rows) == 200
    assert sum(not row["ok"] for row in rows) < 20
