"""The flags of agents: cards, variables, servers."""

from __future__ import annotations

import rich_click as click

VARIABLES = (
    click.option(
        "--var",
        "variables",
        multiple=True,
        metavar="NAME=VALUE",
        help="Value of {{NAME}} in instructions. May be repeated.",
    ),
    click.option(
        "--var-file",
        "variable_files",
        multiple=True,
        metavar="NAME=PATH",
        help="The same, from a file.",
    ),
    click.option("--vars-json", help="The same, from a JSON object of names and texts."),
)
TRUST_CARD = click.option(
    "--trust-card",
    is_flag=True,
    help="Let cards of the Hub or the web use files, commands and variables of this machine.",
)
MCP_CONFIG = click.option(
    "--mcp-config", help='File of MCP servers that cards name: {"mcpServers": {...}}.'
)
AGENTS = (
    click.option(
        "--agent-card",
        "agent_cards",
        multiple=True,
        help="Agent or workflow that answers the rows: a .md or .yaml file, a folder of them, "
        "hf:// or https://. May be repeated; beam-batch card check says what is in them.",
    ),
    click.option("--agent", help="Name of the card that answers rows, where several could."),
    *VARIABLES,
    MCP_CONFIG,
    click.option("--shell", is_flag=True, help="Let cards with shell: true run commands."),
    TRUST_CARD,
)
