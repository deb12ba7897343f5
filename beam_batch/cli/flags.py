"""The flags of the command line, by the panels of its help."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import rich_click as click

from beam_batch.cli.agent_flags import AGENTS
from beam_batch.errors import OptionsError
from beam_batch.options import BACKENDS, BATCH_FINISHES, INPUT_FORMATS, PriceSpec, parse_price
from beam_batch.options.engine import ENVIRONMENTS

Command = Callable[..., None]


def parallel(_context: Any, _option: Any, value: str) -> int | None:
    """Read a number of requests in flight, or auto."""
    if value == "auto":
        return None
    try:
        return int(value)
    except ValueError:
        raise OptionsError(f"--parallel must be auto or a whole number, got {value!r}.") from None


def price(_context: Any, _option: Any, value: str | None) -> PriceSpec | None:
    """Read a price."""
    return parse_price(value) if value else None


INPUT = (
    click.option(
        "--input",
        "-i",
        required=True,
        multiple=True,
        help="Rows: a JSONL, JSON, CSV, TSV, Parquet or Arrow file, a folder, a glob, hf://, "
        "s3://, gs://, az://, https://, or - for stdin. May be repeated.",
    ),
    click.option(
        "--input-format",
        type=click.Choice(INPUT_FORMATS),
        help="Format, where the suffix does not say it.",
    ),
    click.option("--encoding", default="utf-8", show_default=True, help="Encoding of text."),
    click.option("--csv-delimiter", help="Between cells. [default: a comma, in .tsv a tab]"),
    click.option("--csv-quote", default='"', show_default=True, help="Around cells; '' for none."),
    click.option("--sql", help="SELECT over the view input: its result is the input."),
    click.option("--where", help="Condition in SQL, short for SELECT * FROM input WHERE."),
    click.option("--ids", help="File with the ids to work on, one a line."),
    click.option("--id-field", help="Field that identifies a row. [default: the row number]"),
    click.option("--offset", type=int, default=0, help="Skip this many rows first."),
    click.option("--sample", type=int, help="Then take this many rows at random, in input order."),
    click.option("--seed", type=int, default=0, help="Seed of --sample.", show_default=True),
    click.option("--limit", type=int, help="Then stop after this many rows."),
)
MODEL = (
    click.option(
        "--model",
        "-m",
        help="provider.model?option=value, such as responses.gpt-5.4-mini?reasoning=low; or set "
        "BEAM_BATCH_MODEL. "
        "Providers: responses, openai, anthropic, google, xai, azure, openrouter, groq, "
        "deepseek, hf, openresponses, generic, local, echo.",
    ),
    click.option("--prompt", "-p", help="Template as text: 'Classify: {{review}}'."),
    click.option("--template", help="Template file. [default: the row as JSON]"),
    click.option(
        "--files-root", help="Folder below which rows may name images for {{image:field}}."
    ),
    click.option("--instruction", help="File with the system instruction."),
    click.option("--schema", "--json-schema", "schema", help="JSON Schema file for the results."),
    click.option("--schema-model", help="Pydantic model for the results: package.module:Class."),
)
OUTPUT = (
    click.option("--output", "-o", required=True, help="Results, JSONL; DIR/ writes shards."),
    click.option("--include-input/--no-include-input", help="Copy each row into its envelope."),
    click.option("--error-output", help="Copy of the failed envelopes, JSONL."),
    click.option("--telemetry-output", help="Time, tokens and attempts of each row, JSONL."),
    click.option("--summary-output", help="Summary of the run, JSON."),
    click.option(
        "--export-traces", help="Folder: the conversation of each row, a file a row, and a list."
    ),
    click.option("--hf-dataset", help="Dataset of the Hub that they are sent to: owner/name."),
    click.option(
        "--hf-dataset-path",
        help="Folder in it; with a trailing slash, a folder of the run in that. "
        "[default: traces/RUN]",
    ),
    click.option(
        "--final-summary/--no-final-summary", default=True, help="Print the summary on stdout."
    ),
)
PARALLEL = click.option(
    "--parallel",
    callback=parallel,
    default="auto",
    show_default=True,
    help="Requests in flight; auto finds out how many the provider takes.",
)
RATES = (
    click.option("--rpm", type=int, help="Requests a minute at most, over the whole run."),
    click.option("--tpm", type=int, help="Tokens a minute at most, over the whole run."),
)
PRICE = click.option(
    "--price",
    callback=price,
    help="input=0.2,output=1.25,cached=0.02: US dollars per million tokens. [default: list prices]",
)
CALLING = (
    PARALLEL,
    click.option(
        "--group-by",
        help="Field: answer rows with the same value of it together, for the provider's cache.",
    ),
    *RATES,
    click.option(
        "--max-attempts", type=int, default=6, show_default=True, help="Requests a row may cost."
    ),
    click.option(
        "--retry-wait",
        type=float,
        default=0.5,
        show_default=True,
        help="First back-off in seconds; doubles, with jitter. Retry-After comes first.",
    ),
    click.option(
        "--retry-max-wait", type=float, default=60.0, show_default=True, help="Longest back-off."
    ),
    click.option(
        "--timeout",
        type=float,
        help="Seconds for one request. [default: 600; at service_tier=flex 900]",
    ),
    click.option("--row-deadline", type=float, help="Seconds for a row with all its attempts."),
    click.option(
        "--max-outage",
        type=float,
        default=900.0,
        show_default=True,
        help="Seconds that the provider may be down before the run stops.",
    ),
    click.option(
        "--stall-timeout",
        type=float,
        default=120.0,
        show_default=True,
        help="Seconds between pieces of a stream (transport=sse or websocket).",
    ),
)
REPAIR = (
    click.option(
        "--reask",
        type=int,
        default=0,
        show_default=True,
        help="Times to ask again where an answer does not satisfy the schema.",
    ),
    click.option("--fallback-model", help="Model that answers the rows which still fail."),
    click.option(
        "--flex-fallback",
        is_flag=True,
        help="Ask at the default tier where service_tier=flex has no capacity.",
    ),
)
REUSE = (
    click.option(
        "--dedupe/--no-dedupe",
        default=None,
        help="Send identical requests once. [default: yes; no if temperature is above 0]",
    ),
    click.option(
        "--cache", help="Folder, s3://, gs:// or az:// of replies that later runs use again."
    ),
    click.option(
        "--cache-max-age", type=float, help="Days after which a reply of --cache is too old."
    ),
)
SPENDING = (
    PRICE,
    click.option("--max-cost", type=float, help="US dollars that it may cost; then exit 4."),
    click.option("--max-tokens-total", type=int, help="Tokens that it may use; then exit 4."),
    click.option("--row-max-cost", type=float, help="US dollars that one row may cost."),
)
BATCH = (
    click.option(
        "--backend",
        type=click.Choice(BACKENDS),
        default="online",
        show_default=True,
        help="batch sends files through the provider's Batch API: half the price, within a day.",
    ),
    click.option(
        "--detach", is_flag=True, help="End once all is submitted; beam-batch fetch goes on."
    ),
    click.option(
        "--batch-finish",
        type=click.Choice(BATCH_FINISHES),
        default="resubmit",
        show_default=True,
        help="What becomes of rows that a batch left open: a further batch, or online requests.",
    ),
    click.option(
        "--batch-size", type=int, help="Requests of one batch. [default: what the provider takes]"
    ),
    click.option(
        "--batch-poll",
        type=float,
        default=2.0,
        show_default=True,
        help="Seconds before the first look at a batch; the waits grow to a minute.",
    ),
)
RUNNING = (
    click.option("--resume", is_flag=True, help="Answer only the rows without a good answer."),
    click.option(
        "--overwrite",
        is_flag=True,
        help="Replace existing results; with --resume, keep their good answers.",
    ),
    click.option(
        "--work-dir",
        help="Where unfinished work is kept: a folder, or s3://, gs:// or az://. "
        "[default: .OUTPUT.batch]",
    ),
    click.option("--keep-temp/--no-keep-temp", help="Keep the work directory at the end."),
    click.option("--max-errors", type=int, help="Stop, exit 3, once this many rows failed."),
    click.option("--fail-on-error", is_flag=True, help="Exit 1 if any row failed."),
    click.option("--progress/--no-progress", default=True, help="Show progress on stderr."),
    click.option("--progress-every", type=int, help="Print a plain line every so many rows."),
)
BEYOND = (
    click.option(
        "--runner",
        default="direct",
        show_default=True,
        help="direct (here), prism, flink, dask, portable, or a Beam runner by its class name; "
        "Beam's own flags go after --.",
    ),
    click.option(
        "--environment",
        type=click.Choice(ENVIRONMENTS),
        help="How prism, flink and portable start workers. [default: prism loopback]",
    ),
    click.option(
        "--environment-config",
        help="Worker pools, HOST:PORT,... (external), an image (docker), a command (process).",
    ),
    click.option("--flink-master", help="JobManager of --runner flink, HOST:PORT."),
    click.option(
        "--work-dir-is-shared",
        is_flag=True,
        help="Workers on other machines see --work-dir under the same name.",
    ),
)
PROBE = click.option(
    "--probe", type=int, help="Answer this many rows, drawn at random, and extrapolate from them."
)
ESTIMATE = (
    PRICE,
    PROBE,
    *RATES,
    PARALLEL,
    click.option("--json", "as_json", is_flag=True, help="Print JSON."),
)
DRY_RUN = (
    click.option("--dry-run", is_flag=True, help="Estimate tokens, money and time instead."),
    PROBE,
)
PANELS = {
    "Input": INPUT,
    "Model and prompt": MODEL,
    "Agents": AGENTS,
    "Output": OUTPUT,
    "Calling": CALLING,
    "Repair": REPAIR,
    "Reuse": REUSE,
    "Spending": SPENDING,
    "Batch API": BATCH,
    "Running": RUNNING,
    "Beyond one machine": BEYOND,
    "Estimate": DRY_RUN,
}


def options(**panels: tuple[Any, ...]) -> Callable[[Command], Command]:
    """Add panels of options to a command, in the order given."""

    def decorate(command: Command) -> Command:
        for title, options in reversed(panels.items()):
            known = len(getattr(command, "__click_params__", []))
            for option in reversed(options):
                command = option(command)
            added = command.__click_params__[known:]  # type: ignore[attr-defined]
            names = [parameter.name for parameter in reversed(added)]
            command = click.option_panel(title, options=names)(command)
        return command

    return decorate
