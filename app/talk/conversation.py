"""One conversation: a person's microphone in, the answers' audio and what there is to show out.

It joins the parts: the detector's windows go into `TurnTaking`, whose actions are done here by ears, mind, speaker and
playout. It does not know the transport: that calls `hear` with what the microphone gives, pulls `playout`, and is given
events to show by `tell`.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from contextlib import aclosing
from typing import Any

import numpy as np

from app.errors import CarillonError
from app.platform.settings import TalkSettings
from app.speech.protocol import AudioFrame, Segment, Turn
from app.speech.spoken_text import played_text
from app.talk.budget import TurnBudget, table
from app.talk.dialogue import Dialogue, Said
from app.talk.ears import Ears
from app.talk.microphone import RealTime, SpokenClock
from app.talk.mind import Mind
from app.talk.playout import RATE_HZ as SPOKEN_RATE_HZ
from app.talk.playout import Playout
from app.talk.speaker import Speaker, Utterance
from app.talk.speech_detector import RATE_HZ, WINDOW_S, WINDOW_SAMPLES, SpeechDetector
from app.talk.turn_taking import (
    Action,
    Begin,
    Discard,
    Forget,
    Hold,
    Interrupt,
    Recognise,
    Release,
    Resume,
    Think,
    TurnRules,
    TurnTaking,
)

TICK_S = 0.02
MUTE_S = 0.3
"""A microphone that sends nothing for so long is mute: time passes all the same."""
MOST_HEARD_S = 30.0
"""Of one turn: what was said before that is not heard by the recogniser."""
BEFORE_WINDOWS, AFTER_WINDOWS = 5, 4
"""Windows kept for the recogniser: the three in which speech became sure and two before them, for the detector is late;
and of the silence behind it."""
MOST_QUEUED = 100
"""Packets of the microphone that wait; beyond it the oldest is dropped."""
MOST_TURNS = 1000

Tell = Callable[[dict[str, Any]], None]
"""Shows an event: a JSON object with a `type`."""

log = logging.getLogger(__name__)


async def first_of(*work: Coroutine[Any, Any, Any], timeout_s: float | None = None) -> None:
    """Do all of it until one is done or the time is up; the others are cancelled. Raises what the first one raised."""
    tasks = {asyncio.ensure_future(it) for it in work}
    try:
        done, _ = await asyncio.wait(tasks, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class Attempt:
    """One try at an answer, and the moments of it on the conversation's clock."""

    def __init__(self, number: int, ended_at: float, began_at: float, words: str | None) -> None:
        self.number = number
        self.ended_at, self.began_at = ended_at, began_at
        self.words = words
        self.words_at = began_at if words is not None else None
        self.messages: tuple[Said, ...] = ()
        """The dialogue up to these words, before they are said for sure."""
        self.token_at: float | None = None
        self.ready_at: float | None = None
        self.sure_at: float | None = None
        self.heard_at: float | None = None
        self.segments: list[_Spoken] = []
        self.text = ""
        """The answer's, as far as it was written."""
        self.utterance: Utterance | None = None
        self.task: asyncio.Task[None] | None = None


class _Spoken:
    """A segment as `played_text` reads it."""

    def __init__(self, segment: Segment) -> None:
        self.text, self.start_sample, self.end_sample = segment.text, segment.start_sample, segment.end_sample
        self.whole = True


