"""The table of providers as a page of the docs: `python -m beam_batch.providers.listing`."""

from __future__ import annotations

from beam_batch.providers.model_string import MODEL_ALIASES, PROVIDER_ALIASES
from beam_batch.providers.table import PROVIDERS, ProviderInfo


def markdown() -> str:
    """Write the providers, their options and the short names of models."""
    parts = [
        "# Providers",
        "Written by `make docs` from the code. A model is named `provider.model?option=value&...`; "
        "any model of a provider goes by the name that the provider gives it.",
        *(_section(name, info) for name, info in PROVIDERS.items()),
        "## Short names",
        "\n".join(f"- `{short}`: `{long}`" for short, long in MODEL_ALIASES.items()),
        "Other names of providers: "
        + ", ".join(f"`{other}.` is `{name}.`" for other, name in PROVIDER_ALIASES.items())
        + ".",
    ]
    return "\n\n".join(parts) + "\n"


def _section(name: str, info: ProviderInfo) -> str:
    lines = [f"## {name}", ""]
    if info.base_url_env is not None:
        default = f"`{info.base_url}`" if info.base_url else "none"
        lines.append(f"- base URL: `{info.base_url_env}`, default {default}")
    if info.key_env is not None:
        needed = "required" if info.key_required else "optional"
        lines.append(f"- key: `{info.key_env}` ({needed})")
    lines.append(f"- wire format: {info.format}")
    lines += ["", "| option | takes |", "|---|---|"]
    lines += [f"| `{option}` | {found.takes} |" for option, found in info.options.items()]
    return "\n".join(lines)


if __name__ == "__main__":
    print(markdown(), end="")
