"""Frozen settings of a run. Everything here is pickled, hashed and logged: never a secret."""

from beam_batch.options.agents import AgentSpec, CrewSpec, TraceSpec
from beam_batch.options.asking import (
    DEFAULT_INSTRUCTION,
    DEFAULT_TEMPLATE,
    INPUT_FORMATS,
    ModelSpec,
    PromptSpec,
    SchemaSpec,
    SourceSpec,
)
from beam_batch.options.engine import RunnerSpec
from beam_batch.options.running import (
    EstimateSpec,
    OutputSpec,
    ProgressSpec,
    RunSpec,
)
from beam_batch.options.sending import (
    BACKENDS,
    BATCH_FINISHES,
    BatchSpec,
    BudgetSpec,
    CallSpec,
    PriceSpec,
    RepairSpec,
    ReuseSpec,
    parse_price,
)

__all__ = [
    "BACKENDS",
    "BATCH_FINISHES",
    "DEFAULT_INSTRUCTION",
    "DEFAULT_TEMPLATE",
    "INPUT_FORMATS",
    "AgentSpec",
    "BatchSpec",
    "BudgetSpec",
    "CallSpec",
    "CrewSpec",
    "EstimateSpec",
    "ModelSpec",
    "OutputSpec",
    "PriceSpec",
    "ProgressSpec",
    "PromptSpec",
    "RepairSpec",
    "ReuseSpec",
    "RunSpec",
    "RunnerSpec",
    "SchemaSpec",
    "SourceSpec",
    "TraceSpec",
    "parse_price",
]
