"""A Hugging Face Hub on the loopback address: the routes that huggingface_hub reads datasets by.

Routes, redirects apart, are those of the Hub: info and tree of a dataset, model or space at a
revision, paths-info, and its bytes by range. Of a gated dataset everybody may see the names, of a
private one nobody without a token that may read it; X-Error-Code says why something is refused.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from aiohttp import web

from tests.fakes import LoopbackServer
from tests.support import ROOT, environment

CONVERTED = "refs/convert/parquet"
ALIASES = {"~parquet": CONVERTED}
KINDS = ("datasets", "models", "spaces")
DROP, CUT = -1, -2
"""What a script may say besides a status: close without an answer, or in the midst of the body."""

Files = dict[str, bytes]


@dataclass(frozen=True)
class Asked:
    """One request. `path` is decoded; `range` is the header's, '' for none."""

    method: str
    path: str
    range: str
    authorization: str

    @property
    def is_bytes(self) -> bool:
        return self.method == "GET" and "/resolve/" in self.path

    @property
    def span(self) -> tuple[int, int]:
        """First byte asked for, and the one behind the last."""
        first, _, last = self.range.removeprefix("bytes=").partition("-")
        return int(first), int(last) + 1


@dataclass
class Dataset:
    """A repository: its commits, and the commit at the head of each branch.

    Attributes:
        readers: tokens that may read it where it is private or gated.
    """

    commits: dict[str, Files] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    private: bool = False
    gated: bool = False
    readers: tuple[str, ...] = ()


