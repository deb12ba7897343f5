"""The command line: its flags, errors to messages, results to exit codes."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable
from typing import Any, NoReturn

import rich_click as click

from beam_batch import __version__
from beam_batch.errors import OptionsError, RunStopped
from beam_batch.flags import (
    Flags,
    estimate_spec,
    prompt_spec,
    run_spec,
    schema_spec,
    source_spec,
)
from beam_batch.options import DEFAULT_PARALLEL, INPUT_FORMATS

Command = Callable[..., None]

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
        required=True,
        envvar="BEAM_BATCH_MODEL",
        help="provider.model?option=value, such as responses.gpt-5.4-mini?reasoning=low. "
        "Providers: responses, openai, generic, local, echo.",
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
        "--final-summary/--no-final-summary", default=True, help="Print the summary on stdout."
    ),
)
PARALLEL = click.option(
    "--parallel", type=int, default=DEFAULT_PARALLEL, show_default=True, help="Requests in flight."
)
PRICE = click.option(
    "--price",
    help="input=0.2,output=1.25,cached=0.02: US dollars per million tokens. [default: list prices]",
)
CALLING = (
    PARALLEL,
    PRICE,
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
        "--timeout", type=float, default=600.0, show_default=True, help="Seconds for one request."
    ),
    click.option(
        "--stall-timeout",
        type=float,
        default=120.0,
        show_default=True,
        help="Seconds between pieces of a stream (transport=sse).",
    ),
)
RUNNING = (
    click.option("--resume", is_flag=True, help="Answer only the rows without a good answer."),
    click.option(
        "--overwrite",
        is_flag=True,
        help="Replace existing results; with --resume, keep their good answers.",
    ),
    click.option("--work-dir", help="Where unfinished work is kept. [default: .OUTPUT.batch]"),
    click.option("--keep-temp/--no-keep-temp", help="Keep the work directory at the end."),
    click.option("--max-errors", type=int, help="Stop, exit 3, once this many rows failed."),
    click.option("--fail-on-error", is_flag=True, help="Exit 1 if any row failed."),
    click.option("--progress/--no-progress", default=True, help="Show progress on stderr."),
    click.option("--progress-every", type=int, help="Print a plain line every so many rows."),
    click.option(
        "--runner",
        default="direct",
        show_default=True,
        help="direct, or a Beam runner by name; its own flags go after --.",
    ),
)
PROBE = click.option(
    "--probe", type=int, help="Answer this many rows, drawn at random, and extrapolate from them."
)
ESTIMATE = (
    PRICE,
    PROBE,
    click.option("--rpm", type=float, help="Requests a minute that the account is allowed."),
    click.option("--tpm", type=float, help="Tokens a minute that the account is allowed."),
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
    "Output": OUTPUT,
    "Calling": CALLING,
    "Running": RUNNING,
    "Estimate": DRY_RUN,
}


def _options(**panels: tuple[Any, ...]) -> Callable[[Command], Command]:
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


@click.group()
@click.version_option(__version__, prog_name="beam-batch")
def cli() -> None:
    """Run one LLM workflow over every row of a dataset."""


@cli.command()
@_options(**PANELS)
@click.argument("beam_args", nargs=-1, type=click.UNPROCESSED)
def run(**flags: Any) -> None:
    """Send every row to a model and write one JSON envelope a row.

    Finished rows are on disk at once: after any interruption, the same command with --resume goes
    on where it stopped. BEAM_ARGS, after --, are flags of Beam itself.
    """
    settings = run_spec(flags)
    if flags["dry_run"]:
        _estimate(flags)
        return
    if flags["probe"] is not None:
        raise OptionsError(f"--probe {flags['probe']} is for an estimate: add --dry-run.")
    from beam_batch.launch import run as launch

    try:
        summary = launch(settings)
    except KeyboardInterrupt:  # before anything was sent; later signals stop the run in order
        sys.exit(130)
    if flags["final_summary"]:
        from beam_batch import jsonio

        click.echo(jsonio.pretty(summary.data))
    for name, count in summary["errors"].items():
        click.echo(f"batch: {count} rows failed with {name}", err=True)
    if summary["torn_lines"]:
        click.echo(f"batch: passed over {summary['torn_lines']} torn lines", err=True)
    sys.exit(summary.exit_code)


@cli.command()
@_options(
    **{
        "Input": INPUT,
        "Model and prompt": MODEL,
        "Preview": (
            click.option("--rows", type=int, default=3, show_default=True, help="Rows to show."),
        ),
    }
)
def preview(**flags: Any) -> None:
    """Show the first prompts and the exact requests, without sending anything."""
    from beam_batch.preview import preview as show

    if flags["rows"] < 1:
        raise OptionsError(f"--rows must be 1 or more, got {flags['rows']}.")
    spec = show(
        source=source_spec(flags),
        prompt=prompt_spec(flags),
        model=flags["model"],
        schema=schema_spec(flags),
        rows=flags["rows"],
    )
    click.echo(spec)


@cli.command()
@_options(**{"Input": INPUT, "Model and prompt": MODEL, "Estimate": ESTIMATE})
def estimate(**flags: Any) -> None:
    """Say what a run would take in tokens, money and time; sends nothing without --probe."""
    _estimate(flags)


def _estimate(flags: Flags) -> None:
    from beam_batch.estimate import estimate as figure

    spec = estimate_spec(flags)
    try:
        found = figure(spec)
    except KeyboardInterrupt:
        sys.exit(130)
    except RunStopped as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(error.exit_code)
    if flags.get("as_json"):
        from beam_batch import jsonio

        click.echo(jsonio.pretty(found))
    else:
        from beam_batch.estimate.report import show

        show(found)


def main() -> NoReturn:
    """Run the command line; every mistake of the user's ends in one message and its exit code."""
    try:
        cli(prog_name="beam-batch")
    except OptionsError as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(2)
    except RunStopped as error:
        click.echo(f"Error: {error}", err=True)
        click.echo(f"Go on with: {_resume_command(sys.argv[1:])}", err=True)
        sys.exit(error.exit_code)
    except OSError as error:  # a full or failing disk, before anything was sent
        name = f" {error.filename}" if error.filename else ""
        click.echo(f"Error: the system says of{name or ' a file'}: {error.strerror}", err=True)
        sys.exit(1)
    sys.exit(0)


def _resume_command(args: list[str]) -> str:
    """Write the command that goes on with this run."""
    cut = args.index("--") if "--" in args else len(args)
    own = [arg for arg in args[:cut] if arg not in ("--resume", "--overwrite")]
    if "--max-errors" in own:  # it stopped the run, and would again
        place = own.index("--max-errors")
        del own[place : place + 2]
    return shlex.join(["beam-batch", *own, "--resume", *args[cut:]])
