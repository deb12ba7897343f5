"""The peer of agents: openai-agents, its loop run for each row within a semaphore.

Run: python -m benchmarks.peer_agents BASE_URL INPUT PARALLEL [tools]; needs openai-agents.
"""

from __future__ import annotations

import asyncio
import json
import sys

from agents import Agent, OpenAIChatCompletionsModel, Runner, function_tool, set_tracing_disabled
from openai import AsyncOpenAI


@function_tool
def count_words(text: str) -> int:
    """Count the words of a text."""
    return len(text.split())


async def main(base_url: str, source: str, parallel: int, with_tools: bool) -> None:
    """Answer every row; a row that fails ends it."""
    set_tracing_disabled(True)
    client = AsyncOpenAI(base_url=base_url, api_key="none")
    agent = Agent(
        name="counter",
        instructions="Classify the review.",
        model=OpenAIChatCompletionsModel(model="benchmark", openai_client=client),
        tools=[count_words] if with_tools else [],
    )
    gate = asyncio.Semaphore(parallel)

    async def answer(row: dict[str, str]) -> str:
        async with gate:
            return str((await Runner.run(agent, row["review"])).final_output)

    with open(source) as file:
        rows = [json.loads(line) for line in file]
    await asyncio.gather(*(answer(row) for row in rows))


if __name__ == "__main__":
    url, rows, window, *tools = sys.argv[1:]
    asyncio.run(main(url, rows, int(window), bool(tools)))
