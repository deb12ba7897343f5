"""The figures of an estimate, as they are printed and as JSON."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from beam_batch.calling.pricing import Offer, Pricer
from beam_batch.estimate.counting import Counted
from beam_batch.estimate.extrapolate import Interval, total_of
from beam_batch.estimate.probe import Answered, Probed
from beam_batch.estimate.tokens import Fixed, TokenCounter
from beam_batch.options import EstimateSpec, ModelSpec
from beam_batch.providers.base import Usage

_CACHE_STEP = {"responses": 128, "openai": 128, "azure": 128, "google": 1, "anthropic": 1}
"""Tokens that cached prefixes grow by, at providers that cache them from 1,024 tokens on
(OpenAI: "prompt caching"; Gemini: "context caching"; Anthropic: "prompt caching", where some models
want up to 4,096)."""
LEAST_PREFIX = 1_024


class Facts(NamedTuple):
    """What an estimate is made of."""

    spec: EstimateSpec
    model: ModelSpec
    pricer: Pricer
    counter: TokenCounter
    fixed: Fixed
    counted: Counted
    probed: Probed


def figures(facts: Facts, selected: int) -> dict[str, Any]:
    """Return all figures; what is not known is None."""
    counted, sizes = facts.counted, facts.counted.sizes
    into, out = _tokens(facts)
    return {
        "model": facts.model.text,
        "provider": facts.model.provider,
        "rows": {
            "selected": selected,
            "to_send": sizes.requests,
            "identical": counted.duplicates,
            "not_sent": dict(counted.failures),
        },
        "tokenizer": {"name": facts.counter.name, "exact": facts.counter.exact},
        "images_not_counted": counted.images,
        "input_tokens": _interval(into)
        | {"counted": sizes.total, "min": sizes.least, "mean": sizes.mean, "max": sizes.most},
        "output_tokens": _interval(out) | {"at_most": _most_output(facts)},
        "shared_prefix": _prefix(facts),
        "web_search": bool(facts.model.options.get("web_search")),
        "price": _price(facts),
        "usd": [_usd(facts, offer) for offer in facts.pricer.offers()],
        "seconds": _seconds(facts, into, out),
        "probe": _probe(facts),
    }


def _usable(facts: Facts) -> list[Answered]:
    """Return the answers that count: failures that cost nothing do, unreported usage does not."""
    known = [a for a in facts.probed.answers if a.usage.input_tokens is not None or not a.ok]
    return known if any(a.usage.input_tokens is not None for a in known) else []


def _total(facts: Facts, values: Iterable[float]) -> Interval:
    """Extrapolate what the usable answers took to all rows."""
    sizes = facts.counted.sizes
    xs = [answer.counted for answer in _usable(facts)]
    return total_of(xs, list(values), sizes.requests, sizes.total)


def _tokens(facts: Facts) -> tuple[Interval | None, Interval | None]:
    """Return input and output tokens: measured ones, else input as counted."""
    usages = [answer.usage for answer in _usable(facts)]
    if not usages:
        return Interval(facts.counted.sizes.total, None, None), None
    into = _total(facts, (usage.input_tokens or 0 for usage in usages))
    return into, _total(facts, (usage.output_tokens or 0 for usage in usages))


def _most_output(facts: Facts) -> int | None:
    most = facts.fixed.most_output
    return None if most is None else most * facts.counted.sizes.requests


def _interval(found: Interval | None) -> dict[str, float | None]:
    return {"total": None, "low": None, "high": None} if found is None else _as_dict(found)


def _as_dict(found: Interval) -> dict[str, float | None]:
    return {"total": found.value, "low": found.low, "high": found.high}


def _prefix(facts: Facts) -> dict[str, Any]:
    """Say how much all requests share, and how much of the input a cache should hold."""
    tokens, mean = facts.fixed.prefix, facts.counted.sizes.mean
    cached = _cacheable(facts)
    return {
        "tokens": tokens,
        "share": None if not mean else min(1.0, tokens / mean),
        "expected_cached_share": None if not mean else min(1.0, cached / mean),
    }


def _cacheable(facts: Facts) -> int:
    step, tokens = _CACHE_STEP.get(facts.model.provider), facts.fixed.prefix
    return tokens // step * step if step is not None and tokens >= LEAST_PREFIX else 0


def _price(facts: Facts) -> str:
    if not facts.pricer.known:
        return "unknown"
    return "given" if facts.spec.price is not None else "listed"


def _usd(facts: Facts, offer: Offer) -> dict[str, Any]:
    """Return the money of one tier: of the input as counted, and in all where it was measured."""
    before = _sum(facts, offer, 0, 0)
    most, cached = facts.fixed.most_output, _cacheable(facts)
    measured = _interval(_money(facts, offer))
    return {
        "tier": offer.name,
        "asked_for": not offer.batch and offer.tier == facts.pricer.requested,
        **measured,
        "input": before,
        "input_if_cached": _sum(facts, offer, 0, cached) if cached else before,
        "at_most": None if most is None else _sum(facts, offer, most, 0),
    }


def _sum(facts: Facts, offer: Offer, output: int, cached: int) -> float:
    """Add up what requests of the counted sizes cost with so many output and cached tokens."""
    total = 0.0
    for size, requests in facts.counted.sizes.counts.items():
        usage = Usage(size, output, cached_tokens=min(cached, size))
        cost = facts.pricer.cost(usage, None, offer.tier, offer.batch)
        total += requests * cost.usd if cost is not None else 0.0
    return total


def _money(facts: Facts, offer: Offer) -> Interval | None:
    answers = _usable(facts)
    if not answers:
        return None
    costs = [facts.pricer.cost(a.usage, a.model, offer.tier, offer.batch) for a in answers]
    return _total(facts, (0.0 if cost is None else cost.usd for cost in costs))


def _seconds(facts: Facts, into: Interval | None, out: Interval | None) -> dict[str, float | None]:
    """Return how long the limits make a run take, and the latency of the probe."""
    spec, requests = facts.spec, facts.counted.sizes.requests
    tokens = (into.value if into else 0) + (out.value if out else _most_output(facts) or 0)
    taken = [answer.seconds for answer in facts.probed.answers if answer.seconds is not None]
    mean = sum(taken) / len(taken) if taken else None
    parallel = spec.call.parallel
    return {
        "at_rpm": None if spec.call.rpm is None else requests / spec.call.rpm * 60,
        "at_tpm": None if spec.call.tpm is None else tokens / spec.call.tpm * 60,
        "at_latency": None if mean is None or parallel is None else requests * mean / parallel,
    }


def _probe(facts: Facts) -> dict[str, Any] | None:
    """Say what the probe did and cost; None where nothing was sent."""
    answers = facts.probed.answers
    if not answers:
        return None
    costs = [facts.pricer.cost(answer.usage, answer.model, answer.tier) for answer in answers]
    used = [answer for answer in answers if answer.usage.input_tokens is not None]
    before = sum(answer.usage.input_tokens or 0 for answer in used)
    taken = [answer.seconds for answer in answers if answer.seconds is not None]
    known = [cost.usd for cost in costs if cost is not None]
    return {
        "rows": len(answers),
        "failed": facts.probed.errors,
        "usd": sum(known) if known else None,
        "input_tokens": before if used else None,
        "output_tokens": sum(answer.usage.output_tokens or 0 for answer in used) if used else None,
        "cached_tokens": sum(answer.usage.cached_tokens or 0 for answer in used) if used else None,
        "input_tokens_to_counted": before / sum(a.counted for a in used) if used else None,
        "mean_seconds": sum(taken) / len(taken) if taken else None,
    }
