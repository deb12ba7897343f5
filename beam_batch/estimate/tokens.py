"""Counting tokens without a network.

With the extra `estimate`, tokens are counted with the vocabularies of OpenAI, which are exact for
its models and near for others; else four bytes count as a token.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from beam_batch import jsonio
from beam_batch.options import ModelSpec, PromptSpec, SchemaSpec
from beam_batch.prompts.template import leading_text
from beam_batch.providers import make_provider, output_bound
from beam_batch.records import Content

BYTES_A_TOKEN = 4
"""Of English, as OpenAI puts it (help.openai.com, "What are tokens")."""
MESSAGE_TOKENS = 11
"""What frames a system and a user message (OpenAI's cookbook, "How to count tokens")."""
_CL100K = ("gpt-4-", "gpt-3.5-")
_O200K = ("gpt-4o", "gpt-4.1", "gpt-4.5", "gpt-5", "o1", "o3", "o4", "chatgpt-4o")
_OPENAI = ("responses", "openai", "azure")


class TokenCounter(NamedTuple):
    """A way to count tokens.

    Attributes:
        name: of the vocabulary, or what stands for it.
        exact: whether the model has that vocabulary.
    """

    name: str
    exact: bool
    count: Callable[[str], int]

    def of(self, content: Content) -> int:
        """Count the text of a message; images are not counted."""
        parts = (content,) if isinstance(content, str) else content
        return sum(self.count(part) for part in parts if isinstance(part, str))


class Fixed(NamedTuple):
    """What every request has besides its prompt, in tokens.

    Attributes:
        same: of each request, before the prompt or around it.
        prefix: that all requests begin with.
        most_output: that a request may be answered with, or None where it sets no limit.
    """

    same: int
    prefix: int
    most_output: int | None


def make_counter(model: ModelSpec) -> TokenCounter:
    """Return the best way at hand to count the tokens of a model."""
    try:
        from quicktok import get_encoding
    except ImportError:
        return TokenCounter(f"{BYTES_A_TOKEN} bytes a token", False, _by_bytes)
    openai = model.provider in _OPENAI
    old = openai and (model.model == "gpt-4" or model.model.startswith(_CL100K))
    name = "cl100k_base" if old else "o200k_base"
    encoding = get_encoding(name)
    exact = openai and (old or model.model.startswith(_O200K))
    return TokenCounter(name, exact, lambda text: int(encoding.count(_clean(text))))


def _clean(text: str) -> str:
    """Replace what UTF-8 cannot say."""
    return text.encode("utf-8", "replace").decode()


def _by_bytes(text: str) -> int:
    return -(-len(text.encode("utf-8", "replace")) // BYTES_A_TOKEN)


def count_fixed(
    counter: TokenCounter, model: ModelSpec, prompt: PromptSpec, schema: SchemaSpec | None
) -> Fixed:
    """Count what every request has: instruction, schema as it is sent, and message frames."""
    body = make_provider(model, schema).to_request(prompt.instruction, "").body
    bare = make_provider(model, None).to_request(prompt.instruction, "").body
    shape = counter.count(jsonio.dumps(body).decode()) - counter.count(jsonio.dumps(bare).decode())
    instruction = counter.count(prompt.instruction)
    before = instruction + shape
    if model.provider != "anthropic":  # there the mark of what is cached stands behind the system
        before += counter.count(leading_text(prompt.template))
    return Fixed(instruction + shape + MESSAGE_TOKENS, before, output_bound(model))
