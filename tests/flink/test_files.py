"""The files that start a Flink of containers: right by the word of tools made for them, no secrets.

What these tests cannot say is whether containers start: no container engine runs here.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
import yaml

from beam_batch.runners.flink import RELEASES
from beam_batch.runners.flink_jar import beam_version
from tests.conftest import free_port, running
from tests.support import ROOT, environment

FOLDER = ROOT / "runners" / "flink"
TOOLS = Path(os.environ.get("BEAM_BATCH_FLINK_TOOLS") or "/nonexistent")
CRD = os.environ.get("BEAM_BATCH_FLINK_CRD", "")
SECRETS = {"MINIO_ROOT_USER": "someone", "MINIO_ROOT_PASSWORD": "something"}
KUBERNETES = "v1.34.0-local-strict"
SPEC = {
    "job": "object", "restartNonce": "integer", "flinkConfiguration": "object", "image": "string",
    "imagePullPolicy": "string", "serviceAccount": "string", "flinkVersion": "string",
    "ingress": "object", "podTemplate": "object", "jobManager": "object", "taskManager": "object",
    "logConfiguration": "object", "mode": "string",
}  # fmt: skip
"""Fields of a FlinkDeployment by the operator's reference, which says no more than their types."""
PART = {"resource": "object", "replicas": "integer", "podTemplate": "object"}
RESOURCE = {"cpu": "number", "memory": "string", "ephemeralStorage": "string"}


def _tool(name: str) -> Path:
    path = TOOLS / name
    if not path.exists():
        pytest.skip(f"BEAM_BATCH_FLINK_TOOLS has no {path.name}; `make flink-test` gets it")
    return path


def _compose(path: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [_tool("compose"), path], env={"PATH": os.environ["PATH"]} | variables,
        cwd=FOLDER, capture_output=True, text=True,
    )  # fmt: skip


@pytest.fixture
def services() -> dict[str, Any]:
    """The services of the compose file, as Docker Compose reads them."""
    done = _compose(FOLDER / "compose.yaml", **SECRETS)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)["services"]
    return found


@pytest.mark.parametrize(
    ("right", "wrong", "said"),
    [
        ("healthcheck:", "heathcheck:", "heathcheck"),
        ("service:taskmanager-2", "service:taskmanager-3", "taskmanager-3"),
        ("- store:/data", "- shop:/data", "shop"),
        ("service_healthy", "service_happy", "condition"),
    ],
)
def test_a_mistake_in_the_compose_file_would_be_found(
    tmp_path: Path, right: str, wrong: str, said: str
) -> None:
    text = (FOLDER / "compose.yaml").read_text()
    assert right in text
    broken = tmp_path / "compose.yaml"
    broken.write_text(text.replace(right, wrong, 1))
    done = _compose(broken, **SECRETS)
    assert done.returncode == 1
    assert said in done.stderr


@pytest.mark.parametrize("name", sorted(SECRETS))
def test_containers_do_not_start_without_a_secret(name: str) -> None:
    for variables in (
        {key: value for key, value in SECRETS.items() if key != name}, SECRETS | {name: ""},
    ):  # fmt: skip
        done = _compose(FOLDER / "compose.yaml", **variables)
        assert done.returncode == 1
        assert f"required variable {name} is missing a value: set it in .env" in done.stderr


def test_each_task_manager_has_a_pool_of_workers_at_its_own_address(
    services: dict[str, Any],
) -> None:
    managers = sorted(name for name in services if name.startswith("taskmanager"))
    pools = [one for one in services.values() if "network_mode" in one]
    assert sorted(one["network_mode"] for one in pools) == [f"service:{name}" for name in managers]
    assert all(services[name]["image"].startswith("flink:") for name in managers)
    release = ".".join(services[managers[0]]["image"].removeprefix("flink:").split(".")[:2])
    assert release in RELEASES


def test_only_this_machine_reaches_what_the_containers_open(services: dict[str, Any]) -> None:
    ports = [port for one in services.values() for port in one.get("ports", [])]
    assert len(ports) == 2
    assert {port["host_ip"] for port in ports} == {"127.0.0.1"}


def test_only_workers_see_the_keys_of_model_providers(services: dict[str, Any]) -> None:
    with_keys = {name for name, one in services.items() if "env_file" in one}
    assert with_keys == {name for name in services if name.startswith("workers")}


def _lint(path: Path) -> subprocess.CompletedProcess[str]:
    tool = _tool("node_modules/.bin/dockerfile-utils")
    return subprocess.run([tool, "lint", path], capture_output=True, text=True)


