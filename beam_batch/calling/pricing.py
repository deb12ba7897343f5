"""What tokens cost, in US dollars.

List prices are those that the installed genai-prices ships; nothing is fetched. Where it has no
price of a cheaper way of being served, the documented factor is used:

- batch costs half: OpenAI (developers.openai.com/api/docs/guides/batch), Azure ("global batch" at
  learn.microsoft.com), Anthropic (platform.claude.com/docs/en/build-with-claude/batch-processing),
  Gemini (ai.google.dev/gemini-api/docs/batch-api), Groq (console.groq.com/docs/batch);
- flex costs what batch costs at OpenAI (developers.openai.com/api/docs/guides/flex-processing), and
  what the default costs at Groq (console.groq.com/docs/flex-processing).

Any other tier without a price is unknown. Fees that are not for tokens, such as those of a web
search, are not counted.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from beam_batch.options import ModelSpec, PriceSpec
from beam_batch.providers.base import Usage

if TYPE_CHECKING:
    from genai_prices.types import ModelPrice, PriceCalculation

DEFAULT = "default"
_CATALOGUE = {
    "responses": "openai", "openai": "openai", "azure": "azure", "anthropic": "anthropic",
    "google": "google", "xai": "x-ai", "groq": "groq", "deepseek": "deepseek",
    "openrouter": "openrouter",
}  # fmt: skip
"""Names of our providers in genai-prices."""
_FREE = ("local", "echo")
_HALF_BATCH = ("responses", "openai", "azure", "anthropic", "google", "groq")
_FLEX_FACTOR = {"responses": 0.5, "openai": 0.5, "groq": 1.0}
_AUTO_MAY_BE_PRIORITY = ("responses", "openai")
"""A project's settings may serve `auto` as priority (platform.openai.com, "service_tier")."""
_STANDARD = ("auto", "standard", "standard_only", "on_demand")
"""What providers call the tier that is `default` here."""
_CACHE_WRITE_FACTOR = {"anthropic": 1.25}
"""Of a write that is kept for 5 minutes (platform.claude.com, "prompt caching")."""


class Rates(NamedTuple):
    """US dollars per token."""

    input: float
    output: float
    cached: float
    cache_write: float

    def times(self, factor: float) -> Rates:
        """Return these rates times a factor."""
        return Rates(*(rate * factor for rate in self))


Tariff = tuple[tuple[int, Rates], ...]
"""Rates by size of the prompt, ascending: each holds for all tokens of a request with more input
tokens than its number."""


class Cost(NamedTuple):
    """What one request cost, in US dollars.

    Attributes:
        saved: what the provider's cache saved; negative where writing to it cost more.
    """

    usd: float
    saved: float


class Offer(NamedTuple):
    """A way of being served that has a price."""

    name: str
    tier: str
    batch: bool


