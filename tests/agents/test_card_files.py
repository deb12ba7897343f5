"""Where cards come from: files, folders, URLs, the Hub; and what cards from elsewhere may not."""

from __future__ import annotations

from pathlib import Path

import pytest
from aiohttp import web

from beam_batch.agents.cards import files as card_files
from beam_batch.agents.cards.files import read_cards
from beam_batch.errors import OptionsError
from tests.agents.cards import load, write
from tests.fakes import LoopbackServer
from tests.hub import Hub
from tests.support import beam_batch


class Files(LoopbackServer):
    """Serves files over HTTP."""

    def __init__(self, files: dict[str, str | int]) -> None:
        super().__init__()
        self.files = files
        self.asked = 0

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        self.asked += 1
        found = self.files.get(request.path, 404)
        return web.Response(status=found) if isinstance(found, int) else web.Response(text=found)


def test_a_folder_stands_for_its_cards_sorted(tmp_path: Path) -> None:
    for name in ("b.yml", "a.MD", "c.markdown", "d.yaml"):
        write(tmp_path, name, "---\nmodel: echo\n---\n")
    for name in ("README.md", "sub/e.yaml", ".f.yaml", "g.txt"):
        write(tmp_path, name, "# Nothing")
    found = read_cards([str(tmp_path), f"file://{tmp_path}/sub/e.yaml"])
    assert [card.stem for card in found] == ["a", "b", "c", "d", "e"]
    assert not any(card.is_remote for card in found)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("none.md", ": no such file."),
        ("a.txt", ": unknown suffix; a card is one of .md, .markdown, .yaml, .yml."),
        ("empty", ": the folder holds no card; cards are .yaml files, and .md files that begin "
         "with ---."),
        ("latin.yaml", ": not UTF-8 (invalid continuation byte)."),
        ("large.yaml", ": larger than 1 MiB; no card is."),
        ("folder.yaml/x.yaml/y.yaml", ": no such file."),
    ],
)  # fmt: skip
def test_a_file_that_is_no_card_is_refused(name: str, message: str, tmp_path: Path) -> None:
    write(tmp_path, "empty/README.md", "# Nothing")
    write(tmp_path, "large.yaml", "#" * (2 << 20))
    (tmp_path / "latin.yaml").write_bytes(b"\xe9t")
    with pytest.raises(OptionsError) as caught:
        read_cards([str(tmp_path / name)])
    assert str(caught.value) == f"--agent-card {tmp_path / name}{message}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("# Nothing", ": it has no front matter between --- and ---; a plain instruction goes with "
         "--instruction."),
        ("---\nmodel: echo\n", ": its front matter has no second ---."),
    ],
)  # fmt: skip
def test_markdown_that_is_named_has_front_matter(text: str, message: str, tmp_path: Path) -> None:
    path = write(tmp_path, "a.md", text)
    with pytest.raises(OptionsError) as caught:
        load(path)
    assert str(caught.value) == f"card {path}{message}"


def test_a_card_is_read_from_a_url() -> None:
    with Files({"/cards/my card.md": "---\nmodel: echo\n---\nHello."}) as server:
        crew = load(f"{server.url}/cards/my%20card.md?token=secret")
    assert crew.agents["my_card"].instruction == "Hello."
    assert crew.cards == (f"{server.url}/cards/my%20card.md",)


def test_a_url_is_asked_again_where_that_may_help() -> None:
    with Files({"/a.yaml": 500}) as server:
        with pytest.raises(OptionsError, match=r"a\.yaml: cannot be read \(500"):
            load(f"{server.url}/a.yaml")
        assert server.asked == card_files.ATTEMPTS
        with pytest.raises(OptionsError, match=r"b\.yaml: cannot be read \(no such file\)\."):
            load(f"{server.url}/b.yaml")
        assert server.asked == card_files.ATTEMPTS + 1


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("https://me:pw@h/a.md", "--agent-card: a URL must not hold a user name or password."),
        ("https://h/a", "--agent-card https://h/a: unknown suffix; a card is one of .md, "
         ".markdown, .yaml, .yml."),
        ("nope://h/a.md", "--agent-card nope://h/a.md: Protocol not known: nope; name a file, a "
         "folder, hf:// or https://."),
        ("hf://datasets/me/a.md", "--agent-card hf://datasets/me/a.md: write "
         "hf://datasets/owner/name/path, or models or spaces for datasets."),
    ],
)  # fmt: skip
def test_urls_that_cannot_be_cards_are_refused(url: str, message: str) -> None:
    with pytest.raises(OptionsError) as caught:
        load(url)
    assert str(caught.value) == message


