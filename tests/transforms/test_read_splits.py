"""Rows of a run's splits, and when reading ends."""

from __future__ import annotations

from pathlib import Path

from beam_batch.outputs.stopping import StopFlag
from beam_batch.outputs.workdir import WorkDir
from beam_batch.records import Source, Split
from beam_batch.transforms.read_splits import LOOK_EVERY, _ReadSplitsFn
from tests.support import write_jsonl


def test_a_flag_that_another_process_raises_is_seen_where_no_model_is_called(
    tmp_path: Path,
) -> None:
    path = write_jsonl(tmp_path / "rows.jsonl", [{"n": n} for n in range(1000)])
    work = WorkDir(str(tmp_path / "work"))
    work.create()
    source = Source(str(path), str(path), "jsonl", "")
    split = Split(source, 0, path.stat().st_size, 1, 1000, 1000, 1)
    rows = _ReadSplitsFn(None, StopFlag(work, "stop"), (), None).process(split)
    first = next(rows)
    (work.root / "stop").write_text('{"reason": "interrupted", "exit_code": 130}')
    assert first.number == 1
    assert len(list(rows)) < LOOK_EVERY
