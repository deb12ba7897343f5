"""Outputs on the Hub: made in the work directory, and sent in one commit at the end.

Traces are made where the user wants them, and a copy is sent.
"""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Any, NamedTuple

from beam_batch.errors import OptionsError, RunStopped, first_line
from beam_batch.hubname import HubName, parse_hub_name
from beam_batch.options import OutputSpec, TraceSpec
from beam_batch.outputs.commit import SHARD, shards_in
from beam_batch.outputs.trace_files import TraceFolder, listed
from beam_batch.outputs.workdir import WorkDir, settings_file
from beam_batch.places import Place, place_of, scheme_of

FIELDS = ("output", "error_output", "telemetry_output", "summary_output")


class Upload(NamedTuple):
    """One output on the Hub, and the file or folder that becomes it.

    Attributes:
        traces: whether it is a folder of traces, whose repository is made where it is missing.
    """

    name: HubName
    path: Path
    traces: bool = False


def is_remote(path: str | None) -> bool:
    """Whether an output is a URL."""
    return path is not None and "://" in path


def stage(out: OutputSpec, work: WorkDir) -> tuple[OutputSpec, list[Upload]]:
    """Give every remote output a place in the work directory; fetch it where it is added to.

    Raises:
        OptionsError: one exists and nothing says what is to become of it, or the Hub refuses.
    """
    uploads: list[Upload] = []
    places: dict[str, Any] = {}
    for number, field in enumerate(FIELDS):
        uri = getattr(out, field)
        if uri is None or not is_remote(uri):
            continue
        if field == "summary_output" and scheme_of(uri) != "hf":
            continue  # an object of a store, which is written at the end
        flag = f"--{field.replace('_', '-')}"
        name = parse_hub_name(uri, flag)
        path = work.uploads / str(number) / Path(name.path).name
        path.parent.mkdir(parents=True, exist_ok=True)
        uploads.append(Upload(name, path))
        places[field] = f"{path}/" if uri.endswith("/") else str(path)
        if field != "summary_output" and not path.exists():
            _fetch_existing(flag, uploads[-1], out)
            if field == "output" and out.resume:
                _fetch_settings(flag, uploads[-1])
    return dataclasses.replace(out, **places), uploads


def store_of(uri: str) -> tuple[Place, str]:
    """Return the object store of a URI, and the object's name there.

    Raises:
        OptionsError: it names no object, or no store.
    """
    prefix, _, name = uri.rpartition("/")
    if not name or prefix.endswith("/"):
        raise OptionsError(f"--summary-output {uri}: name an object, as s3://bucket/summary.json.")
    return place_of(prefix), name


def check_dataset(trace: TraceSpec) -> None:
    """Check that traces can be sent to the Hub, as far as can be known before there are any.

    Raises:
        OptionsError: they cannot.
    """
    if trace.repo is None:
        return
    name = _dataset(trace.repo)
    if _asked("--hf-dataset", name, _token) is None:
        raise OptionsError(f"--hf-dataset {trace.repo} needs a token that may write: set HF_TOKEN.")
    _asked("--hf-dataset", name, lambda api: api.repo_exists(name.repo, repo_type="dataset"))


def _token(_: Any) -> str | None:
    from huggingface_hub import get_token

    token: str | None = get_token()
    return token


def _dataset(repo: str) -> HubName:
    name = parse_hub_name(f"hf://datasets/{repo}", "--hf-dataset")
    if name.path or "/" not in name.repo or "?" in repo:
        raise OptionsError(f"--hf-dataset {repo}: write owner/name.")
    return name


def traces_upload(trace: TraceSpec, folder: TraceFolder | None) -> list[Upload]:
    """Say where on the Hub the traces of a run go, if anywhere."""
    if trace.repo is None or folder is None:
        return []
    path = (trace.path or "").strip()
    if not path.strip("/"):
        path = "traces/"
    if path.endswith("/"):
        path += folder.run_id
    return [Upload(_dataset(trace.repo)._replace(path=path.strip("/")), Path(folder.path), True)]


def _fetch_existing(flag: str, upload: Upload, out: OutputSpec) -> None:
    if out.overwrite and not out.resume:
        return
    for path in _asked(flag, upload.name, lambda api: _existing(api, upload.name)):
        if not out.resume:
            raise OptionsError(
                f"{flag} {upload.name.uri} exists. Add --resume to go on with it, or --overwrite "
                "to replace it."
            )
        target = upload.path if path == upload.name.path else upload.path / Path(path).name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(
            _asked(flag, upload.name, lambda api, p=path: _fetched(api, upload, p)), target
        )


