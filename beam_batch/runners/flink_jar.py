"""Beam's job server jar for Flink: which one, where it is, and whether it is that."""

from __future__ import annotations

import re
import socket
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

from beam_batch.errors import OptionsError, first_line

JAR_VARIABLE = "BEAM_FLINK_JOB_SERVER_JAR"
PATIENCE = 10.0
"""Seconds without a byte from a repository of jars until it counts as gone."""
ENTRY = "org/apache/beam/runners/flink/FlinkPipelineRunner.class"
"""The class that Beam has Flink start (apache_beam 2.77, flink_uber_jar_job_server.py)."""
_NAME = re.compile(r"beam-runners-flink-(\d+\.\d+)-job-server-(\d[\w.]*)\.jar")


def job_server_jar(
    release: str,
    environment: Mapping[str, str],
    named: str | None = None,
    fetch: Callable[[str], str] | None = None,
) -> str:
    """Return the path of Beam's job server jar for a release of Flink, checked.

    Where none is named, Beam's own look-up is tried: its cache, then Maven Central.

    Args:
        release: of the cluster, such as "2.2".
        environment: where `JAR_VARIABLE` may name the jar.
        named: what --flink_job_server_jar says, which comes before the variable.
        fetch: Beam's look-up: the Gradle name of a jar to its path. None: named jars only.

    Raises:
        OptionsError: there is no jar, or it is not the job server of this Beam and this release.
    """
    for origin, path in (
        ("--flink_job_server_jar", named),
        (JAR_VARIABLE, environment.get(JAR_VARIABLE)),
    ):
        if path:
            return _checked(f"{origin} {path}", path, release)
    reason = "it is not named"
    if fetch is not None:
        try:
            with _impatient():
                path = fetch(f":runners:flink:{release}:job-server:shadowJar")
        except Exception as error:  # Beam's look-up raises what its file systems and urllib do
            reason = f"it is not named, and Beam cannot fetch it ({_root(error)})"
        else:
            return _checked(path, path, release)
    raise OptionsError(
        f"--runner flink needs {jar_name(release)}: {reason}. Beam submits to Flink with this jar, "
        f"which is on Maven Central as {_coordinates(release)}. Download it and set {JAR_VARIABLE} "
        "to its path, or give --flink_job_server_jar=PATH after --."
    )


def _root(error: BaseException) -> str:
    """Return why a look-up failed first: Beam tries a mirror next, and names both addresses."""
    found = error
    while error.__context__ is not None:
        error = error.__context__
        found = error if isinstance(error, OSError) else found
    return first_line(found)


def jar_name(release: str) -> str:
    """Return the file name of Beam's job server for a release of Flink.

    >>> jar_name("2.2").startswith("beam-runners-flink-2.2-job-server-2.")
    True
    """
    return f"beam-runners-flink-{release}-job-server-{beam_version()}.jar"


def _coordinates(release: str) -> str:
    return f"org.apache.beam:beam-runners-flink-{release}-job-server:{beam_version()}"


def _checked(shown: str, path: str, release: str) -> str:
    """Return the full path of a jar; refuse what Flink would refuse after the upload."""
    remedy = f"Give a file path of {jar_name(release)} (Maven Central, {_coordinates(release)})."
    name = _NAME.fullmatch(Path(path).name)
    if name and name.groups() != (release, beam_version()):
        raise OptionsError(
            f"{shown} is for Flink {name[1]} and Beam {name[2]}; the cluster runs Flink {release}, "
            f"and this is Beam {beam_version()}. {remedy}"
        )
    try:
        with zipfile.ZipFile(path) as jar:
            jar.getinfo(ENTRY)
    except OSError as error:
        raise OptionsError(
            f"{shown} cannot be read ({error.strerror or first_line(error)}). {remedy}"
        ) from None
    except (zipfile.BadZipFile, KeyError):
        raise OptionsError(f"{shown} is not Beam's Flink job server. {remedy}") from None
    return str(Path(path).resolve())


@contextmanager
def _impatient() -> Iterator[None]:
    """Bound every wait for a network that swallows packets: Beam's look-up sets no timeout."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(PATIENCE)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def beam_version() -> str:
    """Return the version of Beam that is installed here, without importing it."""
    return version("apache-beam")
