"""How requests are sent, what they may cost, and what is done about bad answers."""

from __future__ import annotations

import math
from dataclasses import dataclass

from beam_batch.errors import OptionsError
from beam_batch.options.asking import ModelSpec
from beam_batch.options.checking import at_least, flag_of

BACKENDS = ("online", "batch")
BATCH_FINISHES = ("resubmit", "online")


@dataclass(frozen=True, kw_only=True)
class PriceSpec:
    """What a model costs, in US dollars per million tokens.

    Attributes:
        cached: of input tokens read from the provider's cache, or None where they cost as others.
        cache_write: of input tokens written to it, or None where the provider's usual rule holds.
    """

    input: float
    output: float
    cached: float | None = None
    cache_write: float | None = None

    def __post_init__(self) -> None:
        for name in self.__dataclass_fields__:
            at_least(f"--price {name}", getattr(self, name), 0)


def parse_price(text: str) -> PriceSpec:
    """Read the value of ``--price``: names and dollars per million tokens.

    >>> parse_price("input=0.2,output=1.25,cached=0.02").cached
    0.02

    Raises:
        OptionsError: input or output is missing, or a name or a number cannot be read.
    """
    pairs = [part.partition("=")[::2] for part in text.split(",")]
    values = {name.strip(): value.strip() for name, value in pairs}
    known = PriceSpec.__dataclass_fields__
    try:
        if len(values) < len(pairs) or not {"input", "output"} <= values.keys() <= known.keys():
            raise ValueError
        return PriceSpec(**{name: float(value) for name, value in values.items()})
    except ValueError:
        raise OptionsError(
            f"--price {text}: write US dollars per million tokens as input=0.2,output=1.25, and if "
            "they differ cached=0.02 and cache_write=0.25."
        ) from None


@dataclass(frozen=True, kw_only=True)
class CallSpec:
    """How requests are sent; times in seconds.

    Attributes:
        parallel: requests in flight over the whole run, or None to find the best number.
        rpm, tpm: requests and tokens a minute over the whole run, or None to learn them from the
            provider's headers.
        max_attempts: requests a row may cost, the first included; those sent in an outage of the
            provider do not count.
        timeout: for one request, or None for 600, and 900 at service_tier=flex.
        row_deadline: for a row with all its attempts, from its first request on.
        max_outage: after which a run stops whose provider is down.
    """

    parallel: int | None = None
    rpm: int | None = None
    tpm: int | None = None
    max_attempts: int = 6
    retry_wait: float = 0.5
    retry_max_wait: float = 60.0
    timeout: float | None = None
    stall_timeout: float = 120.0
    row_deadline: float | None = None
    max_outage: float = 900.0

    def __post_init__(self) -> None:
        for flag in ("parallel", "rpm", "tpm", "max_attempts"):
            at_least(flag_of(flag), getattr(self, flag), 1)
        for flag in ("retry_wait", "retry_max_wait", "max_outage"):
            at_least(flag_of(flag), getattr(self, flag), 0)
        for flag in ("timeout", "stall_timeout", "row_deadline"):
            value = getattr(self, flag)
            if value is not None and not 0 < value < math.inf:
                raise OptionsError(f"{flag_of(flag)} must be more than 0 s, got {value:g}.")

    def timeout_of(self, model: ModelSpec) -> float:
        """Return the seconds allowed for one request.

        Flex answers slowly; OpenAI advises 15 minutes (platform.openai.com/docs/guides/flex-
        processing).
        """
        if self.timeout is not None:
            return self.timeout
        return 900.0 if model.options.get("service_tier") == "flex" else 600.0


@dataclass(frozen=True, kw_only=True)
class RepairSpec:
    """What is tried where an answer is not good enough.

    Attributes:
        reask: times to ask again with the validator's complaint.
        fallback: model that answers what still fails, or None.
        flex_fallback: whether to ask at the default tier where flex has no capacity.
    """

    reask: int = 0
    fallback: str | ModelSpec | None = None
    flex_fallback: bool = False

    def __post_init__(self) -> None:
        at_least("--reask", self.reask, 0)


@dataclass(frozen=True, kw_only=True)
class BudgetSpec:
    """What a run may cost in all, over all its sessions and workers.

    Attributes:
        max_cost: USD.
        max_tokens_total: tokens, input and output.
        row_max_cost: USD that one row may cost, with all its model calls.
        price: what the model costs, where the known list prices are not to be used.
    """

    max_cost: float | None = None
    max_tokens_total: int | None = None
    row_max_cost: float | None = None
    price: PriceSpec | None = None

    def __post_init__(self) -> None:
        at_least("--max-cost", self.max_cost, 0)
        at_least("--max-tokens-total", self.max_tokens_total, 0)
        at_least("--row-max-cost", self.row_max_cost, 0)

    @property
    def is_set(self) -> bool:
        """Whether there is a cap on the whole run."""
        return self.max_cost is not None or self.max_tokens_total is not None


@dataclass(frozen=True, kw_only=True)
class ReuseSpec:
    """Which replies are used more than once, so that nothing is paid twice.

    Attributes:
        dedupe: whether identical requests of a run are sent once; None leaves it to the model: on,
            but off where its temperature is above 0 (each answer is a sample) and for echo (free).
        cache: folder or URI (s3://, gs://, az://) of replies that later runs may use, or None.
        cache_max_age: days after which a reply of the cache is not used any more, or None.
    """

    dedupe: bool | None = None
    cache: str | None = None
    cache_max_age: float | None = None

    def __post_init__(self) -> None:
        if self.cache == "":
            raise OptionsError("--cache needs a folder or a URI, got ''.")
        at_least("--cache-max-age", self.cache_max_age, 0)
        if self.cache_max_age is not None and self.cache is None:
            raise OptionsError("--cache-max-age is for --cache; name the folder of the cache.")


@dataclass(frozen=True, kw_only=True)
class BatchSpec:
    """Whether requests go through the provider's Batch API, and how.

    Attributes:
        backend: online (a request a row) or batch.
        detach: end once everything is submitted; `beam-batch fetch` goes on.
        batch_finish: what becomes of rows that a batch left open: resubmit, or online.
        batch_poll: seconds before the first look at a batch; the waits grow to a minute.
        batch_size: requests of one batch at most, or None for what the provider takes.
        send_cancelled: whether what was cancelled here is sent again; `fetch` doesn't.
    """

    backend: str = "online"
    detach: bool = False
    batch_finish: str = "resubmit"
    batch_poll: float = 2.0
    batch_size: int | None = None
    send_cancelled: bool = True

    def __post_init__(self) -> None:
        for flag, known in (("backend", BACKENDS), ("batch_finish", BATCH_FINISHES)):
            value = getattr(self, flag)
            if value not in known:
                name = flag.replace("_", "-")
                raise OptionsError(f"--{name} must be {' or '.join(known)}, got {value!r}.")
        if self.detach and not self.is_batch:
            raise OptionsError("--detach is for --backend batch only.")
        at_least("--batch-size", self.batch_size, 1)
        if not 0 < self.batch_poll < math.inf:
            raise OptionsError(f"--batch-poll must be more than 0 s, got {self.batch_poll:g}.")

    @property
    def is_batch(self) -> bool:
        """Whether the Batch API is used."""
        return self.backend == "batch"
