"""A whole run: where its results go, and everything else together."""

from __future__ import annotations

from dataclasses import dataclass

from beam_batch.errors import OptionsError
from beam_batch.options.agents import CrewSpec, TraceSpec
from beam_batch.options.asking import ModelSpec, PromptSpec, SchemaSpec, SourceSpec
from beam_batch.options.checking import at_least
from beam_batch.options.engine import RunnerSpec
from beam_batch.options.sending import (
    BatchSpec,
    BudgetSpec,
    CallSpec,
    PriceSpec,
    RepairSpec,
    ReuseSpec,
)


@dataclass(frozen=True, kw_only=True)
class OutputSpec:
    """Where results go and how the run ends."""

    output: str
    error_output: str | None = None
    telemetry_output: str | None = None
    summary_output: str | None = None
    include_input: bool = False
    work_dir: str | None = None
    keep_temp: bool = False
    resume: bool = False
    overwrite: bool = False
    max_errors: int | None = None
    fail_on_error: bool = False

    def __post_init__(self) -> None:
        if not self.output:
            raise OptionsError("--output needs a file, or a directory with a trailing slash.")
        at_least("--max-errors", self.max_errors, 0)

    @property
    def files(self) -> dict[str, str]:
        """The files that a run writes, by their flags; the output first."""
        named = {
            "--output": self.output,
            "--error-output": self.error_output,
            "--telemetry-output": self.telemetry_output,
            "--summary-output": self.summary_output,
        }
        return {flag: path for flag, path in named.items() if path}

    @property
    def is_directory(self) -> bool:
        """Whether results are written as numbered shards."""
        return self.output.endswith("/")


@dataclass(frozen=True, kw_only=True)
class ProgressSpec:
    """What the driver shows on stderr while it runs."""

    enabled: bool = True
    every: int | None = None

    def __post_init__(self) -> None:
        at_least("--progress-every", self.every, 1)


@dataclass(frozen=True, kw_only=True)
class RunSpec:
    """A whole run.

    Attributes:
        model: a model string or a ModelSpec; None for that of BEAM_BATCH_MODEL, or of cards.
    """

    source: SourceSpec
    output: OutputSpec
    model: str | ModelSpec | None = None
    prompt: PromptSpec = PromptSpec()
    schema: SchemaSpec | None = None
    call: CallSpec = CallSpec()
    repair: RepairSpec = RepairSpec()
    budget: BudgetSpec = BudgetSpec()
    reuse: ReuseSpec = ReuseSpec()
    crew: CrewSpec | None = None
    batch: BatchSpec = BatchSpec()
    trace: TraceSpec = TraceSpec()
    progress: ProgressSpec = ProgressSpec(enabled=False)
    runner: RunnerSpec = RunnerSpec()

    @property
    def files(self) -> dict[str, str]:
        """The files that a run writes and lists of them, by their flags; the output first."""
        traces = {"--export-traces": self.trace.manifest} if self.trace.manifest else {}
        return self.output.files | traces


@dataclass(frozen=True, kw_only=True)
class EstimateSpec:
    """What an estimate is made for.

    Attributes:
        price: what the model costs, where the known list prices are not to be used.
        probe: rows to answer for it, or None to send nothing.
    """

    source: SourceSpec
    model: str
    prompt: PromptSpec = PromptSpec()
    schema: SchemaSpec | None = None
    call: CallSpec = CallSpec()
    reuse: ReuseSpec = ReuseSpec()
    price: PriceSpec | None = None
    probe: int | None = None

    def __post_init__(self) -> None:
        at_least("--probe", self.probe, 1)
