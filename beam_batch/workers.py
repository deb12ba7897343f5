"""What a worker must have, wherever it is, before it reads a row."""

from __future__ import annotations

import os
import socket
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from beam_batch.agents.cards.models import models_of
from beam_batch.agents.ready import check_here
from beam_batch.errors import InputLost, OptionsError, first_line
from beam_batch.inputs.reading import read_rows
from beam_batch.options import ModelSpec, RunSpec
from beam_batch.options.agents import CrewSpec
from beam_batch.outputs.workdir import WorkDir
from beam_batch.providers import needs_key, read_key
from beam_batch.records import Split
from beam_batch.version import VERSION

PROBE = "probe-"
LACKS = 2
"""Exit code where workers lack something and nothing was sent."""


@dataclass(frozen=True, kw_only=True)
class WorkerSpec:
    """What a worker must have; picklable, holds no secret.

    Attributes:
        file: name of the driver's file in the work directory; workers leave theirs beside it.
        version: of the driver's package.
        models: flag or agent, and the model that it names.
        split: rows that must be readable, or None.
        crew: agents whose functions and commands must be there.
    """

    work: WorkDir
    file: str
    version: str
    models: tuple[tuple[str, ModelSpec], ...]
    split: Split | None = None
    crew: CrewSpec | None = None


def worker_spec(spec: RunSpec, work: WorkDir, splits: Sequence[Split]) -> WorkerSpec:
    """Return what each worker of a run must have."""
    asked = [("--model", spec.model), ("--fallback-model", spec.repair.fallback)]
    asked += [(f"agent {name}, model", model) for name, model in models_of(spec.crew)]
    return WorkerSpec(
        work=work,
        file=f"{PROBE}{uuid.uuid4().hex[:8]}",
        version=VERSION,
        models=tuple((name, model) for name, model in asked if isinstance(model, ModelSpec)),
        split=splits[0] if splits else None,
        crew=spec.crew,
    )


def check_place(spec: WorkerSpec) -> None:
    """Look for the driver's file, and leave one of this worker's beside it.

    Raises:
        OptionsError: it is not there, or nothing can be written.
    """
    place, where = spec.work.place, _here()
    try:
        is_there = place.get(spec.file) is not None
        if is_there:
            place.put(f"{spec.file}-{where.replace('/', '_')}", b"")
    except OSError as error:
        raise OptionsError(
            f"--work-dir {spec.work.path}: worker {where} cannot use it ({first_line(error)}). "
            "Workers must be able to read and write there."
        ) from None
    if not is_there:
        raise OptionsError(
            f"--work-dir {spec.work.path}: worker {where} does not see there what the driver has "
            "written. Name a place that all of them share, such as s3://bucket/folder."
        )


def problem_of(spec: WorkerSpec, env: Mapping[str, str]) -> str | None:
    """Return what this process lacks, with the remedy, or None."""
    where = _here()
    if spec.version != VERSION:
        return (
            f"worker {where} has beam_batch {VERSION}, and the driver {spec.version}: install "
            "the same version on both"
        )
    for name, model in spec.models:
        variable = needs_key(model)
        if variable and not read_key(model, env):
            return (
                f"{name} {model.text} needs an API key, and worker {where} has none: set the "
                f"environment variable {variable} there"
            )
    try:
        if spec.split is not None:
            next(read_rows(spec.split, None), None)
        if spec.crew is not None:
            check_here(spec.crew, env)
    except (InputLost, OptionsError) as error:
        return f"worker {where}: {first_line(error).rstrip('.')}"
    return None


def _here() -> str:
    return f"{socket.gethostname()} (process {os.getpid()})"
