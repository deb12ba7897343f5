"""Prices: numbers worked out by hand on a list of our own, and agreement with the real list."""

from __future__ import annotations

import datetime
import random
import socket
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import genai_prices
import pytest
from genai_prices import data_snapshot
from genai_prices.types import (
    ClauseEquals,
    ClauseOr,
    ConditionalPrice,
    ModelInfo,
    ModelPrice,
    PriceVariant,
    Provider,
    StartDateConstraint,
    Tier,
    TieredPrices,
    TimeOfDateConstraint,
)

from beam_batch.calling.pricing import Cost, Offer, Pricer, make_pricer
from beam_batch.errors import OptionsError
from beam_batch.options import ModelSpec, PriceSpec, parse_price
from beam_batch.providers import resolve_model
from beam_batch.providers.base import Usage

NOON = datetime.datetime(2026, 11, 24, 12, tzinfo=datetime.UTC).timestamp()
MILLION = 1_000_000


def _prices(**dollars: Any) -> ModelPrice:
    def value(given: Any) -> Any:
        if isinstance(given, tuple):
            base, start, above = given
            return TieredPrices(Decimal(base), [Tier(start, Decimal(above))])
        return Decimal(given)

    return ModelPrice(**{f"{name}_mtok": value(given) for name, given in dollars.items()})


def _model(*names: str, prices: Any, **variants: ModelPrice) -> ModelInfo:
    when = {"batch": "processing"}
    return ModelInfo(
        id=names[0],
        match=ClauseOr([ClauseEquals(name) for name in names]),
        prices=prices,
        price_variants=[
            PriceVariant({when.get(name, "service_tier"): name}, price)
            for name, price in variants.items()
        ],
    )


MINI = _model(
    "gpt-mini",
    "gpt-mini-2026-03-17",
    prices=_prices(input="0.75", cache_read="0.075", output="4.5"),
    flex=_prices(input="0.375", cache_read="0.0375", output="2.25"),
    priority=_prices(input="1.5", cache_read="0.15", output="9"),
    batch=_prices(input="0.375", cache_read="0.0375", output="2.25"),
)
PLAIN = _model("gpt-plain", prices=_prices(input="2", cache_read="0.5", output="8"))
LONG = _model(
    "gpt-long",
    prices=_prices(input=("1", 272_000, "2"), cache_read="0.1", output=("6", 272_000, "9")),
)
WRITES = _model(
    "gpt-writes", prices=_prices(input="2", cache_read="0.2", cache_write="2.5", output="10")
)
SOUND = _model("gpt-sound", prices=_prices(output="1"))
EMBED = _model("gpt-embed", prices=_prices(input="1"))
THINK = _model("gpt-think", prices=_prices(input="1", output="1", output_reasoning="9"))
CLAUDE = _model(
    "claude-s", prices=_prices(input="3", cache_read="0.3", cache_write="3.75", output="15")
)
NIGHT = ModelInfo(
    id="night",
    match=ClauseEquals("night"),
    prices=[
        ConditionalPrice(prices=_prices(input="1", output="1")),
        ConditionalPrice(
            TimeOfDateConstraint(
                datetime.time(8, tzinfo=datetime.UTC), datetime.time(16, tzinfo=datetime.UTC)
            ),
            prices=_prices(input="2", output="2"),
        ),
    ],
)
TOMORROW = ModelInfo(
    id="gpt-tomorrow",
    match=ClauseEquals("gpt-tomorrow"),
    prices=_prices(input="1", output="1"),
    price_variants=[
        PriceVariant(
            {"service_tier": "priority"},
            _prices(input="9", output="9"),
            StartDateConstraint(datetime.date(2026, 11, 25)),
        )
    ],
)


@pytest.fixture
def _catalogue() -> Iterator[None]:
    """A price list of our own."""

    def provider(name: str, *models: ModelInfo, **more: Any) -> Provider:
        return Provider(id=name, name=name, api_pattern=name, models=list(models), **more)

    data_snapshot.set_custom_snapshot(
        data_snapshot.DataSnapshot(
            [
                provider("openai", MINI, PLAIN, LONG, WRITES, TOMORROW, SOUND, EMBED, THINK),
                provider("azure", fallback_model_providers=["openai"]),
                provider("anthropic", CLAUDE),
                provider("groq", _model("llama", prices=_prices(input="1", output="2"))),
                provider("deepseek", NIGHT),
                provider("huggingface_nova", _model("o/m", prices=_prices(input="1", output="2"))),
            ],
            from_auto_update=False,
        )
    )
    yield
    data_snapshot.set_custom_snapshot(None)


