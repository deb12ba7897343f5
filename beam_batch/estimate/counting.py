"""One pass over the rows: how many tokens, and a random sample for the probe."""

from __future__ import annotations

import hashlib
import random
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from beam_batch.errors import InputLost, OptionsError, RowError
from beam_batch.inputs.plan import Plan
from beam_batch.inputs.reading import read_rows
from beam_batch.options import EstimateSpec
from beam_batch.prompts.template import image_fields, render
from beam_batch.records import Content, Image, Row
from beam_batch.reuse.seen import Seen

EXACT_SIZES = 10_000


class Sampled(NamedTuple):
    """A row that was drawn, and its input tokens as counted here."""

    number: int
    data: dict[str, Any]
    tokens: int


@dataclass
class Sizes:
    """Input tokens of requests.

    Attributes:
        counts: requests by size; exact below 10,000, above to four digits, so that memory has a
            bound whatever the spread.
    """

    counts: Counter[int] = field(default_factory=Counter)
    requests: int = 0
    total: int = 0
    least: int | None = None
    most: int | None = None

    def add(self, tokens: int) -> None:
        """Count one request."""
        step = 10 ** (len(str(tokens)) - 4) if tokens >= EXACT_SIZES else 1
        self.counts[round(tokens / step) * step] += 1
        self.requests += 1
        self.total += tokens
        self.least = tokens if self.least is None else min(self.least, tokens)
        self.most = tokens if self.most is None else max(self.most, tokens)

    @property
    def mean(self) -> float | None:
        """Tokens of a request on average."""
        return self.total / self.requests if self.requests else None


@dataclass
class Counted:
    """What a pass over the rows found.

    Attributes:
        sizes: of the requests that would be sent.
        failures: rows that would not be sent, by the name of their error.
        duplicates: rows whose prompt is the same as that of an earlier row.
        images: in the prompts; they are not among the tokens.
        sample: rows drawn, in input order.
    """

    sizes: Sizes = field(default_factory=Sizes)
    failures: Counter[str] = field(default_factory=Counter)
    duplicates: int = 0
    images: int = 0
    sample: list[Sampled] = field(default_factory=list)


def count_rows(
    spec: EstimateSpec, plan: Plan, tokens_of: Callable[[Content], int], dedupe: bool = False
) -> Counted:
    """Render all selected rows and count their tokens; draw `spec.probe` of them.

    Takes memory for the drawn rows and for no others. With `dedupe`, prompts that are the same as
    an earlier one are not counted; of a million different ones, a few may look the same.

    Raises:
        OptionsError: the input cannot be read any more.
    """
    counted = Counted()
    seen = Seen() if dedupe else None
    draw = random.Random(spec.source.seed)
    try:
        for row in _rows(spec, plan):
            try:
                content = _render(spec, row)
            except RowError as error:
                counted.failures[row.failure.type if row.failure else type(error).__name__] += 1
                continue
            if seen is not None:
                key = _key(content)
                if seen.may_have(key):
                    counted.duplicates += 1
                    continue
                seen.add(key)
            tokens = tokens_of(content)
            counted.sizes.add(tokens)
            if not isinstance(content, str):
                counted.images += sum(isinstance(part, Image) for part in content)
            _offer(counted, draw, spec.probe or 0, Sampled(row.number or 0, row.data or {}, tokens))
    except InputLost as error:
        raise OptionsError(f"--input {error}. Look at the file, or at the network.") from None
    counted.sample.sort(key=lambda row: row.number)
    return counted


def _key(content: Content) -> bytes:
    text = content if isinstance(content, str) else repr(content)
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def _rows(spec: EstimateSpec, plan: Plan) -> Iterator[Row]:
    images = image_fields(spec.prompt.template)
    for split in plan.splits:
        yield from read_rows(split, spec.source.id_field, images=images)


def _render(spec: EstimateSpec, row: Row) -> Content:
    if row.failure is not None or row.data is None:
        raise RowError("the row cannot be read")
    return render(spec.prompt.template, row.data, spec.prompt.files_root)


def _offer(counted: Counted, draw: random.Random, wanted: int, row: Sampled) -> None:
    """Keep a row with the chance that makes all rows equally likely (Vitter's algorithm R)."""
    if len(counted.sample) < wanted:
        counted.sample.append(row)
    elif wanted and (place := draw.randrange(counted.sizes.requests)) < wanted:
        counted.sample[place] = row