def test_the_linter_finds_nothing_wrong_with_the_worker_image(tmp_path: Path) -> None:
    done = _lint(FOLDER / "Dockerfile")
    assert (done.returncode, done.stdout) == (0, "")
    broken = tmp_path / "Dockerfile"
    broken.write_text((FOLDER / "Dockerfile").read_text().replace("WORKDIR /opt", "WRKDIR /opt"))
    assert _lint(broken).returncode == 1


def _instructions() -> list[tuple[str, str]]:
    text = (FOLDER / "Dockerfile").read_text().replace("\\\n", "")
    lines = [line.split(maxsplit=1) for line in text.splitlines() if line and line[0] != "#"]
    return [(word, rest) for word, rest in lines]


def test_the_worker_image_is_of_this_beam_and_python_and_does_not_run_as_root() -> None:
    found = _instructions()
    assert found[0] == ("FROM", f"apache/beam_python3.11_sdk:{beam_version()}")
    users = [rest for word, rest in found if word == "USER"]
    assert users
    assert users[-1] not in ("0", "root")
    assert ("CMD", '["--worker_pool"]') in found
    # Beam's start program would make a virtual environment below /opt, as a user who may not.
    assert ("ENV", "RUN_PYTHON_SDK_IN_DEFAULT_ENVIRONMENT=1") in found


def test_the_worker_image_copies_all_that_the_package_is_built_from() -> None:
    copied = {
        path for word, rest in _instructions() if word == "COPY" for path in rest.split()[:-1]
    }
    assert all((ROOT / path).exists() for path in copied)
    assert {"setup.py", "README.md", "beam_batch"} <= copied


def _deployment() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((FOLDER / "flinkdeployment.yaml").read_text())
    return found


def _pods(spec: dict[str, Any]) -> list[dict[str, Any]]:
    templates = [spec["podTemplate"], spec["taskManager"]["podTemplate"]]
    assert len(templates) == 2
    return templates


@pytest.fixture(scope="session")
def pod_schema() -> jsonschema_rs.Validator:
    """Kubernetes' own schema of a pod, without fields that it does not know."""
    wheel = _tool("kubernetes_validate-1.37.0-py3-none-any.whl")
    place = f"kubernetes_validate/kubernetes-json-schema/{KUBERNETES}"
    with zipfile.ZipFile(wheel) as archive:
        definitions = json.loads(archive.read(f"{place}/_definitions.json"))
    text = json.dumps({"$ref": "#/$defs/io.k8s.api.core.v1.Pod", **definitions})
    schema = json.loads(text.replace("/api/_definitions.json#", "#"))
    return jsonschema_rs.validator_for(schema)


def test_pods_are_what_kubernetes_takes(pod_schema: jsonschema_rs.Validator) -> None:
    for pod in _pods(_deployment()["spec"]):
        pod_schema.validate(pod)
        pod["spec"]["containers"][-1]["securityContexts"] = {}
        assert not pod_schema.is_valid(pod)


def test_fields_of_the_deployment_are_those_of_the_operators_reference() -> None:
    deployment = _deployment()
    assert deployment["apiVersion"] == "flink.apache.org/v1beta1"
    assert deployment["kind"] == "FlinkDeployment"
    spec = deployment["spec"]
    parts = [spec["jobManager"], spec["taskManager"]]
    for fields, known in [
        (spec, SPEC), *((part, PART) for part in parts),
        *((part["resource"], RESOURCE) for part in parts),
    ]:  # fmt: skip
        schema = {
            "type": "object",
            "properties": {name: {"type": kind} for name, kind in known.items()},
            "additionalProperties": False,
        }
        jsonschema_rs.validate(schema, fields)
    assert all(isinstance(value, str) for value in spec["flinkConfiguration"].values())


@pytest.mark.skipif(
    not CRD,
    reason="BEAM_BATCH_FLINK_CRD names no file: no registry reachable here has the operator's CRD",
)
def test_the_deployment_is_what_the_operators_own_schema_takes() -> None:
    crd = yaml.safe_load(Path(CRD).read_text())
    (version,) = [one for one in crd["spec"]["versions"] if one["name"] == "v1beta1"]
    jsonschema_rs.validate(version["schema"]["openAPIV3Schema"], _deployment())


def test_the_deployment_counts_on_task_managers_that_are_there_before_a_job() -> None:
    spec = _deployment()["spec"]
    assert spec["mode"] == "standalone"
    assert spec["taskManager"]["replicas"] >= 1
    release = ".".join(spec["image"].removeprefix("flink:").split(".")[:2])
    assert spec["flinkVersion"] == f"v{release.replace('.', '_')}"
    assert release in RELEASES


