"""Part files that others put together between the list and the reading of them."""

from __future__ import annotations

import errno
import io
from pathlib import Path
from typing import IO, Any

import pytest

from beam_batch.outputs import parts
from beam_batch.outputs.commit import NEW, CommitSpec, commit
from beam_batch.outputs.ledger import spent_by_sessions
from beam_batch.outputs.workdir import WorkDir
from beam_batch.places import Listed
from beam_batch.records import Outcome

URI = "s3://data/work"


class Moving:
    """A store of one shard, of whose files one becomes whole after each of the first lists."""

    is_folder = False
    uri = URI

    def __init__(self, times: float) -> None:
        self._left = times
        self.objects: dict[str, bytes] = {}
        self._segments = [
            (f"parts/ok-000000-0001-{n}.000000.jsonl", _line(n)) for n in (1, 2, 3, 4)
        ]
        self._vanishing = 0
        self.objects |= dict(self._segments)

    def list(self, prefix: str) -> list[Listed]:
        found = [Listed(n, len(d)) for n, d in self.objects.items() if n.startswith(prefix)]
        if found and self._left and self._vanishing < len(self._segments):
            self._left -= 1
            name, data = self._segments[self._vanishing]
            self._vanishing += 1
            del self.objects[name]
            self.objects[name.replace(".000000", "")] = data
        return sorted(found)

    def open(self, name: str) -> IO[bytes]:
        if name not in self.objects:
            raise OSError(errno.ENOENT, "Not Found", URI)
        return io.BytesIO(self.objects[name])

    def put(self, name: str, data: bytes) -> None:
        self.objects[name] = data


def _line(number: int) -> bytes:
    telemetry = {
        "cost_usd": 0.5, "usage": {"turn": {"total_tokens": 7}}, "attempts": 1,
        "timing": {"duration_ms": 1.0},
    }  # fmt: skip
    envelope = {"id": number, "row_number": number, "ok": True, "result": "x", "error": None}
    return parts.encode(Outcome(0, number, True, envelope, telemetry))


@pytest.fixture(params=[1, 2, 4])
def work(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> WorkDir:
    monkeypatch.setattr(WorkDir, "place", Moving(request.param))
    return WorkDir(URI, here=str(tmp_path / "here"))


def test_finished_rows_are_all_seen(work: WorkDir) -> None:
    assert parts.FinishedRows(work.place, 1).of(0) == {1, 2, 3, 4}


def test_what_sessions_have_spent_is_all_counted_once(work: WorkDir) -> None:
    assert spent_by_sessions(work, lambda session: True) == (2.0, 28)


def test_a_commit_takes_all_rows_once(work: WorkDir, tmp_path: Path) -> None:
    spec = CommitSpec(
        work=work, output=str(tmp_path / "out.jsonl"), error_output=None, telemetry_output=None,
        mode=NEW, session=1, rows=(4,), keep_bytes=(),
    )  # fmt: skip
    counts = parts.with_new_lists(work.place, lambda: commit(spec))
    assert (counts["ok_rows"], counts["torn_lines"]) == (4, 0)
    assert len((tmp_path / "out.jsonl").read_bytes().splitlines()) == 4


@pytest.mark.parametrize(
    ("place", "filename", "times"),
    [("store", URI, parts.MOST_LISTS), ("store", "/out", 1), ("folder", URI, 1)],
)
def test_what_no_list_can_mend_is_an_error(place: str, filename: str, times: int) -> None:
    """A store that never has what it lists; a file elsewhere; a folder, which has no segments."""
    store: Any = Moving(0)
    store.is_folder = place == "folder"
    reads = []

    def read() -> None:
        reads.append(1)
        raise OSError(errno.ENOENT, "Not Found", filename)

    with pytest.raises(OSError, match="not there" if times > 1 else "Not Found") as raised:
        parts.with_new_lists(store, read)
    assert len(reads) == times
    assert isinstance(raised.value, FileNotFoundError) == (times == 1)
    assert raised.value.filename == filename
