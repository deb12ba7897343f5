"""From the settings of a run to what reuses its replies."""

from __future__ import annotations

import os
import time
from pathlib import Path

from beam_batch.errors import OptionsError
from beam_batch.options import ModelSpec, ReuseSpec
from beam_batch.outputs.workdir import WorkDir
from beam_batch.places.remote import scheme_of
from beam_batch.reuse import database
from beam_batch.reuse.claims import Claims
from beam_batch.reuse.kept import ReplyStore, say
from beam_batch.reuse.keys import Keys
from beam_batch.reuse.local import LocalStore
from beam_batch.reuse.objects import ObjectStore
from beam_batch.reuse.once import Once, OnceSpec

DAY = 86_400.0
"""Seconds."""


def deduplicates(spec: ReuseSpec, model: ModelSpec) -> bool:
    """Whether identical requests of a run are sent once.

    Where the settings leave it open: not if each answer is to be a sample (temperature above 0),
    and not for echo, whose answers cost nothing.
    """
    if spec.dedupe is not None:
        return spec.dedupe
    return model.provider != "echo" and not model.options.get("temperature", 0) > 0


def make_once(
    spec: ReuseSpec, model: ModelSpec, work: WorkDir | None, alone: bool = False
) -> Once | None:
    """Return what reuses replies in this worker process, or None where nothing does.

    What cannot be used any more since `check_cache` is told on stderr, and the run goes without.

    Args:
        model: resolved; of a local model, with the address of its server.
        work: where the run's own replies are kept, if no local cache keeps them; or None: then
            only requests in flight are shared, and what --cache has.
        alone: whether this is the run's only worker process.
    """
    dedupe = deduplicates(spec, model)
    if not dedupe and spec.cache is None:
        return None
    own = claims = cache = None
    try:
        if spec.cache is not None:
            cache = open_cache(spec.cache)
    except OptionsError as error:
        say(f"{error} Going on without it.")
    if dedupe and work is not None and work.is_folder:
        try:
            claims = None if alone else Claims(work.root)
            if cache is None or cache.remote:
                own = LocalStore(
                    work.root, f"the replies of {work.path}", durable=False, alone=alone
                )
        except (OptionsError, OSError) as error:
            say(f"identical requests may be sent more than once: {error}")
    for store in (own, cache):
        if isinstance(store, LocalStore):
            store.hurry()
    max_age = spec.cache_max_age * DAY if spec.cache_max_age is not None else None
    return Once(
        OnceSpec(
            keys=Keys(model),
            asked=f"{model.provider}.{model.model}",
            own=own,
            claims=claims,
            cache=cache,
            dedupe=dedupe,
            started=_started(work),
            max_age=max_age,
        )
    )


def check_cache(spec: ReuseSpec, work: str) -> None:
    """Open the cache of a run once, before anything is sent.

    Raises:
        OptionsError: it cannot be used, or is in the work directory, which is removed at the end.
    """
    if spec.cache is None:
        return
    if bool(scheme_of(spec.cache)) == bool(scheme_of(work)):
        real, taken = spec.cache.rstrip("/"), work
        if not scheme_of(work):
            real, taken = os.path.realpath(real), os.path.realpath(work)
        if f"{real}/".startswith(f"{taken}/"):
            raise OptionsError(
                f"--cache {spec.cache} is inside --work-dir {work}, which is removed at the end."
            )
    open_cache(spec.cache).close()


def open_cache(cache: str) -> ReplyStore:
    """Open or make a cache.

    Raises:
        OptionsError: it cannot be used.
    """
    name = f"--cache {cache}"
    folder = _folder(cache)
    return LocalStore(folder, name, durable=True) if folder else ObjectStore(cache, name)


def open_existing(cache: str) -> ReplyStore:
    """Open a cache that is there.

    Raises:
        OptionsError: it is none of ours, or cannot be used.
    """
    folder = _folder(cache)
    if folder is None:
        return ObjectStore(cache, cache, make=False)
    if not folder.is_dir():
        raise OptionsError(f"{cache}: no such folder.")
    if not database.is_ours(database.newest(folder)):
        raise OptionsError(
            f"{cache} is no cache of beam-batch: no {database.FILE} of ours can be read there."
        )
    return LocalStore(folder, cache, durable=True)


def _folder(cache: str) -> Path | None:
    """Return the folder of a local cache, None for a URI."""
    if scheme_of(cache) == "file":
        return Path(cache.partition("://")[2])
    return Path(cache).expanduser() if not scheme_of(cache) else None


def _started(work: WorkDir | None) -> float:
    """Return when the run began, in its first session; now, where there is no run."""
    manifest = work.read_manifest() if work is not None else None
    return float((manifest or {}).get("began", time.time()))
