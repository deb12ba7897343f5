"""The shape of the project: layers, exported names, documented flags, picklable specs."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import beam_batch
from tests.support import ROOT, environment

PACKAGE = ROOT / "beam_batch"
BASE = {
    "errors", "version", "hubname", "jsonio", "options", "places", "process", "records",
    "redaction",
}  # fmt: skip
LAYERS: dict[str, set[str]] = {
    "errors": set(),
    "version": set(),
    "process": set(),
    "jsonio": {"errors"},
    "hubname": {"errors"},
    "records": set(),
    "places": {"errors"},
    "redaction": set(),
    "options": {"errors"},
    "inputs": BASE,
    "prompts": BASE,
    "outputs": BASE,
    "providers": BASE | {"prompts"},
    "reuse": BASE | {"inputs", "outputs", "providers"},
    "calling": BASE | {"providers", "prompts", "outputs", "reuse"},
    "batches": BASE | {"providers", "prompts", "outputs", "calling"},
    "agents": BASE | {"providers", "prompts", "outputs", "reuse", "calling"},
    "workers": BASE | {"agents", "inputs", "outputs", "providers"},
    "transforms": BASE
    | {"agents", "inputs", "prompts", "providers", "calling", "batches", "outputs", "reuse"}
    | {"workers"},
    "pipeline": BASE | {"workers", "calling", "transforms", "outputs", "prompts"},
    "manifest": BASE | {"agents", "inputs", "providers"},
    "progress": BASE | {"outputs"},
    "checks": BASE
    | {"agents", "batches", "calling", "outputs", "prompts", "providers", "reuse", "runners"},
    "preview": BASE | {"inputs", "prompts", "providers"},
    "estimate": BASE | {"inputs", "prompts", "providers", "calling", "checks", "launch", "reuse"},
    "existing": BASE | {"inputs", "outputs", "manifest"},
    "session": BASE | {"existing", "inputs", "outputs", "manifest"},
    "launch": BASE
    | {
        "agents",
        "backend",
        "batches",
        "engine",
        "finishing",
        "outputs",
        "providers",
        "checks",
        "progress",
        "runners",
        "session",
        "signals",
    },
    "backend": BASE | {"batches", "engine", "outputs", "session"},
    "finishing": BASE | {"outputs", "session"},
    "engine": BASE | {"workers", "outputs", "pipeline", "runners", "session", "signals"},
    "runners": BASE | {"agents", "calling", "outputs"},
    "signals": {"outputs"},
    "cli": BASE
    | {
        "agents",
        "batches",
        "estimate",
        "launch",
        "outputs",
        "preview",
        "prompts",
        "providers",
        "reuse",
        "__init__",
    },
    "__main__": {"cli"},
    "__init__": BASE | {"agents", "launch", "outputs", "prompts", "transforms"},
}
BEAM_USERS = {"transforms", "pipeline", "engine", "runners"}


def _modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def _place(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def _imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module == "beam_batch":
            for alias in node.names:
                known = (PACKAGE / f"{alias.name}.py").exists() or (PACKAGE / alias.name).is_dir()
                yield f"beam_batch.{alias.name if known else '__init__'}"
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


@pytest.mark.parametrize("path", _modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_down(path: Path) -> None:
    place = _place(path)
    for name in _imports(path):
        if name.startswith("beam_batch."):
            target = name.split(".")[1]
            assert target == place or target in LAYERS[place], f"{place} must not import {name}"
        if name.startswith("apache_beam"):
            assert place in BEAM_USERS, f"{place} must not import Beam"


@pytest.mark.parametrize("path", _modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_modules_and_functions_stay_small(path: Path) -> None:
    text = path.read_text()
    assert len(text.splitlines()) <= 320
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            assert (node.end_lineno or 0) - node.lineno < 50, f"{node.name} is too long"


def test_exported_names_are_these() -> None:
    assert beam_batch.__all__ == [
        "BatchError", "BatchSpec", "BudgetSpec", "CallModel", "CallSpec", "CrewSpec", "ModelSpec",
        "OpenAICompatibleModelHandler", "OptionsError", "OutputSpec", "PriceSpec", "PromptSpec",
        "ReadRows", "RenderPrompts", "RepairSpec", "ReuseSpec", "RowError", "RunSpec",
        "RunStopped", "RunnerSpec", "SchemaSpec", "SourceSpec", "Summary", "ToDict", "ToJson",
        "TraceSpec", "WriteEnvelopes", "load_crew", "load_schema_file", "run",
    ]  # fmt: skip
    for name in beam_batch.__all__:
        assert getattr(beam_batch, name) is not None


def test_the_tree_of_errors_names_them_all() -> None:
    from beam_batch import errors

    drawn = errors.__doc__ or ""
    for name, found in vars(errors).items():
        if isinstance(found, type) and issubclass(found, errors.BatchError):
            assert re.search(rf"\b{name}\b", drawn), f"{name} is not in the tree"


def test_every_flag_is_in_the_readme_and_has_help() -> None:
    from beam_batch.cli.main import cli

    readme = (ROOT / "README.md").read_text()
    commands = [*cli.commands.values(), *cli.commands["cache"].commands.values()]
    commands += cli.commands["card"].commands.values()
    for command in commands:
        for parameter in command.params:
            if parameter.param_type_name == "option":
                assert parameter.help, parameter.name
                names = [*parameter.opts, *parameter.secondary_opts]
                assert any(f"`{name}" in readme or f" {name}" in readme for name in names), (
                    f"{parameter.opts} is not in the README"
                )


def test_the_page_of_providers_is_what_the_code_says() -> None:
    from beam_batch.providers.listing import markdown

    assert (ROOT / "docs" / "providers.md").read_text() == markdown(), "run make docs"


def test_the_page_of_cards_is_what_the_code_says() -> None:
    from beam_batch.agents.cards.listing import markdown

    assert (ROOT / "docs" / "cards.md").read_text() == markdown(), "run make docs"


def test_every_model_option_is_in_the_readme() -> None:
    from beam_batch.providers import PROVIDERS

    readme = (ROOT / "README.md").read_text()
    for name, info in PROVIDERS.items():
        assert f"`{name}" in readme
        for option in info.options:
            assert option in readme, option


def test_the_command_line_imports_neither_beam_nor_a_client() -> None:
    code = (
        "import sys, beam_batch.cli.main; "
        "heavy = 'apache_beam aiohttp websockets pyarrow openai jsonschema_rs'.split(); "
        "heavy += ['genai_prices', 'quicktok', 'yaml', 'mcp']; "
        "print([m for m in heavy if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment(), capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_a_run_s_specs_and_transforms_survive_beams_pickler() -> None:
    from apache_beam.internal import pickler

    spec = beam_batch.RunSpec(
        source=beam_batch.SourceSpec(input="rows.jsonl"),
        output=beam_batch.OutputSpec(output="out.jsonl"),
        model="echo",
    )
    assert pickler.loads(pickler.dumps(spec)) == spec
    pickler.loads(pickler.dumps(beam_batch.CallModel("echo")))
    pickler.loads(pickler.dumps(beam_batch.RenderPrompts("{{a}}")))
