"""What a worker needs to answer prompts, and how it is put together."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from beam_batch.calling.answering import Worker
from beam_batch.calling.budget import Budget
from beam_batch.calling.cache_keys import cache_keys
from beam_batch.calling.caller import Caller, Patience, RowCap, sleep_unless
from beam_batch.calling.gate import Gate, GateSpec
from beam_batch.calling.ladder import Ladder
from beam_batch.calling.pricing import Pricer, make_pricer
from beam_batch.calling.retrying import RetryPolicy
from beam_batch.calling.transports.making import make_transport
from beam_batch.options import (
    BudgetSpec,
    CallSpec,
    ModelSpec,
    RepairSpec,
    ReuseSpec,
    SchemaSpec,
)
from beam_batch.options.agents import CrewSpec
from beam_batch.outputs.ledger import LedgerSpec
from beam_batch.outputs.recording import RecordSpec
from beam_batch.providers import PROVIDERS, make_provider, output_bound, read_key
from beam_batch.reuse.making import make_once


@dataclass(frozen=True, kw_only=True)
class WindowSpec:
    """Everything a worker needs to answer prompts; picklable, no secret.

    Attributes:
        token: names the window, so that all bundles of one process share it.
        prefix: what all prompts begin with, after the instruction.
        record: where outcomes are recorded, with the run's stop flag, or None in a pipeline of
            somebody's own, which takes the outcomes instead.
        is_child: whether the driver has started this process, which ends with it.
        alone: whether this is the run's only worker process.
        crew: the agents that answer rows, or None where `model` does.
        linger: seconds that the window stays open after its last bundle, for the next.
    """

    token: str
    model: ModelSpec
    instruction: str
    schema: SchemaSpec | None
    call: CallSpec
    include_input: bool
    prefix: str = ""
    repair: RepairSpec = field(default_factory=RepairSpec)
    budget: BudgetSpec = field(default_factory=BudgetSpec)
    reuse: ReuseSpec = field(default_factory=lambda: ReuseSpec(dedupe=False))
    record: RecordSpec | None = None
    is_child: bool = False
    alone: bool = False
    crew: CrewSpec | None = None
    linger: float = 0.0


async def make_ladder(spec: WindowSpec, limits: GateSpec, stopping: asyncio.Event) -> Ladder:
    """Open what plain model calls need. Call it inside the event loop.

    Each model has a gate of its own: the limits hold for each.
    """
    callers = [make_caller(spec, spec.model, limits, stopping)]
    if isinstance(spec.repair.fallback, ModelSpec):
        callers.append(make_caller(spec, spec.repair.fallback, limits, stopping))
    return Ladder(callers, spec.instruction, spec.repair.reask)


def secrets_of(spec: WindowSpec) -> list[str]:
    """Return the keys of the worker that no trace may hold."""
    models = [spec.model, spec.repair.fallback]
    if spec.crew is not None:
        models += [agent.model for agent in spec.crew.agents.values()]
    keys = (read_key(model, os.environ) for model in models if isinstance(model, ModelSpec))
    return [key for key in keys if key]


MakeWorker = Callable[[WindowSpec, GateSpec, asyncio.Event], Awaitable[Worker]]
"""Makes what answers rows, inside the event loop."""


def make_caller(
    spec: WindowSpec,
    model: ModelSpec,
    limits: GateSpec,
    stopping: asyncio.Event,
    gate: Gate | None = None,
) -> Caller:
    """Open one model: its connections, its part of the budget, its gate unless it shares one."""
    from beam_batch.prompts.schema import make_validator

    call = spec.call
    provider = make_provider(model, spec.schema)
    price = spec.budget.price if model.name == spec.model.name else None
    pricer = make_pricer(model, price)
    work = spec.record.work if spec.record is not None else None
    schema = spec.schema.json if spec.schema is not None else ""
    takes_key = PROVIDERS[model.provider].takes_cache_key
    retries = RetryPolicy(
        max_attempts=call.max_attempts, wait=call.retry_wait, max_wait=call.retry_max_wait
    )
    return Caller(
        model=model.name,
        provider=provider,
        transport=make_transport(
            model, provider, os.environ, (call.timeout_of(model), call.stall_timeout)
        ),
        gate=gate or Gate(limits, is_stopped=_stop_of(spec)),
        pricer=pricer,
        patience=Patience(
            retries=retries,
            max_outage=call.max_outage,
            flex_fallback=spec.repair.flex_fallback,
        ),
        validate=make_validator(spec.schema, provider.wraps),
        wait=lambda seconds: sleep_unless(stopping, seconds),
        budget=_budget(spec, output_bound(model) or 0, pricer),
        once=make_once(spec.reuse, model, work, alone=spec.alone),
        cache_keys=cache_keys(schema + spec.instruction + spec.prefix) if takes_key else None,
        row_cap=_row_cap(spec, model),
    )


def _row_cap(spec: WindowSpec, model: ModelSpec) -> RowCap | None:
    cap = spec.budget.row_max_cost
    return None if cap is None else RowCap(usd=cap, max_output=output_bound(model) or 0)


def _stop_of(spec: WindowSpec) -> Callable[[], bool]:
    return spec.record.stop.is_set_here if spec.record is not None else lambda: False


def _budget(spec: WindowSpec, max_output: int, pricer: Pricer) -> Budget | None:
    if not spec.budget.is_set or spec.record is None:
        return None
    caps = LedgerSpec(spec.record.work, spec.budget.max_cost, spec.budget.max_tokens_total)
    return Budget(caps, spec.record.stop, max_output, pricer)
