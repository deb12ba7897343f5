"""MCP servers in cards and in files of their own."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from beam_batch.agents.cards.addresses import is_public
from beam_batch.agents.mcp.target import resolve
from beam_batch.errors import OptionsError
from beam_batch.options.agents import ServerSpec
from tests.agents.cards import card, load, write
from tests.agents.test_card_files import Files


def _servers(folder: Path, fields: str, **given: Any) -> tuple[ServerSpec, ...]:
    return card(folder, fields, **given).servers


def test_a_card_says_what_its_servers_are(tmp_path: Path) -> None:
    found = _servers(
        tmp_path,
        "servers:\n"
        "  time: {command: serve-time, args: [--zone, '${ZONE:UTC}'], env: {KEY: '${K}'}, cwd: sub,"
        " session: row, timeout: 5, start_timeout: 9}\n"
        "  web: {url: 'https://${HOST}/mcp', headers: {Authorization: 'Bearer ${T}'}}\n"
        "  old: {url: 'http://h/sse', transport: sse}\n"
        "tools: {time: [get_*, now]}\n",
    )
    assert found == (
        ServerSpec(
            name="time", command="serve-time", args=("--zone", "${ZONE:UTC}"),
            env={"KEY": "${K}"}, cwd=str(tmp_path / "sub"), session="row", timeout=5,
            start_timeout=9, allowed=("get_*", "now"),
        ),
        ServerSpec(
            name="web", transport="http", url="https://${HOST}/mcp",
            headers={"Authorization": "Bearer ${T}"},
        ),
        ServerSpec(name="old", transport="sse", url="http://h/sse"),
    )  # fmt: skip


def test_targets_to_connect_to_are_commands_or_urls(tmp_path: Path) -> None:
    found = _servers(
        tmp_path,
        "mcp_connect:\n- target: /bin/serve-time --zone 'a b'\n- target: https://docs.example/mcp\n"
        "- {target: x, name: y, session: row}\n",
    )
    assert found == (
        ServerSpec(name="serve_time", command="/bin/serve-time", args=("--zone", "a b")),
        ServerSpec(name="docs_example", transport="http", url="https://docs.example/mcp"),
        ServerSpec(name="y", command="x", session="row"),
    )


ESCAPED = """
servers:
  own: {command: '$${CANARY}', args: ['$${CANARY}'], env: {A: '$${CANARY}'}}
  far: {url: 'https://h.example/$${CANARY}', headers: {A: 'Bearer $${CANARY:x}'}}
