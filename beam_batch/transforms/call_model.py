"""CallModel: prompts to outcomes, through a sliding window of requests."""

from __future__ import annotations

import dataclasses
import os
import uuid
from collections.abc import Iterator
from typing import Any

import apache_beam as beam
from apache_beam.transforms.window import GlobalWindows

from beam_batch.calling.lane import Lane
from beam_batch.calling.setup import WindowSpec
from beam_batch.calling.window import Window, acquire_window, release_window
from beam_batch.errors import FatalReply, OptionsError
from beam_batch.options import (
    DEFAULT_INSTRUCTION,
    BudgetSpec,
    CallSpec,
    ModelSpec,
    RepairSpec,
    ReuseSpec,
    SchemaSpec,
)
from beam_batch.options.agents import CrewSpec
from beam_batch.outputs.recording import RecordSpec
from beam_batch.providers import resolve_model
from beam_batch.records import Outcome, Prompt
from beam_batch.transforms.windows import in_global_window

FAILED = "failed"


class CallModel(beam.PTransform):
    """Send each prompt to a model.

    Input: Prompt. Outputs: `ok` and `failed`, both Outcome, in the order in which answers arrive.
    Guarantee: one outcome a prompt; an outcome is emitted before its slot in the window is used
    again, so that a stage fused behind has taken it. `prefix` is what all prompts begin with; it
    goes into the key under which the provider caches it.

    With `record`, which a run uses, outcomes go to part files the moment they are complete, before
    their slot is used again; `ok` and `failed` stay empty.
    With `crew`, agents answer instead of the bare model.

    Raises:
        OptionsError: unknown model or option; or the input is windowed, which is not supported.
    """

    def __init__(
        self,
        model: str | ModelSpec,
        *,
        instruction: str = DEFAULT_INSTRUCTION,
        schema: SchemaSpec | None = None,
        call: CallSpec | None = None,
        repair: RepairSpec | None = None,
        budget: BudgetSpec | None = None,
        reuse: ReuseSpec | None = None,
        prefix: str = "",
        include_input: bool = False,
        record: RecordSpec | None = None,
        workers: int = 1,
        alone: bool = False,
        crew: CrewSpec | None = None,
        linger: float = 0.0,
    ) -> None:
        super().__init__()
        spec = resolve_model(model, os.environ) if isinstance(model, str) else model
        self._spec = WindowSpec(
            token=uuid.uuid4().hex,
            model=spec,
            instruction=instruction,
            schema=schema,
            call=call or CallSpec(),
            repair=_with_resolved_fallback(repair or RepairSpec()),
            budget=budget or BudgetSpec(),
            reuse=reuse or ReuseSpec(dedupe=False),
            prefix=prefix,
            include_input=include_input,
            record=record,
            workers=workers,
            alone=alone,
            crew=crew,
            linger=linger,
        )

    def expand(self, prompts: beam.PCollection) -> beam.DoOutputsTuple:
        """Apply to a collection of prompts."""
        if not isinstance(prompts.windowing.windowfn, GlobalWindows):
            raise OptionsError(
                "CallModel works on the global window only; apply it before beam.WindowInto."
            )
        fn = beam.ParDo(_CallModelFn(self._spec))
        return prompts | fn.with_outputs(FAILED, main="ok")


def _with_resolved_fallback(repair: RepairSpec) -> RepairSpec:
    if not isinstance(repair.fallback, str):
        return repair
    fallback = resolve_model(repair.fallback, os.environ, "--fallback-model")
    return dataclasses.replace(repair, fallback=fallback)


def _make_window(spec: WindowSpec) -> Window:
    if spec.crew is None:
        return Window(spec)
    from beam_batch.agents.setup import make_crew

    return Window(spec, make_crew)


class _CallModelFn(beam.DoFn):
    def __init__(self, spec: WindowSpec) -> None:
        self._spec = spec
        self._window: Window | None = None
        self._lane: Lane | None = None

    def setup(self) -> None:
        record = self._spec.record
        try:
            self._window = acquire_window(self._spec, _make_window)
        except (FatalReply, OptionsError) as error:  # no row can be answered: the run ends
            if record is None:
                raise
            record.stop.set(str(error), 2 if isinstance(error, OptionsError) else 1)

    def start_bundle(self) -> None:
        self._abandon()
        if self._window is not None:
            self._lane = Lane(self._window)

    def process(self, prompt: Prompt) -> Iterator[Any]:
        lane = self._lane
        if lane is None:
            return
        while not self._stopped():
            if lane.try_submit(prompt):
                break
            if lane.recorder is None:
                lane.wait()
            yield from self._emit()
        yield from self._emit()  # one for one: a freed slot is used again before the next is

    def finish_bundle(self) -> Iterator[Any]:
        if self._lane is None:
            return
        while self._lane.pending:
            self._lane.wait()
            for element in self._emit():
                yield in_global_window(element)
        self._lane.close()
        self._lane = None

    def _abandon(self) -> None:
        """Let go of what a failed bundle left in flight: its rows are sent by the next one."""
        if self._lane is not None:
            self._lane.abandon()
            self._lane = None

    def teardown(self) -> None:
        self._abandon()
        if self._window is not None:
            self._window = None
            release_window(self._spec)

    def _stopped(self) -> bool:
        record = self._spec.record
        return record is not None and record.stop.is_set_here()

    def _emit(self) -> Iterator[Outcome | beam.pvalue.TaggedOutput]:
        """Emit one outcome, if one can be taken."""
        lane = self._lane
        assert lane is not None
        if not lane.ready():
            return
        outcome = lane.take()
        try:
            if outcome is not None:
                yield outcome if outcome.ok else beam.pvalue.TaggedOutput(FAILED, outcome)
        finally:
            lane.settle()
