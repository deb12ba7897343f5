"""Portable: a job server of Beam's portability framework that somebody else has started."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from beam_batch.errors import OptionsError, first_line
from beam_batch.options.engine import RunnerSpec
from beam_batch.outputs.workdir import WorkDir
from beam_batch.runners.base import (
    PATIENCE,
    Opened,
    Setup,
    check_answers,
    environment_flags,
    is_here,
)

EMBEDDED = "embed"
"""Beam's name for a job server inside the driver."""


def portable(spec: RunnerSpec) -> Setup:
    """Describe it.

    Raises:
        OptionsError: no job server is named, or none answers; or a worker pool does not.
    """
    from apache_beam.options.pipeline_options import PipelineOptions, PortableOptions

    flags = (*spec.beam_args, *environment_flags(spec))
    options: Any = PipelineOptions(flags=list(flags), allow_abbrev=False)
    asked = options.view_as(PortableOptions)
    endpoint = asked.job_endpoint
    if not endpoint:
        raise OptionsError(
            "--runner portable needs the address of a job server after --: --job_endpoint=HOST:PORT"
        )
    embedded = endpoint == EMBEDDED
    knows = () if embedded else flags_of(endpoint)
    local = (asked.environment_type or "").upper() == "LOOPBACK"

    @contextlib.contextmanager
    def opened(_: WorkDir) -> Iterator[Opened]:
        from apache_beam.runners.portability.portable_runner import PortableRunner

        yield Opened(PortableRunner)

    return Setup(
        flags=flags,
        open=opened,
        workers=1 if local else None,
        remote=not (local and (embedded or is_here(endpoint))),
        pools=spec.pools,
        knows=knows,
    )


def flags_of(endpoint: str) -> tuple[str, ...]:
    """Ask a job server which flags it knows.

    Raises:
        OptionsError: nothing answers there within some seconds, or something else does.
    """
    import grpc
    from apache_beam.portability.api import beam_job_api_pb2, beam_job_api_pb2_grpc

    check_answers("--job_endpoint", endpoint, "job server")
    with grpc.insecure_channel(endpoint) as channel:
        service = beam_job_api_pb2_grpc.JobServiceStub(channel)
        request = beam_job_api_pb2.DescribePipelineOptionsRequest()
        try:
            answer = service.DescribePipelineOptions(request, timeout=PATIENCE)
        except grpc.RpcError as error:
            raise OptionsError(
                f"--job_endpoint: what answers at {endpoint} is no job server of Beam "
                f"({first_line(error.details() or error)})."
            ) from None
    return tuple(f"--{option.name}" for option in answer.options)
