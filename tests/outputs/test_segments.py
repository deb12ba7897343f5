"""Lines that are added to files in a store: when they are there, and in which objects."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from beam_batch import existing
from beam_batch.errors import RunStopped
from beam_batch.outputs import prior, segments
from beam_batch.outputs.gauges import Gauge
from beam_batch.outputs.recording import Recorder, RecordSpec
from beam_batch.outputs.segments import Segments, whole_files
from beam_batch.outputs.stopping import StopFlag
from beam_batch.outputs.workdir import WorkDir
from beam_batch.places import Listed
from beam_batch.records import Outcome, Row
from beam_batch.transforms.write_parts import _WritePartsFn
from tests.support import write_jsonl


class Shelf:
    """A store in memory, whose puts may wait or fail."""

    is_folder = False
    uri = "memory://"

    def __init__(self, before_put: Callable[[str], None] = lambda name: None) -> None:
        self.objects: dict[str, bytes] = {}
        self.puts: list[str] = []
        self._before_put = before_put

    def put(self, name: str, data: bytes) -> None:
        self._before_put(name)
        self.puts.append(name)
        self.objects[name] = data

    def remove(self, names: Iterable[str]) -> None:
        for name in names:
            self.objects.pop(name, None)

    def listed(self) -> list[Listed]:
        return [Listed(name, len(data)) for name, data in self.objects.items()]


def test_a_line_is_there_when_its_future_is_done_and_a_file_is_whole_in_the_end() -> None:
    shelf = Shelf()
    writer = Segments(shelf, enough=2)
    first, second = writer.add("parts/ok-1", b"1\n"), writer.add("parts/ok-1", b"2\n")
    first.result(0.9)  # two are enough: nobody waits for the second to pass
    assert second.done()
    third = writer.add("parts/ok-1", b"3\n")
    began = time.monotonic()
    third.result(5)
    assert 0.5 < time.monotonic() - began < 2
    assert [len(data) for data in shelf.objects.values()] == [4, 2]
    writer.close()
    assert list(shelf.objects.values()) == [b"1\n2\n3\n"]


def test_who_finds_segments_and_their_whole_takes_the_whole() -> None:
    """As after a kill between the put of the whole and the removal of its segments."""

    class Died(Shelf):
        def remove(self, names: Iterable[str]) -> None:
            raise OSError

    shelf = Died()
    writer = Segments(shelf, enough=1)
    writer.add("parts/ok-1", b"1\n").result(5)
    writer.add("parts/ok-1", b"2\n").result(5)
    with pytest.raises(OSError):  # noqa: PT011
        writer.close()
    assert len(shelf.objects) == 3
    (whole,) = whole_files(shelf.listed())
    assert shelf.objects[whole.name] == b"1\n2\n"


def test_a_put_that_fails_fails_its_lines_and_no_others() -> None:
    def fail(name: str) -> None:
        if "bad" in name:
            raise OSError(5, "no")

    writer = Segments(Shelf(fail), enough=1)
    bad, good = writer.add("parts/bad", b"1\n"), writer.add("parts/good", b"2\n")
    with pytest.raises(OSError, match="no"):
        bad.result(5)
    good.result(5)
    with pytest.raises(OSError, match="no"):
        writer.close()


class _FailsOnce(Shelf):
    """Says that it has not taken the first segment, of which it may be wrong."""

    def __init__(self) -> None:
        super().__init__()
        self.late: dict[str, bytes] = {}

    def put(self, name: str, data: bytes) -> None:
        if not self.late:
            self.late[name] = data
            raise OSError(5, "no answer")
        super().put(name, data)


def test_a_failed_put_that_nobody_waited_for_is_raised_when_all_is_closed() -> None:
    shelf = _FailsOnce()
    writer = Segments(shelf, enough=1)
    writer.add("parts/kept-1", b"1\n")
    with pytest.raises(OSError, match="no answer"):
        writer.close()
    assert list(shelf.objects.values()) == [b"1\n"]  # the whole was taken


def test_a_failed_put_that_lands_late_replaces_nothing_and_counts_once() -> None:
    shelf = _FailsOnce()
    writer = Segments(shelf, enough=1)
    failed = writer.add("parts/ok-1", b"1\n")
    with pytest.raises(OSError, match="no answer"):
        failed.result(5)
    writer.add("parts/ok-1", b"2\n").result(5)
    shelf.objects |= shelf.late  # while the file is in segments
    assert sorted(shelf.objects[item.name] for item in whole_files(shelf.listed())) == [
        b"1\n", b"2\n",
    ]  # fmt: skip
    with pytest.raises(OSError, match="no answer"):
        writer.close()
    shelf.objects |= shelf.late  # and once it is whole
    (whole,) = whole_files(shelf.listed())
    assert shelf.objects[whole.name] == b"1\n2\n"


def test_where_this_machine_s_disk_is_full_a_file_stays_in_segments(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def full() -> None:
        raise OSError(28, "No space left on device")

    shelf = Shelf()
    writer = Segments(shelf, enough=1)
    monkeypatch.setattr(segments, "TemporaryFile", full)
    with pytest.raises(OSError, match="No space"):
        writer.add("parts/ok-1", b"1\n").result(5)
    monkeypatch.undo()
    writer.add("parts/ok-1", b"2\n").result(5)
    with pytest.raises(OSError, match="No space"):
        writer.close()
    assert list(shelf.objects.values()) == [b"1\n", b"2\n"]


def test_a_file_to_which_lines_are_always_added_has_no_more_segments_than_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(segments, "MOST_SEGMENTS", 5)
    lines = iter([b"%d\n" % number for number in range(50)])

    def add_one(name: str) -> None:
        """Keep a segment open at every moment."""
        if ".0000" in name and (line := next(lines, None)):
            added.append(writer.add("parts/ok-1", line))

    shelf = Shelf(add_one)
    writer = Segments(shelf, enough=1)
    added = [writer.add("parts/ok-1", b"first\n")]
    while len(added) <= 50:
        added[-1].result(5)
    for future in added:
        future.result(5)
    writer.close()
    of = Counter(name.split(".")[0] for name in shelf.puts if ".0000" in name)
    assert max(of.values()) == 5
    assert len(shelf.objects) == len(of)
    assert sorted(b"".join(shelf.objects.values()).split()) == sorted(
        [b"first", *(b"%d" % number for number in range(50))]
    )


def test_of_many_files_the_ones_that_rest_are_made_whole_meanwhile(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(segments, "MOST_FILES", 3)
    shelf = Shelf()
    writer = Segments(shelf, enough=1_000)
    for number in range(10):
        writer.add(f"parts/ok-{number}", b"1\n")
    writer.add("parts/ok-0", b"2\n").result(5)
    writer.add("parts/ok-0", b"3\n").result(5)
    until = time.monotonic() + 5
    while len(writer._files) > 3:  # a file is made whole after its lines are there
        assert time.monotonic() < until
    writer.close()
    assert b"".join(sorted(shelf.objects.values())) == b"1\n" * 9 + b"1\n2\n3\n"


def test_answers_that_a_store_does_not_take_are_not_kept_and_the_run_stops(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Nobody waits for what the driver records before a run."""
    work = WorkDir(f"s3://data/{tmp_path.name}", here=str(tmp_path))
    monkeypatch.setattr(WorkDir, "place", _Refusing())
    output = tmp_path / "out.jsonl"
    records = [{"id": n, "row_number": n, "ok": True, "result": "x"} for n in (1, 2)]
    write_jsonl(output, records)
    prior.build(tmp_path / "index", [output])
    rows = [Row(0, number, number, {}) for number in (1, 2)]
    monkeypatch.setattr(existing, "rows_of", lambda plan, id_field: iter(rows))
    plan: Any = None
    with pytest.raises(RunStopped, match=f"cannot write to {work.path}: Access Denied"):
        existing.keep_answers(work, tmp_path / "index", plan, None)


