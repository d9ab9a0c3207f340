"""The text of one turn, from what was received to the next chunk to speak.

It knows neither audio nor time: the session says when the text went idle, and when the next chunk is due. The front
door bounds pending text, counted as its client wrote it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

from app.errors import InvalidRequest, TextAfterEnd, TextTooLong
from app.platform.settings import SessionSettings
from app.speech.protocol import MAX_UTTERANCE_CHARS, PartialChunk, Resumption, Utter
from app.speech.text import Chunk, TextSplitter, clean, has_speech, marks


class TurnText:
    """Text, utterances and flushes that wait, in a turn that goes on where `before` stands."""

    def __init__(
        self,
        before: Resumption,
        *,
        tags: Sequence[str],
        settings: SessionSettings,
        ended: bool = False,
        respell: Callable[[str], str] | None = None,
    ) -> None:
        self.first_char = before.chars
        """Where it begins in the turn's cleaned text."""
        self.partial: PartialChunk | None = before.chunk
        """To be spoken before it."""
        self.ended = False
        self.idle = False
        self._tags = tags
        self._splitter = TextSplitter(
            tags=tags,
            max_chunk_chars=settings.max_chunk_chars,
            begun=bool(before.chars or before.chunk),
            rate=before.rate,
            respell=respell,
        )
        self._utters: deque[Utter] = deque()
        self._flushes: deque[int] = deque()
        if ended:
            self.end()

    @property
    def pending_chars(self) -> int:
        """Of text that no chunk has begun with."""
        return self._splitter.pending_chars + sum(len(utter.text) for utter in self._utters)

    @property
    def has_flushes(self) -> bool:
        """Whether a flush has not been answered."""
        return bool(self._flushes)

    def push(self, text: str) -> None:
        """Take more text. Raises InvalidRequest while utterances are pending, TextAfterEnd after `end`."""
        if self._utters:
            raise InvalidRequest("text while utterances are pending: wait for them, or start another session")
        self._splitter.push(text)
        self.idle = False

    def utter(self, utter: Utter) -> None:
        """Take a text to be spoken as it is.

        Raises TextTooLong for one that no request could hold, InvalidRequest for one without a word, or while other
        text is pending, TextAfterEnd after `end`.
        """
        if self.ended:
            raise TextAfterEnd("an utterance after eos; start a new session for it")
        text = clean(marks.without_marks(utter.text), tags=self._tags).replace("\n", " ")
        if len(text) > MAX_UTTERANCE_CHARS:
            raise TextTooLong(f"an utterance of {len(text)} characters; at most {MAX_UTTERANCE_CHARS}", param="text")
        if not has_speech(text):
            raise InvalidRequest("the utterance has no word to speak", param="text")
        if self._splitter.pending_chars:
            raise InvalidRequest("an utterance while text is pending: wait for it, or start another session")
        self._utters.append(utter.model_copy(update={"text": text}))

    def flush(self) -> None:
        if self.ended:
            raise InvalidRequest("flush after eos: all text is being spoken already")
        self._flushes.append(self._splitter.flush())

    def end(self) -> None:
        """No more text follows."""
        self._splitter.close()
        self.ended = True

    def go_idle(self) -> None:
        """No text has come for a while: what there is may be spoken."""
        self._splitter.idle()
        self.idle = True

    def next(self) -> Chunk | Utter | None:
        """What to speak now; None while there is nothing that is ready."""
        return self._utters.popleft() if self._utters else self._splitter.next_chunk(eager=True)

    def pop_flush(self, end: int | None) -> bool:
        """Take the oldest flush off if its text ends by `end` in the cleaned text; None is its very end."""
        if not self._flushes or (end is not None and self._flushes[0] > end):
            return False
        self._flushes.popleft()
        return True


def source_of(chunk: Chunk | Utter | PartialChunk) -> str:
    """The text of what is to be spoken, with its marks and paragraphs."""
    return chunk.source if isinstance(chunk, Chunk) else chunk.text
