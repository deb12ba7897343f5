"""The command line of the cache: a run's flags, what is in it, and what of it goes."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import rich_click as click

from beam_batch.errors import BatchError, OptionsError, first_line

if TYPE_CHECKING:
    from beam_batch.reuse.kept import ReplyStore


@click.group()
def cache() -> None:
    """Look into a cache of replies (--cache), and prune it."""


@cache.command("ls")
@click.argument("place", metavar="DIR|URI")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def list_cache(place: str, as_json: bool) -> None:
    """Show how many replies a cache holds, how old, how large, and of which models."""
    from beam_batch import jsonio
    from beam_batch.reuse.upkeep import describe

    with _opened(place) as store:
        found = describe(store)
    click.echo(jsonio.pretty(found) if as_json else _table(place, found))


@cache.command("prune")
@click.argument("place", metavar="DIR|URI")
@click.option("--older-than", help="Remove replies older than this: 12h, 30d, 8w.")
@click.option("--model", help="Only those of a model, by the name that ls shows.")
@click.option("--max-size", help="Remove the oldest until this much is left: 500MB, 2GB.")
@click.option("--yes", is_flag=True, help="Do not ask first.")
def prune_cache(
    place: str, older_than: str | None, model: str | None, max_size: str | None, yes: bool
) -> None:
    """Remove replies from a cache: the old ones, those of a model, or what is too much.

    --model alone removes all of that model; with the other two, they look at that model only.
    """
    from beam_batch.reuse.upkeep import Rules, doomed, in_units, parse_age, parse_size, prune

    if older_than is None and model is None and max_size is None:
        raise OptionsError("say what goes: --older-than 30d, --model NAME or --max-size 2GB.")
    rules = Rules(
        model,
        parse_age("--older-than", older_than) if older_than is not None else None,
        parse_size("--max-size", max_size) if max_size is not None else None,
    )
    now = time.time()
    with _opened(place) as store:
        going = doomed(store, rules, now)
        what = f"{going.replies:,} of {going.of:,} replies ({in_units(going.size)})"
        if going.replies and not yes:
            _ask(f"Remove {what} from {place}?")
        prune(store, rules, now)
    click.echo(f"removed {what} from {place}")


def _ask(question: str) -> None:
    if not sys.stdin.isatty():
        raise OptionsError(f"{question} Add --yes.")
    click.confirm(question, abort=True)


@contextlib.contextmanager
def _opened(place: str) -> Iterator[ReplyStore]:
    """Open a cache; whatever is wrong with it becomes one message."""
    from beam_batch.reuse.making import open_existing

    store = open_existing(place)
    try:
        yield store
    except (BatchError, click.ClickException, click.Abort):
        raise
    except Exception as error:  # SQLite's, and clients of object stores raise what they like
        raise OptionsError(f"{place}: {first_line(error)}.") from None
    finally:
        store.close()


def _table(place: str, found: dict[str, Any]) -> str:
    from beam_batch.reuse.upkeep import in_units

    if not found["replies"]:
        return f"{place}: empty"
    lines = [
        f"{place}: {found['replies']:,} replies, {in_units(found['bytes'])}, "
        f"from {found['oldest']} to {found['newest']}"
    ]
    for name, part in found["models"].items():
        lines.append(
            f"  {name}: {part['replies']:,} replies, {in_units(part['bytes'])}, "
            f"{part['input_tokens']:,} input and {part['output_tokens']:,} output tokens"
        )
    return "\n".join(lines)
