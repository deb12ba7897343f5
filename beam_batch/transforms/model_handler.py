"""OpenAICompatibleModelHandler: our way of asking models, for Beam's RunInference."""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Unpack

from apache_beam.ml.inference.base import ModelHandler, PredictionResult

from beam_batch import jsonio
from beam_batch.calling.lane import Lane
from beam_batch.calling.setup import WindowSpec
from beam_batch.calling.window import Window
from beam_batch.errors import OptionsError, RowError
from beam_batch.options import DEFAULT_TEMPLATE, ModelSpec
from beam_batch.outputs import envelope
from beam_batch.prompts.template import image_fields, render
from beam_batch.records import Failure, Outcome, Prompt, Row
from beam_batch.transforms.call_model import make_window
from beam_batch.transforms.call_settings import CallSettings, window_spec
from beam_batch.transforms.metrics import NAMESPACE, Meter
from beam_batch.transforms.render_prompts import to_row

_WINDOWS_A_BATCH = 4
_AUTO_PARALLEL = 16
_MOST_IN_BATCH = 1000


class OpenAICompatibleModelHandler(ModelHandler[Any, PredictionResult, "LoadedModel"]):
    """Ask a model in `RunInference(handler)`, with retries, pacing, prices and validation.

    Input: a str or Prompt, which is sent as it is, or a dict, Beam Row or Row, which fills
    `template`. Output: PredictionResult, whose `inference` is a dict: ok, result, error (type and
    message), and the row's telemetry (usage, cost_usd, model, attempts, timing, ...). A row that
    fails is `ok: False` there and ends nothing; a refused key or an unknown model raises, which
    `with_exception_handling` catches a batch at a time.

    RunInference waits for a whole batch before it begins the next, so batches are some windows
    long; CallModel has no such waits and is the faster of the two.

    Args:
        model: a model string ("generic.m", "openai.gpt-5-mini?temperature=0"), or None for that of
            BEAM_BATCH_MODEL.
        template: filled from dicts and rows.
        min_batch_size: rows of a batch at least, where the bundle has them; None for four times
            `call.parallel`, or 64.
        max_batch_size: rows of a batch at most.
        max_batch_duration_secs: longest wait for a batch to fill, in streaming.
        settings: see `CallSettings`; include_input is of no use here.

    Raises:
        OptionsError: unknown model or option; a cap that only a run can keep.
    """

    def __init__(
        self,
        model: str | ModelSpec | None = None,
        *,
        template: str = DEFAULT_TEMPLATE,
        min_batch_size: int | None = None,
        max_batch_size: int | None = None,
        max_batch_duration_secs: int | None = None,
        **settings: Unpack[CallSettings],
    ) -> None:
        spec = window_spec(model, settings)
        least = min_batch_size or _WINDOWS_A_BATCH * (spec.call.parallel or _AUTO_PARALLEL)
        super().__init__(
            min_batch_size=least,
            max_batch_size=max_batch_size or max(least, _MOST_IN_BATCH),
            max_batch_duration_secs=max_batch_duration_secs,
        )
        self._spec = spec
        self._template = template

    def load_model(self) -> LoadedModel:
        """Open the worker process's window: one event loop and one pool of connections."""
        return LoadedModel(self._spec)

    def run_inference(
        self,
        batch: Sequence[Any],
        model: LoadedModel,
        inference_args: dict[str, Any] | None = None,
    ) -> Iterable[PredictionResult]:
        """Answer a batch; results are in the order of its elements.

        Raises:
            FatalReply: the provider refuses every request.
        """
        prompts = [to_prompt(element, self._template) for element in batch]
        outcomes = model.answer(prompts)
        name = self._spec.model.name
        return [
            PredictionResult(element, _inference(outcome), name)
            for element, outcome in zip(batch, outcomes, strict=True)
        ]

    def get_num_bytes(self, batch: Sequence[Any]) -> int:
        """Return the bytes of a batch as JSON."""
        return sum(len(jsonio.dumps(element)) for element in batch)

    def get_metrics_namespace(self) -> str:
        """Return the namespace of RunInference's metrics, which ours share."""
        return NAMESPACE

    def validate_inference_args(self, inference_args: dict[str, Any] | None) -> None:
        """Refuse arguments: the model string has them.

        Raises:
            OptionsError: there are some.
        """
        if inference_args:
            raise OptionsError(
                f"RunInference: inference_args {sorted(inference_args)} are not taken; put options "
                "into the model string, as in openai.gpt-5-mini?max_tokens=200."
            )


class LoadedModel:
    """An open window; it closes when nobody holds it any more."""

    def __init__(self, spec: WindowSpec) -> None:
        self._window = make_window(spec)
        self._meter = Meter()
        weakref.finalize(self, Window.close, self._window)

    def answer(self, prompts: Sequence[Prompt | Outcome]) -> list[Outcome]:
        """Answer prompts, in their order; those that have their outcome already keep it."""
        lane = Lane(self._window)
        found: dict[int, Outcome] = {}
        try:
            for place, prompt in enumerate(prompts):
                if isinstance(prompt, Outcome):
                    found[place] = prompt
                    lane.tally.add(prompt)
                    continue
                while not lane.try_submit(prompt, place):
                    lane.wait()
                    found.update(_taken(lane))
            while lane.pending:
                lane.wait()
                found.update(_taken(lane))
        except BaseException:
            lane.abandon()
            raise
        self._meter.show(lane.tally)
        return [found[place] for place in range(len(prompts))]


def _taken(lane: Lane) -> Iterator[tuple[int, Outcome]]:
    while lane.ready():
        outcome, place = lane.take()
        lane.settle()
        assert outcome is not None, "only a run drops rows"
        yield place, outcome


def to_prompt(element: Any, template: str) -> Prompt | Outcome:
    """Return an element's prompt, or the outcome of one that cannot be rendered."""
    if isinstance(element, Prompt):
        return element
    if isinstance(element, str):
        return Prompt(Row(None, None, None, {}), element)
    row = to_row(element, None, image_fields(template))
    if row.failure is not None:
        return envelope.fail(row, row.failure, {"attempts": 0}, False)
    try:
        return Prompt(row, render(template, row.data or {}))
    except RowError as error:
        return envelope.fail(row, Failure.of(error), {"attempts": 0}, False)


def _inference(outcome: Outcome) -> dict[str, Any]:
    told = {k: v for k, v in outcome.telemetry.items() if k not in ("id", "row_number", "ok")}
    kept = {name: outcome.envelope[name] for name in ("ok", "result", "error")}
    return kept | told | {"usage": outcome.telemetry["usage"].get("turn") or {}}
