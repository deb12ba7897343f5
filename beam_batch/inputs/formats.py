"""The table of input formats."""

from __future__ import annotations

from beam_batch.inputs import columnar, csv, jsonl
from beam_batch.inputs.base import Format

_CSV = Format(csv.scan, csv.read, csv.names)

FORMATS = {
    "jsonl": Format(jsonl.scan, jsonl.read, jsonl.names),
    "csv": _CSV,
    "tsv": _CSV,
    "parquet": Format(columnar.scan_parquet, columnar.read_parquet, columnar.names_parquet),
    "arrow": Format(columnar.scan_arrow, columnar.read_arrow, columnar.names_arrow),
}
