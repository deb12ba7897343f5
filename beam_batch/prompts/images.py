"""Images of a row: a URL, a data: URL, a file under --files-root, or the bytes of a column."""

from __future__ import annotations

import base64
import binascii
import os
from typing import Any

from beam_batch.errors import InvalidImage
from beam_batch.records import Image

LARGEST = 20 << 20
"""Bytes of an image; more than any provider takes (OpenAI: 50 MB a request, Anthropic: 5 MB)."""
TYPES = ("image/png", "image/jpeg", "image/gif", "image/webp")
"""What all providers of images take."""
_DATA = "data:"


def to_image(field: str, value: Any, files_root: str | None) -> Image:
    """Make an image of a field's value.

    A URL is passed on, and the provider fetches it; a path counts only below `files_root`.

    Raises:
        InvalidImage: there is none, it is too large, no image, or outside of `files_root`.
    """
    if isinstance(value, dict):  # how Hugging Face stores images: {"bytes": …, "path": …}
        value = value.get("bytes") or value.get("path")
    if not isinstance(value, str) or not value:
        raise InvalidImage(f"field {field!r} holds no image but {type(value).__name__}")
    if value.startswith(("https://", "http://")):
        return Image(value, None, None)
    if value.startswith(_DATA):
        return _checked(field, _decoded(field, value))
    return _checked(field, _read(field, value, files_root))


def _decoded(field: str, value: str) -> bytes:
    head, _, data = value.partition(",")
    if not head.endswith(";base64"):
        raise InvalidImage(f"field {field!r}: a data: URL that is not base64")
    try:
        return base64.b64decode(data, validate=True)
    except binascii.Error as error:
        raise InvalidImage(f"field {field!r}: not base64: {error}") from None


def _read(field: str, value: str, files_root: str | None) -> bytes:
    if files_root is None:
        raise InvalidImage(
            f"field {field!r} is {value!r:.80}: a path counts only with --files-root"
        )
    root = os.path.realpath(files_root)
    try:
        path = os.path.realpath(os.path.join(root, value))
        if not path.startswith(root + os.sep):
            raise InvalidImage(f"field {field!r}: {value!r:.80} is outside of --files-root")
        if not os.path.isfile(path):
            raise InvalidImage(f"field {field!r}: no file {value!r:.80} below --files-root")
        if os.path.getsize(path) > LARGEST:
            raise InvalidImage(f"field {field!r}: larger than {LARGEST >> 20} MB")
        with open(path, "rb") as file:
            return file.read()
    except (OSError, ValueError) as error:
        raise InvalidImage(f"field {field!r}: {value!r:.80} cannot be read ({error})") from None


def _checked(field: str, data: bytes) -> Image:
    import puremagic

    if len(data) > LARGEST:
        raise InvalidImage(f"field {field!r}: larger than {LARGEST >> 20} MB")
    try:
        kind = puremagic.from_string(data[:4096], mime=True)
    except (puremagic.PureError, ValueError):
        kind = ""
    if kind not in TYPES:
        raise InvalidImage(f"field {field!r}: no PNG, JPEG, GIF or WebP image")
    return Image(None, kind, base64.b64encode(data).decode())