class Pricer:
    """Prices the requests of one model. Not known is None, and never 0.

    Attributes:
        requested: the tier that is asked for, as the list prices name it.
    """

    def __init__(
        self, model: ModelSpec, price: PriceSpec | None, clock: Callable[[], float] = time.time
    ) -> None:
        self._model = model
        self._price = price
        self._clock = clock
        self.requested = _requested(model)
        self._tariffs: dict[tuple[str | None, str | None, bool], Tariff | None] = {}
        self._minute = 0

    @property
    def known(self) -> bool:
        """Whether the model has a price on the tier that is asked for."""
        return self._tariff(None, None, False) is not None

    def cost(
        self, usage: Usage, model: str | None = None, tier: str | None = None, batch: bool = False
    ) -> Cost | None:
        """Return what a request cost, or None where its tokens or their price are not known.

        Args:
            usage: as our providers give it: cached and written tokens are part of the input.
            model: that answered; where it has no price, that of the requested one is taken.
            tier: that served the request, as the provider names it; None is the requested one.
        """
        tariff = self._tariff(model, tier, batch)
        before, after = usage.input_tokens, usage.output_tokens
        if tariff is None or before is None or after is None:
            return None
        rates = _at(tariff, before)
        cached = min(usage.cached_tokens or 0, before)
        written = min(usage.cache_write_tokens or 0, before - cached)
        saved = cached * (rates.input - rates.cached)
        saved += written * (rates.input - rates.cache_write)
        return Cost(before * rates.input + after * rates.output - saved, saved)

    def worst(self, input_tokens: int, output_tokens: int, batch: bool = False) -> float | None:
        """Return the most that a request of so many tokens can cost, or None where unknown.

        Nothing is read from a cache, everything is written to one if that costs more, and of the
        tiers that may serve the request the dearest does.
        """
        tariffs = [self._tariff(None, tier, batch) for tier in self._possible_tiers(batch)]
        if tariffs[0] is None:
            return None
        rates = [_at(tariff, input_tokens) for tariff in tariffs if tariff is not None]
        return max(
            input_tokens * max(rate.input, rate.cache_write) + output_tokens * rate.output
            for rate in rates
        )

    def offers(self) -> list[Offer]:
        """List the ways of being served that have a price, the default first."""
        found = [Offer(DEFAULT, DEFAULT, False)] if self._tariff(None, DEFAULT, False) else []
        if found and self._price is None and self._model.provider not in _FREE:
            for tier in ("flex", "priority"):
                if self._listed(None, {"service_tier": tier}) is not None:
                    found.append(Offer(tier, tier, False))
        if found and self._tariff(None, DEFAULT, True) and self._model.provider not in _FREE:
            found.append(Offer("batch", DEFAULT, True))
        return found

    def _possible_tiers(self, batch: bool) -> list[str | None]:
        """List the tiers that may serve a request, the requested one first."""
        if batch or self._price is not None:
            return [None]
        asked = self._model.options.get("service_tier", "auto")
        if asked == "auto" and self._model.provider in _AUTO_MAY_BE_PRIORITY:
            return [None, "priority"]
        return [None, DEFAULT]

    def _tariff(self, model: str | None, tier: str | None, batch: bool) -> Tariff | None:
        """Return the rates in force now, worked out once a minute: some hold for hours of a day."""
        minute = int(self._clock() // 60)
        if minute != self._minute:
            self._tariffs.clear()
            self._minute = minute
        key = (model, tier, batch)
        if key not in self._tariffs:
            self._tariffs[key] = self._find(model, tier, batch)
        return self._tariffs[key]

    def _find(self, model: str | None, tier: str | None, batch: bool) -> Tariff | None:
        provider = self._model.provider
        if provider in _FREE:
            return ((-1, Rates(0, 0, 0, 0)),)
        if self._price is not None:
            given = ((-1, _given(self._price, provider)),)
            return _scaled(given, _batch_factor(provider) if batch else 1.0)
        name = self.requested if tier is None else _canonical(tier)
        if batch or name == "batch":
            listed = self._listed(model, {"processing": "batch"})
            return listed or _scaled(self._listed(model, {}), _batch_factor(provider))
        if name == DEFAULT:
            return self._listed(model, {})
        listed = self._listed(model, {"service_tier": name})
        if listed is None and name == "flex":
            return _scaled(self._listed(model, {}), _FLEX_FACTOR.get(provider))
        return listed

    def _listed(self, model: str | None, when: dict[str, str]) -> Tariff | None:
        """Return list prices of the served model, else of the requested one."""
        for name in (model, self._model.model):
            found = _look_up(self._model.provider, name, when, self._clock()) if name else None
            if found is not None:
                has_prices = not when or _has_variant(found, when, self._clock())
                return _listed(found) if has_prices else None
        return None


def make_pricer(model: ModelSpec, price: PriceSpec | None) -> Pricer:
    """Return what prices the requests of a model; `price` comes before the list prices."""
    return Pricer(model, price)


def _requested(model: ModelSpec) -> str:
    """Return the tier that a request asks for; Anthropic can be allowed one, but not asked."""
    asked = DEFAULT if model.provider == "anthropic" else model.options.get("service_tier", DEFAULT)
    return _canonical(asked)


def _canonical(tier: str) -> str:
    """Name a tier as the list prices do."""
    if tier in _STANDARD:
        return DEFAULT
    return "priority" if tier == "fast" else tier


def _given(price: PriceSpec, provider: str) -> Rates:
    written = price.cache_write
    if written is None:
        written = price.input * _CACHE_WRITE_FACTOR.get(provider, 1.0)
    cached = price.input if price.cached is None else price.cached
    return Rates(price.input, price.output, cached, written).times(1e-6)


def _batch_factor(provider: str) -> float | None:
    return 0.5 if provider in _HALF_BATCH else None


def _scaled(tariff: Tariff | None, factor: float | None) -> Tariff | None:
    if tariff is None or factor is None:
        return None
    return tuple((start, rates.times(factor)) for start, rates in tariff)


def _at(tariff: Tariff, input_tokens: int) -> Rates:
    return next(rates for start, rates in reversed(tariff) if input_tokens > start)


def _look_up(
    provider: str, model: str, when: dict[str, str], now: float
) -> PriceCalculation | None:
    """Find a model in the list prices of a moment."""
    catalogue = _CATALOGUE.get(provider)
    if provider == "hf":  # a model of the router may say who serves it: owner/model:server
        model, _, server = model.rpartition(":")
        catalogue = f"huggingface_{server}" if model else None
    if catalogue is None:
        return None
    from genai_prices import Usage as Tokens
    from genai_prices import calc_price

    try:
        return calc_price(
            Tokens(),
            model,
            provider_id=catalogue,
            genai_request_timestamp=datetime.fromtimestamp(now, UTC),
            price_context=when,
        )
    except LookupError:
        return None


def _has_variant(found: PriceCalculation, when: dict[str, str], now: float) -> bool:
    """Whether the list has prices of its own for a tier; else it gives the standard ones."""
    if not any(model is found.model for model in found.provider.models):
        return False  # it is another provider's, and its tiers are not looked at
    moment = datetime.fromtimestamp(now, UTC)
    return any(
        variant.when == when and (variant.constraint is None or variant.constraint.active(moment))
        for variant in found.model.price_variants or ()
    )


def _listed(found: PriceCalculation) -> Tariff | None:
    """Turn list prices into rates; None where tokens have none, or reasoning has its own."""
    price = found.model_price
    if price.input_mtok is None or price.output_mtok is None or price.output_reasoning_mtok:
        return None
    tiers = (getattr(value, "tiers", ()) for value in vars(price).values())
    starts = sorted({tier.start for some in tiers for tier in some})
    return tuple((start, _rates(price, start)) for start in (-1, *starts))


def _rates(price: ModelPrice, start: int) -> Rates:
    """Return the rates of requests with more input tokens than `start`."""
    before = _dollars(price.input_mtok, start)
    after = _dollars(price.output_mtok, start)
    assert before is not None
    assert after is not None
    cached = _dollars(price.cache_read_mtok, start)
    written = _dollars(price.cache_write_mtok, start)
    cached, written = (before if rate is None else rate for rate in (cached, written))
    return Rates(before, after, cached, written).times(1e-6)


def _dollars(price: Any, start: int) -> float | None:
    if price is None:
        return None
    steps = [tier.price for tier in getattr(price, "tiers", ()) if start >= tier.start]
    return float(steps[-1] if steps else getattr(price, "base", price))
