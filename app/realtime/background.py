"""Speaking through the fleet's workers in the background, for audio that is kept: narrations, renderings, measurements.

Interactive sessions go first: a session here has a spare place, and ends as soon as that is claimed. A `Narrator` comes
back when there is room again, for hours if need be. It knows nothing of what the audio is for.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from time import monotonic

from app.errors import CarillonError, Overloaded, SpeechFailed, UnknownModel, WorkerLost
from app.fleet.registry import Registry, open_redis
from app.fleet.view import open_fleet
from app.platform.settings import Settings
from app.realtime.router import SessionRouter
from app.realtime.session import RoutedSession
from app.speech.audio import Samples, samples_of
from app.speech.protocol import AudioFrame, Eos, Error, Segment, Text, Utter, Uttered
from app.speech.voices import Voice

PATIENCE_S = 120.0
"""How long no worker may be had: a restart of the engine takes about a minute."""

RETRY_S = 2.0

MAX_BREAKDOWNS = 5
"""A text over which this many sessions broke is at fault itself, and must not crash one worker after the other."""

VOICES_AT_HAND = 4
"""Sessions a narrator keeps at most: the voices of a dialogue take turns."""

_SESSION = "background"  # replaced by the lease's id

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Spoken:
    """An utterance as a listener gets it: float32 mono, head silence and all.

    `complete`: the model ended it by itself; `chunks` is 1 unless the worker cut the text. `repeated_s` is the longest
    stretch of repeating codes (of utterances only), `busy_s` how long `worker` and others were kept busy.
    """

    text: str
    samples: Samples
    sample_rate_hz: int
    complete: bool = True
    chunks: int = 1
    repeated_s: float = 0.0
    worker: str = ""
    busy_s: float = 0.0


class BackgroundSession:
    """One voice at one worker. Requests follow one another; one that fails ends the session."""

    def __init__(self, upstream: RoutedSession, clock: Callable[[], float]) -> None:
        self._upstream = upstream
        self._clock = clock

    async def utter(self, text: str, *, seed: int | None = None) -> Spoken:
        """Exactly `text`, in one breath. Another seed is another reading; without one, every time is another.

        Raises InvalidRequest for a text that cannot be spoken in one, and what else ends the session: Overloaded when
        the place is wanted, DeadlineExceeded when it was idle for too long before, WorkerLost, EngineFailed.
        """
        asked_at = self._clock()
        await self._upstream.send(Utter(session=_SESSION, text=text, seed=seed))
        audio: list[bytes] = []
        async for event in self._upstream:
            match event:
                case AudioFrame():
                    audio.append(event.audio)
                case Error():
                    raise event.rebuilt()
                case Uttered():
                    spoken = self._spoken(text, audio, asked_at)
                    return replace(spoken, complete=event.complete, repeated_s=event.repeated_s)
                case _:
                    pass
        raise WorkerLost(f"worker {self._upstream.worker.id} ended a session with an utterance pending")

    async def read(self, text: str) -> Spoken:
        """The text as in a live session, cut by the worker; the session is then over."""
        asked_at = self._clock()
        await self._upstream.send(Text(session=_SESSION, text=text))
        await self._upstream.send(Eos(session=_SESSION))
        audio: list[bytes] = []
        segments: list[Segment] = []
        async for event in self._upstream:
            if isinstance(event, AudioFrame):
                audio.append(event.audio)
            elif isinstance(event, Segment):
                segments.append(event)
        complete = bool(segments) and all(segment.complete for segment in segments)
        return replace(self._spoken(text, audio, asked_at), complete=complete, chunks=len(segments))

    def _spoken(self, text: str, audio: list[bytes], asked_at: float) -> Spoken:
        return Spoken(
            text,
            samples_of(b"".join(audio)),
            self._upstream.ready.sample_rate_hz,
            worker=self._upstream.worker.id,
            busy_s=self._clock() - asked_at,
        )


class BackgroundSpeech:
    """Speaks through a `SessionRouter`, in the background."""

    def __init__(
        self,
        upstream: SessionRouter,
        *,
        clock: Callable[[], float] = monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.upstream = upstream
        self.now = clock
        self.sleep = sleep

    @asynccontextmanager
    async def session(self, voice: Voice, *, temperature: float | None = None) -> AsyncIterator[BackgroundSession]:
        """A session in a spare place, if there is one now. Raises what `SessionRouter.open` raises."""
        async with self.upstream.open(voice, pace="background", temperature=temperature) as session:
            yield BackgroundSession(session, self.now)

    @asynccontextmanager
    async def narrator(
        self, *, temperature: float | None = None, patience_s: float | None = None
    ) -> AsyncIterator[Narrator]:
        """A narrator that waits for a spare place for `patience_s` a text, None: as long as there are workers."""
        narrator = Narrator(self, temperature, patience_s)
        try:
            yield narrator
        finally:
            await narrator.aclose()

    async def speak(self, voice: Voice, text: str) -> Spoken:
        """The text as in a live session, from one session; retries and raises as `Narrator.utter` does."""
        async with self.narrator() as narrator:
            return await narrator.retrying(voice, lambda session: session.read(text))


@dataclass(frozen=True, eq=False)
class _KeptSession:
    """A narrator's session with one voice; closing `stack` ends it."""

    voice: Voice
    session: BackgroundSession
    stack: AsyncExitStack


