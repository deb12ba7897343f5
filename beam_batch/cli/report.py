"""How a command that runs a batch ends: summary, notes, exit code."""

from __future__ import annotations

import shlex
import sys
from typing import TYPE_CHECKING, NoReturn

import rich_click as click

if TYPE_CHECKING:
    from beam_batch.outputs.summary import Summary


def report(summary: Summary, final_summary: bool) -> NoReturn:
    """Print what a run came to, and exit."""
    if final_summary:
        from beam_batch import jsonio

        click.echo(jsonio.pretty(summary.data))
    for name, count in summary["errors"].items():
        click.echo(f"batch: {count} rows failed with {name}", err=True)
    if summary["torn_lines"]:
        click.echo(f"batch: passed over {summary['torn_lines']} torn lines", err=True)
    if summary.data.get("detached"):
        _tell_how_to_go_on(summary)
    sys.exit(summary.exit_code)


def _tell_how_to_go_on(summary: Summary) -> None:
    number, waiting = len(summary["batches"]), summary["waiting_files"]
    click.echo(
        f"batch: {number} batches are at the provider; nothing waits for them here", err=True
    )
    if waiting:
        click.echo(f"batch: {waiting} files wait for their turn; fetch submits them", err=True)
    for verb in ("status", "fetch", "cancel"):
        command = shlex.join(["beam-batch", verb, summary["work_dir"]])
        click.echo(f"batch: {verb:<6} with: {command}", err=True)
