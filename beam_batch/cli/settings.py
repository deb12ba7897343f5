"""From the flags of the command line to specs; every mistake is an OptionsError."""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from beam_batch.errors import OptionsError
from beam_batch.options import (
    DEFAULT_INSTRUCTION,
    DEFAULT_TEMPLATE,
    BatchSpec,
    BudgetSpec,
    CallSpec,
    CrewSpec,
    EstimateSpec,
    OutputSpec,
    ProgressSpec,
    PromptSpec,
    RepairSpec,
    ReuseSpec,
    RunnerSpec,
    RunSpec,
    SchemaSpec,
    SourceSpec,
    TraceSpec,
)
from beam_batch.providers import chosen_model

Flags = dict[str, Any]


def run_spec(flags: Flags) -> RunSpec:
    """Make the settings of a run."""
    values = variables(flags)
    return RunSpec(
        source=source_spec(flags),
        prompt=prompt_spec(flags, values),
        schema=schema_spec(flags),
        model=flags["model"] or None,
        crew=crew_spec(flags, values),
        call=_pick(CallSpec, flags),
        repair=RepairSpec(
            reask=flags["reask"],
            fallback=flags["fallback_model"],
            flex_fallback=flags["flex_fallback"],
        ),
        budget=_pick(BudgetSpec, flags),
        reuse=_pick(ReuseSpec, flags),
        batch=_pick(BatchSpec, flags),
        output=_pick(OutputSpec, flags),
        trace=TraceSpec(
            folder=flags["export_traces"] or None,
            repo=flags["hf_dataset"] or None,
            path=flags["hf_dataset_path"] or None,
        ),
        progress=ProgressSpec(enabled=flags["progress"], every=flags["progress_every"]),
        runner=_pick(RunnerSpec, flags | {"name": flags["runner"]}),
    )


def estimate_spec(flags: Flags) -> EstimateSpec:
    """Make the settings of an estimate."""
    if flags.get("agent_cards"):
        raise OptionsError(
            "--dry-run cannot know how often an agent calls its model; answer a few rows with "
            "--limit instead."
        )
    return EstimateSpec(
        source=source_spec(flags),
        model=chosen_model(flags["model"], os.environ),
        prompt=prompt_spec(flags, variables(flags)),
        schema=schema_spec(flags),
        call=_pick(CallSpec, flags),
        reuse=ReuseSpec(dedupe=flags.get("dedupe")),
        price=flags["price"],
        probe=flags["probe"],
    )


def crew_spec(flags: Flags, values: Mapping[str, str]) -> CrewSpec | None:
    """Make the agents of a run; their cards are read here."""
    cards = flags["agent_cards"]
    for flag in ("agent", "mcp_config", "shell"):
        if flags[flag] and not cards:
            raise OptionsError(f"--{flag.replace('_', '-')} needs --agent-card.")
    if not cards:
        return None
    if flags["instruction"]:
        raise OptionsError(
            "--instruction and --agent-card exclude each other; a card has its own instruction."
        )
    from beam_batch.agents.cards.loading import load_crew

    crew, notes = load_crew(
        cards,
        selected=flags["agent"],
        variables=values,
        trust=flags["trust_card"],
        mcp_config=flags["mcp_config"],
        env=os.environ,
    )
    for note in notes:
        print(f"batch: {note}", file=sys.stderr, flush=True)
    return dataclasses.replace(crew, shell=flags["shell"])


def variables(flags: Flags) -> dict[str, str]:
    """Read the variables of instructions."""
    from beam_batch.agents.cards.variables import read_variables

    return read_variables(flags["variables"], flags["variable_files"], flags["vars_json"])


def _pick(spec: type[Any], flags: Flags) -> Any:
    """Make a spec of the flags that have its fields' names."""
    return spec(**{name: flags[name] for name in spec.__dataclass_fields__ if name in flags})


def source_spec(flags: Flags) -> SourceSpec:
    """Make the settings of the input."""
    delimiter = {"\\t": "\t", "tab": "\t"}.get(flags["csv_delimiter"], flags["csv_delimiter"])
    source: SourceSpec = _pick(SourceSpec, flags | {"csv_delimiter": delimiter})
    return source


def prompt_spec(flags: Flags, values: Mapping[str, str]) -> PromptSpec:
    """Make the settings of the prompt, with variables in its instruction; files are read here."""
    if flags["prompt"] is not None and flags["template"]:
        raise OptionsError("--prompt and --template exclude each other; give one of them.")
    template = flags["prompt"] if flags["prompt"] is not None else DEFAULT_TEMPLATE
    if flags["template"]:
        template = _read_text("--template", flags["template"])
    if values and not flags["instruction"] and not flags.get("agent_cards"):
        raise OptionsError(
            f"--var {next(iter(values))}: variables are for --instruction and --agent-card; give "
            "one of them."
        )
    instruction = DEFAULT_INSTRUCTION
    if flags["instruction"]:
        text = _read_text("--instruction", flags["instruction"])
        instruction = _filled(text, values)
    return PromptSpec(
        template=template,
        instruction=instruction,
        group_by=flags.get("group_by"),
        files_root=flags["files_root"],
        template_source=flags["template"],
        instruction_source=flags["instruction"],
        variables=tuple(sorted(values)),
    )


def _filled(instruction: str, values: Mapping[str, str]) -> str:
    from beam_batch.agents.cards.variables import fill, placeholders

    for name in values.keys() - set(placeholders(instruction)):
        print(f"batch: variable {name} is not in --instruction.", file=sys.stderr)
    return fill(instruction, values)


def schema_spec(flags: Flags) -> SchemaSpec | None:
    """Make the settings of the results' shape; its file is read here."""
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
