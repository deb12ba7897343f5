"""Names of datasets on the Hugging Face Hub, as inputs and outputs write them."""

from __future__ import annotations

import re
from typing import NamedTuple
from urllib.parse import parse_qsl, unquote

from beam_batch.errors import OptionsError

_NAME = re.compile(r"([^/@]+(?:/[^/@]+)?)(?:@((?:refs/(?:convert|pr)/)?[^/]+))?(?:/(.*))?")


class HubName(NamedTuple):
    """The parts of ``hf://datasets/owner/name[@revision][/path][?config=C&split=S]``."""

    uri: str
    repo: str
    revision: str | None
    path: str
    config: str | None
    split: str | None


def parse_hub_name(uri: str, flag: str) -> HubName:
    """Take a Hub name apart.

    Raises:
        OptionsError: it is no name of a dataset, or its query says something unknown.
    """
    body, _, query = uri.removeprefix("hf://").partition("?")
    kind, _, rest = body.partition("/")
    if kind != "datasets" or not rest.strip("/"):
        raise OptionsError(
            f"{flag} {uri}: write hf://datasets/owner/name, with ?config=C&split=S or a file's "
            "path behind it."
        )
    match = _NAME.fullmatch(rest)
    if match is None:
        raise OptionsError(f"{flag} {uri}: not a name of a dataset on the Hub.")
    revision = unquote(match[2]) if match[2] else None
    options = _query(f"{flag} {uri}", query)
    name = HubName(uri, match[1], revision, (match[3] or "").strip("/"), **options)
    if name.path and (name.config or name.split):
        raise OptionsError(f"{flag} {uri}: config and split go with a repository, not a file.")
    return name


def _query(where: str, query: str) -> dict[str, str | None]:
    found: dict[str, str | None] = {"config": None, "split": None}
    for key, value in parse_qsl(query, keep_blank_values=True):
        if key not in found:
            raise OptionsError(f"{where}: unknown {key!r}; a query takes config and split.")
        if not value or found[key] is not None:
            raise OptionsError(f"{where}: {key} needs one value.")
        found[key] = value
    return found
