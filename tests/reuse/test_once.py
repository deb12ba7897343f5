"""One call for identical requests: in one event loop, among processes, and over runs."""

from __future__ import annotations

import asyncio
import multiprocessing
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest

from beam_batch.options import ReuseSpec
from beam_batch.outputs.workdir import WorkDir
from beam_batch.providers.base import Reply
from beam_batch.reuse.claims import Claims
from beam_batch.reuse.kept import KeptReply
from beam_batch.reuse.once import FLUSH_REPLIES, Found
from beam_batch.reuse.threads import Threads
from tests.reuse.support import MODEL, Provider, ask_all, kept, key, new_once, reply_of
from tests.support import environment

HOLD = """
import sys, time
from pathlib import Path
from beam_batch.reuse.claims import Claims
claims = Claims(Path(sys.argv[1]))
print(claims.take(bytes.fromhex(sys.argv[2])), flush=True)
time.sleep(600)
"""


async def turn() -> None:
    """Let every task run until it waits for something else."""
    for _ in range(5):
        await asyncio.sleep(0)


def gathered(found: list[Any]) -> tuple[list[Found], list[BaseException]]:
    bad = [one for one in found if isinstance(one, BaseException)]
    return [one for one in found if not isinstance(one, BaseException)], bad


def began(folder: Path, seconds: float) -> None:
    """Let a run begin at a time."""
    work = WorkDir(str(folder))
    work.create()
    work.write_manifest({"session": 1, "began": seconds})


async def never() -> Reply:
    raise AssertionError("asked")


@pytest.mark.parametrize("with_store", [True, False])
def test_two_hundred_identical_requests_are_one_call(tmp_path: Path, with_store: bool) -> None:
    async def main() -> None:
        once, provider = new_once(tmp_path if with_store else None), Provider()
        tasks = [asyncio.create_task(once.reply(key(1), provider.ask)) for _ in range(200)]
        await turn()
        provider.open.set()
        found = await asyncio.gather(*tasks)
        assert provider.calls == 1
        assert {one.reply for one in found} == {reply_of("1")}
        assert [one.source for one in found] == [None] + ["duplicate"] * 199
        await once.close()

    asyncio.run(main())


def test_when_a_call_fails_one_of_those_who_wait_asks_next(tmp_path: Path) -> None:
    async def main() -> None:
        once, provider = new_once(tmp_path), Provider(failures=1)
        tasks = [asyncio.create_task(once.reply(key(1), provider.ask)) for _ in range(200)]
        await turn()
        assert provider.calls == 1
        provider.open.set()
        good, bad = gathered(await asyncio.gather(*tasks, return_exceptions=True))
        assert provider.calls == 2
        assert [str(error) for error in bad] == ["call 1 failed"]
        assert {one.reply.text for one in good} == {"2"}
        assert [one.source for one in good].count(None) == 1
        await once.close()

    asyncio.run(main())


def test_who_is_cancelled_does_not_disturb_the_others(tmp_path: Path) -> None:
    async def main() -> None:
        once, provider = new_once(tmp_path), Provider()
        tasks = [asyncio.create_task(once.reply(key(1), provider.ask)) for _ in range(10)]
        await turn()
        for task in (tasks[3], tasks[0]):  # one who waits, and then the one who asks
            task.cancel()
            await turn()
        assert provider.calls == 2
        provider.open.set()
        good, bad = gathered(await asyncio.gather(*tasks, return_exceptions=True))
        assert provider.calls == 2
        assert [type(error) for error in bad] == [asyncio.CancelledError] * 2
        assert {one.reply.text for one in good} == {"2"}
        await once.close()

    asyncio.run(main())


def test_a_resumed_run_does_not_ask_again(tmp_path: Path) -> None:
    async def main() -> None:
        for source in (None, "duplicate", "duplicate"):
            once, provider = new_once(tmp_path), Provider()
            provider.open.set()
            first = await once.reply(key(1), provider.ask)
            again = await once.reply(key(1), never)  # before it was written
            assert (first.source, again.source) == (source, "duplicate")
            assert first.reply == again.reply == reply_of("1")
            await once.close()

    asyncio.run(main())