def _pricer(text: str, price: PriceSpec | None = None, now: float = NOON) -> Pricer:
    return Pricer(_spec(text), price, lambda: now)


def _spec(text: str) -> ModelSpec:
    return resolve_model(text, {"AZURE_OPENAI_BASE_URL": "https://a.example"})


def _usd(pricer: Pricer, usage: Usage, **how: Any) -> float | None:
    cost = pricer.cost(usage, **how)
    return None if cost is None else round(cost.usd, 9)


USAGE = Usage(1_000, 200)


@pytest.mark.usefixtures("_catalogue")
@pytest.mark.parametrize(
    ("model", "how", "usd"),
    [
        ("responses.gpt-mini", {}, 0.00165),  # 1000 * 0.75 + 200 * 4.5 = 1650 millionths
        ("openai.gpt-mini", {"tier": "default"}, 0.00165),
        ("openai.gpt-mini?service_tier=flex", {}, 0.000825),
        ("openai.gpt-mini?service_tier=flex", {"tier": "flex"}, 0.000825),
        ("openai.gpt-mini?service_tier=flex", {"tier": "default"}, 0.00165),
        ("openai.gpt-mini?service_tier=auto", {"tier": "priority"}, 0.0033),
        ("openai.gpt-mini?service_tier=fast", {}, 0.0033),
        ("openai.gpt-mini?service_tier=fast", {"tier": "default"}, 0.00165),
        ("openai.gpt-mini", {"batch": True}, 0.000825),
        ("openai.gpt-mini", {"tier": "batch"}, 0.000825),
        ("openai.gpt-mini", {"tier": "scale"}, None),
        ("openai.gpt-mini", {"model": "gpt-mini-2026-03-17"}, 0.00165),
        ("openai.gpt-mini", {"model": "gpt-mini-served"}, 0.00165),
        ("openai.gpt-mini", {"model": "gpt-plain"}, 0.0036),
        ("openai.gpt-plain", {"batch": True}, 0.0018),  # no prices of its own: half
        ("openai.gpt-plain", {"tier": "flex"}, 0.0018),
        ("openai.gpt-plain", {"tier": "priority"}, None),
        ("openai.gpt-tomorrow", {"tier": "priority"}, None),
        ("azure.gpt-mini", {}, 0.00165),
        ("azure.gpt-mini", {"batch": True}, 0.000825),
        ("azure.gpt-mini", {"tier": "priority"}, None),
        ("groq.llama", {"tier": "on_demand"}, 0.0014),
        ("groq.llama", {"tier": "flex"}, 0.0014),
        ("groq.llama", {"batch": True}, 0.0007),
        ("deepseek.night", {"batch": True}, None),
        ("hf.o/m:nova", {}, 0.0014),
        ("hf.o/m", {}, None),
        ("openai.gpt-unheard", {}, None),
        ("openai.gpt-sound", {}, None),
        ("openai.gpt-embed", {}, None),
        ("openai.gpt-think", {}, None),
        ("generic.gpt-mini", {}, None),
        ("openresponses.gpt-mini", {}, None),
        ("echo", {}, 0.0),
        ("local.smollm2", {}, 0.0),
        ("anthropic.claude-s", {"tier": "standard"}, 0.006),
        ("anthropic.claude-s?service_tier=priority", {}, 0.006),
        ("anthropic.claude-s?service_tier=priority", {"tier": "priority"}, None),
        ("anthropic.claude-s", {"batch": True}, 0.003),
    ],
)
def test_a_thousand_tokens_in_and_two_hundred_out_cost(
    model: str, how: dict[str, Any], usd: float | None
) -> None:
    assert _usd(_pricer(model), USAGE, **how) == usd


@pytest.mark.usefixtures("_catalogue")
def test_cached_tokens_are_part_of_the_input_and_cost_less() -> None:
    cost = _pricer("openai.gpt-mini").cost(Usage(1_000, 200, cached_tokens=600))
    # 400 * 0.75 + 600 * 0.075 + 200 * 4.5 = 1245; saved 600 * 0.675 = 405
    assert cost == pytest.approx(Cost(0.001245, 0.000405))


@pytest.mark.usefixtures("_catalogue")
def test_flex_and_batch_have_cached_rates_of_their_own() -> None:
    usage = Usage(1_000, 200, cached_tokens=600)
    # 400 * 0.375 + 600 * 0.0375 + 200 * 2.25 = 622.5
    assert _usd(_pricer("openai.gpt-mini"), usage, batch=True) == 0.0006225
    assert _usd(_pricer("openai.gpt-mini"), usage, tier="flex") == 0.0006225
    # 400 * 1 + 600 * 0.25 + 200 * 4 = 1350
    assert _usd(_pricer("openai.gpt-plain"), usage, batch=True) == 0.00135


