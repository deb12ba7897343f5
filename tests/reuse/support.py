"""What the tests of reuse share: a model, replies, and processes that ask."""

from __future__ import annotations

import asyncio
import os
from multiprocessing.synchronize import Barrier
from pathlib import Path

from beam_batch.options import ModelSpec, ReuseSpec
from beam_batch.outputs.workdir import WorkDir
from beam_batch.providers.base import Reply, Usage
from beam_batch.reuse.kept import KeptReply
from beam_batch.reuse.making import make_once
from beam_batch.reuse.once import Once

MODEL = ModelSpec(text="openai.m", provider="openai", model="m", base_url="http://x/v1")


def reply_of(text: str) -> Reply:
    return Reply(
        text, "stop", "m-1", f"id-{text[:8]}", Usage(10, 5, 15, cached_tokens=2), "default"
    )


def kept(text: str, made: float = 1000.0, asked: str = "openai.m") -> KeptReply:
    return KeptReply(reply_of(text), asked, made)


def key(number: int) -> bytes:
    return number.to_bytes(4) * 4


DEDUPE = ReuseSpec(dedupe=True)


def new_once(folder: Path | None, spec: ReuseSpec = DEDUPE) -> Once:
    work = None
    if folder is not None:
        work = WorkDir(str(folder))
        work.create()
    once = make_once(spec, MODEL, work)
    assert once is not None
    return once


class Provider:
    """Answers with the number of the call, once it is told to."""

    def __init__(self, failures: int = 0) -> None:
        self.calls = 0
        self._failures = failures
        self.open = asyncio.Event()

    async def ask(self) -> Reply:
        self.calls += 1
        call = self.calls
        await self.open.wait()
        if call <= self._failures:
            raise RuntimeError(f"call {call} failed")
        return reply_of(str(call))


def ask_all(folder: Path, keys: int, start: Barrier) -> None:
    """Ask for many keys at once, twice each, in a process of its own; each call leaves a line."""
    calls = os.open(folder / "calls", os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    async def ask(number: int) -> Reply:
        os.write(calls, b"%d\n" % number)
        await asyncio.sleep(0.01)
        return reply_of(str(number))

    async def main() -> None:
        once = new_once(folder)
        start.wait()
        numbers = [number for number in range(keys) for _ in range(2)]
        found = await asyncio.gather(
            *(once.reply(key(number), lambda number=number: ask(number)) for number in numbers)
        )
        await once.close()
        assert [one.reply.text for one in found] == [str(number) for number in numbers]

    asyncio.run(main())
