"""The command line: flags to specs, errors to messages, results to exit codes."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Any, NoReturn

import rich_click as click

from beam_batch import __version__
from beam_batch.cli_cache import cache
from beam_batch.errors import OptionsError, RunStopped
from beam_batch.flags import INPUT, MODEL, PANELS, options
from beam_batch.options import (
    DEFAULT_INSTRUCTION,
    DEFAULT_TEMPLATE,
    BudgetSpec,
    CallSpec,
    OutputSpec,
    ProgressSpec,
    PromptSpec,
    RepairSpec,
    ReuseSpec,
    RunSpec,
    SchemaSpec,
    SourceSpec,
)

Flags = dict[str, Any]


@click.group()
@click.version_option(__version__, prog_name="beam-batch")
def cli() -> None:
    """Run one LLM workflow over every row of a dataset."""


cli.add_command(cache)


@cli.command()
@options(**PANELS)
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
    if flags["final_summary"]:
        from beam_batch import jsonio

        click.echo(jsonio.pretty(summary.data))
    for name, count in summary["errors"].items():
        click.echo(f"batch: {count} rows failed with {name}", err=True)
    if summary["torn_lines"]:
        click.echo(f"batch: passed over {summary['torn_lines']} torn lines", err=True)
    sys.exit(summary.exit_code)


@cli.command()
@options(
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


def _run_spec(flags: Flags) -> RunSpec:
    return RunSpec(
        source=_source_spec(flags),
        prompt=_prompt_spec(flags),
        schema=_schema_spec(flags),
        model=flags["model"],
        call=_pick(CallSpec, flags),
        repair=RepairSpec(
            reask=flags["reask"],
            fallback=flags["fallback_model"],
            flex_fallback=flags["flex_fallback"],
        ),
        budget=_pick(BudgetSpec, flags),
        reuse=_pick(ReuseSpec, flags),
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
    cut = args.index("--") if "--" in args else len(args)
    own = [arg for arg in args[:cut] if arg not in ("--resume", "--overwrite")]
    for flag in ("--max-errors", "--max-cost", "--max-tokens-total"):
        if flag in own:  # it stopped the run, and would again
            place = own.index(flag)
            del own[place : place + 2]
    return shlex.join(["beam-batch", *own, "--resume", *args[cut:]])
