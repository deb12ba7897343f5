"""Render the first rows into the requests that a run would send; sends nothing."""

from __future__ import annotations

import dataclasses
import itertools
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from beam_batch import jsonio
from beam_batch.errors import RowError
from beam_batch.inputs.plan import plan_rows
from beam_batch.inputs.reading import read_rows
from beam_batch.options import PromptSpec, SchemaSpec, SourceSpec
from beam_batch.prompts.template import render
from beam_batch.providers import headers, make_provider, read_key, resolve_model
from beam_batch.records import Row


def preview(
    *, source: SourceSpec, prompt: PromptSpec, model: str, schema: SchemaSpec | None, rows: int
) -> str:
    """Return the prompts and requests of the first rows as text.

    Raises:
        OptionsError: a setting cannot work.
    """
    spec = resolve_model(model, os.environ)
    provider = make_provider(spec, schema)
    key = read_key(spec, os.environ)
    blocks = []
    if source.sample is None and source.ids is None:  # then the front of the input is enough
        source = dataclasses.replace(source, limit=min(rows, source.limit or rows))
    for row in itertools.islice(_rows(source), rows):
        title = f"# row {row.number}, id {jsonio.dumps(row.id).decode()}"
        try:
            if row.failure is not None or row.data is None:
                raise RowError(f"{row.failure.type}: {row.failure.message}" if row.failure else "")
            text = render(prompt.template, row.data)
        except RowError as error:
            name = "" if type(error) is RowError else f"{type(error).__name__}: "
            blocks.append(f"{title}\n\nnot sent: {name}{error}")
            continue
        request = provider.to_request(prompt.instruction, text)
        head = headers(spec, "***" if key else None, os.environ)
        lines = [f"POST {spec.base_url}{request.path}", *_header_lines(head)]
        blocks.append("\n".join([title, "", text, "", *lines, "", jsonio.pretty(request.body)]))
    return "\n\n".join(blocks)


def _header_lines(head: Any) -> list[str]:
    return [f"{name}: {value}" for name, value in sorted(head.items())]


def _rows(source: SourceSpec) -> Iterator[Row]:
    with tempfile.TemporaryDirectory(prefix="beam-batch-") as folder:
        for split in plan_rows(source, Path(folder)).splits:
            yield from read_rows(split, source.id_field)
