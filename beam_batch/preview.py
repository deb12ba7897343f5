"""Render the first rows into the requests that a run would send; sends nothing."""

from __future__ import annotations

import dataclasses
import itertools
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from beam_batch import jsonio
from beam_batch.errors import InputLost, OptionsError, RowError
from beam_batch.inputs.plan import plan_rows
from beam_batch.inputs.reading import read_rows
from beam_batch.options import PromptSpec, SchemaSpec, SourceSpec
from beam_batch.prompts.template import image_fields, render
from beam_batch.providers import headers, make_provider, read_key, resolve_model
from beam_batch.records import Content, Row


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
    images = image_fields(prompt.template)
    for row in itertools.islice(_rows(source, images), rows):
        title = f"# row {row.number}, id {jsonio.dumps(row.id).decode()}"
        try:
            if row.failure is not None or row.data is None:
                raise RowError(f"{row.failure.type}: {row.failure.message}" if row.failure else "")
            text = render(prompt.template, row.data, prompt.files_root)
        except RowError as error:
            name = "" if type(error) is RowError else f"{type(error).__name__}: "
            blocks.append(f"{title}\n\nnot sent: {name}{error}")
            continue
        request = provider.to_request(prompt.instruction, text)
        head = headers(spec, "***" if key else None, os.environ)
        lines = [f"POST {spec.base_url}{request.path}", *_header_lines(head)]
        body = _DATA_URL.sub(_short, jsonio.pretty(request.body))
        blocks.append("\n".join([title, "", _shown(text), "", *lines, "", body]))
    return "\n\n".join(blocks)


_DATA_URL = re.compile(r"data:[\w/+.-]*;base64,[A-Za-z0-9+/=]{80,}")


def _short(match: re.Match[str]) -> str:
    return f"{match[0][:60]}... ({len(match[0])} characters)"


def _shown(text: Content) -> str:
    parts = (text,) if isinstance(text, str) else text
    return "".join(p if isinstance(p, str) else f"[image {p.url or p.media_type}]" for p in parts)


def _header_lines(head: Any) -> list[str]:
    return [f"{name}: {value}" for name, value in sorted(head.items())]


def _rows(source: SourceSpec, images: tuple[str, ...]) -> Iterator[Row]:
    try:
        with tempfile.TemporaryDirectory(prefix="beam-batch-") as folder:
            for split in plan_rows(source, Path(folder)).splits:
                yield from read_rows(split, source.id_field, images=images)
    except InputLost as error:
        raise OptionsError(f"--input {error}.") from None
