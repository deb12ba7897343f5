"""The providers: one file a wire format, and the table of what each takes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from beam_batch.options import ModelSpec, SchemaSpec
from beam_batch.providers.base import NO_TOOLS, Provider, Tools
from beam_batch.providers.model_string import (
    add_params,
    chosen_model,
    needs_key,
    read_key,
    resolve_model,
)
from beam_batch.providers.table import PROVIDERS

__all__ = [
    "PROVIDERS",
    "add_params",
    "chosen_model",
    "deciding_options",
    "headers",
    "make_provider",
    "needs_key",
    "output_bound",
    "read_key",
    "resolve_model",
]

_ACCOUNT = {"OPENAI_ORG_ID": "OpenAI-Organization", "OPENAI_PROJECT_ID": "OpenAI-Project"}


def make_provider(model: ModelSpec, schema: SchemaSpec | None, tools: Tools = NO_TOOLS) -> Provider:
    """Return the provider of a resolved model, whose requests offer some tools."""
    wire = PROVIDERS[model.provider].format
    if wire == "responses":
        from beam_batch.providers.responses import ResponsesProvider

        return ResponsesProvider(model, schema, tools)
    if wire == "anthropic":
        from beam_batch.providers.anthropic import AnthropicProvider

        return AnthropicProvider(model, schema, tools)
    if wire == "google":
        from beam_batch.providers.google import GoogleProvider

        return GoogleProvider(model, schema, tools)
    if wire == "echo":
        from beam_batch.providers.echo import EchoProvider

        return EchoProvider(model, schema)
    from beam_batch.providers.chat import ChatProvider

    return ChatProvider(model, schema, tools)


def deciding_options(model: ModelSpec) -> dict[str, Any]:
    """Return the options of a model under which answers are what they are, by their names."""
    known = PROVIDERS[model.provider].options
    return {name: v for name, v in sorted(model.options.items()) if known[name].changes_answers}


def output_bound(model: ModelSpec) -> int | None:
    """Return the tokens that an answer may have at most, reasoning included, or None."""
    bound = model.options.get("max_tokens")
    if model.provider == "anthropic":
        from beam_batch.providers.anthropic import DEFAULT_MAX_TOKENS

        return int(bound or DEFAULT_MAX_TOKENS)
    if bound is not None and PROVIDERS[model.provider].format == "responses":
        from beam_batch.providers.responses import LEAST_OUTPUT_TOKENS

        return max(int(bound), LEAST_OUTPUT_TOKENS)
    return bound


def headers(model: ModelSpec, key: str | None, env: Mapping[str, str]) -> dict[str, str]:
    """Return the headers of every request to a model."""
    found = {"Content-Type": "application/json", "User-Agent": "beam-batch"}
    header = PROVIDERS[model.provider].key_header
    if key:
        found[header] = f"Bearer {key}" if header == "Authorization" else key
    if model.provider == "anthropic":
        found["anthropic-version"] = "2023-06-01"
    if model.provider in ("responses", "openai"):
        found |= {header: env[name] for name, header in _ACCOUNT.items() if env.get(name)}
    return found
