"""How large splits are."""

from __future__ import annotations

from pathlib import Path

import pytest

from beam_batch.options import OutputSpec, RunSpec, SourceSpec
from beam_batch.session import LEAST_SPLIT_ROWS, SPLIT_ROWS, SPLITS_A_SLOT, _split_rows


@pytest.mark.parametrize(
    ("rows", "slots", "wanted"),
    [
        (1_000_000, 1, SPLIT_ROWS),
        (100, 2, LEAST_SPLIT_ROWS),
        (100_000, 8, 100_000 // (8 * SPLITS_A_SLOT)),
        (1_000_000, 2, SPLIT_ROWS),
    ],
)
def test_each_slot_has_several_splits(rows: int, slots: int, wanted: int, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"n": 1234}\n' * rows)
    spec = RunSpec(source=SourceSpec(input=str(path)), output=OutputSpec(output="out.jsonl"))
    assert _split_rows(spec, slots) == pytest.approx(wanted, rel=0.01)


def test_an_input_of_unknown_size_has_splits_of_the_usual_size(tmp_path: Path) -> None:
    spec = RunSpec(
        source=SourceSpec(input="s3://b/rows.jsonl"), output=OutputSpec(output="o.jsonl")
    )
    assert _split_rows(spec, 8) == SPLIT_ROWS
