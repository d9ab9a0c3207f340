"""A time limit for one wait after the other, by the thousand a second.

`asyncio.timeout` sets a timer at the begin of each wait and takes it back at the end, which costs as much as sending a
frame of audio. Here one timer serves all waits of its owner: it is set for the first, and when it fires it looks what
is waited for then.
"""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Self


class Deadline:
    """Raises TimeoutError in its owner, as `asyncio.timeout` does. It limits one wait at a time; `close` it in the end.

    Example:
        with deadline.within(30):
            await socket.send(frame)
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at_s = 0.0
        self._task: asyncio.Task[object] | None = None
        self._ends_at_s = 0.0
        self._waiting = False
        self._expired = False
        self._cancelling = 0

    def within(self, timeout_s: float) -> Self:
        """The limit of the wait that follows."""
        self._ends_at_s = self._loop.time() + timeout_s
        return self

    def __enter__(self) -> None:
        self._task = task = asyncio.current_task()
        assert task and not self._waiting
        self._cancelling = task.cancelling()
        self._waiting = True
        if self._timer is None or self._ends_at_s < self._timer_at_s:
            self._set_timer()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._waiting = False
        if self._expired:
            self._expired = False
            assert self._task
            # It may have been cancelled for another reason too, which goes first.
            if self._task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
                raise TimeoutError from error

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _set_timer(self) -> None:
        self.close()
        self._timer_at_s = self._ends_at_s
        self._timer = self._loop.call_at(self._ends_at_s, self._look)

    def _look(self) -> None:
        self._timer = None
        if not self._waiting:
            return
        if self._loop.time() < self._ends_at_s:
            self._set_timer()
            return
        assert self._task
        self._expired = True
        self._task.cancel()