FROM_ELSEWHERE = {
    "servers: {t: {command: x}}": "server t is a command; a card from elsewhere may run one only "
    "with --trust-card.",
    "mcp_connect: [{target: x}]": "server x is a command; a card from elsewhere may run one only "
    "with --trust-card.",
    "servers: {t: {url: 'http://h/${T}'}}": "servers.t.url asks for a variable of the environment; "
    "a card from elsewhere may do so only with --trust-card.",
    "instruction: ${T:x}": "instruction asks for a variable of the environment; a card from "
    "elsewhere may do so only with --trust-card.",
    "model: local.x.gguf": "model: a card from elsewhere may run a model on this machine only with "
    "--trust-card.",
    "shell: true": "shell is about this machine; a card from elsewhere may have it only with "
    "--trust-card.",
    "roots: .": "roots is about this machine; a card from elsewhere may have it only with "
    "--trust-card.",
    "skills: .": "skills is about this machine; a card from elsewhere may have it only with "
    "--trust-card.",
    "function_tools: os:getcwd": "function_tools is about this machine; a card from elsewhere may "
    "have it only with --trust-card.",
}


@pytest.mark.parametrize("fields", FROM_ELSEWHERE)
def test_a_card_from_elsewhere_gets_at_nothing_of_this_machine(
    fields: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, "one/SKILL.md", "---\nname: one\ndescription: x\n---\n")
    monkeypatch.chdir(tmp_path)
    with Files({"/a.yaml": fields}) as server:
        with pytest.raises(OptionsError) as caught:
            load(f"{server.url}/a.yaml")
        assert str(caught.value) == f"card {server.url}/a.yaml:1: {FROM_ELSEWHERE[fields]}"
        load(f"{server.url}/a.yaml", trust=True)


def test_a_card_from_elsewhere_may_name_servers_by_url() -> None:
    with Files({"/a.yaml": "servers: {t: {url: 'http://h.example/mcp'}}\nshell: false"}) as server:
        assert load(f"{server.url}/a.yaml").agents["a"].servers[0].url == "http://h.example/mcp"


def test_cards_are_read_from_the_hub(tmp_path: Path) -> None:
    card = b"---\nmodel: echo\n---\nHello."
    folder = {"cards/a.md": card, "cards/README.md": b"# x", "cards/sub/b.md": card, "c.txt": b""}
    with Hub() as hub:
        commit = hub.add("me/cards", folder)
        model = hub.add("models/me/net", {"a.md": card})
        hub.add("spaces/me/app", {"b.yaml": b"model: echo"})
        env = hub.environment(tmp_path)

        def check(*cards: str) -> str:
            done = beam_batch("card", "check", *cards, env=env)
            return done.stdout + done.stderr

        said = check(
            "hf://datasets/me/cards/cards", "hf://spaces/me/app/b.yaml",
        )  # fmt: skip
        assert f"hf://datasets/me/cards@{commit}/cards/a.md: ok" in said
        assert "hf://spaces/me/app@" in said
        assert f"hf://me/net@{model}/a.md: ok" in check(f"hf://models/me/net@{model}/a.md")
        assert "no such file, and no folder with cards." in check("hf://datasets/me/cards/none")
        assert (
            "cannot be read (no such repository or revision, or a private or gated one: set "
            "HF_TOKEN)." in check("hf://datasets/me/none/a.md")
        )