def test_a_reply_that_turned_out_bad_is_asked_for_again(tmp_path: Path) -> None:
    spec = ReuseSpec(dedupe=True, cache=str(tmp_path / "cache"))
    far = ReuseSpec(dedupe=True, cache="memory://forgotten")

    async def main(spec: ReuseSpec, work: Path) -> None:
        once, provider = new_once(work, spec), Provider()
        provider.open.set()
        await once.reply(key(1), provider.ask)
        await once.forget(key(1))
        assert (await once.reply(key(1), provider.ask)).reply.text == "2"
        await once.forget(key(1))
        await once.close()
        once = new_once(work, spec)
        assert (await once.reply(key(1), provider.ask)).reply.text == "3"
        await once.close()

    for number, one in enumerate((spec, far, ReuseSpec(dedupe=True))):
        asyncio.run(main(one, tmp_path / f"work-{number}"))


@pytest.mark.parametrize("cache", ["", "cache", "memory://renewed"])
def test_a_reply_that_is_renewed_is_asked_for_and_takes_the_place_of_the_other(
    tmp_path: Path, cache: str
) -> None:
    place = cache if "://" in cache else str(tmp_path / cache)
    spec = ReuseSpec(dedupe=True, cache=place if cache else None)

    async def main() -> None:
        once, provider = new_once(tmp_path / "work", spec), Provider()
        provider.open.set()
        texts = []
        for renew in (False, True, False):
            found = await once.reply(key(1), provider.ask, renew=renew)
            texts.append(found.reply.text)
        assert texts == ["1", "2", "2"]
        await once.close()

    asyncio.run(main())


@pytest.mark.parametrize("place", ["local", "memory://runs"])
def test_the_next_run_is_served_from_the_cache(tmp_path: Path, place: str) -> None:
    cache = str(tmp_path / "cache") if place == "local" else place

    async def run(name: str, spec: ReuseSpec) -> list[str | None]:
        work = tmp_path / name
        later = time.time() + 10 * len(list(tmp_path.iterdir()))  # each run after those before
        began(work, 0 if name == "first" else later)
        once, provider = new_once(work, spec), Provider()
        provider.open.set()
        found = [await once.reply(key(number), provider.ask) for number in (1, 1, 2)]
        await once.close()
        return [one.source for one in found]

    plain = ReuseSpec(dedupe=True, cache=cache)
    assert asyncio.run(run("first", plain)) == [None, "duplicate", None]
    assert asyncio.run(run("second", plain)) == ["cache", "cache", "cache"]
    aged = ReuseSpec(dedupe=True, cache=cache, cache_max_age=0)
    assert asyncio.run(run("aged", aged))[0] is None


def test_without_dedupe_the_samples_of_one_run_are_all_asked_for(tmp_path: Path) -> None:
    spec = ReuseSpec(dedupe=False, cache=str(tmp_path / "cache"))

    async def run(name: str, started: float) -> list[str | None]:
        work = tmp_path / name
        began(work, started)
        once, provider = new_once(work, spec), Provider()
        provider.open.set()
        found = [await once.reply(key(1), provider.ask) for _ in range(3)]
        assert provider.calls == [one.source for one in found].count(None)
        await once.close()
        return [one.source for one in found]

    assert asyncio.run(run("first", 0)) == [None, None, None]
    assert asyncio.run(run("second", time.time() + 10)) == ["cache", "cache", "cache"]


def test_two_processes_make_one_call_for_each_request(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    start = context.Barrier(2)
    processes = [context.Process(target=ask_all, args=(tmp_path, 50, start)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0]
    calls = (tmp_path / "calls").read_text().split()
    assert sorted(map(int, calls)) == list(range(50))


def _holder(folder: Path, held: bytes) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder), held.hex()],
        stdout=subprocess.PIPE,
        text=True,
        env=environment(),
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "True\n"
    return process


def test_the_claim_of_a_killed_process_is_free(tmp_path: Path) -> None:
    holder = _holder(tmp_path, key(7))
    once, provider = new_once(tmp_path), Provider()
    provider.open.set()

    async def main() -> None:
        assert (await once.reply(key(8), provider.ask)).source is None
        task = asyncio.create_task(once.reply(key(7), provider.ask))
        await asyncio.wait([task], timeout=0.3)
        assert not task.done()
        holder.send_signal(signal.SIGKILL)
        assert (await asyncio.wait_for(task, 30)).source is None
        await once.close()

    try:
        asyncio.run(main())
    finally:
        holder.kill()
        holder.communicate()


