"""Lines that are added to files in a store: when they are there, and in which objects."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from beam_batch.outputs import segments
from beam_batch.outputs.recording import Recorder, RecordSpec
from beam_batch.outputs.segments import Segments, whole_files
from beam_batch.outputs.stopping import StopFlag
from beam_batch.outputs.workdir import WorkDir
from beam_batch.places import Listed
from beam_batch.records import Outcome


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
            del self.objects[name]

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
