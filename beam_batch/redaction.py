"""Secrets out of texts that are shown or kept."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable

SHORTEST_SECRET = 8
"""Characters; a shorter key, such as the EMPTY that local servers are given, is a word that may
stand in an answer.
"""
_SECRETS = re.compile(r"\b(sk-|Bearer\s+)[A-Za-z0-9_\-*.]{4,}")
_AUTHORIZATION = re.compile(
    r"(?i)\b(authorization\\?[\"']?\s*[:=]\s*\\?[\"']?(?:basic|bearer|digest|token|apikey)\s+)"
    r"[^\s\"'\\,;]+"
)
_SCHEME = re.compile(r"(?i)^(?:basic|bearer|digest|token|apikey)\s+")
_SECRET_NAME = re.compile(
    r"""(?ix)
    (^|[_-]) (authorization|cookie|pass|pat|pw)$
    | [_-]pwd$  # PWD itself is a folder
    | (token|secret|password|passwd|passphrase|(db|pg|sql)pass)$
    | (^|[_-]|api|access|secret|private) (?<!public.)(?<!primary.)(?<!foreign.)(?<!partition.)
      (?<!sort.)(?<!cache.) key$
    """
)


def names_secret(name: str) -> bool:
    """Whether what stands under the name of a variable or a header is a secret, by convention.

    >>> [names_secret(name) for name in ("AWS_SECRET_ACCESS_KEY", "PGPASSWORD", "PWD", "SORT_KEY")]
    [True, True, False, False]
    """
    return bool(_SECRET_NAME.search(name))


def secret_of(key: str | None) -> str | None:
    """Return a key that must not be shown, or None."""
    return key if key and len(key) >= SHORTEST_SECRET else None


def redact(text: str, key: str | None) -> str:
    """Take keys out of a text."""
    if key:
        text = text.replace(key, "***")
    if "sk-" in text or "Bearer" in text:  # a hundredth of what the search takes
        text = _SECRETS.sub(r"\1***", text)
    return text


def redactor(secrets: Iterable[str | None]) -> Callable[[str], str]:
    """Return what takes all of these out of a text, and whatever looks like a key.

    Each is known as it is and as JSON writes it, which is how it comes in a tool's arguments; of a
    header's value, such as ``Bearer KEY``, also what stands behind the scheme.
    """
    known = {form for secret in secrets if secret_of(secret) for form in _forms(str(secret))}
    longest_first = sorted(known, key=len, reverse=True)

    def clean(text: str) -> str:
        for secret in longest_first:
            text = text.replace(secret, "***")
        if "authorization" in text.lower():
            text = _AUTHORIZATION.sub(r"\1***", text)
        return redact(text, None)

    return clean


def _forms(secret: str) -> set[str]:
    bare = _SCHEME.sub("", secret)
    texts = {secret, bare} if secret_of(bare) else {secret}
    escaped = {
        json.dumps(text, ensure_ascii=ascii)[1:-1] for text in texts for ascii in (False, True)
    }
    return texts | escaped
