"""Part files, the index of a finished output, the commit and the summary."""

from __future__ import annotations

import errno
import json
import os
import statistics
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from beam_batch.outputs import ordering, parts, prior
from beam_batch.outputs.commit import APPEND, NEW, CommitSpec, IncompleteRun, commit
from beam_batch.outputs.stopping import StopFlag
from beam_batch.outputs.summary import Distribution
from beam_batch.outputs.workdir import WorkDir
from beam_batch.records import Outcome
from tests.support import read_jsonl, write_jsonl


def _outcome(number: int, ok: bool = True, text: str = "x", shard: int = 0) -> Outcome:
    error = None if ok else {"type": "Truncated", "message": text}
    envelope = {"id": number, "row_number": number, "ok": ok, "result": text, "error": error}
    telemetry = {"id": number, "timing": {"duration_ms": 1.5}, "usage": {}, "attempts": 1}
    return Outcome(shard, number, ok, envelope, telemetry)


@pytest.fixture
def work(tmp_path: Path) -> WorkDir:
    found = WorkDir(str(tmp_path / "work"))
    found.create()
    return found


def _write(work: WorkDir, session: int, *outcomes: Outcome, kind: str = "ok") -> Path:
    writer = parts.PartWriter(work.place, kind, session)
    for outcome in outcomes:
        writer.append(outcome)
    writer.close()
    (path,) = work.root.glob(f"{parts.start_of(kind, 0, session)}-*")
    return path


def _spec(work: WorkDir, rows: tuple[int, ...], **changes: Any) -> CommitSpec:
    settings: dict[str, Any] = {
        "work": work, "output": str(work.root.parent / "out.jsonl"), "error_output": None,
        "telemetry_output": None, "mode": NEW, "session": 1, "rows": rows, "keep_bytes": (),
    }  # fmt: skip
    return CommitSpec(**(settings | changes))


@given(text=st.text(), number=st.integers(1, 10**9), ok=st.booleans())
def test_an_outcome_comes_back_from_its_line(text: str, number: int, ok: bool) -> None:
    outcome = _outcome(number, ok, text)
    line = parts.encode(outcome)
    assert line.count(b"\n") == 1
    found = parts.decode(line, 1)
    assert found is not None
    assert (found.row_number, found.ok) == (number, ok)
    assert json.loads(found.envelope) == outcome.envelope
    assert json.loads(found.telemetry) == outcome.telemetry


@pytest.mark.parametrize("cut", [1, 2, 10, 100])
def test_a_torn_line_is_seen_and_the_lines_before_it_are_good(work: WorkDir, cut: int) -> None:
    path = _write(work, 1, _outcome(1), _outcome(2, text="é" * 80))
    path.write_bytes(path.read_bytes()[:-cut])
    found = parts.of_shard(work.place, 0)
    first, second = parts.scan(found[0])
    assert first is not None
    assert second is None
    assert parts.finished_rows(found, 9) == {1}


def test_a_writer_keeps_few_files_open_and_loses_nothing(work: WorkDir) -> None:
    writer = parts.PartWriter(work.place, "ok", 1)
    for turn in range(3):
        for shard in range(50):
            writer.append(_outcome(turn + 1, shard=shard))
    assert len(writer._open) == parts.OPEN_FILES
    writer.close()
    found = parts.by_shard(work.place)
    assert len(found) == 50
    assert {len(parts.finished_rows(p, 9)) for p in found.values()} == {3}


