"""Which engine runs the graph, and where its workers are."""

from __future__ import annotations

from dataclasses import dataclass

from beam_batch.errors import OptionsError

DIRECT, PRISM, FLINK, DASK, PORTABLE = "direct", "prism", "flink", "dask", "portable"
NAMES = (DIRECT, PRISM, FLINK, DASK, PORTABLE)
ENVIRONMENTS = ("external", "docker", "process", "loopback")
_BEAM_NAMES = {
    "directrunner": DIRECT, "fnapirunner": DIRECT, "prismrunner": PRISM, "flinkrunner": FLINK,
    "daskrunner": DASK, "portablerunner": PORTABLE,
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class RunnerSpec:
    """Which engine runs the graph.

    Attributes:
        name: direct, prism, flink, dask, portable, or a Beam runner by its class name.
        environment: how workers are started, one of ENVIRONMENTS; None for the engine's own way.
        environment_config: addresses of worker pools (external), an image (docker), or a command
            (process).
        flink_master: HOST:PORT of a JobManager.
        work_dir_is_shared: workers on other machines see the work directory under its name here.
        beam_args: Beam's own flags.
    """

    name: str = DIRECT
    environment: str | None = None
    environment_config: str | None = None
    flink_master: str | None = None
    work_dir_is_shared: bool = False
    beam_args: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.name:
            raise OptionsError("--runner needs a name; direct runs here.")
        stray = [arg for arg in self.beam_args[:1] if not arg.startswith("--")]
        if stray:
            raise OptionsError(f"unexpected argument {stray[0]!r}; flags of Beam go after --.")
        self._check_environment()
        if self.flink_master is not None and self.kind != FLINK:
            raise OptionsError(f"--flink-master is for --runner flink, not {self.name}.")
        if self.work_dir_is_shared and self.kind == DIRECT:
            raise OptionsError(
                "--work-dir-is-shared is for engines with workers elsewhere; those of --runner "
                "direct are here."
            )

    def _check_environment(self) -> None:
        kind, config = self.environment, self.environment_config
        if kind is None:
            if config is not None:
                raise OptionsError("--environment-config needs --environment.")
            return
        if kind not in ENVIRONMENTS:
            raise OptionsError(f"--environment must be one of {', '.join(ENVIRONMENTS)}: {kind!r}.")
        if self.kind not in (PRISM, FLINK, PORTABLE):
            raise OptionsError(
                f"--environment is for --runner prism, flink and portable, not {self.name}."
            )
        if kind == "loopback" and config is not None:
            raise OptionsError("--environment loopback takes no --environment-config.")
        needs = {
            "external": "the address of a worker pool, HOST:PORT",
            "docker": "an image with Beam and beam_batch in it",
            "process": "the command of a worker",
        }
        if kind in needs and not config and (kind, self.kind) != ("external", FLINK):
            raise OptionsError(f"--environment {kind} needs --environment-config: {needs[kind]}.")

    @property
    def kind(self) -> str:
        """The engine's short name, or the class name where it has none."""
        name = self.name.rpartition(".")[2].lower()
        return name if name in NAMES else _BEAM_NAMES.get(name, self.name)

    @property
    def pools(self) -> tuple[str, ...]:
        """Addresses of worker pools."""
        if self.environment != "external" or not self.environment_config:
            return ()
        return tuple(part.strip() for part in self.environment_config.split(",") if part.strip())
