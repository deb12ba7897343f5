"""--sql and --where: one SELECT over the input, and nothing else than the input."""

from __future__ import annotations

import gzip
import json
import random
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
import pytest

from beam_batch.errors import OptionsError
from tests.inputs.test_formats import outcomes, planned, rows_of
from tests.inputs.test_sources import STOP, data_of, plan_of, refusal
from tests.support import beam_batch, read_jsonl, write_jsonl

pytest.importorskip("duckdb", reason="--sql needs DuckDB: pip install 'beam-batch[sql]'")

ROWS = [{"id": "a", "n": 1}, {"id": "b", "n": 2}, {"id": "c", "n": 3}]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the same three rows in every format, and a secret."""
    data = tmp_path / "data"
    data.mkdir()
    write_jsonl(data / "rows.jsonl", ROWS)
    table = pa.Table.from_pylist(ROWS)
    pq.write_table(table, data / "rows.parquet")
    pyarrow.feather.write_feather(table, data / "rows.arrow")
    (data / "rows.json").write_text(json.dumps(ROWS))
    (data / "rows.csv").write_text("id,n\na,1\nb,2\nc,3\n")
    (data / "rows.tsv").write_text("id\tn\na\t1\nb\t2\nc\t3\n")
    (data / "semicolons.csv").write_text("id;n\n'a;b';1\n")
    (data / "rows.jsonl.gz").write_bytes(gzip.compress((data / "rows.jsonl").read_bytes()))
    (tmp_path / "secret.csv").write_text("word\nhunter2\n")
    return tmp_path


def result_of(folder: Path, query: str, name: str = "rows.jsonl", **source: Any) -> list[Any]:
    return outcomes(folder / "data" / name, sql=query, **source)


@pytest.mark.parametrize(
    "name",
    ["rows.jsonl", "rows.parquet", "rows.arrow", "rows.json", "rows.csv", "rows.tsv",
     "rows.jsonl.gz"],
)  # fmt: skip
def test_every_format_can_be_queried(folder: Path, name: str) -> None:
    query = "SELECT id, n * 10 AS ten FROM input WHERE n > 1 ORDER BY n DESC"
    rows = rows_of(folder / "data" / name, sql=query)
    assert [row.number for row in rows] == [1, 2]
    assert [row.data for row in rows] == [{"id": "c", "ten": 30}, {"id": "b", "ten": 20}]


@pytest.mark.parametrize(
    "query",
    [
        "SELECT * FROM input",
        "select * from input ;",
        "FROM input",
        "FROM input;",
        "FROM input SELECT *",
        "(SELECT * FROM input)",
        "WITH t AS (SELECT * FROM input) SELECT * FROM t",
        "-- first\nSELECT * /* all */ FROM input -- last",
        "/* a; b */ SELECT * FROM input; -- done",
        "SELECT * FROM input;\n/* done; */\n",
        "SELECT * FROM input WHERE id <> ';'",
        "SELECT id, n FROM input UNION ALL SELECT id, n FROM input WHERE n > 99",
    ],
)
def test_a_select_may_be_written_in_every_way(folder: Path, query: str) -> None:
    assert result_of(folder, query) == ROWS


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet"])
def test_several_files_are_one_input_by_the_names_of_their_columns(
    tmp_path: Path, kind: str
) -> None:
    tables = [[{"id": 1, "t": "x"}], [{"t": "y", "id": 2}], [{"id": 3, "more": "z"}]]
    paths = []
    for number, rows in enumerate(tables):
        path = tmp_path / f"{number}.{kind}"
        paths.append(path)
        if kind == "jsonl":
            write_jsonl(path, rows)
        elif kind == "csv":
            lines = [",".join(rows[0]), *(",".join(map(str, row.values())) for row in rows)]
            path.write_text("\n".join(lines) + "\n")
        else:
            pq.write_table(pa.Table.from_pylist(rows), path)
    query = "SELECT id, t, more FROM input ORDER BY id"
    assert data_of(plan_of(tmp_path, *paths, sql=query)) == [
        {"id": 1, "t": "x", "more": None},
        {"id": 2, "t": "y", "more": None},
        {"id": 3, "t": None, "more": "z"},
    ]


def test_a_file_with_a_quote_in_its_name_can_be_queried(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "it's [1].jsonl", ROWS)
    assert outcomes(path, sql="SELECT count(*) AS n FROM input") == [{"n": 3}]


def test_the_dialect_of_csv_reaches_the_query(folder: Path) -> None:
    found = result_of(folder, "FROM input", "semicolons.csv", csv_delimiter=";", csv_quote="'")
    assert found == [{"id": "a;b", "n": 1}]


def test_files_of_two_formats_are_refused(folder: Path) -> None:
    data = folder / "data"
    with pytest.raises(OptionsError, match="one format"):
        plan_of(folder, data / "rows.jsonl", data / "rows.csv", sql="FROM input")


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("DELETE FROM input", "exactly one SELECT"),
        ("DROP VIEW input", "exactly one SELECT"),
        ("CREATE TABLE t AS FROM input", "exactly one SELECT"),
        ("EXPLAIN SELECT 1", "exactly one SELECT"),
        ("SELECT 1; SELECT 2", "exactly one SELECT"),
        ("SELECT 1; DROP VIEW input", "exactly one SELECT"),
        ("-- nothing", "exactly one SELECT"),
        ("   ", "exactly one SELECT"),
        ("", "--sql"),
        ("SELECT id, n AS id FROM input", "two columns 'id'"),
        ("SELECT a.*, b.* FROM input a JOIN input b USING (n)", "two columns 'id'"),
        ('SELECT id, n AS "ID" FROM input', "two columns"),
        ("SELECT * FRM input", "character 14"),
        ("SELECT id,\nnope( FROM input", "line 2"),
        ("SELECT nope FROM input", "nope"),
        ("SELECT * FROM elsewhere", "elsewhere"),
        ("SELECT CAST(id AS INT) AS x FROM input", "Could not convert"),
        ("SELECT error('boom') FROM input", "boom"),
    ],
)
def test_a_query_that_cannot_be_run_is_refused_in_one_line(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    query: str,
    words: str,
) -> None:
    args = ("-i", "data/rows.jsonl", "--sql", query)
    assert words in refusal(monkeypatch, capsys, folder, *args)


ATTEMPTS = [
    "SELECT * FROM read_csv('{root}/secret.csv')",
    "SELECT * FROM '{root}/secret.csv'",
    "SELECT * FROM 'secret.csv'",
    "SELECT * FROM read_text('/proc/self/environ')",
    "SELECT * FROM read_blob('/etc/passwd')",
    "SELECT * FROM read_text('{root}/data/../secret.csv')",
    "SELECT * FROM read_text(current_setting('temp_directory') || '/../../secret.csv')",
    "SELECT * FROM read_text('{root}/data/rows.csv')",
    "SELECT * FROM read_parquet('{root}/data/*.parquet')",
    "SELECT * FROM parquet_metadata('{root}/data/other.parquet')",
    "SELECT * FROM sniff_csv('/etc/passwd')",
    "SELECT * FROM glob('/etc/*')",
    "SELECT * FROM glob('{root}/*')",
    "SELECT (SELECT content FROM read_text('/etc/hostname')) AS x FROM input",
    "WITH t AS (FROM read_text('/etc/passwd')) SELECT * FROM input, t",
    "SELECT * FROM query('SELECT * FROM read_text(''/etc/passwd'')')",
    "SELECT * FROM query('ATTACH ''x.db''')",
    "SELECT * FROM query_table('/etc/passwd')",
    "SELECT * FROM read_csv('http://127.0.0.1:9/x.csv')",
    "SELECT * FROM 'https://127.0.0.1:9/x.parquet'",
    "SELECT * FROM 's3://bucket/x.parquet'",
    "SELECT * FROM 'hf://datasets/owner/name/x.parquet'",
    "SELECT * FROM sqlite_scan('{root}/x.db', 't')",
    "SELECT * FROM postgres_scan('host=127.0.0.1', 'public', 't')",
    "SELECT * FROM duckdb_secrets()",
    "SELECT * FROM enable_logging()",
    "SELECT * FROM connection",
    "SELECT * FROM sources",
    "SELECT getenv('HOME')",
    "SET enable_external_access = true",
    "RESET lock_configuration",
    "PRAGMA enable_profiling",
    "INSTALL httpfs",
    "LOAD httpfs",
    "ATTACH '{root}/x.db'",
    "CREATE SECRET s (TYPE s3)",
    "COPY input TO '{root}/stolen.csv'",
    "COPY (FROM input) TO '{root}/stolen.parquet'",
    "EXPORT DATABASE '{root}/stolen'",
    "CALL enable_logging()",
    "SELECT 1; SET threads = 1",
    "SET threads = 1; SELECT 1",
]


@pytest.mark.parametrize("query", ATTEMPTS)
def test_a_query_reads_the_input_and_nothing_else(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], query: str
) -> None:
    monkeypatch.setenv("HOME", str(folder / "home"))
    attempt = query.format(root=folder)
    told = refusal(monkeypatch, capsys, folder, "-i", "data/rows.parquet", "--sql", attempt)
    assert "--sql" in told
    assert "hunter2" not in told


@pytest.mark.parametrize("name", ["rows.arrow", "rows.csv", "rows.jsonl.gz"])
def test_the_doors_are_locked_for_every_format(folder: Path, name: str) -> None:
    for query in ATTEMPTS[:6]:
        with pytest.raises(OptionsError, match="--sql"):
            result_of(folder, query.format(root=folder), name)


def test_an_attempt_ends_the_command_with_exit_2_and_one_line(folder: Path) -> None:
    done = beam_batch(
        "run", "-i", "data/rows.csv", "-o", "out.jsonl", "-m", "echo",
        "--sql", "SELECT * FROM read_text('/proc/self/environ')", cwd=folder,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("Error: --sql: Permission Error")
    assert done.stderr.count("\n") == 1
    assert not (folder / "out.jsonl").exists()


# Where


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.parquet", "rows.csv", "rows.jsonl.gz"])
def test_where_keeps_the_rows_of_a_condition_in_order(folder: Path, name: str) -> None:
    rows = rows_of(folder / "data" / name, where="n >= 2 and id in ('b', 'c') -- the last two")
    assert [(row.number, row.data) for row in rows] == [(1, ROWS[1]), (2, ROWS[2])]


@pytest.mark.parametrize(
    "condition",
    [
        "nope = 1",
        "n >",
        "1 = 1); DROP VIEW input; --",
        "1 = 1) UNION ALL SELECT content, 1 FROM read_text('/etc/passwd') WHERE (1 = 1",
        "n = (SELECT count(*) FROM glob('/etc/*'))",
        "",
    ],
)
def test_a_condition_that_is_none_is_refused_in_one_line(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    condition: str,
) -> None:
    args = ("-i", "data/rows.jsonl", "--where", condition)
    assert "--where" in refusal(monkeypatch, capsys, folder, *args)


def test_sql_and_where_exclude_each_other(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    args = ("-i", "data/rows.jsonl", "--where", "n > 1", "--sql", "FROM input")
    assert "exclude each other" in refusal(monkeypatch, capsys, folder, *args)


# Together with selection, parallel and resume


def many(folder: Path, rows: int = 60_000) -> Path:
    path = folder / "many.parquet"
    pq.write_table(pa.table({"id": [f"r{n}" for n in range(rows)], "n": range(rows)}), path)
    return path


def test_a_large_result_keeps_its_order_in_splits(tmp_path: Path) -> None:
    path = many(tmp_path)
    rows = rows_of(path, 7_000, sql="SELECT n FROM input WHERE n % 2 = 0 ORDER BY n DESC")
    assert [row.number for row in rows] == list(range(1, 30_001))
    assert [row.data["n"] for row in rows if row.data] == list(range(59_998, -1, -2))
    kept = rows_of(path, 7_000, where="n % 2 = 0")
    assert [row.data["n"] for row in kept if row.data] == list(range(0, 60_000, 2))


def test_offset_sample_seed_and_limit_go_over_the_result(tmp_path: Path) -> None:
    plan = planned(
        many(tmp_path), 1_000, sql="SELECT n FROM input WHERE n >= 50000 ORDER BY n",
        offset=10, sample=50, seed=9, limit=20, id_field="n",
    )  # fmt: skip
    pairs = list(enumerate(range(50_010, 60_000)))
    expected = [n for _, n in sorted(random.Random(9).sample(pairs, 50))][:20]
    assert plan.input_rows == 10_000
    assert [row["n"] for row in data_of(plan, "n")] == expected


def test_ids_are_looked_for_in_the_result(tmp_path: Path) -> None:
    (tmp_path / "ids").write_text("r7\nr3\n")
    found = rows_of(
        many(tmp_path, 10), sql="FROM input WHERE n > 2", id_field="id", ids=str(tmp_path / "ids")
    )
    assert [(row.number, row.id) for row in found] == [(1, "r3"), (5, "r7")]


def test_an_error_far_into_the_result_is_refused_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = many(tmp_path, 400_000)
    query = "SELECT CAST(CASE WHEN n = 399000 THEN id ELSE '1' END AS INT) AS x FROM input"
    told = refusal(monkeypatch, capsys, tmp_path, "-i", path.name, "--sql", query)
    assert "r399000" in told


def test_a_damaged_file_is_refused_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.csv").write_text("a,b\n" + "1,2\n" * 10 + "1,2,3\n" + "1,2\n" * 10)
    (tmp_path / "a.jsonl").write_text('{"a":1}\n{"a":\n{"a":3}\n')
    (tmp_path / "a.parquet").write_bytes(b"PAR1xxxxxxxxxxPAR1")
    for name in ("a.csv", "a.jsonl", "a.parquet"):
        refusal(monkeypatch, capsys, tmp_path, "-i", name, "--where", "a IS NOT NULL")


def test_a_damaged_arrow_file_is_refused_in_one_line(tmp_path: Path) -> None:
    table = pa.table({"a": [f"{n * 7919}" for n in range(50_000)]})
    pyarrow.feather.write_feather(table, tmp_path / "a.arrow")
    data = bytearray((tmp_path / "a.arrow").read_bytes())
    data[2_000:60_000] = b"\xff" * 58_000
    (tmp_path / "a.arrow").write_bytes(data)
    done = beam_batch(
        "run", "-i", "a.arrow", "-o", "o.jsonl", "-m", "echo", "--where", "a <> ''", cwd=tmp_path
    )
    assert done.returncode == 2, done.stderr
    assert done.stderr.count("\n") == 1


def test_sql_with_limit_sample_and_parallel_answers_each_row_once(folder: Path) -> None:
    many(folder, 5_000)
    done = beam_batch(
        "run", "-i", "many.parquet", "-o", "o.jsonl", "-m", "echo", "-p", "{{id}}",
        "--sql", "SELECT id FROM input WHERE n % 2 = 0 ORDER BY n", "--id-field", "id",
        "--sample", "40", "--seed", "5", "--limit", "30", "--parallel", "7", cwd=folder,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert (summary["input_rows"], summary["selected_rows"], summary["ok_rows"]) == (2_500, 30, 30)
    numbers = sorted(random.Random(5).sample(list(enumerate(range(1, 2_501))), 40))[:30]
    found = read_jsonl(folder / "o.jsonl")
    assert [row["row_number"] for row in found] == [number for _, number in numbers]
    assert [row["id"] for row in found] == [f"r{2 * (number - 1)}" for _, number in numbers]


def test_a_resumed_run_reads_the_kept_result_and_does_not_query_again(folder: Path) -> None:
    args = (
        "run", "-i", "data/rows.jsonl", "-o", "o.jsonl", "-m", "echo", "-p", "{{u}}",
        "--sql", "SELECT uuid()::VARCHAR AS u, n FROM input",
    )  # fmt: skip
    assert beam_batch(*args, *STOP, cwd=folder).returncode == 3
    (kept,) = folder.glob(".o.jsonl.batch/plan-*/query.parquet")
    expected = pq.read_table(kept)["u"].to_pylist()
    done = beam_batch(*args, "--resume", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert [row["result"] for row in read_jsonl(folder / "o.jsonl")] == expected
    assert not (folder / ".o.jsonl.batch").exists()


def test_a_resumed_query_over_a_changed_input_or_another_query_is_refused(folder: Path) -> None:
    args = ("run", "-i", "data/rows.jsonl", "-o", "o.jsonl", "-m", "echo")
    assert beam_batch(*args, "--sql", "FROM input", *STOP, cwd=folder).returncode == 3
    other = beam_batch(*args, "--sql", "FROM input LIMIT 1", "--resume", cwd=folder)
    assert other.returncode == 2
    assert "--sql was FROM input, is FROM input LIMIT 1" in other.stderr
    shutil.copy(folder / "secret.csv", folder / "data" / "rows.jsonl")
    changed = beam_batch(*args, "--sql", "FROM input", "--resume", cwd=folder)
    assert changed.returncode == 2
    assert "the input has changed since the run was planned: data/rows.jsonl" in changed.stderr


# Types


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("1.50::DECIMAL(9, 2)", "1.50"),
        ("TIMESTAMP '2024-01-02 03:04:05'", "2024-01-02T03:04:05"),
        ("TIMESTAMPTZ '2024-01-02 03:04:05+00'", "2024-01-02T03:04:05+00:00"),
        ("TIMESTAMP_NS '2024-01-02 03:04:05.123456789'", "2024-01-02T03:04:05.123456"),
        ("DATE '2024-01-02'", "2024-01-02"),
        ("TIME '01:02:03'", "01:02:03"),
        ("'12:00:00+02'::TIMETZ", "12:00:00+02"),
        ("INTERVAL 3 DAY", "3 days"),
        ("[INTERVAL 3 DAY]", ["3 days"]),
        ("{'i': INTERVAL 3 DAY}", {"i": "3 days"}),
        ("'5b8d2a9e-0000-4000-8000-000000000001'::UUID", "5b8d2a9e-0000-4000-8000-000000000001"),
        ("['5b8d2a9e-0000-4000-8000-000000000001'::UUID]",
         ["5b8d2a9e-0000-4000-8000-000000000001"]),
        ("170141183460469231731687303715884105727::HUGEINT",
         170141183460469231731687303715884105727),
        ("[170141183460469231731687303715884105727::HUGEINT]",
         ["170141183460469231731687303715884105727"]),
        ("18446744073709551615::UBIGINT", 18446744073709551615),
        ("9223372036854775807", 9223372036854775807),
        ("[1, 2, NULL]", [1, 2, None]),
        ("[1, 2]::INT[2]", [1, 2]),
        ("{'a': 1, 'b': [{'c': 1.5::DOUBLE}]}", {"a": 1, "b": [{"c": 1.5}]}),
        ("MAP {'k': 1, 'l': 2}", {"k": 1, "l": 2}),
        ("MAP {1: 'x'}", {"1": "x"}),
        ("'b'::ENUM ('a', 'b')", "b"),
        ("'101'::BIT", "101"),
        ("'caf\u00e9'", "caf\u00e9"),
        ("'x'::BLOB", "x"),
        ("'nan'::DOUBLE", None),
        ("NULL", None),
        ("true", True),
    ],
)  # fmt: skip
def test_values_of_every_type_become_json(folder: Path, expression: str, value: Any) -> None:
    assert result_of(folder, f"SELECT {expression} AS v FROM input LIMIT 1") == [{"v": value}]


@pytest.mark.parametrize("expression", ["union_value(num := 2)", "42::VARIANT"])
def test_a_value_without_a_form_in_parquet_is_right_or_refused(
    folder: Path, expression: str
) -> None:
    try:
        found = result_of(folder, f"SELECT {expression} AS v FROM input LIMIT 1")
    except OptionsError:
        return
    assert found[0]["v"] in (2, "2", 42, "42", {"num": 2})


def test_odd_names_of_columns_are_kept(folder: Path) -> None:
    query = 'SELECT n AS "a ""b"" c", n AS "select", n AS " ", count(*) OVER () FROM input LIMIT 1'
    (row,) = result_of(folder, query)
    assert list(row)[:3] == ['a "b" c', "select", " "]
    assert list(row.values()) == [1, 1, 1, 3]
