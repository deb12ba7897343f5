"""CallModel and WriteEnvelopes for Beam YAML: Beam Rows in, Beam Rows out."""

# Beam reads the annotations of these constructors, so they must not be strings.

import json
from collections.abc import Iterator, Mapping
from typing import Any, Optional

import apache_beam as beam
from apache_beam.io.filesystems import FileSystems
from apache_beam.typehints.row_type import RowTypeConstraint
from apache_beam.typehints.schemas import named_fields_from_element_type
from apache_beam.yaml.yaml_utils import SafeLineLoader

from beam_batch.errors import OptionsError
from beam_batch.options import DEFAULT_TEMPLATE, CallSpec, RepairSpec, ReuseSpec, SchemaSpec
from beam_batch.outputs.records import COLUMNS, flat_record
from beam_batch.prompts.schema import check_schema, load_schema_file
from beam_batch.records import Outcome, Prompt, Row
from beam_batch.transforms import call_model, render_prompts, write_envelopes
from beam_batch.transforms.call_settings import CallSettings

ADDED = {name: kind for name, kind in COLUMNS.items() if name not in ("id", "row_number")}
"""Fields that are added to a row; its own identify it already."""


class CallModel(beam.PTransform):
    """Ask a model about each row.

    Input: Beam Rows. Output: the same rows with the fields ok, result (text, or JSON as text),
    error_type, error_message, model, attempts, input_tokens, output_tokens, cost_usd, duration_ms.
    With `error_handling: {output: NAME}` failed rows go to that output, as Beam's own do: element
    (the row), msg and error_type.

    Args:
        model: a model string; without it BEAM_BATCH_MODEL is used.
        template: the prompt, with {{field}} for fields, which Beam YAML wants between {% raw %} and
            {% endraw %}; without it the whole row as JSON.
        template_file: a file with the template instead.
        instruction: what the model is told before each prompt.
        schema: a JSON Schema that results must match, as a mapping or as the path of a file.
        parallel: requests in flight in each worker process; without it the best number is found.
        max_attempts: requests that a row may cost.
        reask: times to ask again where a reply does not match the schema.
        dedupe: whether a worker process sends identical requests once.
        added_prefix: goes before the names of the added fields, where rows have such fields.
        error_handling: where failed rows go; without it they are among the others.
    """

    def __init__(
        self,
        model: Optional[str] = None,  # noqa: UP045 (Beam does not know the other form)
        template: Optional[str] = None,  # noqa: UP045
        template_file: Optional[str] = None,  # noqa: UP045
        instruction: Optional[str] = None,  # noqa: UP045
        schema: Any = None,
        parallel: Optional[int] = None,  # noqa: UP045
        max_attempts: int = CallSpec.max_attempts,
        reask: int = 0,
        dedupe: bool = False,
        added_prefix: str = "",
        error_handling: Any = None,
    ) -> None:
        super().__init__()
        settings: CallSettings = {
            "schema": _schema(schema),
            "call": CallSpec(parallel=parallel, max_attempts=max_attempts),
            "repair": RepairSpec(reask=reask),
            "reuse": ReuseSpec(dedupe=dedupe),
            "include_input": True,
        }
        if instruction is not None:
            settings["instruction"] = instruction
        self._call = call_model.CallModel(model, **settings)
        self._template = _template(template, template_file)
        self._prefix = added_prefix
        self._errors = (error_handling or {}).get("output")

    def expand(self, rows: beam.PCollection) -> Any:
        """Apply to a collection of Beam Rows."""
        own = _fields(rows)
        added = [(self._prefix + name, kind | None) for name, kind in ADDED.items()]
        _check_names([name for name, _ in own], [name for name, _ in added])
        kind = RowTypeConstraint.from_fields(own + added)
        prompts = rows | "Render" >> beam.ParDo(_RenderFn(self._template)).with_outputs(
            render_prompts.FAILED, main="prompts"
        )
        answers = prompts.prompts | "Call" >> self._call
        failed = (prompts.failed, answers.failed) | "Failed" >> beam.Flatten()
        if self._errors is None:
            both = (answers.ok, failed) | "All" >> beam.Flatten()
            return both | "ToRows" >> beam.Map(_row, self._prefix).with_output_types(kind)
        bad = RowTypeConstraint.from_fields(
            [("element", rows.element_type), ("msg", str), ("error_type", str)]
        )
        return {
            "good": answers.ok | "ToRows" >> beam.Map(_row, self._prefix).with_output_types(kind),
            self._errors: failed | "ToErrors" >> beam.Map(_error).with_output_types(bad),
        }


