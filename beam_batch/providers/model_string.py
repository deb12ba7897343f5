"""Model strings: ``[provider.]model[?option=value&…]``, each option checked."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, urlsplit

from beam_batch.errors import OptionsError
from beam_batch.options import ModelSpec


class Option(NamedTuple):
    """One option of a model string.

    Attributes:
        parse: turns text into the value; raises ValueError.
        takes: what it takes, in words, for messages and docs.
    """

    parse: Callable[[str], Any]
    takes: str


def _choice(*values: str, **aliases: str) -> Option:
    def parse(text: str) -> str:
        value = aliases.get(text.lower(), text.lower())
        if value not in values:
            raise ValueError
        return value

    return Option(parse, ", ".join(values))


def _number(low: float, high: float) -> Option:
    def parse(text: str) -> float:
        value = float(text)
        if not low <= value <= high:
            raise ValueError
        return value

    return Option(parse, f"a number from {low:g} to {high:g}")


def _whole(low: int, high: int | None = None) -> Option:
    def parse(text: str) -> int:
        value = int(text)
        if value < low or (high is not None and value > high):
            raise ValueError
        return value

    return Option(parse, f"a whole number of {low} or more" + (f", {high} at most" if high else ""))


_YES, _NO = (
    ("on", "true", "yes", "1", "enable", "enabled"),
    ("off", "false", "no", "0", "disable", "disabled"),
)


def _boolean(text: str) -> bool:
    if text.lower() not in _YES + _NO:
        raise ValueError
    return text.lower() in _YES


_SAMPLING = {"temperature": _number(0, 2), "top_p": _number(0, 1), "max_tokens": _whole(1)}
_PENALTIES = {
    "presence_penalty": _number(-2, 2),
    "frequency_penalty": _number(-2, 2),
    "seed": _whole(0),
}
_OPEN_SAMPLING = {"top_k": _whole(0), "min_p": _number(0, 1), "repetition_penalty": _number(0, 10)}
_THINKING = {
    "reasoning": _choice("none", "minimal", "low", "medium", "high", "xhigh", "max"),
    "verbosity": _choice("low", "medium", "high", med="medium"),
}
_TIER = {"service_tier": _choice("auto", "default", "flex", "priority", "fast")}
_TRANSPORT = {"transport": _choice("auto", "http", "sse")}


class ProviderInfo(NamedTuple):
    """What a provider is called with.

    Attributes:
        options: the model-string options it takes.
        base_url_env, base_url: variable that overrides where requests go, and the default.
        key_env: variable of the key; `key_required` says whether it must be set.
    """

    options: Mapping[str, Option]
    base_url_env: str | None = None
    base_url: str = ""
    key_env: str | None = None
    key_required: bool = False


_OPENAI_URL = ("OPENAI_BASE_URL", "https://api.openai.com/v1", "OPENAI_API_KEY", True)

PROVIDERS: dict[str, ProviderInfo] = {
    "responses": ProviderInfo(
        _SAMPLING | _THINKING | _TIER | _TRANSPORT | {"web_search": Option(_boolean, "on or off")},
        *_OPENAI_URL,
    ),
    "openai": ProviderInfo(_SAMPLING | _PENALTIES | _THINKING | _TIER | _TRANSPORT, *_OPENAI_URL),
    "generic": ProviderInfo(
        _SAMPLING
        | _PENALTIES
        | _OPEN_SAMPLING
        | _TRANSPORT
        | {"reasoning": _THINKING["reasoning"]},
        "GENERIC_BASE_URL",
        "http://localhost:11434/v1",
        "GENERIC_API_KEY",
    ),
    "local": ProviderInfo(
        _SAMPLING
        | _PENALTIES
        | _OPEN_SAMPLING
        | _TRANSPORT
        | {"slots": _whole(1, 64), "ctx": _whole(128), "threads": _whole(1, 256)}
    ),
    "echo": ProviderInfo({"delay_ms": _number(0, 600_000), "spin_ms": _number(0, 600_000)}),
}
_ALIASES = {"temp": "temperature", "topP": "top_p", "topK": "top_k", "maxTokens": "max_tokens"}
_OPENAI_NAMES = ("gpt-", "o1", "o3", "o4", "chatgpt-")
LOCAL_DEFAULTS = {"temperature": 0.0, "max_tokens": 512, "slots": 4, "ctx": 2048}


def resolve_model(text: str, env: Mapping[str, str]) -> ModelSpec:
    """Read a model string.

    Raises:
        OptionsError: unknown provider or option, or a value that the option does not take.
    """
    name, _, query = text.partition("?")
    provider, model = _provider_of(name, text)
    info = PROVIDERS[provider]
    options = dict(LOCAL_DEFAULTS) if provider == "local" else {}
    options |= _options(provider, query, text)
    return ModelSpec(
        text=text,
        provider=provider,
        model=model,
        base_url=_base_url(info, env),
        key_env=(info.key_env,) if info.key_env else (),
        options=options,
    )


def _provider_of(name: str, text: str) -> tuple[str, str]:
    if name in ("echo", "local"):
        return name, {"echo": "echo", "local": "smollm2"}[name]
    if name.startswith(_OPENAI_NAMES):
        return "responses", name
    for separator in (".", "/"):
        provider, found, model = name.partition(separator)
        if found and provider in PROVIDERS:
            if not model:
                raise OptionsError(f"--model {text}: write a model after {provider}{separator}")
            return provider, model
    known = ", ".join(PROVIDERS)
    close = difflib.get_close_matches(name.split(".")[0], PROVIDERS, n=1)
    hint = f" Did you mean {close[0]}?" if close else ""
    raise OptionsError(
        f"--model {text}: write provider.model, with a provider out of {known}.{hint}"
    )


def _options(provider: str, query: str, text: str) -> dict[str, Any]:
    table = PROVIDERS[provider].options
    values: dict[str, Any] = {}
    for given, value in parse_qsl(query, keep_blank_values=True):
        name = _ALIASES.get(given, given)
        option = table.get(name)
        if option is None:
            takes = ", ".join(sorted(table))
            raise OptionsError(
                f"--model {text}: {provider} has no option {given!r}; it takes {takes}."
            )
        try:
            values[name] = option.parse(value)
        except ValueError:
            raise OptionsError(
                f"--model {text}: {given}={value} is not possible; {name} takes {option.takes}."
            ) from None
    return values


def _base_url(info: ProviderInfo, env: Mapping[str, str]) -> str:
    if info.base_url_env is None:
        return ""
    url = (env.get(info.base_url_env) or info.base_url).rstrip("/")
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
