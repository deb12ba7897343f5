"""echo: answers every prompt with itself. No network; for tests and for trying a run's wiring."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from beam_batch.errors import EmptyReply
from beam_batch.options import ModelSpec, SchemaSpec
from beam_batch.providers.base import Reply, Request, StreamReader, Turn, Usage, images_in
from beam_batch.records import Content


class EchoProvider:
    """Deterministic; with a schema, the prompt itself must be the JSON.

    Attributes:
        delay: seconds that an answer takes.
    """

    def __init__(self, model: ModelSpec, schema: SchemaSpec | None) -> None:
        self.wraps = False
        self.defers_schema = False
        self._model = model.model
        self.delay = model.options.get("delay_ms", 0) / 1000
        self._spin = model.options.get("spin_ms", 0) / 1000

    def to_request(
        self, instruction: str, prompt: Content, history: Sequence[Turn] = ()
    ) -> Request:
        """Build the request of one row; an image is named by its URL or its type."""
        images = images_in(prompt)
        if not isinstance(prompt, str):
            named = (p if isinstance(p, str) else f"[{p.url or p.media_type}]" for p in prompt)
            prompt = "".join(named)
        said = [turn.message for turn in history if turn.message]
        body = {"model": self._model, "instruction": instruction, "prompt": [prompt, *said][-1]}
        return Request("", body, False, images)

    def answer(self, request: Request) -> Any:
        """Answer with the prompt, after some work of the processor where that is asked for."""
        end = time.thread_time() + self._spin
        while self._spin and time.thread_time() < end:
            pass
        return request.body["prompt"]

    def to_reply(self, body: Any) -> Reply:
        """Read an answer; tokens are words."""
        if not body.strip():
            raise EmptyReply("the answer has no text")
        words = len(body.split())
        return Reply(body, "stop", self._model, None, Usage(words, words, 2 * words), None)

    def new_stream(self) -> StreamReader:
        """Refuse: an echo is not streamed."""
        raise NotImplementedError
