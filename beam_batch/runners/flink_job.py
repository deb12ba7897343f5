"""Beam's FlinkRunner, mended where its REST client does not fit a Flink of today.

Seen with apache_beam 2.77 (runners/portability/flink_uber_jar_job_server.py) on a real Flink 2.2:

- It reads a field of /v1/jobs/ID/exceptions that Flink 2 no longer has, so a thread of every run
  dies with a traceback, and a failed run says nothing of why.
- It asks to stop a job at a path that Flink never had, so a job cannot be cancelled.
- It asks for the state of a job at intervals that grow to a minute, which each end then waits for.
- One refused connection, as while a JobManager starts again, ends the run.
"""

from __future__ import annotations

import time
from typing import Any

INTERVAL = 1.0
"""Seconds between two looks at a job."""
TRIES = 8
"""Looks at a job without an answer, each twice as long after the last, until it is given up."""


def with_all_exceptions(answer: dict[str, Any]) -> dict[str, Any]:
    """Return what /v1/jobs/ID/exceptions says with the field that Beam reads, newest first.

    >>> entry = {"timestamp": 5, "stacktrace": "Boom", "exceptionName": "E"}
    >>> with_all_exceptions({"exceptionHistory": {"entries": [entry]}})["all-exceptions"]
    [{'timestamp': 5, 'exception': 'Boom'}]
    """
    if "all-exceptions" in answer:
        return answer
    entries = answer.get("exceptionHistory", {}).get("entries", [])
    found = [
        {"timestamp": entry["timestamp"], "exception": entry["stacktrace"]} for entry in entries
    ]
    return answer | {"all-exceptions": found}


def flink_runner() -> Any:
    """Return a runner to be given to beam.Pipeline, for the flags of `flink.flink_flags`."""
    from apache_beam.options.pipeline_options import FlinkRunnerOptions
    from apache_beam.runners.portability.flink_runner import FlinkRunner
    from apache_beam.runners.portability.flink_uber_jar_job_server import FlinkUberJarJobServer

    job_class = _job_class()

    class Server(FlinkUberJarJobServer):  # type: ignore[misc]
        def create_beam_job(self, job_id: str, job_name: str, pipeline: Any, options: Any) -> Any:
            jar, port = self.executable_jar(), self._artifact_port
            return job_class(
                self._master_url, jar, job_id, job_name, pipeline, options, artifact_port=port
            )

    class Runner(FlinkRunner):  # type: ignore[misc]
        def default_job_server(self, options: Any) -> Any:
            flink = options.view_as(FlinkRunnerOptions)
            master, flink.flink_master = flink.flink_master, "[auto]"  # the job runs inside of it
            return Server(master, options)

    return Runner()


def _job_class() -> Any:
    """Return Beam's job with what is mended of it."""
    import requests
    from apache_beam.runners.portability.flink_uber_jar_job_server import FlinkBeamJob

    class Job(FlinkBeamJob):  # type: ignore[misc]
        def get(self, path: str, **kwargs: Any) -> Any:
            for attempt in range(TRIES):
                try:
                    answer = super().get(path, **kwargs)
                    break
                except requests.ConnectionError:
                    if attempt == TRIES - 1:
                        raise
                    time.sleep(INTERVAL * 2**attempt)
            return with_all_exceptions(answer) if path.endswith("/exceptions") else answer

        def cancel(self) -> None:
            path = f"v1/jobs/{self._flink_job_id}"
            self.request(requests.patch, path, expected_status=202, params={"mode": "cancel"})

        def get_state_stream(self) -> Any:
            def looks() -> Any:
                while True:
                    yield self.get_state()
                    time.sleep(INTERVAL)

            for state, timestamp in self.with_state_history(looks()):
                yield state, timestamp
                if self.is_terminal_state(state):
                    return

    return Job
