"""What can be known to be wrong before anything is read, sent or truncated."""

from __future__ import annotations

import importlib.util
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from beam_batch.agents.cards.models import models_of
from beam_batch.agents.ready import check_flag, check_here
from beam_batch.batches.services import check_batch
from beam_batch.calling.pricing import make_pricer
from beam_batch.errors import OptionsError
from beam_batch.hubname import parse_hub_name
from beam_batch.options import ModelSpec, PromptSpec, RunSpec
from beam_batch.outputs.remote import is_remote, store_of
from beam_batch.outputs.workdir import work_of
from beam_batch.prompts.template import image_fields
from beam_batch.providers import make_provider, needs_key, output_bound, read_key
from beam_batch.reuse.making import check_cache
from beam_batch.runners.choosing import inherits_environment


def check(spec: RunSpec, env: Mapping[str, str]) -> None:
    """Check the settings of a run against each other and the machine.

    Raises:
        OptionsError: the first thing that cannot work.
    """
    _check_paths(spec)
    assert isinstance(spec.model, ModelSpec)
    check_batch(spec.model, spec.batch, spec.runner.kind)
    _check_batch_alone(spec)
    make_provider(spec.model, spec.schema)
    check_images(spec.prompt)
    on_this_machine = inherits_environment(spec.runner, env)
    check_key(spec.model, env, required=on_this_machine)
    if isinstance(spec.repair.fallback, ModelSpec):
        make_provider(spec.repair.fallback, spec.schema)
        check_key(spec.repair.fallback, env, "--fallback-model", on_this_machine)
        if spec.repair.fallback.provider == "local":
            raise OptionsError("--fallback-model cannot be a local model; make it --model.")
    _check_crew(spec, env, on_this_machine)
    _check_repair(spec)
    _check_budget(spec)
    check_cache(
        spec.reuse, work_of(spec.output.work_dir, spec.output.output).path
    )  # last, for it makes the folder


def check_key(
    model: ModelSpec, env: Mapping[str, str], flag: str = "--model", required: bool = True
) -> None:
    """Check that this machine has the key that a model needs, and that it can be one.

    Raises:
        OptionsError: it has not, though it is `required` here; or it cannot be one.
    """
    variable = needs_key(model)
    if not read_key(model, env) and variable and required:
        raise OptionsError(
            f"{flag} {model.text} needs an API key: set the environment variable {variable}."
        )


def _check_batch_alone(spec: RunSpec) -> None:
    """Refuse what only requests that are sent one by one can do."""
    if not spec.batch.is_batch:
        return
    if not work_of(spec.output.work_dir, spec.output.output).is_folder:
        raise OptionsError(
            f"--work-dir {spec.output.work_dir}: --backend batch keeps its journal in a folder; "
            "name one."
        )
    online = {
        "--reask": spec.repair.reask,
        "--fallback-model": spec.repair.fallback,
        "--max-cost": spec.budget.max_cost is not None,
        "--max-tokens-total": spec.budget.max_tokens_total is not None,
        "--cache": spec.reuse.cache,
        "--dedupe": spec.reuse.dedupe,
        "--row-deadline": spec.call.row_deadline,
        "--export-traces": spec.trace.folder,
    }
    for flag, given in online.items():
        if given:
            raise OptionsError(
                f"{flag} is for requests that are sent online; --backend batch can't."
            )


def _check_repair(spec: RunSpec) -> None:
    assert isinstance(spec.model, ModelSpec)
    if spec.repair.reask and spec.schema is None:
        raise OptionsError(
            f"--reask {spec.repair.reask} needs --schema or --schema-model: without one, no answer "
            "is wrong."
        )
    if spec.repair.flex_fallback and spec.model.options.get("service_tier") != "flex":
        raise OptionsError("--flex-fallback needs service_tier=flex in --model.")


