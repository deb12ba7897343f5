"""From a reply's text to a result."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from beam_batch.errors import StructuredOutputError
from beam_batch.prompts.repair import repaired


class Judged(NamedTuple):
    """A result, and whether its text was repaired first."""

    result: Any
    was_repaired: bool


def judge(validate: Callable[[str], Any], text: str) -> Judged:
    """Turn a reply into a result, after a repair that does not change what it says.

    Raises:
        StructuredOutputError: it is not JSON, or does not satisfy the schema.
    """
    try:
        return Judged(validate(text), False)
    except StructuredOutputError:
        better = repaired(text)
        if better is None or better == text:
            raise
    try:
        return Judged(validate(better), True)
    except StructuredOutputError as error:
        raise StructuredOutputError(str(error), reply=text) from None


def complaint(error: StructuredOutputError) -> str:
    """Say to a model what is wrong with its reply."""
    return (
        f"That answer cannot be used: {error!s:.1000}. Answer again with the corrected JSON "
        "only, without a code fence or explanation."
    )
