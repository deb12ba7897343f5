"""RenderPrompts: rows to prompts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import apache_beam as beam

from beam_batch import jsonio
from beam_batch.errors import InvalidRow, RowError
from beam_batch.inputs.ids import row_id
from beam_batch.options import DEFAULT_TEMPLATE
from beam_batch.outputs import envelope
from beam_batch.prompts.template import render
from beam_batch.records import Failure, Outcome, Prompt, Row

FAILED = "failed"


class RenderPrompts(beam.PTransform):
    """Fill the template from each row.

    Input: Row, or in a pipeline of your own a dict or a line of JSON. Outputs: `prompts` (Prompt)
    and `failed` (Outcome) for rows that cannot be read or rendered.
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


def to_row(element: Row | Mapping[str, Any] | str | bytes, id_field: str | None) -> Row:
    """Make a Row of a dict or a line of JSON; what cannot be one carries its failure."""
    if isinstance(element, Row):
        return element
    try:
        data = jsonio.loads(element) if isinstance(element, (str, bytes)) else element
        if not isinstance(data, Mapping):
            raise InvalidRow(f"expected a JSON object, got {type(data).__name__}")
        data = dict(data)
    except RowError as error:
        return Row(None, None, None, None, Failure.of(error))
    try:
        return Row(None, None, row_id(id_field, data, None), data)
    except RowError as error:
        return Row(None, None, None, data, Failure.of(error))


class _RenderPromptsFn(beam.DoFn):
    def __init__(
        self, template: str, id_field: str | None, include_input: bool, files_root: str | None
    ) -> None:
        self._files_root = files_root
        self._template = template
        self._id_field = id_field
        self._include_input = include_input

    def process(self, element: Any) -> Iterator[Prompt | beam.pvalue.TaggedOutput]:
        row = to_row(element, self._id_field)
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