@pytest.mark.usefixtures("_catalogue")
def test_a_long_prompt_has_another_rate_for_all_its_tokens() -> None:
    pricer = _pricer("openai.gpt-long")
    assert _usd(pricer, Usage(272_000, 1_000)) == 0.278
    assert _usd(pricer, Usage(272_001, 1_000)) == 0.553002
    assert _usd(pricer, Usage(272_001, 1_000), batch=True) == 0.276501
    assert pricer.worst(272_000, 1_000) == pytest.approx(0.278)
    assert pricer.worst(272_001, 1_000) == pytest.approx(0.553002)


@pytest.mark.usefixtures("_catalogue")
def test_writing_to_anthropic_s_cache_costs_more_and_reading_less() -> None:
    pricer = _pricer("anthropic.claude-s")
    # our usage counts both in the input: 100 fresh, 900 written, then read
    first = pricer.cost(Usage(1_000, 10, cached_tokens=0, cache_write_tokens=900))
    later = pricer.cost(Usage(1_000, 10, cached_tokens=900, cache_write_tokens=0))
    assert first == pytest.approx(Cost(0.003825, -0.000675))  # 300 + 900 * 3.75 + 150
    assert later == pytest.approx(Cost(0.00072, 0.00243))  # 300 + 900 * 0.3 + 150


@pytest.mark.usefixtures("_catalogue")
def test_what_a_user_says_comes_before_the_list() -> None:
    price = PriceSpec(input=1, output=10, cached=0.5)
    usage = Usage(1_000, 100, cached_tokens=400)
    for model in ("openai.gpt-mini", "generic.anything", "openai.gpt-mini?service_tier=flex"):
        assert _usd(_pricer(model, price), usage) == 0.0018  # 600 + 200 + 1000
    assert _usd(_pricer("openai.gpt-mini", price), usage, batch=True) == 0.0009
    assert _usd(_pricer("generic.anything", price), usage, batch=True) is None
    assert _usd(_pricer("openai.x", PriceSpec(input=1, output=10)), usage) == 0.002
    assert _pricer("openai.x", price).cost(usage) == pytest.approx(Cost(0.0018, 0.0002))


@pytest.mark.usefixtures("_catalogue")
def test_a_price_without_cache_write_takes_anthropic_s_factor() -> None:
    usage = Usage(1_000, 0, cache_write_tokens=1_000)
    assert _usd(_pricer("anthropic.new", PriceSpec(input=4, output=0)), usage) == 0.005
    given = PriceSpec(input=4, output=0, cache_write=6)
    assert _usd(_pricer("anthropic.new", given), usage) == 0.006
    assert _usd(_pricer("openai.new", PriceSpec(input=4, output=0)), usage) == 0.004


@pytest.mark.usefixtures("_catalogue")
def test_unknown_is_none_and_free_is_known() -> None:
    assert not _pricer("generic.x").known
    assert not _pricer("openai.unheard").known
    assert _pricer("generic.x").worst(10, 10) is None
    assert _pricer("echo").known
    assert _pricer("openai.gpt-mini").cost(Usage(None, 5)) is None
    assert _pricer("openai.gpt-mini").cost(Usage(5, None)) is None


@pytest.mark.usefixtures("_catalogue")
def test_the_worst_is_the_dearest_tier_that_may_serve_with_nothing_cached() -> None:
    ask = "openai.gpt-mini?service_tier="
    assert _pricer(ask + "default").worst(1_000, 200) == pytest.approx(0.00165)
    assert _pricer("openai.gpt-mini").worst(1_000, 200) == pytest.approx(0.0033)
    assert _pricer(ask + "priority").worst(1_000, 200) == pytest.approx(0.0033)
    assert _pricer(ask + "flex").worst(1_000, 200) == pytest.approx(0.00165)
    assert _pricer("openai.gpt-mini").worst(1_000, 200, batch=True) == pytest.approx(0.000825)
    assert _pricer("openai.gpt-plain").worst(1_000, 200) == pytest.approx(0.0036)
    assert _pricer("openai.gpt-plain?service_tier=priority").worst(1_000, 200) is None
    assert _pricer("openai.gpt-writes").worst(1_000, 0) == pytest.approx(0.0025)
    assert _pricer("anthropic.claude-s").worst(1_000, 0) == pytest.approx(0.00375)


