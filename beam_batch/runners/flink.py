"""Flink: what a cluster says of itself, and Beam's flags for it.

A job goes to the cluster over Flink's REST interface: Beam puts pipeline and artifacts into a copy
of its job server jar, uploads that and starts it (apache_beam 2.77,
runners/portability/flink_uber_jar_job_server.py). So the driver needs the jar and no Java, and
workers read artifacts from the job. Beam's other way starts the jar as a server beside the driver
and leaves artifacts in a folder of that machine, where TaskManagers elsewhere cannot read them.
"""

from __future__ import annotations

import http.client
import json
import re
import urllib.error
import urllib.request
from typing import Any, NamedTuple, TypeVar
from urllib.parse import SplitResult, urlsplit

from beam_batch.errors import OptionsError, first_line
from beam_batch.runners.flink_jar import beam_version

RELEASES = ("1.19", "1.20", "2.0", "2.1", "2.2")
"""What Beam 2.77 publishes job servers for: `FlinkRunnerOptions.PUBLISHED_FLINK_VERSIONS`."""
ENVIRONMENTS = ("external", "docker", "process", "loopback")
PATIENCE = 10.0
"""Seconds without a byte from the cluster until it counts as gone."""
T = TypeVar("T", str, int)
_ANSWER = 1 << 20  # bytes; both answers of Flink are below 1 KiB
_FORM = "Give the REST address of a JobManager: HOST:PORT, [IPV6]:PORT or http(s)://HOST:PORT"


class Cluster(NamedTuple):
    """A Flink cluster that can take a job.

    Attributes:
        url: its REST address with scheme, without a slash at the end.
        version: as Flink writes it, such as "2.2.1".
        release: the first two numbers of it, one of `RELEASES`.
        task_managers: how many are registered.
        slots: task slots of all of them, so how many splits can be worked on at once.
        free: slots that no other job holds at this moment; a job waits for those it lacks.
    """

    url: str
    version: str
    release: str
    task_managers: int
    slots: int
    free: int


def check_cluster(master: str) -> Cluster:
    """Ask a JobManager for its version and slots (GET /v1/config and /v1/overview).

    Args:
        master: HOST:PORT, [IPV6]:PORT, or a URL, whose path is kept.

    Raises:
        OptionsError: no address, no answer within `PATIENCE` seconds, no Flink, a release that
            Beam has no job server for, no TaskManager, or no slot.
    """
    url = _address(master)
    found = _field(master, url, _ask(master, url, "config"), "flink-version", str)
    numbers = re.match(r"\d+\.\d+", found)
    release = numbers[0] if numbers else found
    if release not in RELEASES:
        raise OptionsError(
            f"--flink-master {master} runs Flink {found}; Beam {beam_version()} submits to "
            f"{', '.join(RELEASES[:-1])} and {RELEASES[-1]}. Use a cluster of one of these."
        )
    overview = _ask(master, url, "overview")
    managers, slots, free = (
        _field(master, url, overview, name, int)
        for name in ("taskmanagers", "slots-total", "slots-available")
    )
    if managers == 0:
        raise OptionsError(
            f"--flink-master {master} has no TaskManager, so nothing would run the job. Start one; "
            "if one is running, its log says why it does not register. For a cluster that starts "
            "them for a job, set slotmanager.number-of-slots.min."
        )
    if slots == 0:
        raise OptionsError(
            f"--flink-master {master}: TaskManagers ({managers}) without a slot. They offer theirs "
            "a moment after they register; taskmanager.numberOfTaskSlots must be 1 or more."
        )
    return Cluster(url, found, release, managers, slots, free)


def _address(master: str) -> str:
    """Return a master as the URL that its REST paths are added to."""
    text = master.strip()
    bare = "://" not in text
    try:
        parts = urlsplit(f"http://{text}" if bare else text)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise OptionsError(f"--flink-master {_shown(text)}: {error}. {_FORM}.") from None
    if "@" in parts.netloc:
        raise OptionsError(
            "--flink-master has a user name or password in it, which would go to every worker "
            "with the flags. Give the address without, through a proxy that adds them."
        )
    wrong = _fault(parts, host, port, bare)
    if wrong:
        raise OptionsError(f"--flink-master {_shown(text)}: {wrong}. {_FORM}.")
    return f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}"


def _fault(parts: SplitResult, host: str | None, port: int | None, bare: bool) -> str | None:
    """Return what keeps a URL from being a JobManager's, in words, or None."""
    if parts.scheme not in ("http", "https"):
        return f"{parts.scheme} is neither http nor https"
    if not host or re.search(r"[\s\x00-\x1f]", parts.netloc + parts.path):
        return "there is no host in it" if not host else "there is a blank in it"
    if port == 0 or (port is None and (bare or parts.netloc.endswith(":"))):
        return "there is no port in it"
    if parts.query or parts.fragment:
        return "there is more than an address in it"
    return None


