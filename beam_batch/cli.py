"""The command line: flags to specs, errors to messages, results to exit codes."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import rich_click as click

from beam_batch import __version__
from beam_batch.cli_batch import BATCH, COMMANDS
from beam_batch.cli_report import report
from beam_batch.errors import OptionsError, RunStopped
from beam_batch.options import (
    DEFAULT_INSTRUCTION,
    DEFAULT_PARALLEL,
    DEFAULT_TEMPLATE,
    INPUT_FORMATS,
    BatchSpec,
    CallSpec,
    OutputSpec,
    ProgressSpec,
    PromptSpec,
    RunSpec,
    SchemaSpec,
    SourceSpec,
)

Flags = dict[str, Any]
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
CALLING = (
    click.option(
        "--parallel",
        type=int,
        default=DEFAULT_PARALLEL,
        show_default=True,
        help="Requests in flight.",
    ),
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
PANELS = {
    "Input": INPUT,
    "Model and prompt": MODEL,
    "Output": OUTPUT,
    "Calling": CALLING,
    "Batch API": BATCH,
    "Running": RUNNING,
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
    from beam_batch.launch import run as launch

    try:
        summary = launch(_run_spec(flags))
    except KeyboardInterrupt:  # before anything was sent; later signals stop the run in order
        sys.exit(130)
    report(summary, flags["final_summary"])


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
        source=_source_spec(flags),
        prompt=_prompt_spec(flags),
        model=flags["model"],
        schema=_schema_spec(flags),
        rows=flags["rows"],
    )
    click.echo(spec)


for _command in COMMANDS:
    cli.add_command(_command)


def _run_spec(flags: Flags) -> RunSpec:
    return RunSpec(
        source=_source_spec(flags),
        prompt=_prompt_spec(flags),
        schema=_schema_spec(flags),
        model=flags["model"],
        call=_pick(CallSpec, flags),
        batch=_pick(BatchSpec, flags),
        output=_pick(OutputSpec, flags),
        progress=ProgressSpec(enabled=flags["progress"], every=flags["progress_every"]),
        runner=flags["runner"],
        beam_args=flags["beam_args"],
    )


def _pick(spec: type[Any], flags: Flags) -> Any:
    """Make a spec of the flags that have its fields' names."""
    return spec(**{name: flags[name] for name in spec.__dataclass_fields__ if name in flags})


def _source_spec(flags: Flags) -> SourceSpec:
    delimiter = {"\\t": "\t", "tab": "\t"}.get(flags["csv_delimiter"], flags["csv_delimiter"])
    source: SourceSpec = _pick(SourceSpec, flags | {"csv_delimiter": delimiter})
    return source


def _prompt_spec(flags: Flags) -> PromptSpec:
    if flags["prompt"] is not None and flags["template"]:
        raise OptionsError("--prompt and --template exclude each other; give one of them.")
    template = flags["prompt"] if flags["prompt"] is not None else DEFAULT_TEMPLATE
    if flags["template"]:
        template = _read_text("--template", flags["template"])
    instruction = DEFAULT_INSTRUCTION
    if flags["instruction"]:
        instruction = _read_text("--instruction", flags["instruction"])
    return PromptSpec(
        template=template,
        instruction=instruction,
        files_root=flags["files_root"],
        template_source=flags["template"],
        instruction_source=flags["instruction"],
    )


def _schema_spec(flags: Flags) -> SchemaSpec | None:
    if flags["schema"] and flags["schema_model"]:
        raise OptionsError("--schema and --schema-model exclude each other; give one of them.")
    if not flags["schema"] and not flags["schema_model"]:
        return None
    from beam_batch.prompts.schema import load_schema_file, load_schema_model

    if flags["schema"]:
        return load_schema_file(flags["schema"])
    return load_schema_model(flags["schema_model"])


def _read_text(flag: str, path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8-sig")
    except OSError as error:
        raise OptionsError(f"{flag} {path}: cannot be read ({error.strerror}).") from None
    except UnicodeDecodeError as error:
        raise OptionsError(f"{flag} {path}: not UTF-8 ({error.reason}).") from None


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
    if args[0] != "run":
        return shlex.join(["beam-batch", *args])
    cut = args.index("--") if "--" in args else len(args)
    own = [arg for arg in args[:cut] if arg not in ("--resume", "--overwrite")]
    if "--max-errors" in own:  # it stopped the run, and would again
        place = own.index("--max-errors")
        del own[place : place + 2]
    return shlex.join(["beam-batch", *own, "--resume", *args[cut:]])
