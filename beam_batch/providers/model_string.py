"""Model strings: ``[provider.]model[?option=value&…]``, each option checked."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Container, Iterable, Mapping
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

from beam_batch.errors import OptionsError
from beam_batch.options import ModelSpec
from beam_batch.providers.table import PROVIDERS, ProviderInfo

PROVIDER_ALIASES = {"grok": "xai", "gemini": "google", "claude": "anthropic"}
"""Other names of providers."""
_ALIASES = {"temp": "temperature", "topP": "top_p", "topK": "top_k", "maxTokens": "max_tokens"}
_OPENAI_NAMES = ("gpt-", "o1", "o3", "o4", "chatgpt-")
_FAMILIES = {"claude-": "anthropic", "gemini-": "google", "grok-": "xai"}
"""Beginnings of model names that say whose they are."""
MODEL_ALIASES = {
    "gpt-mini": "responses.gpt-5.4-mini",
    "opus": "anthropic.claude-opus-5-5",
    "sonnet": "anthropic.claude-sonnet-5-5",
    "haiku": "anthropic.claude-haiku-5-5",
    "flash": "google.gemini-3.8-flash",
    "flash-lite": "google.gemini-3.5-flash-lite",
    "grok": "xai.grok-4.7",
}
"""Short names of models that are current now; any model goes by its own name as well."""
LOCAL_DEFAULTS = {"temperature": 0.0, "max_tokens": 512, "slots": 4, "ctx": 2048}


def chosen_model(given: str | None, env: Mapping[str, str], why: str = "") -> str:
    """Return the model string of a run: ``--model``, else that of the environment.

    Raises:
        OptionsError: there is neither; `why` may add who wants one.
    """
    found = given or env.get("BEAM_BATCH_MODEL")
    if not found:
        raise OptionsError(
            "--model is needed: provider.model, such as responses.gpt-5.4-mini; or set "
            f"BEAM_BATCH_MODEL.{why}"
        )
    return found


def resolve_model(
    text: str,
    env: Mapping[str, str],
    where: str = "--model",
    params: Mapping[str, Any] | None = None,
) -> ModelSpec:
    """Read a model string.

    Args:
        where: what names the model, for messages.
        params: further options, of a card; those of the model string come before them. echo, which
            stands in for any model, passes over those that it does not take.

    Raises:
        OptionsError: unknown provider or option, or a value that the option does not take.
    """
    name, _, query = text.partition("?")
    place = f"{where} {text}"
    provider, model = _provider_of(MODEL_ALIASES.get(name, name), place)
    info = PROVIDERS[provider]
    given = _options(provider, parse_qsl(query, keep_blank_values=True), place)
    added = _pairs(provider, params or {}, given)
    if added:
        text = f"{name}?{'&'.join(filter(None, (query, urlencode(added))))}"
    options = dict(LOCAL_DEFAULTS) if provider == "local" else {}
    options |= given | _options(provider, added, f"{where} {text}")
    return ModelSpec(
        text=text,
        provider=provider,
        model=model,
        base_url=_base_url(info, env),
        key_env=(info.key_env,) if info.key_env else (),
        options=options,
    )


def add_params(model: ModelSpec, params: Mapping[str, Any], where: str) -> ModelSpec:
    """Give a resolved model the options of a card that it does not have itself.

    Raises:
        OptionsError: as for `resolve_model`.
    """
    defaults = LOCAL_DEFAULTS.items() if model.provider == "local" else ()
    given = {name for name, value in model.options.items() if (name, value) not in defaults}
    added = _pairs(model.provider, params, given)
    if not added:
        return model
    text = f"{model.text}{'&' if '?' in model.text else '?'}{urlencode(added)}"
    options = {**model.options, **_options(model.provider, added, f"{where} {text}")}
    return dataclasses.replace(model, text=text, options=options)


def _pairs(
    provider: str, params: Mapping[str, Any], given: Container[str]
) -> list[tuple[str, str]]:
    """Write the options of a card as a model string does, without those that are given."""
    passed_over = params.keys() - PROVIDERS["echo"].options if provider == "echo" else ()
    return [
        (name, str(value).lower() if isinstance(value, bool) else str(value))
        for name, value in params.items()
        if name not in given and name not in passed_over
    ]


def _provider_of(name: str, place: str) -> tuple[str, str]:
    if name in ("echo", "local"):
        return name, {"echo": "echo", "local": "smollm2"}[name]
    if name.startswith(_OPENAI_NAMES):
        return "responses", name
    for start, provider in _FAMILIES.items():
        if name.startswith(start):
            return provider, name
    for separator in (".", "/"):
        provider, found, model = name.partition(separator)
        provider = PROVIDER_ALIASES.get(provider, provider)
        if found and provider in PROVIDERS:
            if not model:
                raise OptionsError(f"{place}: write a model after {provider}{separator}")
            return provider, model
    known = ", ".join(PROVIDERS)
    close = difflib.get_close_matches(name.split(".")[0], PROVIDERS, n=1)
    hint = f" Did you mean {close[0]}?" if close else ""
    raise OptionsError(f"{place}: write provider.model, with a provider out of {known}.{hint}")


def _options(provider: str, pairs: Iterable[tuple[str, str]], place: str) -> dict[str, Any]:
    table = PROVIDERS[provider].options
    values: dict[str, Any] = {}
    for given, value in pairs:
        name = _ALIASES.get(given, given)
        option = table.get(name)
        if option is None:
            takes = ", ".join(sorted(table))
            raise OptionsError(f"{place}: {provider} has no option {given!r}; it takes {takes}.")
        try:
            values[name] = option.parse(value)
        except ValueError:
            raise OptionsError(
                f"{place}: {given}={value} is not possible; {name} takes {option.takes}."
            ) from None
    return values


def _base_url(info: ProviderInfo, env: Mapping[str, str]) -> str:
    if info.base_url_env is None:
        return ""
    url = (env.get(info.base_url_env) or info.base_url).rstrip("/")
    if not url:
        raise OptionsError(f"set {info.base_url_env} to where requests go.")
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or not _has_good_port(url):
        raise OptionsError(f"{info.base_url_env} must be an http or https URL, got {url!r}.")
    if parts.username or parts.password:
        raise OptionsError(
            f"{info.base_url_env} must not hold a user name or password; use {info.key_env}."
        )
    return url


def _has_good_port(url: str) -> bool:
    try:
        return urlsplit(url).port != 0
    except ValueError:
        return False


def needs_key(model: ModelSpec) -> str | None:
    """Return the environment variable that must hold a key, or None."""
    info = PROVIDERS[model.provider]
    return info.key_env if info.key_required else None


def read_key(model: ModelSpec, env: Mapping[str, str]) -> str | None:
    """Read the key of a model from the environment, without white space around it.

    Raises:
        OptionsError: it cannot be a key; the message does not show it.
    """
    for name in model.key_env:
        key = (env.get(name) or "").strip()
        if key:
            if not (key.isascii() and key.isprintable()) or " " in key:
                raise OptionsError(f"{name} holds a character that no key has; set it anew.")
            return key
    return None