def _shown(text: str) -> str:
    """Return an address for an error text, without what stands before an @ in it."""
    return re.sub(r"^(\w+://)?.*@", r"\1", text) or "''"


class _Stay(urllib.request.HTTPRedirectHandler):
    """Follows no redirect: Beam's upload of the job would not be sent again either."""

    def redirect_request(self, *_: Any) -> None:
        return None


def _ask(master: str, url: str, path: str) -> Any:
    """Return the JSON of GET /v1/PATH."""
    request = urllib.request.Request(f"{url}/v1/{path}", headers={"Accept": "application/json"})
    try:
        with urllib.request.build_opener(_Stay).open(request, timeout=PATIENCE) as response:
            body = response.read(_ANSWER)
    except urllib.error.HTTPError as error:
        error.close()
        raise _no_flink(master, url, _status(error)) from None
    except (http.client.HTTPException, UnicodeError) as error:
        raise _no_flink(master, url, first_line(error)) from None
    except OSError as error:
        raise OptionsError(
            f"--flink-master {master}: nothing answers at {url} ({_reason(error)}). {_FORM}, "
            "Flink's own port being 8081, and see that it runs and is reachable from here."
        ) from None
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def _status(error: urllib.error.HTTPError) -> str:
    """Return in words what an answer other than 200 means."""
    if error.code in (401, 403):
        return f"HTTP {error.code}: it wants a login, and Beam sends none"
    if 300 <= error.code < 400:
        return f"HTTP {error.code}, a redirect to {_shown(error.headers.get('Location') or '?')}"
    return f"HTTP {error.code}"


def _reason(error: OSError) -> str:
    """Return why a connection failed; a timeout has no text of its own in some versions."""
    cause = error.reason if isinstance(error, urllib.error.URLError) else error
    if isinstance(cause, TimeoutError):
        return f"no answer within {PATIENCE:.0f} seconds"
    if isinstance(cause, OSError):
        return cause.strerror or first_line(cause)
    return str(cause)


def _field(master: str, url: str, answer: Any, name: str, kind: type[T]) -> T:
    """Return a field of an answer; what has none of that name and type is not Flink's."""
    value = answer.get(name) if isinstance(answer, dict) else None
    if type(value) is not kind:
        raise _no_flink(master, url, f"no {name} in its answer")
    return value


def _no_flink(master: str, url: str, why: str) -> OptionsError:
    return OptionsError(
        f"--flink-master {master}: what answers at {url} is no Flink JobManager ({why}). {_FORM}."
    )


def flink_flags(
    cluster: Cluster,
    jar: str,
    environment: str = "external",
    config: str | None = None,
    parallelism: int | None = None,
) -> list[str]:
    """Return Beam's flags for its FlinkRunner; those of a user go after them, and win.

    Args:
        cluster: where the job goes.
        jar: from `job_server_jar`.
        environment: how TaskManagers reach workers, one of `ENVIRONMENTS`.
        config: external: HOST:PORT of a worker pool, as seen from a TaskManager (default
            localhost:50000, a pool beside each); docker: the workers' image; process: the command
            that starts a worker on a TaskManager's machine; loopback: none, the driver works.
        parallelism: of the job; default all slots of the cluster. Flink's own default is 1.

    Raises:
        OptionsError: an environment without what it needs, or with what it cannot use.
    """
    flags = [
        f"--flink_master={cluster.url}",
        f"--flink_version={cluster.release}",
        f"--flink_job_server_jar={jar}",
        "--flink_submit_uber_jar",
        f"--parallelism={parallelism or cluster.slots}",
        f"--environment_type={environment.upper()}",
    ]
    value = _environment_config(environment, config)
    return flags if value is None else [*flags, f"--environment_config={value}"]


def _environment_config(environment: str, config: str | None) -> str | None:
    """Return Beam's --environment_config, or None where it has none."""
    if environment not in ENVIRONMENTS:
        raise OptionsError(f"--environment {environment} is none of {', '.join(ENVIRONMENTS)}.")
    if environment == "loopback":
        if config:
            raise OptionsError("--environment-config has no meaning with --environment loopback.")
        return None
    if environment == "external":
        value = config or "localhost:50000"
        if not re.fullmatch(r"(\[[0-9a-fA-F:.]+\]|[^\s:/\[\]]+):[1-9]\d{0,4}", value):
            raise OptionsError(f"--environment-config {value} is not HOST:PORT of a worker pool.")
        return value
    if not config:
        needs = {"docker": "the image of the workers", "process": "the command of a worker"}
        raise OptionsError(
            f"--environment {environment} needs --environment-config, {needs[environment]}."
        )
    return config if environment == "docker" else json.dumps({"command": config})