@pytest.mark.usefixtures("_catalogue")
def test_a_price_of_the_hour_changes_with_the_hour() -> None:
    times = [NOON]
    pricer = Pricer(_spec("deepseek.night"), None, lambda: times[0])
    assert _usd(pricer, USAGE) == 0.0024
    times[0] += 8 * 3600
    assert _usd(pricer, USAGE) == 0.0012


@pytest.mark.usefixtures("_catalogue")
def test_offers_are_the_ways_that_have_a_price() -> None:
    default, batch = Offer("default", "default", False), Offer("batch", "default", True)
    flex, priority = Offer("flex", "flex", False), Offer("priority", "priority", False)
    assert _pricer("openai.gpt-mini").offers() == [default, flex, priority, batch]
    assert _pricer("anthropic.claude-s").offers() == [default, batch]
    assert _pricer("deepseek.night").offers() == [default]
    assert _pricer("echo").offers() == [default]
    assert _pricer("generic.x").offers() == []
    price = PriceSpec(input=1, output=1)
    assert _pricer("generic.x", price).offers() == [default]
    assert _pricer("openai.gpt-mini", price).offers() == [default, batch]


@pytest.mark.usefixtures("_catalogue")
def test_usage_that_does_not_add_up_costs_no_less_than_nothing() -> None:
    cost = _pricer("openai.gpt-mini").cost(Usage(10, 0, cached_tokens=99, cache_write_tokens=99))
    assert cost is not None
    assert cost.usd == pytest.approx(10 * 0.075 / MILLION)


@pytest.mark.parametrize("provider", ["openai", "anthropic", "google", "xai", "groq", "deepseek"])
def test_every_listed_price_agrees_with_the_library_without_a_network(
    provider: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: Any) -> None:
        raise AssertionError("a price was looked up over the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    catalogue = {"xai": "x-ai"}.get(provider, provider)
    [listed] = [p for p in data_snapshot.get_snapshot().providers if p.id == catalogue]
    moment = datetime.datetime.fromtimestamp(NOON, datetime.UTC)
    random_ = random.Random(1)
    compared = 0
    for model in listed.models:
        if not isinstance(model.match, (ClauseEquals, ClauseOr)) or not model.is_match(model.id):
            continue
        pricer = Pricer(
            ModelSpec(text=model.id, provider=provider, model=model.id), None, lambda: NOON
        )
        if not pricer.known:
            continue
        for offer in pricer.offers():
            when = {"processing": "batch"} if offer.batch else {"service_tier": offer.tier}
            if offer.tier != "default" or offer.batch:
                variants = [v.when for v in model.price_variants or ()]
                if when not in variants:
                    continue
            before = random_.choice([1, 5_000, 150_000, 250_000, 900_000])
            cached, written = before // 3, before // 5
            ours = pricer.cost(
                Usage(before, 777, None, cached, None, written), None, offer.tier, offer.batch
            )
            theirs = genai_prices.calc_price(
                genai_prices.Usage(
                    input_tokens=before,
                    output_tokens=777,
                    cache_read_tokens=cached,
                    cache_write_tokens=written,
                ),
                model.id,
                provider_id=catalogue,
                genai_request_timestamp=moment,
                price_context=when,
            )
            assert ours is not None
            assert ours.usd == pytest.approx(float(theirs.total_price)), model.id
            compared += 1
    assert compared


def test_models_of_today_have_prices() -> None:
    for text in ("gpt-5.4-mini", "claude-sonnet-4-5", "gemini-2.5-pro", "grok-4"):
        assert make_pricer(resolve_model(text, {}), None).known, text


def test_price_is_read_from_the_flag() -> None:
    assert parse_price("input=0.2,output=1.25") == PriceSpec(input=0.2, output=1.25)
    assert parse_price("input=1, output=2, cached=0, cache_write=3") == PriceSpec(
        input=1, output=2, cached=0, cache_write=3
    )


@pytest.mark.parametrize(
    "text",
    [
        "",
        "1",
        "input=1",
        "input=1,output=x",
        "input=1,output=2,x=3",
        "input=1,input=1",
        "input=1,output=2,input=3",
    ],
)
def test_a_price_that_cannot_be_read_is_named_with_its_remedy(text: str) -> None:
    with pytest.raises(OptionsError, match=r"--price .*: write US dollars per million tokens"):
        parse_price(text)


@pytest.mark.parametrize("value", ["-1", "nan", "inf"])
def test_a_price_is_not_negative_and_finite(value: str) -> None:
    with pytest.raises(OptionsError, match="--price output must be 0 or more"):
        parse_price(f"input=1,output={value}")
