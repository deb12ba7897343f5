"""--sql and --where: one SELECT of DuckDB over the input, its result written once as Parquet.

The query can read the view `input` and nothing else: no other file, URL, extension or setting.
"""

from __future__ import annotations

import hashlib
import itertools
import re
from pathlib import Path
from typing import Any

from beam_batch.errors import OptionsError
from beam_batch.inputs.columnar import INTEGER, arrow_to_parquet
from beam_batch.inputs.opening import open_random
from beam_batch.places.remote import scheme_of
from beam_batch.records import Source

ROW_GROUP = 20_000
_BATCH = 10_000
_LONG = ("HUGEINT", "UHUGEINT")
"""Types of sums: written as text, with a mark by which a read makes them numbers again."""
_AS_TEXT = re.compile(r"\b(U?HUGEINT|INTERVAL|UUID|TIME WITH TIME ZONE|BIT|BIGNUM)\b")
"""DuckDB types, at any depth, that Parquet or Python's Arrow has no exact form for."""
_WHOLLY_TEXT = re.compile(r"\b(UNION|VARIANT)\b")


def run_query(query: str, flag: str, sources: list[Source], target: Path) -> None:
    """Write the result of a query over the sources as a Parquet file.

    Raises:
        OptionsError: DuckDB is missing, or refuses the query; one line with the position.
    """
    try:
        import duckdb
    except ImportError:
        raise OptionsError(f"{flag} needs DuckDB: pip install 'beam-batch[sql]'.") from None
    import pyarrow

    query = _checked_select(duckdb, query, flag)
    with duckdb.connect(":memory:") as connection:
        try:
            _make_view(connection, sources, target.parent, flag)
            _write(connection.sql(query), target, flag)
        except (duckdb.Error, pyarrow.ArrowException, OSError) as error:
            raise OptionsError(f"{flag}: {_one_line(error)}") from None


def where_query(condition: str) -> str:
    """Return the query that ``--where`` stands for."""
    return f"SELECT * FROM input WHERE (\n{condition}\n)"


def _checked_select(duckdb: Any, query: str, flag: str) -> str:
    """Return the one SELECT of a text."""
    try:
        statements = duckdb.extract_statements(query)
    except duckdb.Error as error:
        raise OptionsError(f"{flag}: {_one_line(error)}") from None
    if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
        raise OptionsError(f"{flag} takes exactly one SELECT; got {query!r:.80}.")
    for place, _ in duckdb.tokenize(query):
        if query[place : place + 1] == ";":  # what follows is comments: there is one statement
            return query[:place]
    return query


def _make_view(connection: Any, sources: list[Source], temporary: Path, flag: str) -> None:
    """Make the view `input`, and then lock every other door."""
    kinds = {source.format for source in sources}
    if len(kinds) > 1:
        raise OptionsError(f"{flag} needs inputs of one format, not {', '.join(sorted(kinds))}.")
    kind = kinds.pop()
    connection.execute("SET python_enable_replacements = false")
    connection.execute(f"SET temp_directory = {_quoted(str(temporary))}")
    if kind == "arrow":
        sources, kind = [_as_parquet(source, temporary) for source in sources], "parquet"
    if any(scheme_of(source.path) for source in sources):
        connection.register("input", _dataset(sources))
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


def _as_parquet(source: Source, folder: Path) -> Source:
    """Turn an Arrow file into Parquet: DuckDB trusts what it finds in Arrow's memory."""
    target = folder / f"{hashlib.blake2b(source.path.encode(), digest_size=8).hexdigest()}.parquet"
    arrow_to_parquet(source, str(target))
    return source._replace(path=str(target), format="parquet")


def _dataset(sources: list[Source]) -> Any:
    """Read remote Parquet through pyarrow: DuckDB itself opens nothing."""
    import pyarrow.dataset
    import pyarrow.parquet

    makers = pyarrow.dataset.ParquetFileFormat()
    fragments = [makers.make_fragment(open_random(source.path)) for source in sources]
    schemas = [fragment.physical_schema for fragment in fragments]
    import pyarrow

    return pyarrow.dataset.FileSystemDataset(fragments, pyarrow.unify_schemas(schemas), makers)


def _write(relation: Any, target: Path, flag: str) -> None:
    import pyarrow.parquet

    names = relation.columns
    lower = [name.lower() for name in names]  # as DuckDB compares them
    twice = sorted({name for name in names if lower.count(name.lower()) > 1})
    if twice:
        raise OptionsError(f"{flag}: the result has two columns {twice[0]!r}; name one AS other.")
    reader = relation.project(_projection(names, relation.types)).to_arrow_reader(_BATCH)
    schema = reader.schema
    for place, kind in enumerate(relation.types):
        if str(kind) in _LONG:
            schema = schema.set(place, schema.field(place).with_metadata(INTEGER))
    with pyarrow.parquet.ParquetWriter(target, schema) as writer:
        held: list[Any] = []
        for batch in reader:
            held.append(batch)
            if sum(map(len, held)) >= ROW_GROUP:
                writer.write_table(pyarrow.Table.from_batches(held).cast(schema))
                held = []
        if held:
            writer.write_table(pyarrow.Table.from_batches(held).cast(schema))


def _projection(names: list[str], types: list[Any]) -> str:
    columns = []
    for name, kind in zip(names, types, strict=True):
        column = '"' + name.replace('"', '""') + '"'
        written = (
            "VARCHAR" if _WHOLLY_TEXT.search(str(kind)) else _AS_TEXT.sub("VARCHAR", str(kind))
        )
        same = written == str(kind)
        columns.append(column if same else f"CAST({column} AS {written}) AS {column}")
    return ", ".join(columns)


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _one_line(error: Exception) -> str:
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
