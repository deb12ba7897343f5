"""A real Flink: JobManager and TaskManagers, each a Java process on loopback with its own folder.

The jars come from the PyPI package apache-flink-libraries (`make build/flink/ready`). Its start
scripts are not in it, so what they work out is said here: Java's options and the memory of a
TaskManager, part by part.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import urllib.error
import urllib.request
import zipfile
from pathlib import Path
from typing import Any

import yaml

from tests.conftest import free_port
from tests.support import wait_until

HOME = os.environ.get("BEAM_BATCH_FLINK_HOME", "")
REASON = (
    "BEAM_BATCH_FLINK_HOME names no Flink; `make flink-test` gets one"
    if not HOME
    else "there is no java to start Flink with"
    if not shutil.which("java")
    else ""
)
"""Why tests with a real Flink are skipped; empty where they are not."""
JOB_MANAGER = "org.apache.flink.runtime.entrypoint.StandaloneSessionClusterEntrypoint"
TASK_MANAGER = "org.apache.flink.runtime.taskexecutor.TaskManagerRunner"
MEMORY = {
    "taskmanager.cpu.cores": 1.0,
    "taskmanager.memory.framework.heap.size": "64m",
    "taskmanager.memory.framework.off-heap.size": "64m",
    "taskmanager.memory.jvm-metaspace.size": "128m",
    "taskmanager.memory.jvm-overhead.min": "64m",
    "taskmanager.memory.jvm-overhead.max": "64m",
    "taskmanager.memory.task.heap.size": "128m",
    "taskmanager.memory.task.off-heap.size": "0",
    "taskmanager.memory.network.min": "32m",
    "taskmanager.memory.network.max": "32m",
    "taskmanager.memory.managed.size": "32m",
}


class Flink:
    """A cluster that `stop` ends; it begins without a TaskManager."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.master = f"127.0.0.1:{self.port}"
        self._settings = {
            "jobmanager.rpc.address": "127.0.0.1",
            "jobmanager.rpc.port": free_port(),
            "jobmanager.bind-host": "127.0.0.1",
            "rest.address": "127.0.0.1",
            "rest.bind-address": "127.0.0.1",
            "rest.port": self.port,
            "taskmanager.host": "127.0.0.1",
            "taskmanager.bind-host": "127.0.0.1",
            "io.tmp.dirs": str(folder / "tmp"),
            "web.tmpdir": str(folder / "web"),
        }
        self._processes: list[subprocess.Popen[bytes]] = []
        for name in ("conf", "tmp", "web"):
            (folder / name).mkdir()
        (folder / "conf" / "config.yaml").write_text("{}\n")
        self._start(JOB_MANAGER, {})

    def add_task_manager(self, slots: int) -> None:
        """Start a TaskManager; `wait_for` its slots."""
        self._start(TASK_MANAGER, MEMORY | {"taskmanager.numberOfTaskSlots": slots})

    def wait_for(self, slots: int) -> None:
        """Wait until the JobManager answers and has so many slots."""
        wait_until(lambda: self._slots() >= slots, self._processes[-1])
        assert self._slots() >= slots, self.log()

    def get(self, path: str) -> Any:
        with urllib.request.urlopen(f"http://{self.master}/v1/{path}", timeout=10) as response:
            return yaml.safe_load(response)

    def log(self) -> str:
        """Return the end of what each process has logged."""
        return "\n".join(path.read_text()[-3000:] for path in sorted(self.folder.glob("*.log")))

    def stop(self) -> None:
        for process in reversed(self._processes):
            process.kill()
            process.wait(30)

    def _slots(self) -> int:
        try:
            return int(self.get("overview")["slots-total"])
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            return -1

    def _start(self, main: str, settings: dict[str, Any]) -> None:
        lib = Path(HOME) / "lib"
        command = [
            "java",
            "-Xmx256m",
            "-XX:+UseSerialGC",
            "-XX:TieredStopAtLevel=1",
            "-Dlog4j2.level=INFO",
        ]
        command += [*_java_options(lib), "-cp", f"{lib}/*", main]
        command += ["--configDir", str(self.folder / "conf")]
        for name, value in (self._settings | settings).items():
            command += ["-D", f"{name}={value}"]
        log = self.folder / f"{len(self._processes)}.log"
        with log.open("wb") as stream:
            self._processes.append(
                subprocess.Popen(command, cwd=self.folder, stdout=stream, stderr=stream)
            )


def _java_options(lib: Path) -> list[str]:
    """Return what Java 17 must allow to Flink: its own default configuration says so."""
    (dist,) = lib.glob("flink-dist-*.jar")
    with zipfile.ZipFile(dist) as jar:
        options: str = yaml.safe_load(jar.read("config.yaml"))["env"]["java"]["opts"]["all"]
    return options.split()
