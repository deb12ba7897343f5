"""From what a user names (files, folders, the Hub, URLs) to the texts of cards."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit

from beam_batch.errors import OptionsError, first_line

MARKDOWN = (".md", ".markdown")
SUFFIXES = (*MARKDOWN, ".yaml", ".yml")
LARGEST = 1 << 20
"""Bytes of one card."""
ATTEMPTS = 3
_HUB = re.compile(
    r"hf://(?:(datasets|models|spaces)/)?((?!(?:datasets|models|spaces)/)[^/@]+/[^/@]+)(?:@((?:refs/(?:convert|pr)/)?[^/]+))?/(.+)"
)


class CardText(NamedTuple):
    """One card as it stands.

    Attributes:
        source: path or URL; of a file on the Hub with its commit.
        is_remote: whether somebody else may have written it.
        folder: where its relative paths begin: its own, or for a remote card the current one.
    """

    source: str
    text: str
    is_remote: bool
    folder: Path

    @property
    def stem(self) -> str:
        """The file's name without its suffix."""
        return Path(unquote(urlsplit(self.source).path) if self.is_remote else self.source).stem

    @property
    def is_markdown(self) -> bool:
        """Whether it has front matter and a body, rather than YAML alone."""
        return _suffix(self.source) in MARKDOWN


def read_cards(values: Sequence[str]) -> list[CardText]:
    """Read all ``--agent-card`` values: in the order given, a folder's cards sorted.

    Raises:
        OptionsError: one is not there, cannot be read, or is no card by its suffix.
    """
    return [card for value in values for card in _cards(value)]


def has_front_matter(text: str) -> bool:
    """Whether a Markdown text begins with ``---``."""
    return text.split("\n", 1)[0].rstrip() == "---"


def shown(value: str) -> str:
    """Return a card's name without the query of a URL, which may hold a token."""
    return value.split("?", 1)[0] if "://" in value else value


def _cards(value: str) -> list[CardText]:
    if value.startswith("hf://"):
        return _hub_cards(value)
    if "://" in value and not value.startswith("file://"):
        return [_url_card(value)]
    path = Path(value.removeprefix("file://"))
    if path.is_dir():
        return _folder_cards(path)
    return [_local_card(path)]


def _suffix(source: str) -> str:
    path = urlsplit(source).path if "://" in source else source
    return Path(path).suffix.lower()


def _folder_cards(folder: Path) -> list[CardText]:
    """Read the cards of a folder; Markdown without front matter is none."""
    files = sorted(
        path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES and path.is_file()
    )
    found = [_local_card(path) for path in files if not path.name.startswith(".")]
    return _cards_among(found, str(folder))


def _cards_among(found: list[CardText], folder: str) -> list[CardText]:
    cards = [card for card in found if not card.is_markdown or has_front_matter(card.text)]
    if not cards:
        raise OptionsError(
            f"--agent-card {folder}: the folder holds no card; cards are .yaml files, and .md "
            "files that begin with ---."
        )
    return cards


def _local_card(path: Path) -> CardText:
    _check_suffix(str(path))
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise OptionsError(f"--agent-card {path}: no such file.") from None
    except OSError as error:
        raise OptionsError(f"--agent-card {path}: cannot be read ({error.strerror}).") from None
    return CardText(str(path), _text(data, str(path)), False, path.absolute().parent)


def _check_suffix(source: str) -> None:
    if _suffix(source) not in SUFFIXES:
        raise OptionsError(
            f"--agent-card {source}: unknown suffix; a card is one of {', '.join(SUFFIXES)}."
        )


def _text(data: bytes, source: str) -> str:
    if len(data) > LARGEST:
        raise OptionsError(f"--agent-card {source}: larger than {LARGEST >> 20} MiB; no card is.")
    try:
        return data.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        raise OptionsError(f"--agent-card {source}: not UTF-8 ({error.reason}).") from None


def _url_card(url: str) -> CardText:
    name = shown(url)
    if "@" in urlsplit(url).netloc:
        raise OptionsError("--agent-card: a URL must not hold a user name or password.")
    _check_suffix(name)
    try:
        import fsspec

        filesystem = fsspec.filesystem(urlsplit(url).scheme)
    except (ImportError, ValueError) as error:
        raise OptionsError(
            f"--agent-card {name}: {first_line(error)}; name a file, a folder, hf:// or https://."
        ) from None
    data = _fetched(lambda: filesystem.cat_file(url), name)
    return CardText(name, _text(data, name), True, Path.cwd())


def _hub_cards(uri: str) -> list[CardText]:
    """Read a card of the Hub, or the cards of a folder there, at the commit that is current."""
    match = _HUB.fullmatch(uri)
    if match is None:
        raise OptionsError(
            f"--agent-card {uri}: write hf://datasets/owner/name/path, or models or spaces for "
            "datasets."
        )
    try:
        from huggingface_hub import HfApi, HfFileSystem
    except ImportError:
        raise OptionsError(
            f"--agent-card {uri} needs the Hub's client: pip install 'beam-batch[hub]'."
        ) from None
    kind, repo, revision, path = match[1] or "models", match[2], match[3], match[4].strip("/")
    api, repo_type = HfApi(), kind.removesuffix("s")
    commit = _fetched(lambda: api.repo_info(repo, repo_type=repo_type, revision=revision).sha, uri)
    names = _fetched(lambda: api.list_repo_files(repo, repo_type=repo_type, revision=commit), uri)
    files = [path] if path in names else _cards_below(path, names)
    if not files:
        raise OptionsError(f"--agent-card {uri}: no such file, and no folder with cards.")
    place = ("" if kind == "models" else f"{kind}/") + f"{repo}@{commit}"

    def read(name: str) -> CardText:
        source = f"hf://{place}/{name}"
        _check_suffix(source)
        data = _fetched(lambda: HfFileSystem().cat_file(f"{place}/{name}"), source)
        return CardText(source, _text(data, source), True, Path.cwd())

    found = [read(name) for name in files]
    return found if path in names else _cards_among(found, uri)


def _cards_below(folder: str, names: Sequence[str]) -> list[str]:
    return sorted(
        name
        for name in names
        if name.rpartition("/")[0] == folder and Path(name).suffix.lower() in SUFFIXES
    )


def _fetched(call: Callable[[], Any], source: str) -> Any:
    """Call something remote, again where that may help, and say in our words what it refuses."""
    import tenacity

    try:
        return tenacity.Retrying(
            stop=tenacity.stop_after_attempt(ATTEMPTS),
            wait=tenacity.wait_exponential(multiplier=0.5),
            retry=tenacity.retry_if_exception(_may_pass),
            reraise=True,
        )(call)
    except FileNotFoundError:
        reason = "no such file"
    except Exception as error:  # clients of stores raise what they like
        reason = first_line(error)
        if source.startswith("hf://") and _status(error) in (401, 403, 404):
            reason = "no such repository or revision, or a private or gated one: set HF_TOKEN"
    raise OptionsError(f"--agent-card {source}: cannot be read ({reason}).")


def _may_pass(error: BaseException) -> bool:
    if isinstance(error, (FileNotFoundError, PermissionError, ImportError, ValueError)):
        return False
    return isinstance(error, Exception) and _status(error) not in range(400, 500)


def _status(error: BaseException) -> int | None:
    response = getattr(error, "response", None)
    found = getattr(response, "status_code", None) or getattr(error, "status", None)
    return found if isinstance(found, int) else None