def _check_crew(spec: RunSpec, env: Mapping[str, str], on_this_machine: bool) -> None:
    """Check the models and tools of agents, and refuse what is for plain requests only."""
    if spec.crew is None:
        return
    check_flag(spec.crew)
    for name, model in models_of(spec.crew):
        make_provider(model, spec.schema)
        check_key(model, env, f"agent {name}, model", on_this_machine)
    plain = {
        "--backend batch": spec.batch.is_batch,
        "--fallback-model": spec.repair.fallback,
    }
    for flag, given in plain.items():
        if given:
            raise OptionsError(f"{flag} is for plain requests; --agent-card can't.")
    if on_this_machine:
        check_here(spec.crew, env)


def _check_budget(spec: RunSpec) -> None:
    """Refuse a cap that could be passed: each request must have a worst case."""
    assert isinstance(spec.model, ModelSpec)
    caps = {
        "--max-cost": spec.budget.max_cost,
        "--row-max-cost": spec.budget.row_max_cost,
        "--max-tokens-total": spec.budget.max_tokens_total,
    }
    flag = next((flag for flag, cap in caps.items() if cap is not None), None)
    if flag is None:
        return
    others = [model for _, model in models_of(spec.crew)]
    for model in (spec.model, spec.repair.fallback, *others):
        if not isinstance(model, ModelSpec) or model.provider == "echo":
            continue
        price = spec.budget.price if model.name == spec.model.name else None
        if output_bound(model) is None:
            raise OptionsError(
                f"{flag} needs a bound on each answer, to know what requests in flight may cost: "
                f"add max_tokens to {model.text}, such as max_tokens=1000."
            )
        if model.options.get("web_search"):
            raise OptionsError(
                f"{flag} cannot be kept with web_search: what a search adds has no bound."
            )
        if flag != "--max-tokens-total" and not make_pricer(model, price).known:
            raise OptionsError(
                f"{flag}: the price of {model.text} is unknown; give it with --price "
                "input=...,output=... (USD per million tokens)."
            )


def check_images(prompt: PromptSpec) -> None:
    """Check that the images of a prompt can be read.

    Raises:
        OptionsError: they cannot.
    """
    root = prompt.files_root
    if root is not None and not Path(root).is_dir():
        raise OptionsError(f"--files-root {root}: no such folder.")
    if image_fields(prompt.template) and importlib.util.find_spec("puremagic") is None:
        raise OptionsError("{{image:field}} needs: pip install 'beam-batch[images]'.")


def _files(spec: RunSpec) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """List the files a run reads and those it writes, each with its flag."""
    reads = [
        *(("--input", value) for value in _input_paths(spec)),
        ("--ids", spec.source.ids),
        ("--template", spec.prompt.template_source),
        ("--instruction", spec.prompt.instruction_source),
        *(("--agent-card", source) for source in _card_paths(spec)),
        ("--schema", spec.schema.source if spec.schema and not spec.schema.model else None),
    ]
    return [(flag, path) for flag, path in reads if path], list(spec.files.items())


def _check_trace_folder(spec: RunSpec) -> None:
    folder = spec.trace.folder
    if folder is None:
        return
    if is_remote(folder):
        raise OptionsError(
            f"--export-traces {folder}: name a folder of this machine; --hf-dataset sends it."
        )
    if os.path.exists(folder) and not os.path.isdir(folder):
        raise OptionsError(f"--export-traces {folder} is no folder; traces are a file a row.")


def _card_paths(spec: RunSpec) -> list[str]:
    agents = spec.crew.agents.values() if spec.crew else ()
    return [agent.source for agent in agents if "://" not in agent.source]


def _check_paths(spec: RunSpec) -> None:
    _check_trace_folder(spec)
    reads, writes = _files(spec)
    seen: dict[str, str] = {}
    for flag, path in [*reads, *writes]:
        real = os.path.realpath(path)
        if (flag, path) in writes and not is_remote(path):
            _refuse_in_input(flag, real, _input_paths(spec))
        if real in seen and (flag, path) in writes:
            raise OptionsError(f"{flag} {path} is the same file as {seen[real]}; choose another.")
        seen.setdefault(real, flag)
    _check_shards(spec, [*reads, *writes])
    for flag, path in writes:
        if is_remote(path):
            _check_remote(flag, path)
            continue
        _check_target(flag, path, directory=flag == "--output" and spec.output.is_directory)
    place = work_of(spec.output.work_dir, spec.output.output)
    work = os.path.realpath(place.root)
    if not Path(work).name.startswith("."):  # folders of hidden names are no input
        _refuse_in_input("--work-dir", work, _input_paths(spec))
    for flag, path in [*reads, *writes]:
        real = os.path.realpath(path)
        if real == work or real.startswith(work + os.sep):
            raise OptionsError(
                f"{flag} {path} is inside --work-dir {work}, which is removed at the end."
            )
        if not place.is_folder and path.startswith(f"{place.path}/"):
            raise OptionsError(
                f"{flag} {path} is inside --work-dir {place.path}, which is removed at the end."
            )


