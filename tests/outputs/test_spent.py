"""The journal of model calls: what attempts have cost that never got their outcome."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import pytest

from beam_batch.calling.window import Window
from beam_batch.outputs import parts
from beam_batch.outputs.commit import NEW, CommitSpec, commit
from beam_batch.outputs.ledger import spent_by_sessions
from beam_batch.outputs.spent import Lost, SpentLog, lost
from beam_batch.outputs.workdir import WorkDir
from beam_batch.records import Outcome

TOKENS = {"input_tokens": 10, "output_tokens": 5}


@pytest.fixture
def work(tmp_path: Path) -> WorkDir:
    found = WorkDir(str(tmp_path / "work"))
    found.create()
    return found


def _record(work: WorkDir, session: int, *numbers: int, usd: float = 0.01) -> None:
    writer = parts.PartWriter(work.place, "ok", session)
    for number in numbers:
        envelope = {"id": number, "row_number": number, "ok": True, "result": 1, "error": None}
        telemetry: dict[str, Any] = {
            "id": number, "timing": {}, "usage": {"turn": TOKENS}, "cost_usd": usd, "attempts": 1,
        }  # fmt: skip
        writer.append(Outcome(0, number, True, envelope, telemetry))
    writer.close()


def _commit(work: WorkDir, rows: int, session: int = 1) -> dict[str, Any]:
    return commit(
        CommitSpec(
            work=work, output=str(work.root.parent / "out.jsonl"), error_output=None,
            telemetry_output=None, mode=NEW, session=session, rows=(rows,), keep_bytes=(),
        )
    )  # fmt: skip


def test_where_nothing_was_noted_nothing_is_lost_and_no_file_is_made(work: WorkDir) -> None:
    log = SpentLog(work, 1)
    log.begin(1)
    log.done(1)
    log.close()
    assert not (work.root / "spent").exists()
    assert lost(work) == Lost({}, 0.0, 0)
    _record(work, 1, 1)
    assert "lost_attempts" not in _commit(work, 1)


def test_calls_of_an_attempt_without_an_outcome_are_lost_those_of_others_are_not(
    work: WorkDir,
) -> None:
    log = SpentLog(work, 1)
    for number in (1, 2):
        log.begin(number)
        log.paid(number, 0.25, TOKENS)
        log.paid(number, 0.5, TOKENS)
    _record(work, 1, 1)
    log.done(1)
    log.close()  # the process is killed here, in the middle of row 2
    assert lost(work) == Lost({"input_tokens": 20, "output_tokens": 10}, 0.75, 1)
    again = SpentLog(work, 2)
    again.paid(2, 0.125, TOKENS)
    _record(work, 2, 2, usd=0.125)
    again.done(2)
    again.close()
    counts = _commit(work, 2, session=2)
    assert counts["lost_attempts"] == {
        "rows": 1, "cost_usd": 0.75, "usage": {"input_tokens": 20, "output_tokens": 10},
    }  # fmt: skip
    assert counts["cost_usd"] == pytest.approx(0.01 + 0.125 + 0.75)
    assert counts["usage"]["input_tokens"] == 20
    assert spent_by_sessions(work, lambda session: session == 1) == (pytest.approx(0.76), 45)


def test_a_death_between_the_outcome_and_its_note_counts_nothing_twice(work: WorkDir) -> None:
    log = SpentLog(work, 1)
    log.paid(1, 0.5, TOKENS)
    _record(work, 1, 1, usd=0.5)
    log.close()
    assert lost(work).rows == 0
    assert _commit(work, 1)["cost_usd"] == 0.5


def test_an_attempt_that_was_begun_anew_in_the_same_session_is_lost(work: WorkDir) -> None:
    log = SpentLog(work, 1)
    log.paid(1, 0.5, TOKENS)
    log.begin(1)
    log.paid(1, 0.25, TOKENS)
    _record(work, 1, 1, usd=0.25)
    log.done(1)
    log.close()
    assert lost(work) == Lost(TOKENS, 0.5, 1)


def test_a_price_that_nobody_knows_is_not_zero(work: WorkDir) -> None:
    log = SpentLog(work, 1)
    log.paid(1, 0.5, TOKENS)
    log.paid(1, None, {})
    log.close()
    assert lost(work) == Lost(TOKENS, None, 1)
    _record(work, 2, 1)
    counts = _commit(work, 1, session=2)
    assert counts["lost_attempts"]["cost_usd"] == "unknown"
    assert counts["rows_without_price"] == 1
    assert counts["cost_usd"] == 0.01


def test_torn_and_foreign_lines_are_passed_over(work: WorkDir) -> None:
    log = SpentLog(work, 1)
    log.paid(1, 0.5, TOKENS)
    log.paid(2, 0.5, TOKENS)
    log.close()
    (path,) = (work.root / "spent").iterdir()
    path.write_bytes(b"\n[]\n\xff\n" + path.read_bytes()[:-10])
    assert lost(work) == Lost(TOKENS, 0.5, 1)


def test_a_full_disk_costs_the_note_and_a_torn_line_ends_at_the_next(
    work: WorkDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = SpentLog(work, 1)
    log.paid(1, 0.5, TOKENS)
    write = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: write(fd, data[:20]))
    log.paid(2, 0.5, TOKENS)

    def full(fd: int, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    log.paid(3, 0.5, TOKENS)
    monkeypatch.setattr(os, "write", write)
    log.paid(4, 0.5, TOKENS)
    log.close()
    assert lost(work) == Lost({"input_tokens": 20, "output_tokens": 10}, 1.0, 2)


def test_the_journal_goes_with_the_work_directory(work: WorkDir) -> None:
    log = SpentLog(work, 1)
    log.paid(1, 0.5, TOKENS)
    log.close()
    assert not work.claim()
    work.clear()
    assert not (work.root / "spent").exists()
    work.remove()
    assert not work.root.exists()


@pytest.mark.parametrize("is_recorded", [True, False])
def test_a_row_is_noted_as_done_where_its_outcome_is_recorded(is_recorded: bool) -> None:
    async def answer(_: Any) -> Outcome:
        return Outcome(0, 7, True, {}, {"cost_usd": 0.5})

    async def recorded(*_: Any) -> bool:
        return is_recorded

    window: Any = MagicMock(_counts={"ok": 0}, _usd=0.0)
    window._answerer.answer = answer
    lane = MagicMock()
    lane.recorder.recorded = recorded
    asyncio.run(Window._result(window, MagicMock(), lane))
    assert window._spent.done.called == is_recorded
    assert window._counts == {"ok": is_recorded}
