"""A chat endpoint as OpenAI's that answers by heart, word by word, for agents that speak."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web

from tests.clients.fleet import STORY, free_port

GREETING = "Good morning, **my friend**! 👍 It costs $3."


@asynccontextmanager
async def scripted_chat(*answers: str) -> AsyncIterator[str]:
    """A base URL that gives these answers one after the other, and the last one again and again.

    STORY has no end: the model still writes when its listener interrupts.
    """
    left = list(answers)

    async def complete(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        answer = left.pop(0) if left[1:] else left[0]
        for word in answer.split(" "):
            await response.write(_chunk({"role": "assistant", "content": word + " "}))
        while answer == STORY:
            await asyncio.sleep(1)
            await response.write(_chunk({"content": "and on "}))
        await response.write(_chunk({}, finish="stop") + b"data: [DONE]\n\n")
        return response

    app = web.Application()
    app.router.add_post("/v1/chat/completions", complete)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=1)
    await runner.setup()
    port = free_port()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    try:
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        await runner.cleanup()


def _chunk(delta: dict[str, str], finish: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    event = {"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": "scripted", "choices": [choice]}
    return f"data: {json.dumps(event)}\n\n".encode()