def test_a_writer_that_cannot_sync_closes_each_file_once(
    work: WorkDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(errno.EDQUOT, "Disk quota exceeded")

    writer = parts.PartWriter(work.place, "ok", 1)
    for shard in range(3):
        writer.append(_outcome(1, shard=shard))
    opened = set(writer._open.values())
    with monkeypatch.context() as patched:
        patched.setattr(parts.os, "fsync", full)
        for _ in opened:
            with pytest.raises(OSError, match="quota"):
                writer.close()
    writer.close()
    for fd in opened:
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(fd)


@pytest.mark.parametrize("in_memory", [0, ordering.IN_MEMORY], ids=["sought", "read-whole"])
def test_of_several_outcomes_the_answer_wins_then_the_newest(
    work: WorkDir, in_memory: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ordering, "IN_MEMORY", in_memory)
    _write(work, 1, _outcome(2, False, "old"), _outcome(1, text="first"), _outcome(3, False, "a"))
    _write(work, 2, _outcome(2, text="new"), _outcome(1, False, "late"), _outcome(3, False, "b"))
    counts = commit(_spec(work, (3,), session=2))
    envelopes = read_jsonl(work.root.parent / "out.jsonl")
    assert [e["row_number"] for e in envelopes] == [1, 2, 3]
    assert [e["result"] for e in envelopes] == ["first", "new", "b"]
    assert (counts["ok_rows"], counts["skipped_rows"], counts["failed_rows"]) == (1, 1, 1)
    assert counts["errors"] == {"Truncated": 1}
    assert counts["requests"] == 6


def test_a_large_shard_is_ordered_like_a_small_one(
    work: WorkDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    numbers = [n * 37 % 101 for n in range(1, 101)]
    for session in (1, 2, 3):
        some = [_outcome(n, n % 3 > 0, f"{session}-{n}") for n in numbers if n % session == 0]
        path = _write(work, session, *some, *some[:5])
        path.write_bytes(path.read_bytes() + b'{"row_number":7,"ok":tr')
    paths = parts.by_shard(work.place)[0]
    small = list(ordering.in_order(paths))
    monkeypatch.setattr(ordering, "IN_MEMORY", 0)
    large = list(ordering.in_order(paths))
    assert small.count(None) == large.count(None) == 3
    assert [item._replace(place=0) for item in small if item] == [i for i in large if i]


def test_nothing_is_committed_where_a_row_has_no_outcome(work: WorkDir) -> None:
    output = work.root.parent / "out.jsonl"
    output.write_text("old\n")
    _write(work, 1, _outcome(1))
    with pytest.raises(IncompleteRun, match="1 of 2 rows"):
        commit(_spec(work, (2,)))
    assert output.read_text() == "old\n"
    assert [path.name for path in work.root.parent.iterdir() if path.is_file()] == ["out.jsonl"]


def test_a_commit_that_runs_twice_gives_the_same_files_also_when_it_appends(work: WorkDir) -> None:
    output = write_jsonl(work.root.parent / "out.jsonl", [{"id": 1, "ok": True}])
    kept = Outcome(0, 1, True, {"id": 1}, {})
    _write(work, parts.KEPT_SESSION, kept, kind="kept")
    _write(work, 1, _outcome(2))
    size = output.stat().st_size
    spec = _spec(work, (2,), mode=APPEND, keep_bytes=((str(output), size),))
    commit(spec)
    once = output.read_bytes()
    commit(spec)
    assert output.read_bytes() == once
    assert [e["id"] for e in read_jsonl(output)] == [1, 2]


def index(work: WorkDir) -> Path:
    return work.root / "prior.sqlite"


def test_the_index_of_a_finished_output_takes_the_last_good_record(work: WorkDir) -> None:
    output = work.root.parent / "out.jsonl"
    records = [{"id": "a", "ok": True, "result": 1}, {"id": 1, "ok": False}, {"id": 1, "ok": True}]
    write_jsonl(output, [*records, {"id": "a", "ok": True, "result": 2}])
    with output.open("a") as file:
        file.write('{"id": "b", "ok": tr')
    built = prior.build(index(work), [output])
    assert (built.answers, built.torn) == (2, 1)
    assert output.read_bytes()[built.size :] == b'{"id": "b", "ok": tr'
    answers = prior.PriorAnswers(index(work))
    place = answers.find("a")
    assert place is not None
    assert answers.read(place)["result"] == 2
    assert answers.find(1) is not None
    assert answers.find("1") is None
    answers.close()


def test_a_last_record_without_a_newline_is_a_record(work: WorkDir) -> None:
    output = work.root.parent / "out.jsonl"
    output.write_text('{"id": 1, "ok": true}')
    built = prior.build(index(work), [output])
    assert built == (1, 0, output.stat().st_size)


def test_the_first_reason_to_stop_stays(work: WorkDir) -> None:
    flag = StopFlag(work, "stop")
    assert not flag.is_set()
    assert flag.read() is None
    flag.set("first", 3)
    flag.set("second", 1)
    assert flag.is_set()
    assert flag.read() == ("first", 3)


@given(st.lists(st.integers(10**5, 10**8).map(lambda n: n / 10), min_size=1))
def test_order_statistics_of_long_times_are_near_and_take_bounded_memory(
    values: list[float],
) -> None:
    distribution = Distribution()
    for value in values:
        distribution.add(value)
    found = distribution.as_dict()
    assert found["median"] == pytest.approx(statistics.median(values), rel=1e-3)
    assert found["max"] == pytest.approx(max(values), rel=1e-3)
    assert len(distribution._counts) <= 4 * 9_000


@given(st.lists(st.integers(0, 10**5 - 1).map(lambda n: n / 10), min_size=1))
def test_order_statistics_are_exact(values: list[float]) -> None:
    distribution = Distribution()
    for value in values:
        distribution.add(value)
    found = distribution.as_dict()
    ordered = sorted(values)
    assert found["median"] == pytest.approx(statistics.median(values), abs=0.011)
    assert found["p95"] == ordered[-(-len(values) * 95 // 100) - 1]
    assert (found["min"], found["max"], found["count"]) == (ordered[0], ordered[-1], len(values))
