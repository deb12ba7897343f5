"""--sql and --where: one SELECT of DuckDB over the input, its result written once as Parquet.

The query can read the view `input` and nothing else: no other file, URL, extension or setting.
"""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

from beam_batch.errors import OptionsError
from beam_batch.inputs.opening import open_random, scheme_of
from beam_batch.records import Source

ROW_GROUP = 20_000
_BATCH = 10_000
_AS_TEXT = ("INTERVAL", "UUID", "TIME WITH TIME ZONE", "BIT", "HUGEINT", "UHUGEINT", "BIGNUM")
"""DuckDB types that Parquet or Python's Arrow has no exact form for."""


def run_query(query: str, flag: str, sources: list[Source], target: Path) -> None:
    """Write the result of a query over the sources as a Parquet file.

    Raises:
        OptionsError: DuckDB is missing, or refuses the query; one line with the position.
    """
    try:
        import duckdb
    except ImportError:
        raise OptionsError(f"{flag} needs DuckDB: pip install 'beam-batch[sql]'.") from None
    _check_select(duckdb, query, flag)
    with duckdb.connect(":memory:") as connection:
        try:
            _make_view(connection, sources, target.parent)
            relation = connection.sql(query)
            _write(connection, relation, target, flag)
        except duckdb.Error as error:
            raise OptionsError(f"{flag}: {_one_line(query, error)}") from None


def where_query(condition: str) -> str:
    """Return the query that ``--where`` stands for."""
    return f"SELECT * FROM input WHERE (\n{condition}\n)"


def _check_select(duckdb: Any, query: str, flag: str) -> None:
    try:
        statements = duckdb.extract_statements(query)
    except duckdb.Error as error:
        raise OptionsError(f"{flag}: {_one_line(query, error)}") from None
    if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
        raise OptionsError(f"{flag} takes exactly one SELECT; got {query!r:.80}.")


def _make_view(connection: Any, sources: list[Source], temporary: Path) -> None:
    """Make the view `input`, and then lock every other door."""
    kinds = {source.format for source in sources}
    if len(kinds) > 1:
        raise OptionsError(f"--sql needs inputs of one format, not {', '.join(sorted(kinds))}.")
    kind = kinds.pop()
    connection.execute("SET python_enable_replacements = false")
    connection.execute(f"SET temp_directory = {_quoted(str(temporary))}")
    if kind == "arrow" or any(scheme_of(source.path) for source in sources):
        connection.register("input", _dataset(sources, kind))
    else:
        paths = "[" + ", ".join(_quoted(source.path) for source in sources) + "]"
        connection.execute(f"SET allowed_paths = {paths}")
        connection.execute(f"CREATE VIEW input AS SELECT * FROM {_reader(kind, paths, sources[0])}")
    connection.execute("SET enable_external_access = false")
    connection.execute("SET lock_configuration = true")


def _reader(kind: str, paths: str, source: Source) -> str:
    if kind == "parquet":
        return f"read_parquet({paths}, union_by_name = true)"
    if kind == "jsonl":
        return (
            f"read_json({paths}, format = 'newline_delimited', union_by_name = true, "
            "sample_size = -1, maximum_object_size = 268435456)"
        )
    quote = f", quote = {_quoted(source.quote)}"
    return (
        f"read_csv({paths}, header = true, union_by_name = true, sample_size = -1, "
        f"delim = {_quoted(source.delimiter)}{quote})"
    )


def _dataset(sources: list[Source], kind: str) -> Any:
    """Read remote Parquet, and Arrow, through pyarrow: DuckDB itself opens nothing."""
    import pyarrow.dataset
    import pyarrow.parquet

    if kind == "arrow":
        return pyarrow.dataset.dataset([source.path for source in sources], format="ipc")
    makers = pyarrow.dataset.ParquetFileFormat()
    fragments = [makers.make_fragment(open_random(source.path)) for source in sources]
    schemas = [fragment.physical_schema for fragment in fragments]
    import pyarrow

    return pyarrow.dataset.FileSystemDataset(fragments, pyarrow.unify_schemas(schemas), makers)


def _write(connection: Any, relation: Any, target: Path, flag: str) -> None:
    import pyarrow.parquet

    names = relation.columns
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise OptionsError(f"{flag}: the result has two columns {twice[0]!r}; name one AS other.")
    reader = relation.project(_projection(names, relation.types)).to_arrow_reader(_BATCH)
    with pyarrow.parquet.ParquetWriter(target, reader.schema) as writer:
        held: list[Any] = []
        for batch in reader:
            held.append(batch)
            if sum(map(len, held)) >= ROW_GROUP:
                writer.write_table(pyarrow.Table.from_batches(held))
                held = []
        if held:
            writer.write_table(pyarrow.Table.from_batches(held))


def _projection(names: list[str], types: list[Any]) -> str:
    columns = []
    for name, kind in zip(names, types, strict=True):
        column = '"' + name.replace('"', '""') + '"'
        text = str(kind).upper() in _AS_TEXT
        columns.append(f"CAST({column} AS VARCHAR) AS {column}" if text else column)
    return ", ".join(columns)


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _one_line(query: str, error: Exception) -> str:
    """Write DuckDB's error as one line; where it marks a place, say which character it is."""
    lines = str(error).splitlines()
    message = " ".join(line.strip() for line in lines if line.strip())
    for line, below in itertools.pairwise(lines):
        if line.startswith("LINE ") and "^" in below:
            head, _, shown = line.partition(": ")
            column = below.index("^") - len(head) - 1
            message = " ".join(text.strip() for text in lines[: lines.index(line)] if text.strip())
            return f"{message} (line {head.removeprefix('LINE ')}, character {column}: {shown!r})"
    return message
