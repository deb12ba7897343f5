"""Several worker pools in one job.

An engine has one environment a pipeline, and may start one worker in it. So the graph has a branch
a pool, with its part of the splits, and each branch an environment of its own.
"""

from __future__ import annotations

from typing import Any

BRANCH = "Pool"


def branch(index: int) -> str:
    """Name the branch of a pool."""
    return f"{BRANCH}{index}"


def spread(pipeline: Any, addresses: tuple[str, ...]) -> None:
    """Give each branch of a pipeline's proto the environment of its pool."""
    from apache_beam.portability.api import beam_runner_api_pb2, endpoints_pb2

    parts = pipeline.components
    for index, address in enumerate(addresses):
        path = f"{branch(index)}/"
        for transform in parts.transforms.values():
            if not transform.environment_id or not transform.unique_name.startswith(path):
                continue
            own = f"{transform.environment_id}-{branch(index)}"
            if own not in parts.environments:
                payload = beam_runner_api_pb2.ExternalPayload(
                    endpoint=endpoints_pb2.ApiServiceDescriptor(url=address)
                )
                parts.environments[own].CopyFrom(parts.environments[transform.environment_id])
                parts.environments[own].payload = payload.SerializeToString()
            transform.environment_id = own
    used = {transform.environment_id for transform in parts.transforms.values()}
    for name in [name for name in parts.environments if name not in used]:
        del parts.environments[name]


def over_pools(runner: type[Any], addresses: tuple[str, ...]) -> Any:
    """Return a portable runner whose branches go to the pools at some addresses."""

    class OverPools(runner):
        def run_portable_pipeline(self, pipeline: Any, options: Any) -> Any:
            spread(pipeline, addresses)
            return super().run_portable_pipeline(pipeline, options)

    return OverPools()
