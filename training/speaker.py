"""Speaking through real workers of the fleet, as any listener does, for audio that is measured or learned from.

It claims places politely: unpaced, which the engine serves after everybody who listens, a few at once, and coming again
when there is no room. It knows nothing of what the audio is for.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from time import monotonic
from typing import Protocol

from app.core.audio import Samples, samples_of
from app.core.errors import CarillonError, Overloaded, UnknownModel
from app.core.messages import AudioFrame, Eos, Segment, Text
from app.core.models import Voice
from app.infra.registry import Registry, open_fleet, open_redis
from app.infra.settings import Settings
from app.infra.upstream import Upstream

PATIENCE_S = 120.0
"""How long no worker may be had: a restart of the engine takes about a minute."""

RETRY_S = 2.0

_SESSION = "speaker"  # replaced by the lease's id

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Spoken:
    """An utterance as a listener gets it: float32 mono, head silence and all.

    `complete` says that the model ended it by itself; `chunks` is 1 unless the worker cut the text.
    """

    text: str
    samples: Samples
    sample_rate_hz: int
    complete: bool = True
    chunks: int = 1


class Speaker(Protocol):
    """Whoever speaks a text with a voice."""

    async def speak(self, voice: Voice, text: str) -> Spoken:
        """Raises CarillonError."""
        ...


class FleetSpeaker:
    """Speaks through an `Upstream`."""

    def __init__(
        self,
        upstream: Upstream,
        *,
        patience_s: float = PATIENCE_S,
        clock: Callable[[], float] = monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.upstream = upstream
        self._patience_s = patience_s
        self._clock = clock
        self._sleep = sleep

    async def speak(self, voice: Voice, text: str) -> Spoken:
        """The text from one worker, begun anew wherever a worker is lost, full or not there yet.

        Raises Overloaded when that goes on for `patience_s`, and at once what no other worker would mend, such as
        AdapterUnavailable.
        """
        give_up_at = self._clock() + self._patience_s
        while True:
            try:
                return await self._speak(voice, text)
            except CarillonError as error:
                if not (error.retryable or isinstance(error, UnknownModel)):
                    raise
                wait_s = error.retry_after_s or RETRY_S
                if self._clock() + wait_s > give_up_at:
                    raise Overloaded(
                        f"no worker of model {voice.model!r} spoke within {self._patience_s:g} s; the last answer was: "
                        f"{error.message}; start workers, or try again when there is room",
                        retry_after_s=wait_s,
                    ) from error
                log.info("speaking again soon", extra={"code": error.code, "wait_s": wait_s})
            await self._sleep(wait_s)

    async def _speak(self, voice: Voice, text: str) -> Spoken:
        audio: list[bytes] = []
        segments: list[Segment] = []
        async with self.upstream.open(voice, pace="unpaced") as session:
            await session.send(Text(session=_SESSION, text=text))
            await session.send(Eos(session=_SESSION))
            async for event in session:
                if isinstance(event, AudioFrame):
                    audio.append(event.audio)
                elif isinstance(event, Segment):
                    segments.append(event)
            rate_hz = session.ready.sample_rate_hz
        complete = bool(segments) and all(segment.complete for segment in segments)
        return Spoken(text, samples_of(b"".join(audio)), rate_hz, complete, len(segments))


@asynccontextmanager
async def open_speaker(settings: Settings) -> AsyncIterator[FleetSpeaker]:
    """A speaker in the fleet of `settings`. Raises ConfigurationError when the registry's address is missing."""
    async with AsyncExitStack() as stack:
        redis = open_redis(settings)
        stack.push_async_callback(redis.aclose)
        registry = Registry(redis, settings)
        upstream = Upstream(await stack.enter_async_context(open_fleet(registry, settings)), registry, settings)
        stack.push_async_callback(upstream.aclose)
        yield FleetSpeaker(upstream)


async def speak_each(
    speaker: Speaker,
    lines: Iterable[tuple[Voice, str]],
    heard: Callable[[int, Spoken], None],
    *,
    at_once: int,
) -> None:
    """Speak every line, `at_once` at a time; `heard` gets each utterance with its line's number as it is there.

    A line is asked for when its turn comes. The first error ends it all, and is raised.
    """
    queue = enumerate(lines)

    async def take_turns() -> None:
        for number, (voice, text) in queue:
            heard(number, await speaker.speak(voice, text))

    try:
        async with asyncio.TaskGroup() as turns:
            for _ in range(at_once):
                turns.create_task(take_turns())
    except ExceptionGroup as errors:
        raise errors.exceptions[0] from None
