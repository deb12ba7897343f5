"""Folders of a partitioned output, named as Hive names them: ``field=value``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import quote

from beam_batch import jsonio

Record = Mapping[str, Any]
PartitionBy = str | Callable[[Record], Any] | None

NULL = "__HIVE_DEFAULT_PARTITION__"
"""What Hive, Spark and Presto read as null (spark.apache.org/docs, partition discovery)."""
LONGEST = 200
"""Characters of a folder's name; file systems allow 255 bytes."""


def folder_of(record: Record, partition_by: PartitionBy) -> str:
    """Return the folder that a record belongs into, relative to the output; '' for none.

    >>> folder_of({"result": {"mood": "so so"}}, "result.mood")
    'mood=so%20so'
    """
    if partition_by is None:
        return ""
    if callable(partition_by):
        return "/".join(_named(part) for part in str(partition_by(record)).split("/"))
    value: Any = record
    for name in partition_by.split("."):
        value = value.get(name) if isinstance(value, Mapping) else None
    field = partition_by.rpartition(".")[2]
    return f"{_quoted(field)}={_value(value)}"


def _value(value: Any) -> str:
    if value is None or value == "":
        return NULL
    return _quoted(value if isinstance(value, str) else jsonio.dumps(value).decode())


def _named(part: str) -> str:
    """Return a folder's name that means no other folder."""
    return _quoted(part).replace(".", "%2E") if part.strip(".") == "" else _quoted(part)


def _quoted(text: str) -> str:
    name = quote(text, safe=" =,@+").replace(" ", "%20")
    return name if len(name) <= LONGEST else name[:LONGEST]
