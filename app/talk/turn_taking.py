"""Turn detection, endpointing and barge-in: a state machine over what microphone, recogniser and player report.

    turns = TurnTaking(TurnRules())
    for action in turns.hear(now, speaking=True): ...

When a person seems to have ended, an attempt at an answer begins at once (`Think`) and its audio is held. It is
released when the turn is sure: after `sure_s` of silence where the words read finished, else after the snooze window,
`snooze_s`. A person who goes on before that has the attempt thrown away. Speech over an answer (barge-in) holds it
within `onset_s`; it goes on where the words were a backchannel or none, and is given up where they were not.

Times are seconds of one clock, which the caller reads. It knows no audio, no model and no transport; it acts on nothing
itself: each call returns what is to be done, in order.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from app.talk.cues import reads_finished, says_go_on


@dataclass(frozen=True)
class TurnRules:
    """How long is long enough, in seconds."""

    onset_s: float = 0.09
    """Speech of this length is a person: three windows of the detector. A click is shorter."""
    least_speech_s: float = 0.16
    """What was spoken for less is no turn."""
    seems_ended_s: float = 0.25
    """Silence after which an answer is tried. Pauses between words are shorter, those between sentences are not."""
    sure_s: float = 0.6
    """Silence after which a turn that reads finished is over."""
    snooze_s: float = 1.5
    """Silence after which any turn is over."""
    overlap_s: float = 0.8
    """Speech over an answer of this length wants the turn, whatever it says."""


class Phase(StrEnum):
    """What the two are doing."""

    WAITING = "waiting"
    HEARING = "hearing"
    SNOOZING = "snoozing"
    ANSWERING = "answering"


@dataclass(frozen=True)
class Begin:
    """A person began to speak at `at`: an answer will be wanted."""

    at: float


@dataclass(frozen=True)
class Think:
    """Try an answer to what was said until `ended_at`; hear the words first where they are not known yet."""

    attempt: int
    ended_at: float
    words: str | None = None


@dataclass(frozen=True)
class Recognise:
    """Hear the words that were said over the answer `attempt`; nothing is answered yet."""

    attempt: int


@dataclass(frozen=True)
class Discard:
    """Throw the attempt away: the person goes on, or said nothing."""

    attempt: int


@dataclass(frozen=True)
class Release:
    """The turn is sure: the attempt is the answer, and its audio may be heard."""

    attempt: int


@dataclass(frozen=True)
class Hold:
    """Pause the answer's audio: the person speaks over it."""


@dataclass(frozen=True)
class Resume:
    """Go on with the answer's audio where it was paused."""


@dataclass(frozen=True)
class Interrupt:
    """The person has taken the turn: the answer ends with what was heard of it."""

    attempt: int


@dataclass(frozen=True)
class Forget:
    """What the microphone heard since `Begin` was no turn."""


Action = Begin | Think | Recognise | Discard | Release | Hold | Resume | Interrupt | Forget


class TurnTaking:
    """One conversation between a person and one who answers."""

    def __init__(self, rules: TurnRules) -> None:
        self.phase = Phase.WAITING
        self.attempt = 0
        """The number of the latest attempt at an answer."""
        self.held = False
        """The answer is paused, because the person speaks over it."""
        self._rules = rules
        self._began_at: float | None = None
        """Of the stretch of speech that goes on now."""
        self.last_speech_at = 0.0
        self._spoken_s = 0.0
        """Speech since `Begin`."""
        self._words: str | None = None
        self._recognising = False

    def hear(self, now: float, *, speaking: bool, sounding: bool = True, window_s: float = 0.032) -> list[Action]:
        """A window of the microphone's audio has arrived, with speech in it or not.

        A detector says `speaking` for a moment longer than the voice is `sounding`: the turn ends with its sound.
        """
        if not speaking:
            self._began_at = None
            return self.tick(now)
        if self._began_at is None:
            self._began_at = now - window_s
        if sounding:
            self.last_speech_at = now
        self._spoken_s += window_s
        lasted_s = now - self._began_at
        actions = self._speech(self._began_at, lasted_s) if lasted_s >= self._rules.onset_s else []
        return actions + self.tick(now)

    def tick(self, now: float) -> list[Action]:
        """Time has passed."""
        silence_s = now - self.last_speech_at
        if self.phase is Phase.HEARING and silence_s >= self._rules.seems_ended_s:
            return self._seems_ended()
        if self.phase is Phase.SNOOZING and self._words is not None:
            enough_s = self._rules.sure_s if reads_finished(self._words) else self._rules.snooze_s
            if silence_s >= min(enough_s, self._rules.snooze_s):
                self.phase = Phase.ANSWERING
                return [Release(self.attempt)]
        if self.held and not self._recognising:
            if self._spoken_s >= self._rules.overlap_s:
                return self._interrupt(Phase.HEARING)
            if silence_s >= self._rules.seems_ended_s:
                self._recognising = True
                return [Recognise(self.attempt)]
        return []

    def recognised(self, now: float, attempt: int, words: str) -> list[Action]:
        """The words of an attempt, or those said over it; empty where there were none."""
        if attempt == self.attempt and self.phase is Phase.SNOOZING and self._words is None:
            if not words:
                self.phase = Phase.WAITING
                return [Discard(attempt), Forget()]
            self._words = words
            return self.tick(now)
        if attempt == self.attempt and self.held and self._recognising:
            return self._said_over_it(now, words)
        return []

    def _said_over_it(self, now: float, words: str) -> list[Action]:
        self._recognising = False
        if self._began_at is not None:
            return []  # it goes on: how long it lasts, or its next words, will tell
        if says_go_on(words):
            self.held = False
            return [Resume(), Forget()]
        return [*self._interrupt(Phase.SNOOZING), self._think(words), *self.tick(now)]

    def over(self, now: float, attempt: int) -> list[Action]:
        """All of the answer has been heard, or it has failed."""
        if attempt != self.attempt or self.phase not in (Phase.SNOOZING, Phase.ANSWERING):
            return []
        self.phase = Phase.HEARING if self.held else Phase.WAITING
        self.held = self._recognising = False
        return self.tick(now) if self.phase is Phase.HEARING else [Forget()]

    def _speech(self, began_at: float, lasted_s: float) -> list[Action]:
        """There has been speech for long enough to be a person."""
        if self.phase is Phase.WAITING:
            self.phase, self._spoken_s = Phase.HEARING, lasted_s
            return [Begin(began_at)]
        if self.phase is Phase.SNOOZING:
            self.phase = Phase.HEARING
            return [Discard(self.attempt)]
        if self.phase is Phase.ANSWERING and not self.held:
            self.held, self._spoken_s = True, lasted_s
            return [Hold(), Begin(began_at)]
        return []

    def _seems_ended(self) -> list[Action]:
        if self._spoken_s < self._rules.least_speech_s:
            self.phase = Phase.WAITING
            return [Forget()]
        return [self._think(None)]

    def _think(self, words: str | None) -> Think:
        self.phase, self._words = Phase.SNOOZING, words
        self.attempt += 1
        return Think(self.attempt, self.last_speech_at, words)

    def _interrupt(self, phase: Phase) -> list[Action]:
        self.phase, self.held, self._recognising = phase, False, False
        return [Interrupt(self.attempt)]
