"""The key of a request: equal where the answers may be, different where anything else differs."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import orjson

from beam_batch import jsonio
from beam_batch.options import ModelSpec
from beam_batch.providers import PROVIDERS
from beam_batch.providers.base import Request

KEY_BYTES = 16
NO_MATTER = frozenset(("stream", "stream_options", "service_tier", "prompt_cache_key"))
"""Members of a body that change how an answer comes and what it costs, not what it is."""
_SORTED = orjson.OPT_SORT_KEYS | orjson.OPT_NON_STR_KEYS


class Keys:
    """Makes the keys of one model's requests.

    A key is a digest of provider, wire format, base URL, model and body. The path is left out: of
    Gemini it differs between streamed and whole answers, and what else it says is the model. Of a
    local model, whose server has another port each time, the base URL is left out, and the size
    and time of its file and its `ctx` come in. Keys of accounts are in no request body.
    """

    def __init__(self, model: ModelSpec) -> None:
        place: list[Any] = [model.base_url]
        if model.provider == "local":
            place = [model.options.get("ctx"), *_mark(Path(model.model).expanduser())]
        wire = PROVIDERS[model.provider].format
        start = jsonio.dumps([model.provider, wire, model.model, *place])
        self._start = hashlib.blake2b(start + b"\n", digest_size=KEY_BYTES)

    def of(self, request: Request) -> bytes:
        """Return the key of a request, 16 bytes."""
        body = {name: value for name, value in request.body.items() if name not in NO_MATTER}
        digest = self._start.copy()
        digest.update(_canonical(body))
        return digest.digest()


def request_key(model: ModelSpec, request: Request) -> bytes:
    """Return the key of one request; `Keys` is faster for many."""
    return Keys(model).of(request)


def _canonical(body: dict[str, Any]) -> bytes:
    try:
        return orjson.dumps(body, option=_SORTED)
    except TypeError:  # integers beyond 64 bits, lone surrogates
        return json.dumps(body, sort_keys=True, default=str).encode()


def _mark(path: Path) -> tuple[int, ...]:
    """Return what tells one file of weights from the next under the same name."""
    try:
        stat = path.stat()
    except OSError:  # a packaged model, or one on the Hub
        return ()
    return stat.st_size, stat.st_mtime_ns