def test_no_container_of_the_deployment_may_be_root() -> None:
    spec = _deployment()["spec"]
    assert spec["podTemplate"]["spec"]["securityContext"]["runAsNonRoot"] is True
    main = spec["podTemplate"]["spec"]["containers"][0]
    (_, workers) = spec["taskManager"]["podTemplate"]["spec"]["containers"]
    for container in (main, workers):
        assert container["securityContext"]["runAsUser"] > 0
        assert container["securityContext"]["allowPrivilegeEscalation"] is False
    assert ("USER", str(workers["securityContext"]["runAsUser"])) in _instructions()


SECRET_WORD = re.compile(
    r"(?i)(password|secret|token|api_?key|access_?key(_id)?|root_user)\w*[ \t]*[:=][ \t]*"
    r"[\"']?(?P<value>[^\s\"']+)"
)
KNOWN_FORMS = re.compile(
    r"sk-[\w-]{8,}|AKIA[0-9A-Z]{12,}|gh[pousr]_\w{20,}|hf_\w{20,}|xox[abp]-|AIza[\w-]{20,}"
    r"|-----BEGIN|://[^/\s:@]+:[^/\s@]+@"
)


def _literal_secrets(text: str) -> list[str]:
    found = [match[0] for match in KNOWN_FORMS.finditer(text)]
    for match in SECRET_WORD.finditer(text):
        if not re.match(r"\$\{\w+:\?|\$\$?\w+|<", match["value"]):
            found.append(match[0])
    return found


@pytest.mark.parametrize(
    "path", sorted(path for path in FOLDER.iterdir() if path.name not in (".env", "workers.env")),
    ids=lambda path: path.name,
)  # fmt: skip
def test_no_file_has_a_secret_or_a_path_of_one_machine_in_it(path: Path) -> None:
    text = path.read_text()
    assert _literal_secrets(text) == []
    assert not re.search(r"(?<![\w.])/(work|home/(?!worker\b)|root|Users)/", text)


@pytest.mark.parametrize(
    "line",
    [
        "OPENAI_API_KEY=sk-proj-abcdefgh", "MINIO_ROOT_PASSWORD: minioadmin", "token: 'abc'",
        "aws_secret_access_key = AbC/123", "http://me:word@host", "-----BEGIN PRIVATE KEY-----",
        "MINIO_ROOT_PASSWORD: ${MINIO_ROOT_PASSWORD:-minioadmin}",
    ],
)  # fmt: skip
def test_a_secret_in_a_file_would_be_found(line: str) -> None:
    assert _literal_secrets(line) != []


def test_files_with_secrets_are_not_committed() -> None:
    for name in (".env", "workers.env"):
        path = FOLDER / name
        done = subprocess.run(["git", "check-ignore", "-q", path], cwd=ROOT)
        assert done.returncode == 0, path
        example = (FOLDER / f"{name}.example").read_text()
        set_lines = [line for line in example.splitlines() if line and line[0] != "#"]
        assert all(line.endswith("=") for line in set_lines)


def test_the_bucket_is_made_on_a_real_store_and_can_be_made_again(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"a": 1}\n')
    (tmp_path / "notes.md").write_text("not rows\n")
    port = free_port()
    variables = environment(
        AWS_ACCESS_KEY_ID="a", AWS_SECRET_ACCESS_KEY="b", AWS_DEFAULT_REGION="us-east-1",
        AWS_ENDPOINT_URL=f"http://127.0.0.1:{port}",
    )  # fmt: skip
    command = [sys.executable, FOLDER / "bucket.py", "beam-batch", tmp_path]

    def make() -> subprocess.CompletedProcess[str]:
        return subprocess.run(command, env=variables, capture_output=True, text=True)

    server = [
        str(Path(sys.executable).with_name("moto_server")),
        "-H",
        "127.0.0.1",
        "-p",
        str(port),
    ]
    with running(server, lambda: make().returncode == 0):
        done = make()
    assert done.returncode == 0, done.stderr
    assert done.stdout == "s3://beam-batch/input/rows.jsonl\n"


def test_make_says_what_is_missing_where_there_is_no_container_engine() -> None:
    for target in ("flink-up", "flink-down"):
        done = subprocess.run(
            ["make", "--no-print-directory", target], cwd=ROOT, capture_output=True, text=True,
            env=environment(PATH="/usr/bin:/bin"),
        )  # fmt: skip
        if done.returncode == 0:
            pytest.skip("there is a container engine here")
        assert f"make {target}: needs Docker with its compose plugin" in done.stderr