class Refusal(Exception):
    """An error as the Hub answers it."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


Verdict = int | Refusal
Script = Callable[[Asked], Verdict]


class Hub(LoopbackServer):
    """Use as a context manager. What was asked is kept in `log`.

    Attributes:
        tokens: tokens that belong to somebody; any other one is refused.
        script: decides each request: 0 to answer it, a status or a Refusal, DROP or CUT.
        page_size: entries of a tree that one answer holds.
    """

    def __init__(self, tokens: tuple[str, ...] = ()) -> None:
        super().__init__()
        self.tokens = tokens
        self.script: Script = lambda asked: 0
        self.page_size = 1000
        self.log: list[Asked] = []
        self._datasets: dict[str, Dataset] = {}

    def add(self, repo: str, files: Files, converted: Files | None = None, **rights: Any) -> str:
        """Make a dataset, with its Parquet copy where one is given; return the commit of main.

        A model or a space is named with models/ or spaces/ before it.
        """
        self._datasets[repo] = Dataset(**rights)
        if converted is not None:
            self.commit(repo, converted, CONVERTED)
        return self.commit(repo, files)

    def commit(self, repo: str, files: Files, branch: str = "main") -> str:
        """Move a branch to a commit of these files alone; return the commit."""
        dataset = self._datasets[repo]
        names = f"{repo} {branch} {len(dataset.commits)} {sorted(files)}"
        sha = hashlib.sha1(names.encode()).hexdigest()
        dataset.commits[sha] = dict(files)
        dataset.branches[branch] = sha
        return sha

    def remove(self, repo: str) -> Dataset:
        """Delete a dataset; `restore` takes what this returns."""
        return self._datasets.pop(repo)

    def dataset(self, repo: str) -> Dataset:
        return self._datasets[repo]

    def restore(self, repo: str, dataset: Dataset) -> None:
        self._datasets[repo] = dataset

    def environment(self, home: Path, **extra: str) -> dict[str, str]:
        """Return an environment whose Hub is this one, and whose user's files are in a folder."""
        kept = {
            name: value
            for name, value in environment().items()
            if not name.startswith(("HF_", "HUGGING"))
        }
        return kept | {
            "HF_ENDPOINT": self.url,
            "HF_HOME": str(home / "hf-home"),
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_XET": "1",
            **extra,
        }

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        parts = [unquote(part) for part in request.rel_url.raw_path.strip("/").split("/")]
        asked = Asked(
            request.method,
            "/" + "/".join(parts),
            request.headers.get("Range", ""),
            request.headers.get("Authorization", ""),
        )
        self.log.append(asked)
        verdict = self.script(asked)
        if verdict == DROP:
            assert request.transport is not None
            request.transport.abort()
            return web.Response()
        if isinstance(verdict, int) and verdict > 0:
            return web.json_response({"error": "scripted"}, status=verdict)
        try:
            if isinstance(verdict, Refusal):
                raise verdict
            response = self._answer(request, await request.read(), asked, parts)
        except Refusal as error:
            headers = {"X-Error-Message": str(error)}
            if error.code:
                headers["X-Error-Code"] = error.code
            return web.json_response({"error": str(error)}, status=error.status, headers=headers)
        if verdict == CUT:
            return await self._cut(request, response)
        return response

    async def _cut(self, request: web.Request, response: web.Response) -> web.StreamResponse:
        assert isinstance(response.body, bytes)
        assert request.transport is not None
        cut = web.StreamResponse(status=response.status, headers=response.headers)
        cut.content_length = len(response.body)
        await cut.prepare(request)
        await cut.write(response.body[: len(response.body) // 2])
        request.transport.abort()
        return cut

    def _answer(
        self, request: web.Request, body: bytes, asked: Asked, parts: list[str]
    ) -> web.Response:
        is_api = parts[0] == "api"
        kind, *rest = parts[1:] if is_api else parts
        if is_api and (kind, rest) == ("repos", ["create"]):
            return self._create(asked, json.loads(body))
        if not is_api and kind not in KINDS:
            kind, rest = "models", parts
        if kind not in KINDS or len(rest) < 2:
            return web.json_response({"error": "not a route of this Hub"}, status=404)
        repo = "/".join(rest[:2])
        repo = repo if kind == "datasets" else f"{kind}/{repo}"
        verb, revision, path = _revision_of(rest[2:])
        dataset = self._open(repo, asked, wants_bytes=verb == "resolve")
        if verb in ("preupload", "commit"):
            return self._write(repo, dataset, verb, revision, asked, body)
        commit = _commit_of(dataset, revision)
        files = dataset.commits[commit]
        if not is_api and verb == "resolve":
            return _bytes_of(files, path, commit, asked)
        if verb in ("", "revision"):
            return web.json_response(_info(repo, dataset, commit))
        if verb == "tree":
            return self._tree(request, files, path)
        assert verb == "paths-info", verb
        named = json.loads(body)["paths"]
        everything = _entries(files, "", recursive=True)
        return web.json_response([entry for entry in everything if entry["path"] in named])

    def _open(self, repo: str, asked: Asked, wants_bytes: bool) -> Dataset:
        """Return a dataset to those who may see it."""
        token = asked.authorization.removeprefix("Bearer ")
        if token and token not in self.tokens:
            raise Refusal(401, "", "Invalid credentials in Authorization header")
        dataset = self._datasets.get(repo)
        refused = dataset is None or token not in dataset.readers
        if dataset is None or (dataset.private and refused):
            raise Refusal(404 if token else 401, "RepoNotFound", "Repository not found")
        if dataset.gated and refused and wants_bytes:
            message = f"Access to dataset {repo} is restricted."
            raise Refusal(403 if token else 401, "GatedRepo", message)
        return dataset

    def _create(self, asked: Asked, wanted: dict[str, Any]) -> web.Response:
        """Make an empty dataset that belongs to whoever asks."""
        token = asked.authorization.removeprefix("Bearer ")
        if token not in self.tokens:
            raise Refusal(401, "", "Invalid username or password.")
        repo = f"{wanted['organization']}/{wanted['name']}"
        if repo in self._datasets:
            raise Refusal(409, "", "You already created this dataset repo")
        private = "private" in (wanted.get("visibility"), wanted.get("private") and "private")
        self.add(repo, {}, private=private, readers=(token,))
        return web.json_response({"url": f"{self.url}/datasets/{repo}", "name": repo})

    def _write(
        self, repo: str, dataset: Dataset, verb: str, branch: str, asked: Asked, body: bytes
    ) -> web.Response:
        """Take a commit of small files, as a client sends it: asked for modes first, then lines."""
        if asked.authorization.removeprefix("Bearer ") not in dataset.readers:
            raise Refusal(403, "", "You may not write to this dataset")
        if verb == "preupload":
            modes = [
                {"path": file["path"], "uploadMode": "regular", "shouldIgnore": False, "oid": None}
                for file in json.loads(body)["files"]
            ]
            return web.json_response({"files": modes})
        files = dict(dataset.commits[dataset.branches[branch]])
        for line in map(json.loads, body.splitlines()):
            if line["key"] == "file":
                files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            elif line["key"] == "deletedFile":
                del files[line["value"]["path"]]
        sha = self.commit(repo, files, branch)
        url = f"{self.url}/datasets/{repo}/commit/{sha}"
        return web.json_response({"success": True, "commitOid": sha, "commitUrl": url})

    def files(self, repo: str, branch: str = "main") -> Files:
        """Return what stands at the head of a branch."""
        dataset = self._datasets[repo]
        return dataset.commits[dataset.branches[branch]]

    def _tree(self, request: web.Request, files: Files, path: str) -> web.Response:
        recursive = request.query.get("recursive", "false").lower() == "true"
        entries = _entries(files, path, recursive)
        if path and not entries:
            raise Refusal(404, "EntryNotFound", f"{path} does not exist on this revision")
        place = int(request.query.get("cursor", "0"))
        headers = {}
        if place + self.page_size < len(entries):
            query = {**request.query, "cursor": str(place + self.page_size)}
            following = request.url.with_query(query)
            headers["Link"] = f'<{following}>; rel="next"'
        return web.json_response(entries[place : place + self.page_size], headers=headers)


def _revision_of(rest: list[str]) -> tuple[str, str, str]:
    """Return verb, revision and path; a revision comes escaped or, of refs, as it is."""
    if len(rest) < 2:
        return "", "main", ""
    count = 3 if rest[1] == "refs" else 1
    return rest[0], "/".join(rest[1 : 1 + count]), "/".join(rest[1 + count :])


def _commit_of(dataset: Dataset, revision: str) -> str:
    found = dataset.branches.get(ALIASES.get(revision, revision), revision)
    if found not in dataset.commits:
        raise Refusal(404, "RevisionNotFound", f"Invalid rev id: {revision}")
    return found


def _info(repo: str, dataset: Dataset, commit: str) -> dict[str, Any]:
    return {
        "id": repo,
        "author": repo.split("/")[0],
        "sha": commit,
        "lastModified": "2026-01-01T00:00:00.000Z",
        "private": dataset.private,
        "gated": "manual" if dataset.gated else False,
        "disabled": False,
        "tags": [],
        "siblings": [{"rfilename": name} for name in sorted(dataset.commits[commit])],
    }


def _entries(files: Files, folder: str, recursive: bool) -> list[dict[str, Any]]:
    prefix = f"{folder}/" if folder else ""
    entries: dict[str, dict[str, Any]] = {}
    for name, data in sorted(files.items()):
        if not name.startswith(prefix):
            continue
        steps = name.removeprefix(prefix).split("/")
        for depth in range(1, len(steps)):
            above = prefix + "/".join(steps[:depth])
            if recursive or depth == 1:
                entries[above] = {"type": "directory", "oid": _oid(b""), "size": 0, "path": above}
        if recursive or len(steps) == 1:
            entries[name] = {"type": "file", "oid": _oid(data), "size": len(data), "path": name}
    return list(entries.values())


def _oid(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def _bytes_of(files: Files, path: str, commit: str, asked: Asked) -> web.Response:
    if path not in files:
        raise Refusal(404, "EntryNotFound", "Entry not found")
    data = files[path]
    headers = {
        "ETag": json.dumps(_oid(data)),
        "X-Repo-Commit": commit,
        "Accept-Ranges": "bytes",
        "Content-Type": "application/octet-stream",
    }
    if not asked.range:
        return web.Response(body=data, headers=headers)
    first, behind = asked.span
    if first >= len(data):
        headers["Content-Range"] = f"bytes */{len(data)}"
        return web.Response(status=416, headers=headers)
    behind = min(behind, len(data))
    headers["Content-Range"] = f"bytes {first}-{behind - 1}/{len(data)}"
    return web.Response(status=206, body=data[first:behind], headers=headers)


def without_waits(env: dict[str, str], folder: Path) -> dict[str, str]:
    """Return an environment in which Python waits a moment where it would wait half a second.

    A client that tries thirty-six times over two minutes tries as often, but at once.
    """
    folder.mkdir(exist_ok=True)
    (folder / "sitecustomize.py").write_text(
        "import time\n"
        "wait = time.sleep\n"
        "time.sleep = lambda seconds: wait(seconds if seconds < 0.5 else 0.01)\n"
    )
    return env | {"PYTHONPATH": f"{folder}:{ROOT}"}
