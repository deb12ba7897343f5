"""The figures of an estimate for people."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rich.console import Console
from rich.table import Table

from beam_batch.estimate.figures import LEAST_PREFIX

UNKNOWN = "unknown"
PIPE_WIDTH = 120
_MONEY = {"total": "total", "input": "input alone", "at_most": "at most"}
_TIMES = {"at_rpm": "at --rpm", "at_tpm": "at --tpm", "at_latency": "at the probe's latency"}


def show(found: dict[str, Any]) -> None:
    """Print an estimate on stdout."""
    console = Console(highlight=False, markup=False)
    if not console.is_terminal:
        console = Console(highlight=False, markup=False, width=PIPE_WIDTH)
    facts = Table.grid(padding=(0, 2))
    facts.add_column(style="bold", no_wrap=True)
    facts.add_column()
    for name, text in _facts(found):
        facts.add_row(name, text)
    console.print(facts)
    console.print()
    console.print(_money(found))
    console.print()
    for note in _notes(found):
        console.print(f"- {note}", soft_wrap=True)


def _facts(found: dict[str, Any]) -> Iterator[tuple[str, str]]:
    rows, before, after = found["rows"], found["input_tokens"], found["output_tokens"]
    yield "model", found["model"]
    failed = f"; not sent: {_counts(rows['not_sent'])}" if rows["not_sent"] else ""
    yield "rows", f"{rows['selected']:,} selected, {rows['to_send']:,} to send{failed}"
    each = ""
    if before["mean"] is not None:
        each = (
            f"; counted a row: {before['min']:,} to {before['max']:,}, mean {before['mean']:,.0f}"
        )
    yield "input tokens", _tokens(before) + each
    most = "" if after["at_most"] is None else f", at most {after['at_most']:,}"
    yield "output tokens", _tokens(after) + most
    prefix = found["shared_prefix"]
    if prefix["share"] is not None:
        cached = f"expected from the cache {prefix['expected_cached_share']:.0%}"
        share = f"{prefix['tokens']:,} tokens, {prefix['share']:.0%} of the input"
        yield "shared prefix", f"{share}; {cached}"
    seconds = found["seconds"]
    times = [
        f"{duration(seconds[name])} {label}"
        for name, label in _TIMES.items()
        if seconds[name] is not None
    ]
    yield "time", ", ".join(times) or UNKNOWN
    if found["probe"] is not None:
        yield "probe", _probe(found["probe"])


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{count:,} {name}" for name, count in counts.items())


def _probe(probe: dict[str, Any]) -> str:
    failed = f", failed: {_counts(probe['failed'])}" if probe["failed"] else ""
    return f"{probe['rows']:,} rows sent{failed}; it cost {dollars(probe['usd'])}"


def _tokens(found: dict[str, Any]) -> str:
    if found["total"] is None:
        return UNKNOWN
    text = f"{found['total']:,.0f}"
    if found["low"] is not None:
        text += f" ({found['low']:,.0f} to {found['high']:,.0f})"
    return text


def _money(found: dict[str, Any]) -> Table:
    """Lay out money by tier; the interval only where a probe gave one."""
    measured = found["probe"] is not None
    table = Table(box=None, pad_edge=False)
    table.add_column("tier")
    titles = list(_MONEY.values())
    if measured:
        titles.insert(1, "95 % interval")
    for title in titles:
        table.add_column(title, justify="right", no_wrap=True)
    for money in found["usd"]:
        cells = [dollars(money[name]) for name in _MONEY]
        if measured:
            low, high = dollars(money["low"]), dollars(money["high"])
            cells.insert(1, UNKNOWN if money["low"] is None else f"{low} to {high}")
        table.add_row(money["tier"] + (" (asked for)" if money["asked_for"] else ""), *cells)
    if not found["usd"]:
        table.add_row("default", *[UNKNOWN] * len(titles))
    return table


def _notes(found: dict[str, Any]) -> Iterator[str]:
    """Say plainly what is assumed."""
    counter = found["tokenizer"]
    kind = "this model's vocabulary" if counter["exact"] else "an approximation for this model"
    yield f"Tokens are counted with {counter['name']}, {kind}."
    if found["price"] == UNKNOWN:
        yield "The price of what is asked for is unknown: give --price input=USD,output=USD."
    elif found["price"] == "given":
        yield "Money is at the price given with --price."
    if found["images_not_counted"]:
        yield f"{found['images_not_counted']:,} images are not among the tokens counted here."
    if found["web_search"]:
        yield "Fees of web searches are not counted."
    if same := found["rows"]["identical"]:
        yield f"{same:,} rows are identical to earlier ones and not sent; --no-dedupe sends them."
    yield "Answers that --resume or --cache have already are not taken off."
    yield from _output_notes(found)
    if found["shared_prefix"]["expected_cached_share"]:
        cached = (f"{money['tier']} {dollars(money['input_if_cached'])}" for money in found["usd"])
        yield f"Input alone, were the shared prefix always cached: {', '.join(cached) or UNKNOWN}."
    else:
        yield (
            "Nothing is expected from the provider's cache, as far as its rules are known: "
            f"prefixes of {LEAST_PREFIX:,} tokens or more."
        )
    if any(money["tier"] == "batch" for money in found["usd"]):
        yield "batch is the provider's Batch API; it may take up to 24 hours."


def _output_notes(found: dict[str, Any]) -> Iterator[str]:
    after = found["output_tokens"]
    if after["total"] is not None:
        yield "Totals are extrapolated from the probe, with what the cache gave there."
        return
    if found["probe"] is not None:
        yield "No answer of the probe said how many tokens it took."
    else:
        yield "Output tokens are unknown until rows are answered: --probe 20 measures them."
    bounded = after["at_most"] is not None
    if bounded:
        yield "'at most' takes every answer to be as long as its request allows."
    if found["seconds"]["at_tpm"] is not None:
        counts = "answers of that length" if bounded else "input tokens alone"
        yield f"The time at --tpm is for {counts}."


def dollars(usd: float | None) -> str:
    """Write an amount of money; small ones with four digits.

    >>> dollars(1234.5), dollars(0.001234), dollars(None)
    ('$1,234.50', '$0.001234', 'unknown')
    """
    if usd is None:
        return UNKNOWN
    if usd == 0 or usd >= 1:
        return f"${usd:,.2f}"
    return f"${usd:.4g}" if usd >= 0.0001 else f"${usd:.1e}"


def duration(seconds: float) -> str:
    """Write a time to two units.

    >>> duration(5), duration(125), duration(7260)
    ('5 s', '2 min 5 s', '2 h 1 min')
    """
    whole = max(1, round(seconds))
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60:,} h {minutes % 60} min"
