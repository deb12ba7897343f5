"""CallModel: prompts to outcomes, through a sliding window of requests."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from typing import Any, Self, Unpack

import apache_beam as beam

from beam_batch.calling.holding import acquire_window, release_window
from beam_batch.calling.lane import Lane
from beam_batch.calling.setup import WindowSpec
from beam_batch.calling.window import Window
from beam_batch.errors import FatalReply, OptionsError
from beam_batch.options import ModelSpec
from beam_batch.providers import needs_key, read_key
from beam_batch.records import Outcome, Prompt
from beam_batch.transforms.call_settings import CallSettings, window_spec
from beam_batch.transforms.metrics import MOST_WAITING, Meter
from beam_batch.transforms.windows import (
    GLOBAL,
    Place,
    check_windows,
    in_window,
)

FAILED = "failed"


class CallModel(beam.PTransform):
    """Send each prompt to a model, or with `crew` to agents.

    Input: Prompt. Outputs: `ok` and `failed`, both Outcome, in the order in which answers arrive,
    each with the timestamp and in the window of its prompt; the input may be unbounded.
    Guarantee: one outcome a prompt; an outcome is emitted before its slot in the window is used
    again, so that a stage fused behind has taken it. A bundle that Beam tries again sends its
    prompts again.

    Args:
        model: a model string ("openai.gpt-5-mini?temperature=0"), or None for that of
            BEAM_BATCH_MODEL or of the crew's cards.
        settings: see `CallSettings`.

    Raises:
        OptionsError: unknown model or option; a cap that only a run can keep; or the input is in
            sliding windows.
    """

    def __init__(
        self, model: str | ModelSpec | None = None, **settings: Unpack[CallSettings]
    ) -> None:
        super().__init__()
        self._spec = window_spec(model, settings)

    @classmethod
    def recording(cls, spec: WindowSpec) -> Self:
        """Return the one of a run, whose outcomes go to part files the moment they are complete.

        A slot is free once its outcome is there; `ok` and `failed` stay empty.
        """
        made = cls.__new__(cls)
        beam.PTransform.__init__(made)
        made._spec = spec
        return made

    def expand(self, prompts: beam.PCollection) -> beam.DoOutputsTuple:
        """Apply to a collection of prompts."""
        check_windows(prompts)
        fn = _InWindowsFn if self._spec.record is None else _CallModelFn
        return prompts | beam.ParDo(fn(self._spec)).with_outputs(FAILED, main="ok")


def make_window(spec: WindowSpec) -> Window:
    """Open a window; agents are imported only where there are some.

    Raises:
        OptionsError: in a pipeline of somebody's own, the worker lacks the key of a model.
    """
    if spec.record is None:
        _check_keys(spec)
    if spec.crew is None:
        return Window(spec)
    from beam_batch.agents.setup import make_crew

    return Window(spec, make_crew)


def _check_keys(spec: WindowSpec) -> None:
    for model in (spec.model, spec.repair.fallback):
        variable = needs_key(model) if isinstance(model, ModelSpec) else None
        if isinstance(model, ModelSpec) and variable and not read_key(model, os.environ):
            raise OptionsError(
                f"{model.text} needs an API key, and worker {socket.gethostname()} has none: set "
                f"the environment variable {variable} there."
            )


class _CallModelFn(beam.DoFn):
    def __init__(self, spec: WindowSpec) -> None:
        self._spec = spec
        self._window: Window | None = None
        self._lane: Lane | None = None

    def setup(self) -> None:
        self._meter = Meter()
        record = self._spec.record
        try:
            self._window = acquire_window(self._spec, make_window)
        except (FatalReply, OptionsError) as error:  # no row can be answered: the run ends
            if record is None:
                raise
            record.stop.set(str(error), 1)

    def start_bundle(self) -> None:
        self._abandon()
        if self._window is not None:
            self._lane = Lane(self._window)

    def process(self, prompt: Prompt) -> Iterator[Any]:
        return self._call(prompt, GLOBAL)

    def _call(self, prompt: Prompt, place: Place) -> Iterator[Any]:
        lane = self._lane
        if lane is None:
            return
        if not isinstance(prompt, Prompt):
            raise OptionsError(
                f"CallModel takes prompts, got {type(prompt).__name__}: put RenderPrompts first."
            )
        while not self._stopped():
            if lane.try_submit(prompt, place):
                break
            if lane.recorder is None:
                lane.wait()
            yield from self._emit()
        if lane.ready():  # one for one: a freed slot is used again before the next is
            yield from self._emit()
        if lane.tally.waiting >= MOST_WAITING:
            self._meter.show(lane.tally)

    def finish_bundle(self) -> Iterator[Any]:
        if self._lane is None:
            return
        while self._lane.pending:
            self._lane.wait()
            self._meter.show(self._lane.tally)
            yield from self._emit()
        self._lane.close()
        self._meter.show(self._lane.tally)
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

    def _emit(self) -> Iterator[Any]:
        """Emit one outcome into the window of its prompt, if one can be taken."""
        lane = self._lane
        assert lane is not None
        if not lane.ready():
            return
        outcome, place = lane.take()
        try:
            if outcome is not None:
                yield in_window(_tagged(outcome), place)
        finally:
            lane.settle()


class _InWindowsFn(_CallModelFn):
    """Keeps each prompt's timestamp and window, which Beam finds out for every element."""

    def process(
        self,
        prompt: Prompt,
        stamp: Any = beam.DoFn.TimestampParam,
        window: Any = beam.DoFn.WindowParam,
    ) -> Iterator[Any]:
        return self._call(prompt, (stamp, window))


def _tagged(outcome: Outcome) -> Outcome | beam.pvalue.TaggedOutput:
    return outcome if outcome.ok else beam.pvalue.TaggedOutput(FAILED, outcome)
