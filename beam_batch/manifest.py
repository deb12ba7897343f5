"""The manifest: the plan of a run, and the fingerprint that a resumed run must match."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from typing import Any

from beam_batch import jsonio
from beam_batch.agents.cards.digest import digest_of
from beam_batch.errors import OptionsError
from beam_batch.inputs.plan import Plan, read_ids
from beam_batch.inputs.resolve import STDIN, Origin
from beam_batch.inputs.scanning import Read
from beam_batch.options import ModelSpec, RunSpec
from beam_batch.places.remote import scheme_of
from beam_batch.providers import deciding_options
from beam_batch.records import Source, Split


def fingerprint(spec: RunSpec, input_digest: str, output: str) -> dict[str, Any]:
    """List everything that decides what the answers are; long texts as digests."""
    assert isinstance(spec.model, ModelSpec)
    source = spec.source
    return {
        "--input": [_absolute(uri) for uri in source.inputs],
        "--input (content)": input_digest,
        "--input-format": source.input_format,
        "--encoding": source.encoding,
        "--csv-delimiter": source.csv_delimiter,
        "--csv-quote": source.csv_quote,
        "--sql": source.sql,
        "--where": source.where,
        "--ids": _digest_of_all(read_ids(source.ids)) if source.ids else None,
        "--output": _absolute(output),
        "--id-field": source.id_field,
        "--offset": source.offset,
        "--limit": source.limit,
        "--sample": source.sample,
        "--seed": source.seed if source.sample is not None else None,
        "--template or --prompt": _digest(spec.prompt.template),
        "--files-root": spec.prompt.files_root and os.path.abspath(spec.prompt.files_root),
        "--instruction": _digest(spec.prompt.instruction),
        "--schema": _digest(spec.schema.json) if spec.schema else None,
        "--agent-card": digest_of(spec.crew) if spec.crew else None,
        "--model": _model(spec.model),
        "--include-input": spec.output.include_input,
        "--backend": spec.batch.backend if spec.batch.is_batch else None,
    }


def _model(model: ModelSpec) -> str:
    """Write a model with the options that change its answers."""
    return f"{model.name} {jsonio.dumps(deciding_options(model)).decode()}"


def refuse_changes(old: dict[str, Any], new: dict[str, Any], overwrite: bool) -> bool:
    """Return whether the fingerprints agree.

    Raises:
        OptionsError: they differ, and `overwrite` does not ask to start again.
    """
    changed = [name for name in new if old.get(name) != new[name]]
    if not changed:
        return True
    if overwrite:
        return False
    details = "; ".join(_change(name, old.get(name), new[name]) for name in changed)
    raise OptionsError(
        f"--resume: the earlier run used other settings: {details}. Use the same ones, or add "
        "--overwrite to start again."
    )


_ANSWERS = (
    "--id-field", "--template or --prompt", "--instruction", "--schema", "--agent-card", "--model",
    "--include-input",
)  # fmt: skip
"""Marks that a finished output shares with the run that adds to it."""


def refuse_mixing(old: dict[str, Any], new: dict[str, Any], overwrite: bool) -> bool:
    """Return whether the answers of a finished output can stand beside those of this run.

    Without an id field, rows are known by their numbers, so the input must be the same as well.

    Raises:
        OptionsError: they cannot, and `overwrite` does not ask to start again.
    """
    names = _ANSWERS if new["--id-field"] is not None else (*_ANSWERS, "--input (content)")
    return refuse_changes(
        {name: old.get(name) for name in names}, {name: new[name] for name in names}, overwrite
    )


_LONG = (
    "--input (content)", "--template or --prompt", "--instruction", "--schema", "--ids",
    "--agent-card",
)  # fmt: skip
"""Marks that are digests."""


def _change(name: str, old: Any, new: Any) -> str:
    if name in _LONG:
        return f"{name} changed"
    return f"{name} was {old}, is {new}"


def _absolute(uri: str) -> str:
    return uri if uri == STDIN or scheme_of(uri) else os.path.abspath(uri)


def _digest_of_all(texts: Iterable[str]) -> str:
    digest = hashlib.blake2b(digest_size=12)
    for text in texts:
        digest.update(text.encode() + b"\n")
    return digest.hexdigest()


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=12).hexdigest()


def plan_to(plan: Plan, folder: str) -> dict[str, Any]:
    """Write a plan as JSON values; splits name their source by its place."""
    places = {source: place for place, source in enumerate(plan.sources)}
    splits = [[places[split.source], *split[1:]] for split in plan.splits]
    return plan._asdict() | {"splits": splits, "folder": folder}


def plan_from(data: dict[str, Any], folder: str) -> Plan:
    """Read a plan from JSON values; what it keeps in its folder is found where that is now."""
    was = data["folder"]

    def moved(path: str | None) -> str | None:
        return folder + path[len(was) :] if path is not None and path.startswith(was) else path

    sources = [Source(*values) for values in data["sources"]]
    sources = [source._replace(path=str(moved(source.path))) for source in sources]
    reads = [Read(Origin(*origin), digest, stop) for origin, digest, stop in data["reads"]]
    splits = [Split(sources[place], *rest) for place, *rest in data["splits"]]
    splits = [split._replace(picks_file=moved(split.picks_file)) for split in splits]
    data = {name: value for name, value in data.items() if name != "folder"}
    return Plan(**(data | {"sources": sources, "reads": reads, "splits": splits}))
