"""The table of providers: what each is called with, and which options it takes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple


class Option(NamedTuple):
    """One option of a model string.

    Attributes:
        parse: turns text into the value; raises ValueError.
        takes: what it takes, in words, for messages and docs.
        changes_answers: whether answers under another value are other answers. How they come and
            what they cost does not.
    """

    parse: Callable[[str], Any]
    takes: str
    changes_answers: bool = True


def _choice(*values: str, **aliases: str) -> Option:
    def parse(text: str) -> str:
        value = aliases.get(text.lower(), text.lower())
        if value not in values:
            raise ValueError
        return value

    return Option(parse, ", ".join(values))


def _same(option: Option) -> Option:
    """Mark an option as one that does not change answers."""
    return option._replace(changes_answers=False)


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
_TIER = {"service_tier": _same(_choice("auto", "default", "flex", "priority", "fast"))}
_TRANSPORT = {"transport": _same(_choice("auto", "http", "sse"))}
_SOCKETS = {"transport": _same(_choice("auto", "http", "sse", "websocket", ws="websocket"))}


class ProviderInfo(NamedTuple):
    """What a provider is called with.

    Attributes:
        options: the model-string options it takes.
        base_url_env, base_url: variable that overrides where requests go, and the default.
        key_env: variable of the key; `key_required` says whether it must be set.
        format: the wire format: responses, chat, anthropic, google or echo.
        takes_cache_key: whether a request may carry OpenAI's prompt_cache_key.
        key_header: header that carries the key; Authorization carries it as a bearer.
        prefers_websocket: whether transport=auto tries a WebSocket before HTTP.
    """

    options: Mapping[str, Option]
    base_url_env: str | None = None
    base_url: str = ""
    key_env: str | None = None
    key_required: bool = False
    format: str = "chat"
    key_header: str = "Authorization"
    takes_cache_key: bool = False
    prefers_websocket: bool = False


_OPENAI_URL = ("OPENAI_BASE_URL", "https://api.openai.com/v1", "OPENAI_API_KEY", True)

_SEARCH = {"web_search": Option(_boolean, "on or off")}


def _compatible(name: str, url: str, key_env: str | None = None) -> ProviderInfo:
    """Describe a provider that speaks Chat Completions, with open sampling options."""
    options = _SAMPLING | _PENALTIES | _OPEN_SAMPLING | _TRANSPORT
    options |= {"reasoning": _THINKING["reasoning"]}
    return ProviderInfo(
        options, f"{name}_BASE_URL", url, key_env or f"{name}_API_KEY", key_required=True
    )


PROVIDERS: dict[str, ProviderInfo] = {
    "responses": ProviderInfo(
        _SAMPLING | _THINKING | _TIER | _SOCKETS | _SEARCH,
        *_OPENAI_URL,
        format="responses",
        takes_cache_key=True,
        prefers_websocket=True,
    ),
    "openai": ProviderInfo(
        _SAMPLING | _PENALTIES | _THINKING | _TIER | _TRANSPORT,
        *_OPENAI_URL,
        takes_cache_key=True,
    ),
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
        | {"slots": _same(_whole(1, 64)), "ctx": _whole(128), "threads": _same(_whole(1, 256))}
    ),
    "anthropic": ProviderInfo(
        _SAMPLING
        | _TRANSPORT
        | _SEARCH
        | {
            "top_k": _whole(0),
            "reasoning": _choice("none", "low", "medium", "high", "xhigh", "max"),
            "service_tier": _same(_choice("auto", "default", "priority", "fast")),
        },
        "ANTHROPIC_BASE_URL",
        "https://api.anthropic.com/v1",
        "ANTHROPIC_API_KEY",
        key_required=True,
        format="anthropic",
        key_header="x-api-key",
    ),
    "google": ProviderInfo(
        _SAMPLING
        | _PENALTIES
        | _TRANSPORT
        | _SEARCH
        | {
            "top_k": _whole(0),
            "reasoning": _choice("none", "minimal", "low", "medium", "high", "xhigh"),
        },
        "GEMINI_BASE_URL",
        "https://generativelanguage.googleapis.com/v1beta",
        "GEMINI_API_KEY",
        key_required=True,
        format="google",
        key_header="x-goog-api-key",
    ),
    "xai": ProviderInfo(
        _SAMPLING | _THINKING | _SOCKETS | _SEARCH,
        "XAI_BASE_URL",
        "https://api.x.ai/v1",
        "XAI_API_KEY",
        key_required=True,
        format="responses",
        prefers_websocket=True,
    ),
    "openresponses": ProviderInfo(
        _SAMPLING | _THINKING | _TIER | _SOCKETS | _SEARCH,
        "OPENRESPONSES_BASE_URL",
        "http://localhost:8080/v1",
        "OPENRESPONSES_API_KEY",
        format="responses",
    ),
    "azure": ProviderInfo(
        _SAMPLING | _THINKING | _TIER | _TRANSPORT,
        "AZURE_OPENAI_BASE_URL",
        "",
        "AZURE_OPENAI_API_KEY",
        key_required=True,
        format="responses",
        key_header="api-key",
        takes_cache_key=True,
    ),
    "openrouter": _compatible("OPENROUTER", "https://openrouter.ai/api/v1"),
    "groq": _compatible("GROQ", "https://api.groq.com/openai/v1"),
    "deepseek": _compatible("DEEPSEEK", "https://api.deepseek.com/v1"),
    "hf": _compatible("HF", "https://router.huggingface.co/v1", "HF_TOKEN"),
    "echo": ProviderInfo(
        {"delay_ms": _same(_number(0, 600_000)), "spin_ms": _same(_number(0, 600_000))},
        format="echo",
    ),
}
