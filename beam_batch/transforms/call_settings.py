"""From what a pipeline of somebody's own says about its model to what a worker needs."""

from __future__ import annotations

import dataclasses
import os
import uuid
from typing import TypedDict

from beam_batch.agents.cards.models import resolve
from beam_batch.calling.setup import WindowSpec
from beam_batch.errors import OptionsError
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
from beam_batch.providers import chosen_model, resolve_model

MODEL_VARIABLE = "BEAM_BATCH_MODEL"


class CallSettings(TypedDict, total=False):
    """How rows are answered; every key may be left out.

    Attributes:
        instruction: what the model is told before each prompt.
        schema: the shape of every result.
        call, repair, budget, reuse: as in a run; limits hold for each worker process.
        prefix: what all prompts begin with; part of the key under which the provider caches it.
        include_input: whether envelopes hold the row.
        crew: agents that answer instead of the bare model (`load_crew`).
    """

    instruction: str
    schema: SchemaSpec | None
    call: CallSpec | None
    repair: RepairSpec | None
    budget: BudgetSpec | None
    reuse: ReuseSpec | None
    prefix: str
    include_input: bool
    crew: CrewSpec | None


def window_spec(model: str | ModelSpec | None, settings: CallSettings) -> WindowSpec:
    """Make the spec of a window in a pipeline of somebody's own.

    `model` may be None where BEAM_BATCH_MODEL or the crew's cards name one.

    Raises:
        OptionsError: there is no such model; or something is asked for that only a run can do.
    """
    schema, crew = settings.get("schema"), settings.get("crew")
    if crew is not None:
        if "instruction" in settings:
            raise OptionsError("instruction and crew exclude each other: cards have their own.")
        env = os.environ
        model, crew = resolve(crew, model, env.get(MODEL_VARIABLE), env, has_schema=bool(schema))
    elif not isinstance(model, ModelSpec):
        model = resolve_model(chosen_model(model, os.environ), os.environ)
    _check(model, settings.get("budget") or BudgetSpec())
    return WindowSpec(
        token=uuid.uuid4().hex,
        model=model,
        instruction=settings.get("instruction", DEFAULT_INSTRUCTION),
        schema=schema,
        call=settings.get("call") or CallSpec(),
        repair=_with_resolved_fallback(settings.get("repair") or RepairSpec()),
        budget=settings.get("budget") or BudgetSpec(),
        reuse=settings.get("reuse") or ReuseSpec(dedupe=False),
        prefix=settings.get("prefix", ""),
        include_input=settings.get("include_input", False),
        crew=crew,
    )


def _check(model: ModelSpec, budget: BudgetSpec) -> None:
    if budget.is_set:
        raise OptionsError(
            f"max_cost {budget.max_cost} and max_tokens_total {budget.max_tokens_total} are caps "
            "of a whole run, which counts in its work directory: use beam_batch.run, or cap each "
            "row with row_max_cost."
        )
    if model.provider == "local" and not model.base_url:
        raise OptionsError(
            f"{model.text}: a local model is served by beam_batch.run only; in a pipeline of your "
            "own name a server of yours, as generic.MODEL with GENERIC_BASE_URL."
        )


def _with_resolved_fallback(repair: RepairSpec) -> RepairSpec:
    if not isinstance(repair.fallback, str):
        return repair
    fallback = resolve_model(repair.fallback, os.environ, "--fallback-model")
    return dataclasses.replace(repair, fallback=fallback)
