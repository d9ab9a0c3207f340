"""What is answered: by any OpenAI-compatible chat endpoint, streamed, or by the scripted host.

An answer comes as pieces of text, as they are written. Nothing here knows audio or turns.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Sequence
from dataclasses import asdict
from typing import Any, Protocol

import httpx

from app.errors import CarillonError
from app.platform.settings import TalkSettings
from app.talk.dialogue import Said
from app.talk.host import ScriptedHost

TOKEN_TIMEOUT_S = 30.0
"""Between two pieces."""


class Mind(Protocol):
    """Writes the answers."""

    name: str

    def answer(self, dialogue: Sequence[Said]) -> AsyncGenerator[str, None]:
        """The answer to the last message, piece by piece. Raises CarillonError."""
        ...

    async def aclose(self) -> None: ...


def mind_of(settings: TalkSettings) -> Mind:
    """The one that is configured, else the scripted host."""
    return ChatEndpoint(settings) if settings.chat_url else ScriptedHost()


class ChatEndpoint:
    """An OpenAI-compatible `/v1/chat/completions`."""

    def __init__(self, settings: TalkSettings, *, transport: httpx.AsyncBaseTransport | None = None) -> None:
        assert settings.chat_url
        self.name = settings.chat_model
        self._url = settings.chat_url
        self._instructions = settings.instructions
        key = settings.chat_key.get_secret_value()
        self._http = httpx.AsyncClient(
            headers={"Authorization": f"Bearer {key}"} if key else {}, timeout=TOKEN_TIMEOUT_S, transport=transport
        )

    async def answer(self, dialogue: Sequence[Said]) -> AsyncGenerator[str, None]:
        messages = [{"role": "system", "content": self._instructions}, *map(asdict, dialogue)]
        body = {"model": self.name, "messages": messages, "stream": True}
        try:
            async with self._http.stream("POST", self._url, json=body) as response:
                response.raise_for_status()
                async for line in response.aiter_lines():
                    if piece := _piece(line):
                        yield piece
        except httpx.HTTPStatusError as error:
            raise CarillonError(
                f"the chat endpoint answered HTTP {error.response.status_code}; see CARILLON_TALK__CHAT_…"
            ) from None
        except (httpx.HTTPError, ValueError, LookupError, TypeError, AttributeError) as error:
            raise CarillonError(
                f"the chat endpoint gave no answer ({type(error).__name__}); CARILLON_TALK__CHAT_URL names it"
            ) from None

    async def aclose(self) -> None:
        await self._http.aclose()


def _piece(line: str) -> str | None:
    """The text of a line of the stream, if it has any."""
    if not line.startswith("data:") or (data := line.removeprefix("data:").strip()) == "[DONE]":
        return None
    chunk: dict[str, Any] = json.loads(data)
    return chunk["choices"][0]["delta"].get("content") if chunk["choices"] else None
