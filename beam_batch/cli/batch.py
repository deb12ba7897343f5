"""The commands beside a run: how it is, and what goes on with its batches."""

from __future__ import annotations

import dataclasses
import os
import sys

import rich_click as click

from beam_batch.cli.report import report
from beam_batch.errors import OptionsError
from beam_batch.options import BATCH_FINISHES

PLACE = click.argument("place", metavar="WORK_DIR|OUTPUT")


@click.command()
@PLACE
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def status(place: str, as_json: bool) -> None:
    """Show how a run is, from its work directory; of --backend batch, how its provider sees it.

    It may be asked while the run is at work, from any machine that sees the work directory, also
    s3:// and the like.
    """
    from beam_batch import jsonio
    from beam_batch.batches import status as batches
    from beam_batch.batches.stored import has_batches
    from beam_batch.outputs import status as runs

    if work := has_batches(place):
        rows = batches.survey(work, _tell)
        click.echo(jsonio.pretty(rows) if as_json else batches.table(rows))
        return
    run = runs.find_run(place)
    found = runs.survey(run) if run is not None else {"state": "finished"}
    if as_json:
        click.echo(jsonio.pretty(found))
    else:
        click.echo(runs.show(found) if run is not None else "finished: its files are in place")


@click.command()
@PLACE
@click.option(
    "--batch-finish", type=click.Choice(BATCH_FINISHES), help="Instead of what the run was given."
)
@click.option("--batch-poll", type=float, help="Instead of what the run was given.")
@click.option(
    "--final-summary/--no-final-summary", default=True, help="Print the summary on stdout."
)
def fetch(
    place: str, batch_finish: str | None, batch_poll: float | None, final_summary: bool
) -> None:
    """Go on with a detached or stopped run: wait for its batches, and write its results."""
    from beam_batch.batches.stored import find_work, load_run
    from beam_batch.launch import run

    work = find_work(place)
    spec, folder = load_run(work)
    try:
        os.chdir(folder)
    except OSError as error:
        raise OptionsError(
            f"the run was started in {folder}, which is gone ({error.strerror})."
        ) from None
    given = {"batch_finish": batch_finish, "batch_poll": batch_poll}
    changed = {name: value for name, value in given.items() if value is not None}
    output = dataclasses.replace(spec.output, resume=True, overwrite=False, work_dir=work.path)
    batch = dataclasses.replace(spec.batch, detach=False, send_cancelled=False, **changed)  # type: ignore[arg-type]
    try:
        summary = run(dataclasses.replace(spec, output=output, batch=batch))
    except KeyboardInterrupt:
        sys.exit(130)
    report(summary, final_summary)


@click.command()
@PLACE
def cancel(place: str) -> None:
    """Cancel the batches of a run at their provider; what they answered is fetched by --resume."""
    from beam_batch.batches.status import cancel_all
    from beam_batch.batches.stored import find_work

    sys.exit(1 if cancel_all(find_work(place), _tell) else 0)


COMMANDS = (status, fetch, cancel)


def _tell(text: str) -> None:
    click.echo(f"batch: {text}", err=True)
