"""Fused: several steps as one, for engines that would break the graph between them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import apache_beam as beam
from apache_beam.pipeline import AppliedPTransform, PipelineVisitor
from apache_beam.utils.windowed_value import WindowedValue

from beam_batch.outputs.stopping import StopFlag

Build = Callable[[Any], object]
"""Adds steps to a collection."""


@dataclass
class Step:
    """A DoFn, and the steps that its outputs go to by their tags (None for the main one)."""

    fn: Any
    takers: dict[str | None, list[Step]] = field(default_factory=dict)


class Fused(beam.PTransform):
    """Do what `build` adds to a collection, each element from its first step to its last at once.

    Input: whatever `build` takes. Output: none; what the last steps put out is dropped.
    Guarantee: an element is a bundle of its own, whose steps are set up, finished and torn down
    whatever happens, and a retried element passes all steps again. Steps follow one another by
    ParDo and nothing else. Elements are left out once `stop` is set.
    """

    def __init__(self, build: Build, stop: StopFlag) -> None:
        super().__init__()
        self._build = build
        self._stop = stop

    def expand(self, elements: beam.PCollection) -> beam.PCollection:
        """Apply to a collection."""
        return elements | beam.ParDo(_FusedFn(steps_of(self._build), self._stop))


def steps_of(build: Build) -> list[Step]:
    """Return the steps that take the input of what `build` adds.

    Raises:
        TypeError: one of them is something else than a ParDo, or has side inputs.
    """
    pipeline = beam.Pipeline(options=beam.options.pipeline_options.PipelineOptions([]))
    source = pipeline | beam.Impulse()
    build(source)
    visitor = _Takers(source)
    pipeline.visit(visitor)
    return visitor.first


class _Takers(PipelineVisitor):
    """Collects ParDos in the order of the graph, and hangs each on what it takes from."""

    def __init__(self, source: beam.PCollection) -> None:
        self.first: list[Step] = []
        self._makers: dict[beam.PCollection, tuple[Step, str | None]] = {}
        self._source = source

    def visit_transform(self, node: AppliedPTransform) -> None:
        if node.transform is None or isinstance(node.transform, beam.Impulse):
            return
        if not isinstance(node.transform, beam.ParDo) or node.side_inputs:
            raise TypeError(
                f"{node.full_label} is no ParDo without side inputs, so nothing fuses it"
            )
        step = Step(node.transform.fn)
        for taken in node.main_inputs.values():
            if taken is self._source:
                self.first.append(step)
            elif taken in self._makers:
                maker, tag = self._makers[taken]
                maker.takers.setdefault(tag, []).append(step)
        for tag, output in node.outputs.items():
            self._makers[output] = step, tag


class _FusedFn(beam.DoFn):
    def __init__(self, first: list[Step], stop: StopFlag) -> None:
        self._first = first
        self._stop = stop

    def process(self, element: Any) -> None:
        if self._stop.is_set():
            return
        steps = list(_in_order(self._first))
        with contextlib.ExitStack() as last:
            for step in steps:
                last.callback(step.fn.teardown)
                step.fn.setup()
            for step in steps:
                step.fn.start_bundle()
            _push(element, self._first)
            for step in steps:
                _route(step.fn.finish_bundle(), step)


def _in_order(steps: list[Step]) -> Iterator[Step]:
    for step in steps:
        yield step
        for takers in step.takers.values():
            yield from _in_order(takers)


def _push(element: Any, steps: list[Step]) -> None:
    for step in steps:
        _route(step.fn.process(element), step)


def _route(outputs: Iterable[Any] | None, step: Step) -> None:
    """Give outputs to those that take them, one after the other."""
    for output in outputs or ():
        tag, element = None, output
        if isinstance(element, beam.pvalue.TaggedOutput):
            tag, element = element.tag, element.value
        if isinstance(element, WindowedValue):
            element = element.value
        takers = step.takers.get(tag)
        if takers:
            _push(element, takers)