mcp_connect:
- {target: '$${CANARY} $${CANARY}', name: two}
"""


@pytest.mark.parametrize("outside", [False, True])
def test_an_escaped_variable_is_never_filled_in(outside: bool, tmp_path: Path) -> None:
    env = {"CANARY": "canary-4711"}
    if outside:
        text = "\n".join(line for line in ESCAPED.splitlines() if "h.example/$" in line)
        with Files({"/a.yaml": f"servers:\n{text}"}) as server:
            found = load(f"{server.url}/a.yaml", env=env).agents["a"].servers
    else:
        found = _servers(tmp_path, ESCAPED, env=env)
    assert len(found) == (1 if outside else 3)
    for spec in found:
        target = resolve(spec, env)
        said = [*target.command, target.url, *target.headers.values(), *target.env.values()]
        assert any("${CANARY" in text for text in said)
        assert "canary-4711" not in str(said)
        assert not target.secrets


def test_a_variable_of_a_server_is_filled_in_once_by_the_worker(tmp_path: Path) -> None:
    env = {"BIN": "/opt/${ZONE}", "ZONE": "Europe/Berlin"}
    (spec,) = _servers(tmp_path, "mcp_connect: [{target: '${BIN}/serve ${ZONE} ${X:y}'}]", env=env)
    target = resolve(spec, env)
    assert target.command == ("/opt/${ZONE}/serve", "Europe/Berlin", "y")
    assert target.secrets == {"Europe/Berlin", "/opt/${ZONE}"}


NEAR = (
    "localhost:80", "LOCALHOST.", "a.localhost", "db", "printer.local", "metadata.google.internal",
    "127.0.0.1", "127.1", "0x7f000001", "2130706433", "0177.0.0.1", "0", "0.0.0.0", "10.0.0.1",
    "172.16.0.1", "192.168.1.1:8080", "169.254.169.254", "100.64.0.1", "224.0.0.1", "[::1]", "[::]",
    "[fe80::1]", "[fd00::1]", "[::ffff:127.0.0.1]", "[::127.0.0.1]", "[64:ff9b::7f00:1]",
    "[2002:7f00:1::]", "１２７.0.0.1", "127。0。0。1", "%6cocalhost", "a.example\\.local",
    "", "[",
)  # fmt: skip
PUBLIC = ("docs.example", "8.8.8.8:80", "[2606:4700::1111]", "local.example", "xn--bcher-kva.de.")


@pytest.mark.parametrize("place", [*NEAR, *PUBLIC])
def test_only_public_addresses_are_for_cards_from_elsewhere(place: str) -> None:
    assert is_public(f"http://{place}/mcp") == (place in PUBLIC)


@pytest.mark.parametrize("place", ["localhost:8000", "169.254.169.254"])
@pytest.mark.parametrize("fields", ["servers: {{t: {{url: {}}}}}", "mcp_connect: [{{target: {}}}]"])
def test_a_card_from_elsewhere_may_not_reach_for_what_is_near(fields: str, place: str) -> None:
    url = f"http://{place}/mcp"
    with Files({"/a.yaml": fields.format(url)}) as server:
        with pytest.raises(OptionsError) as caught:
            load(f"{server.url}/a.yaml")
        assert str(caught.value).endswith(
            f": {url!r} is no public address; a card from elsewhere may name one of this machine "
            "or its network only with --trust-card."
        )
        trusted = load(f"{server.url}/a.yaml", trust=True).agents["a"].servers
    assert [spec.url for spec in trusted] == [url]


def test_a_card_from_elsewhere_may_use_a_url_of_one_s_own_config(tmp_path: Path) -> None:
    servers = {"near": {"url": "http://localhost:80/mcp"}}
    config = write(tmp_path, "mcp.json", json.dumps({"mcpServers": servers}))
    with Files({"/a.yaml": "servers: [near]"}) as server:
        found = load(f"{server.url}/a.yaml", mcp_config=str(config)).agents["a"].servers
    assert [spec.url for spec in found] == ["http://localhost:80/mcp"]


CONFIG = {
    "time": {"command": "${BIN}/serve", "args": ["${ZONE:-UTC}"], "autoApprove": ["x"]},
    "here": {"command": "x", "cwd": "${BIN}"},
    "web": {"type": "streamable-http", "url": "https://h/mcp", "description": "x"},
    "gone": {"command": "x", "disabled": True},
    "odd": {"command": "x", "args": "y"},
    "editor": {"command": "x", "env": {"A": "${env:TOKEN}"}},
    "bare": "x",
}


@pytest.mark.parametrize("outer", ["mcpServers", "servers", "mcp"])
def test_cards_may_name_servers_of_a_file(outer: str, tmp_path: Path) -> None:
    inner = {"servers": CONFIG} if outer == "mcp" else CONFIG
    config = write(tmp_path, "mcp.json", json.dumps({outer: inner}, indent="\t"))
    found = _servers(tmp_path, "servers: [time, web]", mcp_config=str(config), env={"BIN": "/opt"})
    assert found == (
        ServerSpec(name="time", command="${BIN}/serve", args=("${ZONE:UTC}",)),
        ServerSpec(name="web", transport="http", url="https://h/mcp"),
    )


def test_a_file_of_servers_may_be_yaml(tmp_path: Path) -> None:
    config = write(tmp_path, "mcp.yaml", "mcpServers: {time: {command: serve, cwd: here}}")
    found = _servers(tmp_path, "servers: [time]", mcp_config=str(config))
    assert found == (ServerSpec(name="time", command="serve", cwd=str(tmp_path / "here")),)


MISTAKES = {
    "time: {}": "server time needs either a command or a url.",
    "time: {command: x, url: http://h}": "server time needs either a command or a url.",
    "time: {command: x, transport: http}": (
        "server time has a command, and transport http has none."
    ),
    "time: {url: http://h, transport: stdio}": (
        "server time has a url, and transport stdio has none."
    ),
    "time: {url: http://h, args: [x]}": "server time has a url; args is for commands.",
    "time: {command: x, headers: {a: b}}": "server time is a command; headers are for URLs.",
    "time: {url: ftp://h}": "server time: 'ftp://h' is no http or https URL.",
    "time: {url: 'http://me:pw@h'}": "server time: its url must not hold a user name or password.",
    "time: {command: x, env: {A_TOKEN: abc}}": "server time: env A_TOKEN is a secret; write "
    "${NAME}, which is taken from the worker's environment.",
    "time: {url: http://h, headers: {x-api-key: abc}}": "server time: headers x-api-key is a "
    "secret; write ${NAME}, which is taken from the worker's environment.",
    "a b: {command: x}": "server 'a b': its name may have letters, digits, _ and -, 64 at most.",
    "time: {command: x, timout: 3}": "unknown field servers.time.timout; did you mean timeout?",
    "time: {command: x, timeout: 0}": (
        "servers.time.timeout wants a number of seconds above 0; got 0."
    ),
    "time: {command: x, env: {A: 1}}": "servers.time.env.A wants text; got 1.",
    "time: {command: x, session: one}": (
        "servers.time.session wants one of shared, row; got 'one'."
    ),
    "time: x": "servers.time wants a mapping with a command or a url; got 'x'.",
}


@pytest.mark.parametrize("server", MISTAKES)
def test_servers_that_are_not_whole_are_refused(server: str, tmp_path: Path) -> None:
    with pytest.raises(OptionsError) as caught:
        _servers(tmp_path, f"servers:\n  {server}\n")
    assert str(caught.value) == f"card {tmp_path}/card.yaml:2: {MISTAKES[server]}"


SECRET_NAMES = (
    "AWS_SECRET_ACCESS_KEY", "PGPASSWORD", "GITHUB_PAT", "DB_PASS", "MYSQL_PWD", "OPENAI_KEY",
    "APIKEY", "api-key", "KEY", "HF_TOKEN", "ACCESSTOKEN", "CLIENT_SECRET", "SSH_PASSPHRASE",
    "DBPASS", "PRIVATEKEY",
)  # fmt: skip
PLAIN_NAMES = (
    "PATH", "PWD", "OLDPWD", "MAX_TOKENS", "TOKENIZERS_PARALLELISM", "PASSWORD_FILE", "PUBLIC_KEY",
    "PARTITION_KEY", "SPAT", "COMPASS", "MONKEY", "GOOGLE_APPLICATION_CREDENTIALS",
    "AWS_ACCESS_KEY_ID",
)  # fmt: skip


@pytest.mark.parametrize("name", [*SECRET_NAMES, *PLAIN_NAMES])
def test_a_secret_is_known_by_its_name_and_not_written_out(name: str, tmp_path: Path) -> None:
    fields = f"servers: {{t: {{command: x, env: {{{name}: {{}}}}}}}}"
    (named,) = _servers(tmp_path, fields.replace("{}", "'${V:some-value}'"))
    assert resolve(named, {}).secrets == ({"some-value"} if name in SECRET_NAMES else set())
    assert resolve(named, {"V": "other-value"}).secrets == {"other-value"}
    literal = fields.replace("{}", "some-value")
    if name in PLAIN_NAMES:
        assert _servers(tmp_path, literal)[0].env == {name: "some-value"}
        return
    with pytest.raises(OptionsError, match=f"env {name} is a secret; write"):
        _servers(tmp_path, literal)


def test_a_secret_that_a_spec_writes_out_is_redacted() -> None:
    spec = ServerSpec(name="t", url="http://h", headers={"X-Api-Key": "k-1234567"})
    spec = dataclasses.replace(spec, env={"DB_PASS": "hunter2hunter2", "ZONE": "Europe"})
    target = resolve(spec, {})
    assert target.secrets == {"k-1234567", "hunter2hunter2"}
    assert target.redact("hunter2hunter2 in Europe, k-1234567") == "*** in Europe, ***"


OTHER_MISTAKES = {
    "servers: 3": "servers wants a mapping of servers by name; got 3.",
    "servers: [3]": "servers.0 wants a name; got 3.",
    "servers: [time]": (
        "server time is named only; say what it is here, or in a file for --mcp-config."
    ),
    "tools: {time: [x]}": "tools names time, which is no server of this card.",
    "tools: {time: []}": "tools.time wants a list of names; got [].",
    "mcp_connect: [{name: x}]": "mcp_connect.0 needs target.",
    'mcp_connect: [{target: "a \'b"}]': (
        'target "a \'b" is no command line (No closing quotation).'
    ),
    "mcp_connect: [{target: ' '}]": "target wants a command line or a URL; got white space.",
    "mcp_connect: [{target: x}, {target: x}]": "there are two servers named x.",
}


@pytest.mark.parametrize("fields", OTHER_MISTAKES)
def test_what_a_card_says_of_servers_is_checked(fields: str, tmp_path: Path) -> None:
    with pytest.raises(OptionsError) as caught:
        _servers(tmp_path, fields)
    assert str(caught.value) == f"card {tmp_path}/card.yaml:1: {OTHER_MISTAKES[fields]}"


CONFIG_MISTAKES = {
    "tim": ": it lists no server tim; did you mean time?",
    "gone": ": gone is disabled.",
    "bare": ": bare wants a mapping; got 'x'.",
    "editor": ": editor.env: write ${TOKEN} for ${env:TOKEN}.",
    "here": ": here.cwd names ${BIN}, which is not set.",
}


@pytest.mark.parametrize("name", CONFIG_MISTAKES)
def test_servers_of_a_file_are_checked(name: str, tmp_path: Path) -> None:
    config = write(tmp_path, "mcp.json", json.dumps({"mcpServers": CONFIG}))
    with pytest.raises(OptionsError) as caught:
        _servers(tmp_path, f"servers: [{name}]", mcp_config=str(config))
    assert str(caught.value) == f"--mcp-config {config}{CONFIG_MISTAKES[name]}"


def test_a_field_in_a_file_of_servers_is_named_with_the_file(tmp_path: Path) -> None:
    config = write(tmp_path, "mcp.json", json.dumps({"mcpServers": CONFIG}))
    with pytest.raises(OptionsError) as caught:
        _servers(tmp_path, "servers: [odd]", mcp_config=str(config))
    assert str(caught.value) == f"--mcp-config {config}: odd.args wants a list of texts; got 'y'."


FILES = {
    "mcp.json": ("{", ": not JSON ("),
    "mcp.yaml": ("a: [", ":1: expected"),
    "empty.yaml": ("a: b", ": it has no mapping mcpServers."),
    "list.json": ("[]", ": it has no mapping mcpServers."),
}


@pytest.mark.parametrize("name", FILES)
def test_a_file_of_servers_is_read_or_refused(name: str, tmp_path: Path) -> None:
    text, expected = FILES[name]
    config = write(tmp_path, name, text)
    with pytest.raises(OptionsError) as caught:
        _servers(tmp_path, "servers: [time]", mcp_config=str(config))
    assert str(caught.value).startswith(f"--mcp-config {config}{expected}")


def test_a_file_of_servers_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(OptionsError) as caught:
        _servers(tmp_path, "servers: [time]", mcp_config=str(tmp_path / "no.json"))
    assert str(caught.value) == (
        f"--mcp-config {tmp_path}/no.json: cannot be read (No such file or directory)."
    )
