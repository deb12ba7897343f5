"""Run one LLM workflow over every row of a dataset, on Apache Beam."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from beam_batch.errors import BatchError, OptionsError, RowError, RunStopped
from beam_batch.options import (
    BatchSpec,
    BudgetSpec,
    CallSpec,
    CrewSpec,
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
from beam_batch.version import VERSION

if TYPE_CHECKING:
    from beam_batch.agents.cards.loading import load_crew
    from beam_batch.launch import run
    from beam_batch.outputs.summary import Summary
    from beam_batch.prompts.schema import load_schema_file
    from beam_batch.transforms.call_model import CallModel
    from beam_batch.transforms.model_handler import OpenAICompatibleModelHandler
    from beam_batch.transforms.read_rows import ReadRows
    from beam_batch.transforms.render_prompts import RenderPrompts
    from beam_batch.transforms.to_dict import ToDict
    from beam_batch.transforms.to_json import ToJson
    from beam_batch.transforms.write_envelopes import WriteEnvelopes

__version__ = VERSION

__all__ = [
    "BatchError",
    "BatchSpec",
    "BudgetSpec",
    "CallModel",
    "CallSpec",
    "CrewSpec",
    "ModelSpec",
    "OpenAICompatibleModelHandler",
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
    "ToDict",
    "ToJson",
    "TraceSpec",
    "WriteEnvelopes",
    "load_crew",
    "load_schema_file",
    "run",
]

# Beam takes half a second to import, so what needs it is imported when it is first named.
_LAZY = {
    "CallModel": "beam_batch.transforms.call_model",
    "OpenAICompatibleModelHandler": "beam_batch.transforms.model_handler",
    "ReadRows": "beam_batch.transforms.read_rows",
    "RenderPrompts": "beam_batch.transforms.render_prompts",
    "Summary": "beam_batch.outputs.summary",
    "ToDict": "beam_batch.transforms.to_dict",
    "ToJson": "beam_batch.transforms.to_json",
    "WriteEnvelopes": "beam_batch.transforms.write_envelopes",
    "load_crew": "beam_batch.agents.cards.loading",
    "load_schema_file": "beam_batch.prompts.schema",
    "run": "beam_batch.launch",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'beam_batch' has no attribute {name!r}")
    return getattr(importlib.import_module(_LAZY[name]), name)
