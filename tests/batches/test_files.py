"""Request files: cut at the limits, found by line, copied, with flat memory."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from beam_batch.batches.account import Account
from beam_batch.batches.fetching import _is_torn
from beam_batch.batches.files import (
    Limits,
    RequestWriter,
    RowTable,
    lines_left,
    requests_path,
)
from beam_batch.batches.journal import CREATED, CREATING, Journal, RequestFile
from beam_batch.batches.openai import OpenAIBatches
from beam_batch.batches.services import limits_of
from beam_batch.errors import RequestRejected
from beam_batch.outputs.parts import PartWriter
from beam_batch.places import Folder
from beam_batch.providers import resolve_model
from beam_batch.records import Outcome, Row


def _write(folder: Path, rows: int, limits: Limits) -> list[RequestFile]:
    writer = RequestWriter(folder, limits)
    for n in range(rows):
        row = Row(n // 10, n + 1, f"id{n}", {"n": n})
        writer.add(row, json.dumps({"body": {"input": f'"{n}",'}}).encode(), True)
    return writer.close()


def _lines(folder: Path, file: RequestFile) -> list[dict[str, object]]:
    return [json.loads(x) for x in requests_path(folder, file.name).read_text().splitlines()]


def test_files_are_cut_at_both_limits(tmp_path: Path) -> None:
    by_number = _write(tmp_path, 25, Limits(10, 1_000_000))
    assert [file.requests for file in by_number] == [10, 10, 5]
    by_size = _write(tmp_path, 25, Limits(1000, 500))
    for file in by_size:
        size = requests_path(tmp_path, file.name).stat().st_size
        assert size == file.size <= 500
    assert sum(file.requests for file in by_size) == 25


def test_a_request_that_no_file_can_take_fails_its_row_only(tmp_path: Path) -> None:
    writer = RequestWriter(tmp_path, Limits(10, 300))
    writer.add(Row(0, 1, 1, {}), b'{"body":1}', False)
    with pytest.raises(RequestRejected, match="MB"):
        writer.add(Row(0, 2, 2, {}), b'{"body":"' + b"x" * 300 + b'"}', False)
    writer.add(Row(0, 3, 3, {}), b'{"body":3}', False)
    assert [file.requests for file in writer.close()] == [2]


def test_rows_are_found_by_custom_id_and_no_other_id_is_taken(tmp_path: Path) -> None:
    (file,) = _write(tmp_path, 12, Limits(100, 1_000_000))
    table = RowTable(tmp_path, file)
    for line, request in enumerate(_lines(tmp_path, file)):
        assert table.line_of(request["custom_id"]) == line
        assert table.row(line) == Row(line // 10, line + 1, f"id{line}", {"n": line})
    for other in (None, 7, "x-1-2", f"{file.name}-99-100", f"{file.name}-1-1", f"{file.name}-²-3"):
        assert table.line_of(other) is None
    table.close()


def test_rows_with_an_outcome_are_done_and_the_others_are_copied(tmp_path: Path) -> None:
    (file,) = _write(tmp_path, 12, Limits(100, 1_000_000))
    place = Folder(str(tmp_path))
    (tmp_path / "parts").mkdir()
    for session, number, ok in ((1, 3, True), (1, 11, False), (2, 12, False)):
        writer = PartWriter(place, "ok", session)
        writer.append(Outcome((number - 1) // 10, number, ok, {"id": 1}, {}))
        writer.close()
    table = RowTable(tmp_path, file)
    table.find_outcomes(place, since=2)
    assert list(table.done.nonzero()[0] + 1) == [3, 12]
    again = RequestWriter(tmp_path, Limits(5, 1_000_000), attempt=2)
    for request, row in lines_left(tmp_path, file, table.done):
        again.copy(request, row)
    copies = again.close()
    assert [copy.requests for copy in copies] == [5, 5]
    was = {line["custom_id"].split("-")[-1]: line["body"] for line in _lines(tmp_path, file)}  # type: ignore[attr-defined]
    for copy in copies:
        other = RowTable(tmp_path, copy)
        for line, request in enumerate(_lines(tmp_path, copy)):
            assert other.line_of(request["custom_id"]) == line
            assert request["body"] == was[str(other.row(line).number)]
        other.close()
    table.close()


def test_limits_are_the_provider_s_or_fewer() -> None:
    env = {"OPENAI_API_KEY": "k", "ANTHROPIC_API_KEY": "k"}
    openai, claude = resolve_model("responses.x", env), resolve_model("anthropic.x", env)
    assert limits_of(openai, None) == Limits(50_000, 200_000_000)
    assert limits_of(claude, None) == Limits(100_000, 256_000_000)
    assert limits_of(openai, 10) == Limits(10, 200_000_000)
    assert limits_of(openai, 60_000) == Limits(50_000, 200_000_000)


def test_a_journal_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    file = RequestFile("r1-a-0", 3, 30, "d")
    journal = Journal(path)
    journal.plan([file], 1, session=4)
    journal.note(journal.batches["r1-a-0"], CREATING)
    with path.open("ab") as torn:
        torn.write(b'{"at":1,"event":"crea')
    read = Journal(path)
    assert read.planned is not None
    assert read.planned["session"] == 4
    assert read.batches == journal.batches
    read.note(read.batches["r1-a-0"], CREATED, info={"id": "b"}, adopted=True)
    assert Journal(path).batches["r1-a-0"].state == CREATED
    assert Journal(path).batches["r1-a-0"].adopted


def test_results_that_end_in_the_middle_of_a_line_are_torn(tmp_path: Path) -> None:
    read = OpenAIBatches(Account("http://x", {}, None, 1.0), "/responses").read
    whole = b'{"custom_id":"a","response":{"status_code":200,"body":{}}}'
    for content, torn in ((b"", False), (whole, False), (whole + b"\n", False), (whole[:-4], True)):
        (tmp_path / "out").write_bytes(content)
        assert _is_torn(tmp_path / "out", read) is torn
