"""RenderPrompts: rows to prompts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import apache_beam as beam

from beam_batch import jsonio
from beam_batch.errors import InvalidRow, RowError
from beam_batch.inputs.columnar import as_url, normalise
from beam_batch.inputs.ids import row_id
from beam_batch.options import DEFAULT_TEMPLATE
from beam_batch.outputs import envelope
from beam_batch.prompts.template import image_fields, render
from beam_batch.records import Failure, Outcome, Prompt, Row

FAILED = "failed"


class RenderPrompts(beam.PTransform):
    """Fill the template from each row.

    Input: Row, or in a pipeline of your own a dict, a Beam Row, a NamedTuple or a line of JSON.
    Values of dicts and Rows that JSON does not know become what the Parquet reader makes of them:
    decimals text, dates and times ISO 8601, bytes UTF-8. Outputs: `prompts` (Prompt) and `failed`
    (Outcome) for rows that cannot be read or rendered.
    """

    def __init__(
        self,
        template: str = DEFAULT_TEMPLATE,
        id_field: str | None = None,
        include_input: bool = False,
        files_root: str | None = None,
    ) -> None:
        super().__init__()
        self._fn = _RenderPromptsFn(template, id_field, include_input, files_root)

    def expand(self, rows: beam.PCollection) -> beam.DoOutputsTuple:
        """Apply to a collection of rows."""
        return rows | beam.ParDo(self._fn).with_outputs(FAILED, main="prompts")


def to_row(element: Any, id_field: str | None, images: tuple[str, ...] = ()) -> Row:
    """Make a Row of a dict, a Beam Row or a line of JSON; what cannot be one carries its failure.

    `images` are fields whose bytes become data: URLs.
    """
    if isinstance(element, Row):
        return element
    try:
        data = _to_data(element, images)
    except RowError as error:
        return Row(None, None, None, None, Failure.of(error))
    try:
        return Row(None, None, row_id(id_field, data, None), data)
    except RowError as error:
        return Row(None, None, None, data, Failure.of(error))


def _to_data(element: Any, images: tuple[str, ...]) -> dict[str, Any]:
    if isinstance(element, (str, bytes)):
        data = jsonio.loads(element)
        if isinstance(data, dict):
            return data
        raise InvalidRow(f"expected a JSON object, got {type(data).__name__}")
    fields = element._asdict() if hasattr(element, "_asdict") else element
    if not isinstance(fields, Mapping):
        raise InvalidRow(f"expected a JSON object, got {type(element).__name__}")
    shown = {name: as_url(fields[name]) for name in images if name in fields}
    return {str(name): normalise(value) for name, value in (dict(fields) | shown).items()}


class _RenderPromptsFn(beam.DoFn):
    def __init__(
        self, template: str, id_field: str | None, include_input: bool, files_root: str | None
    ) -> None:
        self._files_root = files_root
        self._template = template
        self._images = image_fields(template)
        self._id_field = id_field
        self._include_input = include_input

    def process(self, element: Any) -> Iterator[Prompt | beam.pvalue.TaggedOutput]:
        row = to_row(element, self._id_field, self._images)
        if row.failure is not None:
            yield beam.pvalue.TaggedOutput(FAILED, self._fail(row, row.failure))
            return
        try:
            assert row.data is not None
            text = render(self._template, row.data, self._files_root)
        except RowError as error:
            yield beam.pvalue.TaggedOutput(FAILED, self._fail(row, Failure.of(error)))
            return
        yield Prompt(row, text)

    def _fail(self, row: Row, failure: Failure) -> Outcome:
        return envelope.fail(row, failure, {"attempts": 0}, self._include_input)


def renderer(template: str) -> beam.DoFn:
    """Return what renders elements without ids."""
    return _RenderPromptsFn(template, None, False, None)
