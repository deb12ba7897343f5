"""Run one LLM workflow over every row of a dataset, on Apache Beam."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from beam_batch.errors import BatchError, OptionsError, RowError, RunStopped
from beam_batch.options import (
    BatchSpec,
    BudgetSpec,
    CallSpec,
    ModelSpec,
    OutputSpec,
    PriceSpec,
    PromptSpec,
    RepairSpec,
    ReuseSpec,
    RunnerSpec,
    RunSpec,
    SchemaSpec,
    SourceSpec,
    TraceSpec,
)

if TYPE_CHECKING:
    from beam_batch.launch import run
    from beam_batch.outputs.summary import Summary
    from beam_batch.transforms.call_model import CallModel
    from beam_batch.transforms.read_rows import ReadRows
    from beam_batch.transforms.render_prompts import RenderPrompts
    from beam_batch.transforms.to_json import ToJson

__version__ = "0.1.0"

__all__ = [
    "BatchError",
    "BatchSpec",
    "BudgetSpec",
    "CallModel",
    "CallSpec",
    "ModelSpec",
    "OptionsError",
    "OutputSpec",
    "PriceSpec",
    "PromptSpec",
    "ReadRows",
    "RenderPrompts",
    "RepairSpec",
    "ReuseSpec",
    "RowError",
    "RunSpec",
    "RunStopped",
    "RunnerSpec",
    "SchemaSpec",
    "SourceSpec",
    "Summary",
    "ToJson",
    "TraceSpec",
    "run",
]

# Beam takes half a second to import, so what needs it is imported when it is first named.
_LAZY = {
    "CallModel": "beam_batch.transforms.call_model",
    "ReadRows": "beam_batch.transforms.read_rows",
    "RenderPrompts": "beam_batch.transforms.render_prompts",
    "Summary": "beam_batch.outputs.summary",
    "ToJson": "beam_batch.transforms.to_json",
    "run": "beam_batch.launch",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'beam_batch' has no attribute {name!r}")
    return getattr(importlib.import_module(_LAZY[name]), name)
