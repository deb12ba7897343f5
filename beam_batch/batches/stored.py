"""The settings of a run beside its batches, so that `beam-batch fetch` can go on with it alone."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any

from beam_batch import jsonio
from beam_batch.batches.journal import CREATED, Journal
from beam_batch.errors import InvalidJSON, OptionsError
from beam_batch.options import (
    BatchSpec,
    BudgetSpec,
    CallSpec,
    ModelSpec,
    OutputSpec,
    PriceSpec,
    ProgressSpec,
    PromptSpec,
    RepairSpec,
    ReuseSpec,
    RunnerSpec,
    RunSpec,
    SchemaSpec,
    SourceSpec,
)
from beam_batch.outputs.workdir import WorkDir, default_work_dir
from beam_batch.places import STORES, scheme_of, write_atomically

_SPECS: dict[str, Any] = {
    "source": SourceSpec, "output": OutputSpec, "model": ModelSpec, "prompt": PromptSpec,
    "schema": SchemaSpec, "call": CallSpec, "batch": BatchSpec, "progress": ProgressSpec,
    "budget": BudgetSpec, "reuse": ReuseSpec, "repair": RepairSpec,
}  # fmt: skip


def journal_path(work: WorkDir) -> Path:
    """Name the journal of a work directory."""
    return work.batches / "journal.jsonl"


def store_run(work: WorkDir, spec: RunSpec) -> None:
    """Keep the settings of a run (no secret is in them) and the folder its paths start from."""
    work.batches.mkdir(exist_ok=True)
    data = {"cwd": os.getcwd(), "spec": dataclasses.asdict(spec)}
    write_atomically(work.batches / "run.json", jsonio.dumps(data))


def load_run(work: WorkDir) -> tuple[RunSpec, str]:
    """Return the settings of a run, and the folder that its paths start from.

    Raises:
        OptionsError: there are none.
    """
    try:
        data = jsonio.loads((work.batches / "run.json").read_bytes())
        fields = data["spec"]
        specs = {
            name: kind(**fields[name]) for name, kind in _SPECS.items() if fields[name] is not None
        }
        if isinstance(price := specs["budget"].price, dict):
            specs["budget"] = BudgetSpec(price=PriceSpec(**price))
        source = specs["source"]
        if not isinstance(source.input, str):
            specs["source"] = dataclasses.replace(source, input=tuple(source.input))
        asked = fields["runner"]
        runner = RunnerSpec(**asked | {"beam_args": tuple(asked["beam_args"])})
        return RunSpec(runner=runner, **specs), str(data["cwd"])
    except (OSError, InvalidJSON, LookupError, TypeError) as error:
        raise OptionsError(
            f"{work.path}: the settings of its run cannot be read ({error}). Go on with the "
            "command that started it, and --resume."
        ) from None


def has_batches(named: str) -> WorkDir | None:
    """Return the work directory that is named, or that of an output, where batches are there."""
    for path in (named, default_work_dir(named)):
        work = WorkDir(os.path.abspath(path))
        if journal_path(work).exists():
            return work
    return None


def find_work(named: str) -> WorkDir:
    """Return the work directory that is named, or that of an output.

    Raises:
        OptionsError: no batch run is there.
    """
    if scheme_of(named) in STORES:
        raise OptionsError(f"{named}: batches are kept in folders only; name one, or the output.")
    if work := has_batches(named):
        return work
    raise OptionsError(
        f"{named}: no batches are there; name the work directory, or the output, of a run with "
        "--backend batch that is not finished."
    )


def at_work(work: WorkDir) -> list[str]:
    """Return the ids of the batches that a work directory knows to be with their provider."""
    batches = Journal(journal_path(work)).batches.values()
    return [batch.id for batch in batches if batch.state == CREATED]


def planned_journal(work: WorkDir) -> Journal:
    """Return the journal of a work directory.

    Raises:
        OptionsError: nothing was planned, so nothing was submitted.
    """
    journal = Journal(journal_path(work))
    if journal.planned is None:
        raise OptionsError(f"{work.path}: nothing was submitted yet; run it again with --resume.")
    return journal
