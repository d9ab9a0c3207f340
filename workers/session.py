"""One session: text comes in pieces, is cut into chunks, spoken, decoded, and goes out as frames and events.

Chunks are spoken one after the other, each as one request of the engine and one stream of the decoder, so that every
chunk's samples are frames × samples_per_frame and joins need no guessing. The fleet's own programs may hand in the
chunks themselves, as utterances. A session knows nothing of sockets: what it emits is taken from `send_queue`, whose
bound is why a slow listener slows only itself.
"""

from __future__ import annotations

import asyncio
import logging
from array import array
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from app.errors import CarillonError, DeadlineExceeded, Overloaded, SessionIdle
from app.platform.deadline import Deadline
from app.platform.settings import SessionSettings
from app.speech.audio import HeadSilenceMeter, pcm16_of
from app.speech.latency import Ledger, Stopwatch
from app.speech.protocol import (
    Assign,
    AudioFrame,
    Begun,
    Cancelled,
    Done,
    Flushed,
    PartialChunk,
    Resumption,
    Segment,
    Utter,
    Uttered,
)
from app.speech.repetition import repeated_frames
from app.speech.spoken_text import played_text
from app.speech.text import Chunk, marks
from app.speech.text.respelling import respeller
from app.speech.text.spoken import is_plain, is_silent, spoken
from app.speech.token_layout import TOKENS_PER_FRAME
from workers.engine import PRIORITY, Codes, Engine, EngineAdapter, Utterance
from workers.metrics import SpeechMeters
from workers.playback import Haste, Playback
from workers.send_queue import SendQueue
from workers.stretched_stream import at_rate
from workers.turn import TurnText, source_of

if TYPE_CHECKING:
    from workers.decoder import Decoder
    from workers.stretched_stream import AudioStream

log = logging.getLogger(__name__)

RELAXED_FRAMES = 4
"""Frames decoded together where the session does not hurry: fewer, larger steps cost codec and worker less."""

MAX_FRAMES = 24
"""Two seconds, decoded and sent at once: of codes written elsewhere, or while a slow listener blocked."""


@dataclass(slots=True)
class _Spoken:
    """A chunk and the samples it has so far."""

    text: str
    start_sample: int
    end_sample: int
    whole: bool = False
    """Its audio is all there …"""
    complete: bool = True
    """… and the model ended it by itself."""