class Conversation:
    """`run` it; it ends when either side hangs up."""

    def __init__(
        self,
        settings: TalkSettings,
        *,
        ears: Ears,
        mind: Mind,
        speaker: Speaker,
        detector: SpeechDetector,
        tell: Tell,
        lead_samples: int = 0,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self.budgets: deque[TurnBudget] = deque(maxlen=MOST_TURNS)
        self.dialogue = Dialogue()
        self.playout = Playout(
            ready=self._first_ready, heard=self._first_heard, over=self._all_heard, lead_samples=lead_samples
        )
        self._ears, self._mind, self._speaker, self._detector = ears, mind, speaker, detector
        self._tell = tell
        self._clock, self._wall_clock = clock, wall_clock
        rules = TurnRules(snooze_s=settings.snooze_s, sure_s=settings.sure_s)
        self._settings = settings
        self._hung_up = asyncio.Event()
        self._turns = TurnTaking(rules)
        self._microphone: asyncio.Queue[np.ndarray] = asyncio.Queue(MOST_QUEUED)
        self._before: deque[np.ndarray] = deque(maxlen=BEFORE_WINDOWS)
        self._real_time = RealTime()
        self._spoken = SpokenClock()
        self._arrived_at = 0.0
        self._silent_windows = 0
        """Since the last sound of speech."""
        self._said: deque[np.ndarray] | None = None
        """Windows since the person began."""
        self._attempt: Attempt | None = None
        self._discarded = 0
        self._group: asyncio.TaskGroup | None = None

    def hear(self, samples: np.ndarray) -> None:
        """The microphone gave mono int16 of 16 kHz, shape (samples,)."""
        if not self._real_time.admits(self._clock(), len(samples) / RATE_HZ):
            return
        if self._microphone.full():
            self._microphone.get_nowait()
        self._microphone.put_nowait(samples)

    def hang_up(self) -> None:
        """End it."""
        self._hung_up.set()

    async def run(self) -> None:
        """Converse until either side hangs up. A failure of one turn is shown, and the next one is tried."""
        self._tell({"type": "who", "ears": self._ears.name, "mind": self._mind.name, "voice": self._speaker.voice})
        self._show()
        try:
            await first_of(self._converse(), self._hung_up.wait(), timeout_s=self._settings.max_minutes * 60)
        finally:
            if self._attempt is not None and self._attempt.utterance is not None:
                self._speaker.leave(self._attempt.utterance)
            await self._speaker.aclose()

    async def _converse(self) -> None:
        async with asyncio.TaskGroup() as group:
            self._group = group
            group.create_task(self._listen())
            group.create_task(self._watch())

    async def _listen(self) -> None:
        while True:
            samples = await self._microphone.get()
            for window in self._detector.windows(samples):
                (self._before if self._said is None else self._said).append(window.samples)
                self._silent_windows = 0 if window.speaking and window.sounding else self._silent_windows + 1
                self._arrived_at = self._clock()
                spoken_at = self._spoken.window(self._arrived_at, WINDOW_S)
                self._do(self._turns.hear(spoken_at, speaking=window.speaking, sounding=window.sounding))

    async def _watch(self) -> None:
        """Silence is noticed also where a microphone sends nothing at all."""
        while True:
            await asyncio.sleep(TICK_S)
            now = self._clock()
            if now - self._arrived_at > MUTE_S:
                self._do(self._turns.tick(now))

    def _do(self, actions: Sequence[Action]) -> None:
        for action in actions:
            match action:
                case Begin():
                    self._said = deque(self._before, maxlen=round(MOST_HEARD_S * RATE_HZ / WINDOW_SAMPLES))
                    self._speaker.prepare()
                case Think(attempt=number, ended_at=ended_at, words=words):
                    self._attempt = attempt = Attempt(number, ended_at, self._clock(), words)
                    attempt.messages = self.dialogue.with_question(words or "")
                    attempt.task = self._spawn(self._answer(attempt, self._audio()))
                case Recognise(attempt=number):
                    self._spawn(self._recognise(number, self._audio()))
                case Discard():
                    self._discarded += 1
                    self._drop()
                case Release():
                    self._release()
                case Hold():
                    self.playout.pause()
                    self._tell({"type": "hold"})
                case Resume():
                    self.playout.resume()
                    self._tell({"type": "resume"})
                case Interrupt():
                    self._account(cut=True)
                    self._drop()
                case Forget():
                    self._said = None
                    self._before.clear()
        if actions:
            self._show()

    def _show(self) -> None:
        self._tell({"type": "state", "state": self._turns.phase.value, "held": self._turns.held})

    def _spawn(self, work: Any) -> asyncio.Task[None]:
        assert self._group
        return self._group.create_task(work)

    def _audio(self) -> np.ndarray:
        """What the person said, with little of the silence behind it: the recogniser makes words of silence."""
        windows = list(self._said or ())
        behind = max(0, self._silent_windows - AFTER_WINDOWS)
        windows = windows[: len(windows) - behind] if behind < len(windows) else windows
        return np.concatenate(windows) if windows else np.zeros(0, np.int16)

    async def _recognise(self, number: int, audio: np.ndarray) -> None:
        words = ""
        try:
            words = await self._ears.hear(audio)
        except CarillonError as error:
            self._fail(error)
        self._do(self._turns.recognised(self._clock(), number, words))

    async def _answer(self, attempt: Attempt, audio: np.ndarray) -> None:
        try:
            if attempt.words is None:
                attempt.words = await self._ears.hear(audio)
                attempt.words_at = self._clock()
                attempt.messages = self.dialogue.with_question(attempt.words)
                self._tell({"type": "heard", "text": attempt.words, "sure": False})
                # It may discard this very attempt, which is then cancelled at the next await.
                self._do(self._turns.recognised(self._clock(), attempt.number, attempt.words))
            if attempt is self._attempt and attempt.words:
                await self._speak(attempt)
        except CarillonError as error:
            self._fail(error)
            if attempt is self._attempt:
                if attempt.sure_at is not None:
                    self._account(cut=True)
                self._drop()
            self._do(self._turns.over(self._clock(), attempt.number))

    async def _speak(self, attempt: Attempt) -> None:
        """Have the mind answer and the fleet speak it, into the playout."""
        attempt.utterance = utterance = await self._speaker.take()
        writing = asyncio.create_task(self._write(attempt, utterance))
        try:
            async for event in utterance.events():
                if isinstance(event, AudioFrame):
                    self.playout.put(event.audio)
                elif isinstance(event, Segment):
                    attempt.segments.append(_Spoken(event))
                if writing.done():
                    writing.result()
            await writing
            self.playout.end()
        finally:
            writing.cancel()
            await asyncio.gather(writing, return_exceptions=True)

    async def _write(self, attempt: Attempt, utterance: Utterance) -> None:
        try:
            async with aclosing(self._mind.answer(attempt.messages)) as pieces:
                async for piece in pieces:
                    turn = None
                    if attempt.token_at is None:
                        attempt.token_at = self._clock()
                        now = self._wall_clock()
                        turn = Turn(ended_at=now - (attempt.token_at - attempt.ended_at), sent_at=now)
                    attempt.text += piece
                    await utterance.say(piece, turn=turn)
                    if attempt.sure_at is not None:
                        self._tell({"type": "answer", "text": piece, "attempt": attempt.number})
        except CarillonError:
            await utterance.end()
            raise
        await utterance.end()

    def _release(self) -> None:
        attempt = self._attempt
        assert attempt and attempt.words
        attempt.sure_at = self._clock()
        self.dialogue.asked(attempt.words)
        self._said = None
        self._before.clear()
        self._tell({"type": "heard", "text": attempt.words, "sure": True})
        self._tell({"type": "answer", "text": attempt.text, "attempt": attempt.number})
        self.playout.release()

    def _drop(self) -> None:
        """The attempt is no answer, or no more of one."""
        attempt, self._attempt = self._attempt, None
        self.playout.clear()
        self._tell({"type": "stop"})
        if attempt is None:
            return
        if attempt.task is not None and attempt.task is not asyncio.current_task():
            attempt.task.cancel()
        if attempt.utterance is not None:
            self._speaker.leave(attempt.utterance)
            attempt.utterance = None

    def _first_ready(self) -> None:
        if self._attempt is not None:
            self._attempt.ready_at = self._clock()

    def _first_heard(self) -> None:
        if self._attempt is not None:
            self._attempt.heard_at = self._clock()
            self._tell({"type": "turn", **self._budget(self._attempt, cut=False).row()})

    def _all_heard(self) -> None:
        attempt = self._attempt
        if attempt is None:
            return
        self._account(cut=False)
        if attempt.utterance is not None:
            self._speaker.leave(attempt.utterance)
        self._attempt = None
        self.playout.clear()
        self._do(self._turns.over(self._clock(), attempt.number))

    def _account(self, *, cut: bool) -> None:
        """Enter an answer that is over: its budget, and its words into the dialogue as far as they were heard."""
        attempt = self._attempt
        if attempt is None:
            return
        text = attempt.text
        if cut:
            played = self.playout.played_samples
            text = played_text(attempt.segments, played, sample_rate_hz=SPOKEN_RATE_HZ) if played else ""
        self.dialogue.answered(text, cut=cut)
        budget = self._budget(attempt, cut=cut)
        self.budgets.append(budget)
        self._discarded = 0
        self._tell({"type": "answered", "text": text.strip(), "cut": cut, "attempt": attempt.number})
        self._tell({"type": "turn", **budget.row()})
        self._tell({"type": "table", **table(self.budgets)})

    def _budget(self, attempt: Attempt, *, cut: bool) -> TurnBudget:
        def since_ms(moment: float | None) -> float | None:
            return None if moment is None else round((moment - attempt.ended_at) * 1000, 1)

        return TurnBudget(
            turn=len(self.budgets) + 1,
            endpoint_ms=since_ms(attempt.began_at),
            words_ms=since_ms(attempt.words_at),
            token_ms=since_ms(attempt.token_at),
            ready_ms=since_ms(attempt.ready_at),
            sure_ms=since_ms(attempt.sure_at),
            heard_ms=since_ms(attempt.heard_at),
            discarded=self._discarded,
            cut=cut,
            snooze_ms=self._settings.snooze_s * 1000,
        )

    def _fail(self, error: CarillonError) -> None:
        log.info("turn failed", extra={"code": error.code})
        self._tell({"type": "error", "code": error.code, "message": error.message, "retryable": error.retryable})
