"""Answer a few rows as a run does, and read what they took."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from beam_batch import jsonio
from beam_batch.errors import RunStopped
from beam_batch.estimate.counting import Sampled
from beam_batch.options import EstimateSpec, OutputSpec, ReuseSpec, RunSpec, SourceSpec
from beam_batch.providers.base import Usage


class Answered(NamedTuple):
    """A row of the probe.

    Attributes:
        counted: its input tokens as counted here.
        usage: its tokens as the provider counts them; none of them where it failed unpaid.
        model, tier: that served it, where the provider says.
        seconds: it took, with attempts and waits.
    """

    counted: int
    ok: bool
    usage: Usage
    model: str | None
    tier: str | None
    seconds: float | None


class Probed(NamedTuple):
    """The rows of a probe, and how many failed by the name of their error."""

    answers: list[Answered]
    errors: dict[str, int]


def probe(spec: EstimateSpec, rows: list[Sampled], folder: Path) -> Probed:
    """Answer rows with the machinery of a run; its files are in a folder that is thrown away.

    Raises:
        OptionsError, RunStopped: as `launch.run`; nothing is kept.
    """
    from beam_batch.launch import run

    source, telemetry = folder / "probe.jsonl", folder / "telemetry.jsonl"
    source.write_bytes(b"".join(jsonio.dumps(row.data) + b"\n" for row in rows))
    output = OutputSpec(output=str(folder / "results.jsonl"), telemetry_output=str(telemetry))
    settings = RunSpec(
        source=SourceSpec(input=str(source)),
        output=output,
        model=spec.model,
        prompt=spec.prompt,
        schema=spec.schema,
        call=spec.call,
        reuse=ReuseSpec(dedupe=False),  # each row is a measurement
    )
    try:
        summary = run(settings)
    except RunStopped as error:
        reason = str(error).partition(". Finished rows are kept")[0]
        raise RunStopped(f"the probe was not finished: {reason}", error.exit_code) from None
    records = [jsonio.loads(line) for line in telemetry.read_bytes().splitlines()]
    answers = [_answered(record, rows[record["row_number"] - 1].tokens) for record in records]
    return Probed(answers, summary["errors"])


def _answered(record: dict[str, Any], counted: int) -> Answered:
    turn = record["usage"].get("turn") or {}
    milliseconds = record["timing"].get("duration_ms")
    return Answered(
        counted,
        record["ok"],
        Usage(**{name: turn[name] for name in Usage._fields if name in turn}),
        record.get("model"),
        record.get("service_tier"),
        None if milliseconds is None else milliseconds / 1000,
    )
