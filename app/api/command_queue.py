"""What a client has said and its session has not been sent yet, bounded in messages and in characters.

This is where text is refused that would wait too long to be spoken; it is counted as it was written.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Never

from app.errors import InvalidRequest, TextAfterEnd, TextTooLong
from app.realtime.session import RoutedSession
from app.realtime.worker_client import Command
from app.speech.protocol import Cancel, Eos, Text

MAX_COMMANDS = 1_000


class CommandQueue:
    """One session's commands, in order. `put` and `cancel` do not wait."""

    def __init__(self, *, max_pending_chars: int) -> None:
        self.ended = False
        """`eos` has come."""
        self._max_pending_chars = max_pending_chars
        self._commands: deque[Command] = deque()
        self._sending: Command | None = None
        """On its way to the session, where it waits while that moves."""
        self._session: RoutedSession | None = None
        self._arrived = asyncio.Event()

    def put(self, command: Command) -> None:
        """Add a command. Raises TextAfterEnd, TextTooLong or InvalidRequest where it cannot be honoured."""
        if self.ended:
            raise TextAfterEnd(f"{command.type} after the end of this session's text; start another session")
        if isinstance(command, Text):
            self._check_pending(command.text)
        self._add(command)
        self.ended = isinstance(command, Eos)

    def cancel(self, command: Cancel) -> None:
        """Drop what waits, but for earlier cancels, each of which is answered, and `eos`; then cancel.

        After `eos` there is no next turn: `done` follows `cancelled`.
        """
        cancels = [kept for kept in self._commands if isinstance(kept, Cancel)]
        ends = [kept for kept in self._commands if isinstance(kept, Eos)]
        self._commands.clear()
        for kept in (*cancels, command, *ends):
            self._add(kept)

    def _add(self, command: Command) -> None:
        if len(self._commands) >= MAX_COMMANDS:
            raise InvalidRequest(f"{MAX_COMMANDS} messages wait for this session's worker; slow down")
        self._commands.append(command)
        self._arrived.set()

    def _check_pending(self, text: str) -> None:
        pending = self._pending_chars()
        if pending + len(text) > self._max_pending_chars:
            raise TextTooLong(
                f"{len(text)} characters with {pending} still waiting; at most {self._max_pending_chars} may be "
                "pending: send the rest when some of it has been spoken",
                param="text",
            )

    def _pending_chars(self) -> int:
        """Characters of this turn that no chunk has begun with."""
        chars = 0
        for command in (*reversed(self._commands), self._sending):
            if isinstance(command, Cancel):
                return chars
            chars += len(command.text) if isinstance(command, Text) else 0
        return chars + (self._session.pending_chars if self._session else 0)

    async def carry(self, session: RoutedSession) -> Never:
        """Send what comes to `session`, until cancelled. Raises as its `send` does."""
        self._session = session
        while True:
            while self._commands:
                self._sending = self._commands.popleft()
                await session.send(self._sending)
                self._sending = None
            self._arrived.clear()
            await self._arrived.wait()
