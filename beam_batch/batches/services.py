"""Which providers have a Batch API, and what of a model goes with it."""

from __future__ import annotations

import os
from collections.abc import Callable

from beam_batch.batches.account import Account
from beam_batch.batches.anthropic import AnthropicBatches
from beam_batch.batches.base import BatchService
from beam_batch.batches.files import Limits
from beam_batch.batches.openai import OpenAIBatches
from beam_batch.errors import OptionsError
from beam_batch.options import BatchSpec, ModelSpec
from beam_batch.providers import headers, read_key

_SERVICES: dict[str, tuple[type[OpenAIBatches] | type[AnthropicBatches], str]] = {
    "responses": (OpenAIBatches, "/responses"),
    "openai": (OpenAIBatches, "/chat/completions"),
    "anthropic": (AnthropicBatches, "/messages"),
}
"""Each provider's service, and the endpoint that its batches are for."""


def check_batch(model: ModelSpec, batch: BatchSpec, runner: str) -> None:
    """Raise OptionsError where `--backend batch` cannot work with the other settings."""
    if not batch.is_batch:
        return
    if model.provider not in _SERVICES:
        raise OptionsError(
            f"--backend batch: {model.provider} has no Batch API that we know; "
            f"{', '.join(_SERVICES)} have one."
        )
    transport = model.options.get("transport")
    if transport not in (None, "auto", "http"):
        raise OptionsError(
            f"--backend batch sends files, so transport={transport} has no meaning; leave it out."
        )
    if model.options.get("service_tier") not in (None, "auto", "default"):
        raise OptionsError(
            f"--backend batch is a service tier of its own; leave service_tier="
            f"{model.options['service_tier']} out."
        )
    if runner != "direct":
        raise OptionsError(f"--backend batch works with --runner direct only, not {runner}.")


def make_service(
    model: ModelSpec, timeout: float, stopped: Callable[[], bool] = lambda: False
) -> BatchService:
    """Return the Batch API of a model's provider, with the key of this environment."""
    kind, path = _SERVICES[model.provider]
    key = read_key(model, os.environ)
    account = Account(model.base_url, headers(model, key, os.environ), key, timeout, stopped)
    return kind(account, path)


def limits_of(model: ModelSpec, size: int | None) -> Limits:
    """Return the limits of a request file: the provider's, or fewer requests."""
    limits = _SERVICES[model.provider][0].limits
    return limits if size is None else limits._replace(requests=min(size, limits.requests))