class WriteEnvelopes(beam.PTransform):
    """Write each row as a line of strict JSON.

    Input: Beam Rows. Output: none.

    Args:
        path: a folder, created where it is missing.
        partition_by: a field; files go to folders FIELD=VALUE.
    """

    def __init__(
        self,
        path: str,
        partition_by: Optional[str] = None,  # noqa: UP045
    ) -> None:
        super().__init__()
        self._write = write_envelopes.WriteEnvelopes(path, partition_by)

    def expand(self, rows: beam.PCollection) -> Any:
        """Apply to a collection of Beam Rows."""
        written = rows | self._write
        return written | beam.Map(_uri_row).with_output_types(
            RowTypeConstraint.from_fields([("uri", str)])
        )


class _RenderFn(beam.DoFn):
    """Render prompts that carry the Beam Row itself, so that it comes out as it went in."""

    def __init__(self, template: str) -> None:
        self._render = render_prompts.renderer(template)

    def process(self, row: Any) -> Iterator[Any]:
        for made in self._render.process(row):
            if isinstance(made, Prompt):
                yield Prompt(Row(None, None, None, {"row": row}), made.text)
            else:
                outcome = made.value
                envelope = outcome.envelope | {"input": {"row": row}}
                yield beam.pvalue.TaggedOutput(made.tag, outcome._replace(envelope=envelope))


def _template(text: str | None, file: str | None) -> str:
    if text is not None and file is not None:
        raise OptionsError("template and template_file exclude each other.")
    if file is None:
        return DEFAULT_TEMPLATE if text is None else text
    with FileSystems.open(file) as opened:
        return opened.read().decode()


def _schema(given: Any) -> SchemaSpec | None:
    if given is None:
        return None
    if isinstance(given, str):
        return load_schema_file(given)
    if not isinstance(given, Mapping):
        raise OptionsError(f"schema must be a mapping or the path of a file, got {given!r:.60}.")
    spec = SchemaSpec(json=json.dumps(SafeLineLoader.strip_metadata(given)))
    check_schema(spec)
    return spec


def _fields(rows: beam.PCollection) -> list[tuple[str, Any]]:
    try:
        return list(named_fields_from_element_type(rows.element_type))
    except (TypeError, ValueError):
        raise OptionsError(
            f"CallModel takes Beam Rows, got elements of type {rows.element_type}; name the fields "
            "first, as MapToFields does."
        ) from None


def _check_names(own: list[str], added: list[str]) -> None:
    both = ", ".join(name for name in added if name in own)
    if both:
        raise OptionsError(
            f"CallModel adds the fields {both}, which rows have already; choose other names with "
            "added_prefix, such as added_prefix: llm_."
        )


def _row(outcome: Outcome, prefix: str) -> beam.Row:
    found = flat_record(outcome)
    own = outcome.envelope["input"]["row"]._asdict()
    return beam.Row(**own, **{prefix + name: found[name] for name in ADDED})


def _error(outcome: Outcome) -> beam.Row:
    error = outcome.envelope["error"]
    return beam.Row(
        element=outcome.envelope["input"]["row"], msg=error["message"], error_type=error["type"]
    )


def _uri_row(uri: str) -> beam.Row:
    return beam.Row(uri=uri)