def _check_remote(flag: str, uri: str) -> None:
    if uri.startswith("hf://") and parse_hub_name(uri, flag).path:
        return
    if flag == "--summary-output" and not uri.startswith("hf://"):
        store_of(uri)
        return
    raise OptionsError(
        f"{flag} {uri}: name a path of this machine, or a file on the Hub: "
        "hf://datasets/owner/name/path."
    )


def _input_paths(spec: RunSpec) -> list[str]:
    values = [value.removeprefix("file://") for value in spec.source.inputs]
    return [value for value in values if value != "-" and "://" not in value]


def _refuse_in_input(flag: str, real: str, inputs: list[str]) -> None:
    """Refuse a file that the input's folder or glob would take in when it is read again."""
    from fsspec.utils import glob_translate

    for value in inputs:
        pattern = os.path.realpath(value)
        if os.path.isdir(value):
            taken = real.startswith(pattern + os.sep)
        else:
            taken = real != pattern and re.match(glob_translate(pattern), real) is not None
        if taken:
            raise OptionsError(f"{flag} {real} is among the files of --input {value}; move it out.")


def _check_shards(spec: RunSpec, files: list[tuple[str, str]]) -> None:
    """Refuse other files in a directory output, which is for shards only."""
    if not spec.output.is_directory:
        return
    folder = os.path.realpath(spec.output.output) + os.sep
    for flag, path in files:
        if os.path.realpath(path).startswith(folder):
            raise OptionsError(
                f"{flag} {path} is inside --output {spec.output.output}, which holds shards only; "
                "choose another folder."
            )


def _check_target(flag: str, path: str, directory: bool) -> None:
    target = Path(path)
    if target.exists() and not target.is_dir() and not target.is_file():
        raise OptionsError(f"{flag} {path} is a device or a pipe; name a file.")
    if directory:
        if target.exists() and not target.is_dir():
            raise OptionsError(f"{flag} {path} is a file; leave the trailing slash out.")
    elif target.is_dir():
        hint = "add a trailing slash for shards" if flag == "--output" else "name a file"
        raise OptionsError(f"{flag} {path} is a directory; {hint}.")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OptionsError(f"{flag} {path}: cannot make its folder ({error.strerror}).") from None
    if not os.access(target.parent, os.W_OK):
        raise OptionsError(f"{flag} {path}: its folder is not writable.")


def _one_or_all(values: tuple[str, ...]) -> str | list[str]:
    return values[0] if len(values) == 1 else list(values)


def describe(spec: RunSpec) -> dict[str, Any]:
    """Say in summary fields what a run was asked to do."""
    assert isinstance(spec.model, ModelSpec)
    return {
        "model": spec.model.text,
        "provider": spec.model.provider,
        "input": spec.source.input if len(spec.source.inputs) > 1 else spec.source.inputs[0],
        "sql": spec.source.sql,
        "where": spec.source.where,
        "output": spec.output.output,
        "schema": spec.schema.source if spec.schema and not spec.schema.model else None,
        "schema_model": spec.schema.model if spec.schema else None,
        "instruction": None if spec.crew else spec.prompt.instruction_source or "<default>",
        "agent_card": _one_or_all(spec.crew.cards) if spec.crew else None,
        "agent": spec.crew.selected if spec.crew else None,
        "variables": sorted(spec.prompt.variables),
        "template": spec.prompt.template_source or "<default>",
        "output_mode": "structured" if spec.schema else "text",
        "runner": spec.runner.kind,
        "backend": spec.batch.backend,
        "parallel": spec.call.parallel or "auto",
    }