class Narrator:
    """Speaks one text after the other, with sessions kept from one to the next for the voices that spoke last.

    A session that waits for its voice's next line holds a place, so it is kept only as long as yet another place is
    spare: it hinders no other session, the narrator's own least of all. For one caller at a time.
    """

    def __init__(self, speech: BackgroundSpeech, temperature: float | None, patience_s: float | None) -> None:
        self._speech = speech
        self._temperature = temperature
        self._patience_s = patience_s
        self._held: list[_KeptSession] = []
        """In the order in which they spoke last."""

    async def utter(self, voice: Voice, text: str, *, seed: int | None = None) -> Spoken:
        """Exactly `text`, in one breath, begun again wherever the place is wanted, or a worker is lost or not there
        yet.

        Raises at once what no other worker would mend: InvalidRequest, UnknownVoice of a deleted voice,
        AdapterUnavailable. Raises Overloaded when the narrator's patience is at an end, or there has been no worker for
        PATIENCE_S; SpeechFailed when MAX_BREAKDOWNS sessions have broken over this text, and the last of their errors
        when there has been no worker for so long after it.
        """
        return await self.retrying(voice, lambda session: session.utter(text, seed=seed))

    async def retrying(self, voice: Voice, request: Callable[[BackgroundSession], Awaitable[Spoken]]) -> Spoken:
        """What a session with `voice` answers to `request`, which is retried as `utter` says."""
        patience = _Patience(self._speech, voice, self._patience_s)
        lost_s = 0.0
        await self._make_room(voice)
        while True:
            kept = self._find(voice)
            held, asked_at = kept, self._speech.now()
            try:
                if held is None:
                    held = await self._open(voice)
                    asked_at = self._speech.now()
                spoken = await request(held.session)
                return replace(spoken, busy_s=spoken.busy_s + lost_s)
            except CarillonError as error:
                if held:
                    lost_s += self._speech.now() - asked_at
                    await self._close(held)
                if kept and error.retryable:
                    continue  # it may have ended since, in silence: another is opened at once
                if held is None and self._held and isinstance(error, Overloaded):
                    await self._close(self._held[0])  # the place it needs may be its own
                    continue
                await patience.after(error, broke=held is not None)

    async def aclose(self) -> None:
        """End every session; another `utter` opens the next."""
        async with AsyncExitStack() as stack:
            while self._held:
                stack.push_async_callback(self._held.pop().stack.aclose)

    async def _make_room(self, voice: Voice) -> None:
        """End the session of another voice that spoke longest ago, if it is one too many or has the last place."""
        others = [held for held in self._held if held.voice != voice]
        if others and (len(others) >= VOICES_AT_HAND or not self._speech.upstream.placer.has_spare_place(voice)):
            await self._close(others[0])

    def _find(self, voice: Voice) -> _KeptSession | None:
        """The session kept with `voice`, which is now the last that spoke."""
        for held in self._held:
            if held.voice == voice:
                self._held.remove(held)
                self._held.append(held)
                return held
        return None

    async def _open(self, voice: Voice) -> _KeptSession:
        async with AsyncExitStack() as stack:
            session = await stack.enter_async_context(self._speech.session(voice, temperature=self._temperature))
            held = _KeptSession(voice, session, stack.pop_all())
        self._held.append(held)
        return held

    async def _close(self, held: _KeptSession) -> None:
        self._held.remove(held)
        await held.stack.aclose()


class _Patience:
    """How long to go on over one text, given what went wrong each time."""

    def __init__(self, speech: BackgroundSpeech, voice: Voice, patience_s: float | None) -> None:
        self._speech = speech
        self._model = voice.model
        self._patience_s = patience_s
        self._began_at = speech.now()
        self._absent_since: float | None = None
        self._breakdowns = 0
        self._breakdown: CarillonError | None = None

    async def after(self, error: CarillonError, *, broke: bool) -> None:
        """Wait before the next try, or raise. `broke`: the session broke, rather than could not be had."""
        if not (error.retryable or isinstance(error, UnknownModel)):
            raise error
        now, wait_s = self._speech.now(), error.retry_after_s or RETRY_S
        since, patience_s = self._began_at, self._patience_s
        if isinstance(error, Overloaded):
            self._absent_since = None
        elif broke:
            self._absent_since = None
            self._count(error)
            patience_s = None
        else:
            since = self._absent_since = now if self._absent_since is None else self._absent_since
            patience_s = PATIENCE_S
        if patience_s is not None and now + wait_s > since + patience_s:
            if self._breakdown and self._absent_since is not None:
                raise self._breakdown  # not to be lost over a slow restart: the next try shall count it
            raise Overloaded(
                f"no worker of model {self._model!r} spoke within {patience_s:g} s; the last answer was: "
                f"{error.message}; start workers, or try again when there is room",
                retry_after_s=wait_s,
            ) from error
        log.info("speaking again soon", extra={"code": error.code, "wait_s": wait_s})
        await self._speech.sleep(wait_s)

    def _count(self, error: CarillonError) -> None:
        self._breakdowns += 1
        self._breakdown = error
        if self._breakdowns >= MAX_BREAKDOWNS:
            raise SpeechFailed(
                f"{self._breakdowns} sessions broke over this text, the last with: {error.message}; "
                "change the words of this segment, or look into the workers' logs"
            ) from error


@asynccontextmanager
async def open_background_speech(settings: Settings) -> AsyncIterator[BackgroundSpeech]:
    """Speech from the fleet of `settings`. Raises ConfigurationError when the registry's address is missing."""
    async with AsyncExitStack() as stack:
        redis = open_redis(settings)
        stack.push_async_callback(redis.aclose)
        registry = Registry(redis, settings)
        upstream = SessionRouter(await stack.enter_async_context(open_fleet(registry, settings)), registry, settings)
        stack.push_async_callback(upstream.aclose)
        yield BackgroundSpeech(upstream)