def test_a_claim_has_one_holder_also_within_a_process(tmp_path: Path) -> None:
    one, other = Claims(tmp_path), Claims(tmp_path)
    assert one.take(key(1))
    assert not other.take(key(1))
    assert other.take(key(2))
    other.close()  # must not drop what the first one holds: to the kernel they are the same
    holder = _holder(tmp_path, key(3))
    assert not one.take(key(3))
    one.free(key(1))
    assert one.take(key(1))
    holder.kill()
    holder.communicate()
    one.close()


def test_closing_a_second_user_of_the_claims_frees_nothing(tmp_path: Path) -> None:
    one = Claims(tmp_path)
    assert one.take(key(1))
    Claims(tmp_path).close()
    code = HOLD.replace("time.sleep(600)", "")
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path), key(1).hex()],
        capture_output=True, text=True, env=environment(), check=True,
    )  # fmt: skip
    assert done.stdout == "False\n"
    one.close()


def test_a_claim_goes_when_its_reply_is_written(tmp_path: Path) -> None:
    other = Claims(tmp_path)

    async def main() -> None:
        once, provider = new_once(tmp_path), Provider(failures=1)
        provider.open.set()
        with pytest.raises(RuntimeError):
            await once.reply(key(1), provider.ask)
        assert other.take(key(1))
        other.free(key(1))
        await once.reply(key(1), provider.ask)
        assert not other.take(key(1))  # no other process sees the reply yet
        await once.close()
        assert other.take(key(1))

    asyncio.run(main())
    other.close()


class Slow:
    """A remote store whose first write takes until the next one is over, if that overtakes it."""

    remote = True

    def __init__(self) -> None:
        self.done: list[str] = []
        self.go = threading.Event()

    def put(self, key: bytes, kept: KeptReply) -> None:
        self.go.wait(0.3)
        self.done.append("put")

    def forget(self, key: bytes) -> None:
        self.done.append("forget")
        self.go.set()

    def close(self) -> None:
        self.done.append("close")


def test_a_remote_store_forgets_after_it_has_written() -> None:
    async def main() -> None:
        slow = Slow()
        threads = Threads(slow)  # type: ignore[arg-type]
        await threads.put(key(1), kept("one"))
        await threads.forget(key(1))
        await threads.close()
        assert slow.done == ["put", "forget", "close"]

    asyncio.run(main())


def test_a_slow_store_does_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("beam_batch.reuse.threads.MOST_WRITES", 2)

    async def main() -> None:
        slow = Slow()
        threads = Threads(slow)  # type: ignore[arg-type]
        for number in range(2):
            await threads.put(key(number), kept("one"))
        third = asyncio.create_task(threads.put(key(2), kept("one")))
        await turn()
        assert not third.done()
        slow.go.set()
        await third
        await threads.close()
        assert slow.done == ["put"] * 3 + ["close"]

    asyncio.run(main())


def test_nothing_is_reused_where_nothing_is_asked_for(tmp_path: Path) -> None:
    from beam_batch.reuse.making import make_once

    work = WorkDir(str(tmp_path))
    assert make_once(ReuseSpec(dedupe=False), MODEL, work) is None
    assert list(tmp_path.iterdir()) == []


def test_the_run_s_replies_are_its_work_directory_s_own(tmp_path: Path) -> None:
    async def main() -> None:
        once = new_once(tmp_path)
        provider = Provider()
        provider.open.set()
        await once.reply(key(1), provider.ask)
        work = WorkDir(str(tmp_path))
        assert not work.claim()  # nothing foreign, while it is in use
        await once.close()
        work.remove()

    asyncio.run(main())
    assert not tmp_path.exists()


def test_no_keys_are_left_in_memory(tmp_path: Path) -> None:
    async def main() -> None:
        once, provider = new_once(tmp_path), Provider()
        provider.open.set()
        asks: list[Coroutine[Any, Any, Found]] = [
            once.reply(key(n), provider.ask) for n in range(1000)
        ]
        await asyncio.gather(*asks)
        assert not once._flights
        assert len(once._unflushed) < FLUSH_REPLIES
        await once.close()
        assert not once._unflushed

    asyncio.run(main())
