"""The peer: what one writes by hand, asyncio.gather with a semaphore over the official SDK.

Run: python -m benchmarks.peer_sdk BASE_URL INPUT OUTPUT PARALLEL
"""

from __future__ import annotations

import asyncio
import json
import sys

from openai import AsyncOpenAI, OpenAIError


async def main(base_url: str, source: str, target: str, parallel: int) -> None:
    """Answer every row, with the retries that the SDK makes by itself, and write the results."""
    client = AsyncOpenAI(base_url=base_url, api_key="none")
    gate = asyncio.Semaphore(parallel)

    async def answer(row: dict[str, str]) -> dict[str, object]:
        try:
            async with gate:
                reply = await client.chat.completions.create(
                    model="benchmark",
                    messages=[
                        {"role": "system", "content": "Classify the review."},
                        {"role": "user", "content": row["review"]},
                    ],
                )
        except OpenAIError as error:
            return {"id": row["id"], "error": str(error)}
        return {"id": row["id"], "result": reply.choices[0].message.content}

    with open(source) as file:
        rows = [json.loads(line) for line in file]
    results = await asyncio.gather(*(answer(row) for row in rows))
    with open(target, "w") as file:
        file.writelines(json.dumps(result) + "\n" for result in results)


if __name__ == "__main__":
    url, rows, out, window = sys.argv[1:]
    asyncio.run(main(url, rows, out, int(window)))