class Session:
    """Speaks for one `assign`. `run` is its life; the other methods are what the client sends meanwhile."""

    def __init__(
        self,
        assign: Assign,
        *,
        engine: Engine,
        decoder: Decoder,
        adapter: EngineAdapter | None,
        settings: SessionSettings,
        clock: Callable[[], float],
        meters: SpeechMeters | None = None,
    ) -> None:
        before = assign.resume or Resumption()
        self.id = assign.session
        self.generation = before.generation
        self.samples = before.samples
        self.tokens = before.tokens
        self._assign = assign
        self._engine = engine
        self._decoder = decoder
        self._adapter = adapter
        self._settings = settings
        self._sample_rate_hz = engine.layout.sample_rate_hz
        packet_s = RELAXED_FRAMES * engine.layout.samples_per_frame / self._sample_rate_hz
        self.send_queue = SendQueue(max(8, int(settings.buffer_s / packet_s)), timeout_s=settings.slow_reader_timeout_s)
        self._clock = clock
        self._meters = meters or SpeechMeters()
        self._watch = Stopwatch(clock)
        self._head_silence = HeadSilenceMeter(self._sample_rate_hz)
        self._playback = Playback(self._sample_rate_hz, clock)
        self._haste = Haste(self._playback, patient=self._patient)
        self._stall = Deadline()
        self._wake = asyncio.Event()
        self._spoken: list[_Spoken] = []
        self._chunks = before.chunks
        self._sequence = 0
        self._unsent_codes = array("H")
        """Given to the decoder since the last frame was sent."""
        self._undecoded = 0
        """Codes of the present chunk that the decoder has not answered with audio."""
        self._busy_s = 0.0
        """That engine and decoder have been waited for."""
        self._utterance: asyncio.Task[CarillonError | None] | None = None
        self._text = self._turn_text(before)

    def _turn_text(self, before: Resumption, *, ended: bool = False) -> TurnText:
        words = self._assign.text.respellings
        return TurnText(
            before,
            tags=self._engine.layout.speech.tags,
            settings=self._settings,
            ended=ended,
            respell=respeller(words) if words else None,
        )

    # What is received.

    def push(self, text: str) -> None:
        """Take more text. Raises what `TurnText.push` raises."""
        self._text.push(text)
        if text.strip():
            self._watch.mark("text")
        self._wake.set()

    def utter(self, utter: Utter) -> None:
        """Take a text to be spoken as it is; `Uttered` follows its last sample.

        Raises what `TurnText.utter` raises.
        """
        self._text.utter(utter)
        self._watch.mark("text")
        self._wake.set()

    def flush(self) -> None:
        """Speak what is there; `Flushed` follows its last sample."""
        self._text.flush()
        self._wake.set()

    def end(self) -> None:
        """No more text follows."""
        self._text.end()
        self._wake.set()

    async def cancel(self, played_samples: int | None) -> None:
        """Stop at once: no frame of the old turn follows `Cancelled`, and the engine's request is gone on return."""
        self.generation += 1
        utterance = self._utterance
        if utterance is not None:
            utterance.cancel()
        made_until = self.samples
        # The turn ends before any other task runs: `run` must not find the old text when the utterance is gone.
        # Samples that are dropped will not be played, and do not count.
        if dropped := self.send_queue.drop_stale(self.generation):
            self.samples, self._sequence = dropped.sample_offset, dropped.sequence
        heard = self.samples if played_samples is None else played_samples
        self._count_wasted(made_until - heard)
        text = played_text(self._spoken, heard)
        self._spoken.clear()
        self._playback.stop()
        self._haste.begin()
        self._text = self._turn_text(Resumption(), ended=self._text.ended)
        if not self.samples:
            self._watch = Stopwatch(self._clock)
        self._wake.set()
        await self.send_queue.put(
            Cancelled(session=self.id, generation=self.generation, spoken_text=text, samples=self.samples)
        )
        if utterance is not None:
            await asyncio.wait([utterance])

    def _count_wasted(self, samples: int) -> None:
        """Tokens that a cancel makes useless: of audio that is not heard, and of what was not yet decoded."""
        frames = max(0, samples) / self._engine.layout.samples_per_frame
        self._meters.tokens_wasted += frames * TOKENS_PER_FRAME + self._undecoded
        self._undecoded = 0

    # What is spoken.

    async def run(self) -> None:
        """Speak until the text has ended; the last item is `Done`. Raises what ended the session early."""
        try:
            await self._speak_all()
        finally:
            self._stall.close()

    async def _speak_all(self) -> None:
        while (chunk := await self._next_chunk()) is not None:
            turn = self.generation
            if not is_silent(source_of(chunk)):
                await self._speak_unless_cancelled(chunk)
            if turn == self.generation and not isinstance(chunk, Utter):
                await self._answer_flushes(chunk.end if isinstance(chunk, Chunk) else 0)
        self._watch.mark("done")
        self._head_silence.finish()
        await self.send_queue.put(Done(session=self.id, samples=self.samples, ledger=self.ledger()))

    def ledger(self) -> Ledger:
        if self._assign.resume:
            return Ledger(
                samples=self.samples, tokens=self.tokens, chunks=self._chunks, sample_rate_hz=self._sample_rate_hz
            )
        watch = self._watch
        head_silence_s = self._head_silence.head_silence_s
        return Ledger(
            text_ms=watch.between_ms("text", "chunk"),
            prefill_ms=watch.between_ms("chunk", "token"),
            first_frames_ms=watch.between_ms("token", "frames"),
            decode_ms=watch.between_ms("frames", "audio"),
            first_audio_ms=watch.between_ms("text", "audio"),
            head_silence_ms=None if head_silence_s is None else round(head_silence_s * 1000, 1),
            total_ms=watch.between_ms("text", "done"),
            samples=self.samples,
            tokens=self.tokens,
            chunks=self._chunks,
            sample_rate_hz=self._sample_rate_hz,
        )

    async def _next_chunk(self) -> Chunk | Utter | PartialChunk | None:
        """Wait until there is something to speak and it is time to; None once all text has been given out."""
        if self._text.partial is not None:
            partial, self._text.partial = self._text.partial, None
            return partial
        while True:
            pending = self._text.pending_chars > 0
            early_s = self._playback.lead_s - self._settings.lead_s if self._assign.pace == "realtime" else 0.0
            if pending and early_s > 0:
                await self._woken(early_s)
            elif chunk := self._text.next():
                return chunk
            elif self._text.has_flushes:
                # Text before a flush is always ready, so all of it has been spoken.
                await self._answer_flushes(None)
            elif self._text.ended:
                return None
            elif pending and not self._text.idle:
                if not await self._woken(self._settings.idle_text_s):
                    self._text.go_idle()
            elif not await self._woken(self._settings.idle_timeout_s + self._playback.lead_s):
                raise SessionIdle(
                    f"no text for {self._settings.idle_timeout_s:g} s; start a new session when there is some"
                )

    async def _woken(self, delay_s: float) -> bool:
        """Whether the client sent something within `delay_s`."""
        self._haste.begin()
        self._wake.clear()
        try:
            async with asyncio.timeout(delay_s):
                await self._wake.wait()
        except TimeoutError:
            return False
        return True

    async def _speak_unless_cancelled(self, chunk: Chunk | Utter | PartialChunk) -> None:
        """Speak one chunk, or as much of it as a barge-in leaves."""
        async with asyncio.TaskGroup() as group:
            self._utterance = utterance = group.create_task(self._speak(chunk))
        self._utterance = None
        if not utterance.cancelled() and (error := utterance.result()):
            raise error

    async def _speak(self, chunk: Chunk | Utter | PartialChunk) -> CarillonError | None:
        """Speak one chunk. Returns the error that ended it, since a barge-in must not look like one."""
        self._watch.mark("chunk")
        start_sample = chunk.start_sample if isinstance(chunk, PartialChunk) else self.samples
        source = source_of(chunk)
        so_far = _Spoken(" ".join(marks.as_written(source).split()), start_sample, start_sample)
        self._spoken.append(so_far)
        stream = None
        try:
            await self._begin(chunk)
            if marks.is_pause(source):
                codes = await self._pause(marks.seconds_of(source), so_far)
            else:
                words, codes = await self._words(chunk), []
                # A substitute may be empty; without a word the model would make up what it says.
                if isinstance(chunk, PartialChunk) or not is_silent(words):
                    stream = at_rate(
                        self._decoder.open(patient=self._patient), marks.rate_of(source), self._sample_rate_hz
                    )
                    codes = await self._generate(chunk, words, stream, so_far)
        except CarillonError as error:
            return error
        finally:
            if stream is not None:
                stream.close()
        so_far.whole = True
        await self.send_queue.put(self._report(chunk, so_far, codes))
        return None

    async def _words(self, chunk: Chunk | Utter | PartialChunk) -> str:
        """What the model reads; numbers and the like are made words off the loop."""
        if isinstance(chunk, Utter):
            return chunk.text
        source, options = source_of(chunk), self._assign.text
        tags = self._engine.layout.speech.tags
        if is_plain(source, options):
            return spoken(source, options, tags=tags)
        return await asyncio.to_thread(spoken, source, options, tags=tags)

    async def _pause(self, pause_s: float, so_far: _Spoken) -> list[int]:
        """Send silence, or what of it the listener does not have yet; it has no codes."""
        until = so_far.start_sample + round(pause_s * self._sample_rate_hz)
        step = MAX_FRAMES * self._engine.layout.samples_per_frame
        while self.samples < until:
            await self._send(np.zeros(min(step, until - self.samples), dtype=np.float32))
        so_far.end_sample = until
        return []

    async def _begin(self, chunk: Chunk | Utter | PartialChunk) -> None:
        """Count a chunk that begins here, and report it where a journal is kept."""
        self._unsent_codes = array("H")
        if isinstance(chunk, PartialChunk):
            return
        self._chunks += 1
        if isinstance(chunk, Chunk) and not self._patient:
            await self.send_queue.put(
                Begun(
                    session=self.id,
                    generation=self.generation,
                    text=chunk.source,
                    start_char=self._text.first_char + chunk.start,
                    end_char=self._text.first_char + chunk.end,
                    start_sample=self.samples,
                )
            )

    def _report(self, chunk: Chunk | Utter | PartialChunk, so_far: _Spoken, codes: list[int]) -> Segment | Uttered:
        """The report of a chunk that has been spoken."""
        if not isinstance(chunk, Utter):
            return Segment(
                session=self.id,
                generation=self.generation,
                text=so_far.text,
                start_sample=so_far.start_sample,
                end_sample=so_far.end_sample,
                complete=so_far.complete,
            )
        frame_s = self._engine.layout.samples_per_frame / self._sample_rate_hz
        return Uttered(
            session=self.id,
            start_sample=so_far.start_sample,
            end_sample=so_far.end_sample,
            complete=so_far.complete,
            repeated_s=round(repeated_frames(codes) * frame_s, 3),
        )

    async def _generate(
        self, chunk: Chunk | Utter | PartialChunk, words: str, stream: AudioStream, so_far: _Spoken
    ) -> list[int]:
        """Have the engine speak a chunk as `words`, or its rest, and send it; returns the codes written here."""
        written_before: tuple[int, ...] = ()
        if isinstance(chunk, PartialChunk):
            written_before = chunk.codes[: len(chunk.codes) // TOKENS_PER_FRAME * TOKENS_PER_FRAME]
            await self._decode(stream, written_before, final=chunk.whole, so_far=so_far, hurried=False)
            if chunk.whole:
                return []
        utterance = Utterance(
            voice=self._assign.voice.prompt_name,
            text=words,
            adapter=self._adapter,
            temperature=self._assign.temperature,
            priority=PRIORITY[self._assign.pace],
            seed=chunk.seed if isinstance(chunk, Utter) else None,
            codes=written_before,
        )
        codes: list[int] = []
        waiting: list[int] = []
        busy_s, samples = self._busy_s, self.samples
        async with aclosing(self._engine.speak(utterance)) as speech:
            while (written := await self._written(speech)) is not None:
                self._watch.mark("token")
                self.tokens += len(written.codes)
                self._meters.tokens += len(written.codes)
                self._undecoded += len(written.codes)
                codes += written.codes
                waiting += written.codes
                ready, hurried = len(waiting) // TOKENS_PER_FRAME, self._haste.hurried
                if written.ended or ready >= (1 if hurried else RELAXED_FRAMES):
                    self._haste.decoded(ready)
                    self._unsent_codes.extend(waiting)
                    hurried = hurried and not written_before  # a stream that goes on stays exact
                    final = written.ended is not None
                    await self._decode(stream, waiting, final=final, so_far=so_far, hurried=hurried)
                    waiting, self._undecoded = [], 0
                if written.ended == "length":
                    so_far.complete = False
                    frames = len(codes) // TOKENS_PER_FRAME
                    log.warning("speech cut at its limit", extra={"session": self.id, "frames": frames})
        if audio_s := (self.samples - samples) / self._sample_rate_hz:
            self._meters.real_time_factor.labels(self._assign.pace).observe((self._busy_s - busy_s) / audio_s)
        return codes

    async def _written(self, speech: AsyncGenerator[Codes, None]) -> Codes | None:
        """What the engine writes next, None at its end. Raises what its silence means."""
        began_at = self._clock()
        try:
            with self._stall.within(self._settings.stall_timeout_s):
                return await anext(speech, None)
        except TimeoutError:
            raise self._silence() from None
        finally:
            self._busy_s += self._clock() - began_at

    def _silence(self) -> CarillonError:
        """Why the engine wrote nothing: in the background it may have been busy with interactive ones.

        Its scheduler then reported requests that wait; it reports none when the engine hangs over this utterance.
        """
        silent_s = self._settings.stall_timeout_s
        if self._patient and self._engine.load_now().waiting:
            return Overloaded(f"the engine was busy with others for {silent_s:g} s; come again when there is room")
        return DeadlineExceeded(f"the engine wrote nothing for {silent_s:g} s; try again")

    @property
    def _patient(self) -> bool:
        """Whether no listener waits for this audio: it is then exact from its first sample, and decoded last."""
        return self._assign.pace == "background"

    async def _decode(
        self, stream: AudioStream, codes: Sequence[int], *, final: bool, so_far: _Spoken, hurried: bool
    ) -> None:
        """Decode and send, in frames that fit any wire."""
        step = MAX_FRAMES * TOKENS_PER_FRAME
        for start in range(0, max(1, len(codes)), step):
            rest = start + step < len(codes)
            some = codes[start : start + step]
            await self._decode_some(stream, some, final=final and not rest, so_far=so_far, hurried=hurried)

    async def _decode_some(
        self, stream: AudioStream, codes: Sequence[int], *, final: bool, so_far: _Spoken, hurried: bool
    ) -> None:
        # The first frame gives no audio yet, but its share of the work is done while the second is being written.
        if not self.samples:
            self._watch.mark_again("frames")
        # A listener that has no audio yet has no deadline to miss; first packets go first in any case.
        deadline_s = self._playback.ends_at_s if self._playback.lead_s and not self._patient else None
        began_at = self._clock()
        audio = await stream.push(codes, final=final, deadline_s=deadline_s, provisional=hurried)
        self._busy_s += self._clock() - began_at
        sent = self.samples - so_far.end_sample  # more than none where the listener has the beginning already
        so_far.end_sample += len(audio)
        if len(audio) > sent:
            self._watch.mark("audio")
            await self._send(audio[max(0, sent) :])

    async def _send(self, audio: NDArray[np.float32]) -> None:
        frame = AudioFrame(
            channel=0,
            generation=self.generation,
            sequence=self._sequence,
            sample_offset=self.samples,
            audio=pcm16_of(audio),
            codes=b"" if self._patient else self._unsent_codes.tobytes(),
        )
        self._unsent_codes = array("H")
        self._head_silence.push(audio)
        self._playback.sent(len(audio))
        self._meters.audio_s[self._assign.pace] += len(audio) / self._sample_rate_hz
        await self.send_queue.put(frame)
        self._sequence += 1
        self.samples += len(audio)

    async def _answer_flushes(self, end: int | None) -> None:
        """Answer every flush whose text ends by `end` in the cleaned stream; None is its very end."""
        turn = self.generation
        while turn == self.generation and self._text.pop_flush(end):
            await self.send_queue.put(Flushed(session=self.id, samples=self.samples))
