"""Hugging Face: what an hf:// name stands for, pinned to a commit."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from beam_batch.errors import OptionsError, first_line
from beam_batch.hubname import HubName, parse_hub_name

CONVERTED = "refs/convert/parquet"
"""Branch on which the Hub keeps the Parquet copy of a dataset (Hub docs, dataset viewer)."""
_SHA = re.compile(r"@[0-9a-f]{40}(/|$)")


def is_pinned(uri: str) -> bool:
    """Whether a Hub file is named with the commit that it is read at."""
    return uri.startswith("hf://") and _SHA.search(uri) is not None


def files(
    uri: str, suffixes: tuple[str, ...], compressions: tuple[str, ...], any_suffix: bool
) -> list[str]:
    """List the files that a Hub name stands for, each with the commit in its name.

    Raises:
        OptionsError: nothing is there, it is not for this token, or it is unclear what is meant.
    """
    if uri.startswith("hf://buckets/"):
        return _bucket_files(uri)
    name = parse_hub_name(uri, "--input")
    hub = _Hub(name)
    if name.path:
        return _named_files(hub, name)
    if name.config or name.split:
        return _converted_files(hub, name)
    ends = tuple(s + c for s in suffixes for c in ("", *compressions))
    commit = hub.commit(name.revision)
    data = [path for path in hub.paths(commit) if any_suffix or path.lower().endswith(ends)]
    if len(data) == 1:
        return [_pinned(name, commit, data[0])]
    if data:
        shown = ", ".join(data[:5]) + (f" and {len(data) - 5} more" if len(data) > 5 else "")
        raise OptionsError(
            f"--input {uri} holds {len(data)} data files: {shown}. Name one (a glob may name "
            "several), or the converted Parquet with ?config=C&split=S."
        )
    return _converted_files(hub, name)


def _pinned(name: HubName, commit: str, path: str) -> str:
    return f"hf://datasets/{name.repo}@{commit}/{path}"


def _named_files(hub: _Hub, name: HubName) -> list[str]:
    from fsspec.utils import glob_translate

    commit = hub.commit(name.revision)
    paths = hub.paths(commit)
    found = [path for path in paths if path == name.path]
    if not found:
        pattern = re.compile(glob_translate(name.path))
        found = [path for path in paths if pattern.match(path)]
    if not found:
        close = ", ".join(paths[:5])
        raise OptionsError(f"--input {name.uri}: no such file; the repository holds {close}.")
    return [_pinned(name, commit, path) for path in found]


def _converted_files(hub: _Hub, name: HubName) -> list[str]:
    """Choose from the converted Parquet, whose paths are ``config/split/0000.parquet``."""
    commit = hub.commit(CONVERTED)
    tables: dict[tuple[str, str], list[str]] = {}
    for path in hub.paths(commit):
        parts = path.split("/")
        if path.endswith(".parquet") and len(parts) == 3:
            tables.setdefault((parts[0], parts[1].removeprefix("partial-")), []).append(path)
    configs = sorted({config for config, _ in tables})
    config = name.config or (configs[0] if len(configs) == 1 else "default")
    if config not in configs:
        raise OptionsError(
            f"--input {name.uri}: no config {config!r}; there are {', '.join(configs) or 'none'}."
        )
    splits = sorted(split for found, split in tables if found == config)
    if name.split is not None and name.split not in splits:
        raise OptionsError(
            f"--input {name.uri}: no split {name.split!r}; there are {', '.join(splits)}."
        )
    wanted = splits if name.split is None else [name.split]
    return [_pinned(name, commit, path) for s in wanted for path in tables[config, s]]


def _bucket_files(uri: str) -> list[str]:
    from beam_batch.places.remote import filesystem_of

    filesystem = filesystem_of(uri)
    path = uri.removeprefix("hf://")
    found = _asked(lambda: sorted(filesystem.glob(path)), uri)
    if not found:
        raise OptionsError(f"--input {uri}: no file matches.")
    return [f"hf://{path}" for path in found]


class _Hub:
    """Asks the Hub about one repository."""

    def __init__(self, name: HubName) -> None:
        try:
            from huggingface_hub import HfApi
            from huggingface_hub.utils import logging

            logging.set_verbosity_error()  # its retries are told by ours, in one line
        except ImportError:
            raise OptionsError(
                f"--input {name.uri} needs the Hub's client: pip install 'beam-batch[hub]'."
            ) from None
        self._name = name
        self._api = HfApi()

    def commit(self, revision: str | None) -> str:
        """Return the commit that a revision stands for now."""
        info = _asked(
            lambda: self._api.dataset_info(self._name.repo, revision=revision), self._name.uri
        )
        return str(info.sha)

    def paths(self, commit: str) -> list[str]:
        """List the files of a commit, sorted."""
        found = _asked(
            lambda: self._api.list_repo_files(
                self._name.repo, repo_type="dataset", revision=commit
            ),
            self._name.uri,
        )
        return sorted(found)


def _asked(call: Callable[[], Any], uri: str) -> Any:
    """Call the Hub, and say in our words what it refuses."""
    from huggingface_hub import errors

    from beam_batch.places.remote import retried

    try:
        return retried(call, uri)
    except errors.GatedRepoError:
        reason = "is gated: accept its terms on the Hub, and set HF_TOKEN to a token of yours."
    except errors.RevisionNotFoundError:
        reason = "no such revision (a dataset without converted Parquet has no config or split)."
    except errors.RepositoryNotFoundError:
        reason = "no such dataset, or a private one: set HF_TOKEN to a token that may read it."
    except errors.EntryNotFoundError:
        reason = "no such file."
    except errors.HfHubHTTPError as error:
        reason = f"the Hub refuses: {first_line(error)}"
        if error.response is not None and error.response.status_code in (401, 403):
            reason += " Set HF_TOKEN to a token that may read it."
    except (FileNotFoundError, PermissionError) as error:
        reason = f"{first_line(error)}."
    raise OptionsError(f"--input {uri}: {reason}")
