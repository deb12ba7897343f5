"""Reading rows: one file a format, and the plan that numbers rows and cuts splits."""

from __future__ import annotations

import os
from pathlib import Path

from beam_batch.errors import OptionsError
from beam_batch.inputs import csv, jsonl, parquet
from beam_batch.inputs.base import Format

FORMATS = {
    ".jsonl": Format(jsonl.scan, jsonl.read),
    ".csv": Format(csv.scan, csv.read),
    ".parquet": Format(parquet.scan, parquet.read, parquet.digest),
}


def format_of(path: str) -> Format:
    """Return the format of an existing, readable file, by its suffix.

    Raises:
        OptionsError: no such file, a directory, unreadable, or an unknown suffix.
    """
    file = Path(path)
    if not file.exists():
        raise OptionsError(f"--input {path}: no such file.")
    if file.is_dir():
        raise OptionsError(f"--input {path} is a directory; name a file.")
    if not file.is_file():
        raise OptionsError(f"--input {path} is a device or a pipe; name a file.")
    if not os.access(file, os.R_OK):
        raise OptionsError(f"--input {path}: no permission to read it.")
    found = FORMATS.get(file.suffix.lower())
    if found is None:
        known = ", ".join(FORMATS)
        raise OptionsError(f"--input {path}: unknown suffix {file.suffix!r}; use one of {known}.")
    return found
