"""From what a user asks for to an engine."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping

from beam_batch.errors import OptionsError, first_line
from beam_batch.options import engine
from beam_batch.options.engine import RunnerSpec
from beam_batch.outputs.workdir import WorkDir
from beam_batch.runners.base import Opened, Setup
from beam_batch.runners.dask import dask
from beam_batch.runners.direct import direct
from beam_batch.runners.flink import flink
from beam_batch.runners.portable import portable
from beam_batch.runners.prism import prism


def choose(spec: RunnerSpec, parallel: int | None, env: Mapping[str, str]) -> Setup:
    """Describe the engine of a run; what it needs is looked for here.

    Raises:
        OptionsError: an unknown runner, or something it needs is missing.
    """
    if spec.kind == engine.DIRECT:
        return direct(spec, parallel)
    if spec.kind == engine.PRISM:
        return prism(spec, env)
    if spec.kind == engine.DASK:
        return dask(spec, parallel, env)
    if spec.kind == engine.PORTABLE:
        return portable(spec)
    if spec.kind == engine.FLINK:
        return flink(spec, env)
    return by_name(spec)


def by_name(spec: RunnerSpec) -> Setup:
    """Describe a runner of Beam that only Beam knows more about."""
    from apache_beam.runners.portability.portable_runner import PortableRunner
    from apache_beam.runners.runner import create_runner

    try:
        runner = type(create_runner(spec.name))
    except (ValueError, ImportError, AttributeError, TypeError) as error:
        raise OptionsError(
            f"--runner {spec.name} is none of {', '.join(engine.NAMES)}, and Beam has no runner of "
            f"that name ({first_line(error)})."
        ) from None

    @contextlib.contextmanager
    def opened(_: WorkDir) -> Iterator[Opened]:
        yield Opened(runner)

    own_flags = issubclass(runner, PortableRunner)  # its job server may have some
    return Setup(flags=spec.beam_args, open=opened, knows=None if own_flags else ())


def inherits_environment(spec: RunnerSpec, env: Mapping[str, str]) -> bool:
    """Whether all workers have this process's environment variables and modules."""
    flags = {arg.partition("=")[0] for arg in spec.beam_args}
    if spec.kind in (engine.PRISM, engine.FLINK, engine.PORTABLE):
        own = spec.environment is None and spec.kind == engine.PRISM
        return (own or spec.environment == "loopback") and "--environment_type" not in flags
    if spec.kind == engine.DASK:
        given = {"--dask_client_address", "--dask_scheduler_file"} & flags
        return not given and "DASK_SCHEDULER_ADDRESS" not in env
    return spec.kind == engine.DIRECT
