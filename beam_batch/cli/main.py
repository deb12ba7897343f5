"""The command line: its flags, errors to messages, results to exit codes."""

from __future__ import annotations

import os
import shlex
import sys
from typing import Any, NoReturn

import rich_click as click

from beam_batch import __version__
from beam_batch.cli.agent_flags import VARIABLES
from beam_batch.cli.batch import COMMANDS
from beam_batch.cli.cache import cache
from beam_batch.cli.card import card
from beam_batch.cli.flags import ESTIMATE, INPUT, MODEL, PANELS, options
from beam_batch.cli.report import report
from beam_batch.cli.settings import (
    Flags,
    estimate_spec,
    prompt_spec,
    run_spec,
    schema_spec,
    source_spec,
    variables,
)
from beam_batch.errors import OptionsError, RunStopped
from beam_batch.process import mark_ours
from beam_batch.providers import chosen_model


@click.group()
@click.version_option(__version__, prog_name="beam-batch")
def cli() -> None:
    """Run one LLM workflow over every row of a dataset."""


@cli.command()
@options(**PANELS)
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
    report(summary, flags["final_summary"])


@cli.command()
@options(
    **{
        "Input": INPUT,
        "Model and prompt": MODEL,
        "Variables": VARIABLES,
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
        prompt=prompt_spec(flags, variables(flags)),
        model=chosen_model(flags["model"], os.environ),
        schema=schema_spec(flags),
        rows=flags["rows"],
    )
    click.echo(spec)


@cli.command()
@options(
    **{"Input": INPUT, "Model and prompt": MODEL, "Variables": VARIABLES, "Estimate": ESTIMATE}
)
def estimate(**flags: Any) -> None:
    """Say what a run would take in tokens, money and time; sends nothing without --probe."""
    _estimate(flags)


for _command in (*COMMANDS, cache, card):
    cli.add_command(_command)


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
    mark_ours()
    try:
        cli(prog_name="beam-batch")
    except OptionsError as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(2)
    except RunStopped as error:
        click.echo(f"Error: {error}", err=True)
        if sys.argv[1] == "run" or error.exit_code in (130, 143):
            click.echo(f"Go on with: {_resume_command(sys.argv[1:], error.exit_code)}", err=True)
        sys.exit(error.exit_code)
    except OSError as error:  # a full or failing disk, before anything was sent
        name = f" {error.filename}" if error.filename else ""
        click.echo(f"Error: the system says of{name or ' a file'}: {error.strerror}", err=True)
        sys.exit(1)
    sys.exit(0)


_CAPS = ("--max-errors", "--max-cost", "--max-tokens-total")


def _raised(args: list[str]) -> list[str]:
    """Double the caps of a command: one of them has stopped the run, and would again."""
    split = [
        part for arg in args for part in (arg.split("=", 1) if arg.startswith(_CAPS) else [arg])
    ]
    for flag, place in [(arg, place + 1) for place, arg in enumerate(split) if arg in _CAPS]:
        value = 2 * float(split[place])
        split[place] = f"{value:g}" if flag == "--max-cost" else str(int(value) or 1)
    return split


def _resume_command(args: list[str], code: int) -> str:
    """Write the command that goes on with this run."""
    if args[0] != "run":
        return shlex.join(["beam-batch", *args])
    cut = args.index("--") if "--" in args else len(args)
    own = [arg for arg in args[:cut] if arg not in ("--resume", "--overwrite")]
    if code in (3, 4):
        own = _raised(own)
    return shlex.join(["beam-batch", *own, "--resume", *args[cut:]])