class _Refusing(Shelf):
    """Takes no segments."""

    def put(self, name: str, data: bytes) -> None:
        if ".0000" in name:
            raise OSError(13, "Access Denied", self.uri)
        super().put(name, data)

    def get(self, name: str) -> None:
        return None


def test_rows_that_a_store_did_not_take_are_not_shown_as_written(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    work = WorkDir(f"s3://data/{tmp_path.name}", here=str(tmp_path))
    monkeypatch.setattr(WorkDir, "place", _Refusing())
    shown: list[int] = []
    monkeypatch.setattr(Gauge, "show", lambda self, values, **_: shown.extend(values.values()))
    stop = StopFlag(work, "stop")
    fn = _WritePartsFn("unrenderable", RecordSpec(work=work, session=1, stop=stop))
    fn.setup()
    fn.start_bundle()
    for number in (1, 2):
        fn.process(Outcome(0, number, False, {"text": "x"}, {}))
    fn.finish_bundle()
    assert shown[-1] == 0
    assert stop.read() == (f"cannot write to {work.path}: Access Denied", 1)


def test_a_file_of_many_bytes_is_made_whole_and_another_is_begun(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(segments, "MOST_BYTES", 100)
    shelf = Shelf()
    writer = Segments(shelf, enough=1)
    for number in range(30):
        writer.add("parts/ok-1", b"%09d\n" % number).result(5)
    writer.close()
    assert len(shelf.objects) == 3
    assert max(len(data) for data in shelf.objects.values()) <= 110
    assert len(b"".join(shelf.objects.values())) == 300


def test_outcomes_that_nobody_waits_for_do_not_pile_up_in_memory(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(segments, "LARGEST", 1000)
    work = WorkDir("s3://data/unused", here=str(tmp_path))
    shelf, most = Shelf(lambda name: time.sleep(0.002)), 0
    monkeypatch.setattr(WorkDir, "place", shelf)
    recorder: Recorder = RecordSpec(work=work, session=1, stop=StopFlag(work, "stop")).open()
    outcome = Outcome(0, 1, True, {"text": "x" * 50}, {})
    for number in range(500):
        recorder.record(outcome._replace(row_number=number), "ok")
        files = recorder._segments._files.values() if recorder._segments else []
        most = max([most, *(file.open.size for file in files if file.open)])
    recorder.close()
    assert 500 < most < 1300
    assert sum(data.count(b"\n") for data in shelf.objects.values()) == 500