def _fetch_settings(flag: str, upload: Upload) -> None:
    """Fetch the settings beside an output, so that its answers are not mixed with others."""
    target = settings_file(str(upload.path))
    wanted = f"{upload.name.path.rpartition('/')[0]}/{target.name}".lstrip("/")
    files = _asked(flag, upload.name, lambda api: _listed(api, upload.name))
    if wanted in files:
        shutil.copyfile(
            _asked(flag, upload.name, lambda api: _fetched(api, upload, wanted)), target
        )


def _listed(api: Any, name: HubName) -> list[str]:
    return list(api.list_repo_files(name.repo, repo_type="dataset", revision=name.revision))


def _existing(api: Any, name: HubName) -> list[str]:
    return [path for path in _listed(api, name) if path == name.path or _is_shard(path, name)]


def _is_shard(path: str, name: HubName) -> bool:
    folder, _, file = path.rpartition("/")
    return folder == name.path and SHARD.fullmatch(file) is not None


def _fetched(api: Any, upload: Upload, path: str) -> str:
    found: str = api.hf_hub_download(
        upload.name.repo, path, repo_type="dataset", revision=upload.name.revision
    )
    return found


def _asked(flag: str, name: HubName, call: Any) -> Any:
    """Ask the Hub about a repository that a run is to write to."""
    try:
        from huggingface_hub import HfApi, errors
    except ImportError:
        raise OptionsError(
            f"{flag} {name.uri} needs the Hub's client: pip install 'beam-batch[hub]'."
        ) from None
    try:
        return call(HfApi())
    except errors.RepositoryNotFoundError:
        reason = "no such dataset, or not for this token: create it, or set HF_TOKEN"
    except Exception as error:  # the Hub's client raises many classes; all mean: not to be had
        reason = first_line(error)
    raise OptionsError(f"{flag} {name.uri}: {reason}.")


def _files(upload: Upload) -> dict[str, Path]:
    """Return the files of an output by their paths in the repository."""
    if upload.traces:
        return {f"{upload.name.path}/{path.name}": path for path in listed(upload.path)}
    folder = upload.name.path.rpartition("/")[0]
    settings = settings_file(str(upload.path))
    if upload.path.is_dir():
        files = {f"{upload.name.path}/{file.name}": file for file in shards_in(upload.path)}
    else:
        files = {upload.name.path: upload.path}
    if settings.exists():
        files[f"{folder}/{settings.name}".lstrip("/")] = settings
    return files


def publish(uploads: list[Upload], work: WorkDir) -> None:
    """Send the files to the Hub, in one commit a repository.

    Raises:
        RunStopped: it does not take them; they stay where they are.
    """
    by_repo: dict[tuple[str, str | None], list[Upload]] = {}
    for upload in uploads:
        by_repo.setdefault((upload.name.repo, upload.name.revision), []).append(upload)
    for (repo, revision), group in by_repo.items():
        try:
            if any(upload.traces for upload in group):
                _make_dataset(repo)
            _commit(repo, revision, group)
        except Exception as error:  # the Hub's client raises many classes
            places = {str(up.path if up.traces else work.uploads) for up in group}
            raise RunStopped(
                f"the results cannot be sent to hf://datasets/{repo}: {first_line(error)}. They "
                f"are kept in {' and '.join(sorted(places))}, and --resume sends them again, "
                "without any request"
            ) from None


def _make_dataset(repo: str) -> None:
    """Make a dataset for traces where there is none: a private one, for prompts are in them."""
    from huggingface_hub import HfApi

    api = HfApi()
    if not api.repo_exists(repo, repo_type="dataset"):
        api.create_repo(repo, repo_type="dataset", private=True, exist_ok=True)


def _commit(repo: str, revision: str | None, uploads: list[Upload]) -> None:
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi

    api, operations = HfApi(), []
    for upload in uploads:
        files = _files(upload)
        for name, file in files.items():
            operations.append(CommitOperationAdd(path_in_repo=name, path_or_fileobj=str(file)))
        if (
            upload.path.is_dir() and not upload.traces
        ):  # shards of an earlier result that had more of them
            stale = [path for path in _existing(api, upload.name) if path not in files]
            operations += [CommitOperationDelete(path_in_repo=path) for path in stale]
    api.create_commit(
        repo,
        operations,
        commit_message="Add results of beam-batch",
        repo_type="dataset",
        revision=revision,
    )
