"""The latency ledger: where the milliseconds between the first text and the first audible sound went.

The talk's four factors are all here: time to first token (`prefill_ms`), tokens per second (`first_frames_ms`),
network (what remains of `first_audio_ms` at the client) and head-of-line silence (`head_silence_ms`). Times are
differences on the clock of the process that measured them; no clock is compared with another machine's, but for the end
of a turn that a client tells without saying when it sent it.
"""

from __future__ import annotations

from collections.abc import Callable

from pydantic import BaseModel, ConfigDict


class Ledger(BaseModel):
    """One utterance's account. A part that did not happen, or could not be measured, is None: never zero."""

    model_config = ConfigDict(frozen=True, extra="ignore", use_attribute_docstrings=True)

    queue_ms: float | None = None
    """From the request to a claimed place on a worker, choosing it included."""
    route_ms: float | None = None
    """From the claimed place to the worker's `ready`."""
    text_ms: float | None = None
    """From the first text to the first chunk: what the splitter waited for."""
    prefill_ms: float | None = None
    """From the first chunk's hand-over to the engine to its first token, engine queue included."""
    first_frames_ms: float | None = None
    """From the first token to the first one that completed enough frames to decode."""
    decode_ms: float | None = None
    """The codec's time for the first packet, its queue included."""
    first_audio_ms: float | None = None
    """From the first text to the first packet of audio leaving the process that reports."""
    turn_text_ms: float | None = None
    """From the end of the person's turn, which the client told, to the first text here."""
    turn_ms: float | None = None
    """From the end of the person's turn to the first packet of audio leaving here."""
    head_silence_ms: float | None = None
    """Silence at the head of the audio, before the voice begins."""
    total_ms: float | None = None
    samples: int = 0
    tokens: int = 0
    chunks: int = 0
    moves: int = 0
    """How often it went on at another worker. The parts of the first audio are then not known."""
    underruns: int = 0
    """Gaps that a listener with 100 ms in hand would have heard, though the text was there."""
    underrun_ms: float = 0.0
    """Their length."""
    sample_rate_hz: int = 24_000

    def at_the_edge(self, turn_ended: float | None, text: float | None, audio: float | None) -> Ledger:
        """With the parts that only the client's side of it knows, from moments in seconds of one clock; what has not
        happened is None, and changes nothing."""
        spans = {"first_audio_ms": (text, audio), "turn_text_ms": (turn_ended, text), "turn_ms": (turn_ended, audio)}
        known = {
            part: round((end - start) * 1000, 3)
            for part, (start, end) in spans.items()
            if start is not None and end is not None
        }
        return self.model_copy(update=known)

    @property
    def audio_s(self) -> float:
        return self.samples / self.sample_rate_hz

    @property
    def real_time_factor(self) -> float | None:
        """Seconds of work for a second of audio; below 1 is faster than it plays."""
        return self.total_ms / 1000 / self.audio_s if self.total_ms is not None and self.samples else None


class Stopwatch:
    """Named moments of one utterance, each noted once; a ledger's parts are the distances between them."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._marks: dict[str, float] = {}

    def mark(self, moment: str) -> None:
        """Note the first time `moment` happens; later calls change nothing."""
        self._marks.setdefault(moment, self._clock())

    def mark_again(self, moment: str) -> None:
        """Note the latest time `moment` happens."""
        self._marks[moment] = self._clock()

    def between_ms(self, start: str, end: str) -> float | None:
        """Milliseconds from one moment to another; None while either has not happened."""
        if start not in self._marks or end not in self._marks:
            return None
        return round((self._marks[end] - self._marks[start]) * 1000, 3)
