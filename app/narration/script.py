"""From a manuscript to the script it is spoken from: sentences, read as words, batched to what is said in one breath.

    draft = Draft(manuscript, options, tags=tags)
    while unread := draft.unread:                       # sentences, each once
        draft.take(await normaliser.read(unread))       # written -> spoken; None: it could not be read
    script = draft.script()

A draft cuts (with `app.speech.text`, as live sessions do), replaces words and lays out pauses; it is given how
sentences are read, and does not know who reads them, which voices exist or how audio is made. Everything that was
written stands in the segments' `written`, in order, whatever becomes of it in `spoken`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from app.errors import ManuscriptUnfit
from app.narration.manuscript import Findings
from app.narration.models import (
    NARRATOR,
    Manuscript,
    NarrationOptions,
    Script,
    ScriptChapter,
    ScriptSegment,
    TextFinding,
)
from app.speech.text import Cut, TextSplitter, boundaries, clean, has_speech, joins_previous
from app.speech.text.boundaries import CJK
from app.speech.text.english.names import recased
from app.speech.text.marks import as_written, reading_spans
from app.speech.text.respelling import Respellings, merged
from app.speech.token_layout import ORPHEUS_TAGS

BATCH_CHARS = 240
"""Of neighbouring sentences: the stand-in begins to skip words beyond, long before the limit of one request."""
MAX_WRITTEN_CHARS = 300
"""Of one cut: live sessions' `max_chunk_chars`, about 20 s of speech."""

MAX_SPOKEN_CHARS = 600
SHORT_CHARS = 60
"""A last breath shorter than this takes a sentence from the one before: voices are unsteady in very short texts."""

VoiceOf = Callable[[str, str | None], str]
"""`voice_of(character, voice)`: who speaks a line; `voice` is the one that its text names."""

_PUSH_CHARS = 8192
_TAG_SHAPE = re.compile(r"(?<!\w)<[A-Za-z][A-Za-z_-]{0,30}>")


@dataclass(slots=True)
class _Piece:
    """A sentence, or a part of one that is too long: characters [start, end) of its stretch."""

    start: int
    end: int
    ends_sentence: bool = True
    unpunctuated: bool = False
    asked: str = ""
    spoken: str | None = None
    unread: bool = False


@dataclass(slots=True)
class _Stretch:
    """What one voice says without another paragraph between: a paragraph, a part of one, or a title."""

    text: str
    character: str
    voice: str | None
    pause_s: float | None
    joined: bool = False
    is_title: bool = False
    pieces: list[_Piece] = field(default_factory=list)


class Draft:
    """A script in the making. See the module for how it is used."""

    def __init__(
        self,
        manuscript: Manuscript,
        options: NarrationOptions,
        *,
        tags: Sequence[str] = ORPHEUS_TAGS,
        voice_of: VoiceOf | None = None,
    ) -> None:
        """`voice_of` tells which voice speaks a line, where voices have words of their own."""
        self._manuscript = manuscript
        self._options = options
        self._tags = tags
        self._tag = re.compile("|".join(map(re.escape, tags)) or "(?!)")
        self._voice_of = voice_of
        self._respellings: dict[str, Respellings] = {}
        self._chapters = [list(self._stretches(number)) for number in range(len(manuscript.chapters))]
        self._waiting = [(s, p) for stretches in self._chapters for s in stretches for p in s.pieces]
        for stretch, piece in self._waiting:
            piece.asked = self._question(stretch, piece)

    @property
    def unread(self) -> list[str]:
        """Sentences to be read as words, replacements applied; none twice. Empty: the script can be had."""
        return list(dict.fromkeys(piece.asked for _, piece in self._waiting))

    def take(self, readings: Mapping[str, str | None]) -> None:
        """How the `unread` sentences are spoken; None leaves one as written, and tells so.

        What grew beyond 600 characters is cut in two, and its halves become `unread`.
        """
        waiting: list[tuple[_Stretch, _Piece]] = []
        for stretch, piece in self._waiting:
            reading = readings[piece.asked]
            piece.unread = reading is None
            piece.spoken = clean(piece.asked if reading is None else reading, tags=self._tags).replace("\n", " ")
            if len(piece.spoken) > MAX_SPOKEN_CHARS and (half := self._halve(stretch, piece)):
                waiting += ((stretch, piece), (stretch, half))
        for stretch, piece in waiting:
            piece.asked, piece.spoken = self._question(stretch, piece), None
        self._waiting = waiting

    def script(self, *, language: str = "", findings: Sequence[TextFinding] = ()) -> Script:
        """The finished script; `findings` go before its own. Raises ManuscriptUnfit if there is nothing to speak."""
        if self._waiting:
            raise ValueError(f"{len(self._waiting)} sentences are unread")
        layout = _Layout(self._options, self._tag)
        for chapter, stretches in zip(self._manuscript.chapters, self._chapters, strict=True):
            layout.add(chapter.title, stretches)
        chapters = layout.chapters()
        if not chapters:
            raise ManuscriptUnfit("The text holds nothing that can be spoken; hand in another.", param="file")
        return Script(
            title=self._options.title or self._manuscript.title,
            author=self._options.author or self._manuscript.author,
            language=language,
            chapters=tuple(chapters),
            findings=(*self._manuscript.findings, *findings, *self._unknown_tags(), *layout.findings.listed()),
        )

    def _stretches(self, number: int) -> Iterator[_Stretch]:
        chapter = self._manuscript.chapters[number]
        if self._options.read_titles and chapter.title:
            yield self._stretch(_Stretch(chapter.title, NARRATOR, None, None, is_title=True))
        for p in chapter.paragraphs:
            yield self._stretch(_Stretch(p.text, p.character, p.voice, p.pause_s, joined=p.joined))

    def _unknown_tags(self) -> Iterator[TextFinding]:
        """What has the shape of a tag and is none that the voice knows: it is not spoken."""
        known = {tag.lower() for tag in self._tags}
        findings = Findings()
        for number, chapter in enumerate(self._manuscript.chapters, start=1):
            for tag in dict.fromkeys(found[0] for p in chapter.paragraphs for found in _TAG_SHAPE.finditer(p.text)):
                if tag.lower() not in known:
                    tags = ", ".join(self._tags)
                    findings.add("left_out", "unknown_tag", f"{tag} is no tag that the voice knows ({tags})", number)
        yield from findings.listed()

    def _stretch(self, stretch: _Stretch) -> _Stretch:
        stretch.text, stretch.pieces = _cut(stretch.text, self._tags, self._tag)
        return stretch

    def _question(self, stretch: _Stretch, piece: _Piece) -> str:
        """A sentence as it is to be read; the last of a paragraph, with that's end, which stands for its stop."""
        written = stretch.text[piece.start : piece.end].replace("\n", " ")
        cased = recased(written) if stretch.is_title and self._options.normalise else written
        ends = piece is stretch.pieces[-1] and not written.endswith((".", "!", "?", "…"))
        return self._respelling(stretch)(cased) + ("\n" if ends else "")

    def _respelling(self, stretch: _Stretch) -> Respellings:
        voice = self._voice_of(stretch.character, stretch.voice) if self._voice_of else ""
        if voice not in self._respellings:
            own = self._options.voice_replacements.get(voice, {})
            self._respellings[voice] = Respellings(merged(self._options.replacements, own))
        return self._respellings[voice]

    def _halve(self, stretch: _Stretch, piece: _Piece) -> _Piece | None:
        """Cut a piece near its middle, between words if it has several; returns the second half, or None."""
        text, middle = stretch.text[piece.start : piece.end], (piece.end - piece.start) // 2
        spaces = [match.start() for match in re.finditer(r"\s", text)]
        cut = min(spaces, key=lambda space: abs(space - middle), default=middle)
        while 0 < cut < len(text) and joins_previous(text[cut]):
            cut -= 1
        cut = next((t.start() for t in self._tag.finditer(text) if t.start() < cut < t.end()), cut)
        if not 0 < cut < len(text):
            return None
        start = piece.start + cut + (1 if cut in spaces else 0)
        half = _Piece(start, piece.end, piece.ends_sentence)
        piece.end, piece.ends_sentence = piece.start + cut, False
        stretch.pieces.insert(stretch.pieces.index(piece) + 1, half)
        return half


def _cut(text: str, tags: Sequence[str], tag: re.Pattern[str]) -> tuple[str, list[_Piece]]:
    """(the text, cleaned; its sentences): as spans, with what has no word of its own gone into a neighbour."""
    splitter = TextSplitter(tags=tags, max_chunk_chars=MAX_WRITTEN_CHARS, batch_chars=MAX_WRITTEN_CHARS)
    pieces: list[_Piece] = []
    for at in range(0, len(text), _PUSH_CHARS):
        splitter.push(text[at : at + _PUSH_CHARS])
        pieces += _sentences(splitter)
    splitter.close()
    pieces += _sentences(splitter)
    for before, piece in reversed(list(pairwise(pieces))):  # a sentence of many cuts is reported once
        piece.unpunctuated &= not before.unpunctuated
    cleaned = clean(text, tags=tags)
    return cleaned, _merged(cleaned, pieces, tag)


def _sentences(splitter: TextSplitter) -> Iterator[_Piece]:
    while chunk := splitter.next_chunk(eager=False):
        whole = chunk.cut not in (Cut.CLAUSE, Cut.LENGTH)
        start, readings = 0, reading_spans(chunk.text)
        for end, cut in boundaries(chunk.text):
            inside = any(first < end < last for first, last in readings)
            if cut is Cut.SENTENCE and end < len(chunk.text) and not inside:
                yield _Piece(chunk.start + start, chunk.start + end)
                start = end + chunk.text[end].isspace()
        yield _Piece(chunk.start + start, chunk.end, whole, chunk.cut is Cut.LENGTH)


def _merged(text: str, pieces: Sequence[_Piece], tag: re.Pattern[str]) -> list[_Piece]:
    """Pieces without a word ("…", a lone tag) made part of the one before, or else of the one behind.

    Those that fit into neither stand alone if they hold a tag, and are dropped if they are ornaments.
    """
    merged: list[_Piece] = []
    wordless: list[_Piece] = []

    def tagged() -> list[_Piece]:
        return [piece for piece in wordless if tag.search(text, piece.start, piece.end)]

    for piece in pieces:
        if has_speech(tag.sub("", text[piece.start : piece.end])):
            if wordless and piece.end - wordless[0].start <= MAX_WRITTEN_CHARS:
                piece.start = wordless[0].start
            else:
                merged += tagged()
            merged.append(piece)
            wordless = []
        elif merged and not wordless and piece.end - merged[-1].start <= MAX_WRITTEN_CHARS:
            merged[-1].end, merged[-1].ends_sentence = piece.end, piece.ends_sentence
        else:
            wordless.append(piece)
    return merged + tagged()


class _Layout:
    """Segments in their order, and the silence after each."""

    def __init__(self, options: NarrationOptions, tag: re.Pattern[str]) -> None:
        self.findings = Findings()
        self._options = options
        self._tag = tag
        self._chapters: list[tuple[str, list[ScriptSegment]]] = []
        self._number = 0
        self._last_pause_s: float | None = None
        """The break that the chapter before ends with, which its last gap is."""

    def chapters(self) -> list[ScriptChapter]:
        """What was laid out; nothing follows the last segment."""
        if self._last_pause_s:
            message = f"the pause of {self._last_pause_s:g} s at the very end is left out"
            self.findings.add("left_out", "lost_break", message, len(self._chapters))
        if self._chapters:
            segments = self._chapters[-1][1]
            segments[-1] = segments[-1].model_copy(update={"gap_s": 0.0})
        return [
            ScriptChapter(number=number, title=title, segments=tuple(segments))
            for number, (title, segments) in enumerate(self._chapters, start=1)
        ]

    def add(self, title: str, stretches: Sequence[_Stretch]) -> None:
        """Lay out a chapter; one that has no words is left out and told."""
        """One of a title alone is its title, where titles are read."""
        told = (s for s in stretches if not s.is_title or len(stretches) == 1)
        if not any(s.pieces for s in told):
            self.findings.add("left_out", "empty_chapter", f'"{title[:60]}" has nothing to speak and is left out')
            return
        pauses, segments = self._options.pauses, list[ScriptSegment]()
        self._chapters.append((title, segments))
        for here, following in zip(stretches, [*stretches[1:], None], strict=True):
            laid = list(self._segments(here))
            gap_s = here.pause_s
            if gap_s is None:
                gap_s = pauses.title_s if here.is_title else pauses.paragraph_s
                if following is None:
                    gap_s = pauses.chapter_s
                elif following.joined:
                    gap_s = pauses.segment_s if pauses.sentence_s is None else pauses.sentence_s
            segments += laid
            if segments and (laid or here.pause_s is not None or following is None):
                segments[-1] = segments[-1].model_copy(update={"gap_s": gap_s})
            elif here.pause_s:
                self._pause_before(here.pause_s)
        if segments:
            self._last_pause_s = stretches[-1].pause_s
        else:
            self._chapters.pop()

    def _pause_before(self, pause_s: float) -> None:
        """A break before a chapter's first words is the gap behind the chapter before, with the one that is there."""
        if len(self._chapters) > 1:
            before = self._chapters[-2][1]
            pause_s += self._last_pause_s or 0.0
            before[-1] = before[-1].model_copy(update={"gap_s": pause_s})
            self._last_pause_s = pause_s
        else:
            message = f"the pause of {pause_s:g} s before all words is left out"
            self.findings.add("left_out", "lost_break", message, len(self._chapters))

    def _segments(self, stretch: _Stretch) -> Iterator[ScriptSegment]:
        sentence_s, segment_s = self._options.pauses.sentence_s, self._options.pauses.segment_s
        for breath in _breaths(stretch.pieces, alone=sentence_s is not None):
            written = as_written(stretch.text[breath[0].start : breath[-1].end]).replace("\n", " ")
            spoken = _joined(stretch.text, breath)
            if not has_speech(spoken):
                message = f"{written[:60]!r} is replaced by nothing that can be spoken, and left out"
                self.findings.add("left_out", "unspoken", message, len(self._chapters))
                continue
            self._number += 1
            self._report(breath, written)
            gap_s = sentence_s if sentence_s is not None and breath[-1].ends_sentence else segment_s
            yield ScriptSegment(
                number=self._number,
                character=stretch.character,
                voice=stretch.voice,
                written=written,
                spoken=spoken,
                gap_s=gap_s,
            )

    def _report(self, breath: Sequence[_Piece], written: str) -> None:
        if any(piece.unread for piece in breath):
            message = f"{written[:60]!r} could not be read as words and is spoken as written; listen to it"
            self.findings.add("check", "unread", message, len(self._chapters), self._number)
        if any(piece.unpunctuated for piece in breath):
            message = (
                f"{written[:60]!r} goes on for more than {MAX_WRITTEN_CHARS} characters without punctuation and is cut "
                "between words; set stops"
            )
            self.findings.add("check", "long_sentence", message, len(self._chapters), self._number)


def _breaths(pieces: Sequence[_Piece], *, alone: bool) -> list[list[_Piece]]:
    """Neighbouring pieces put together up to BATCH_CHARS spoken characters; `alone`: each by itself."""
    breaths: list[list[_Piece]] = []
    chars = 0
    for piece in pieces:
        more = len(piece.spoken or "") + 1
        if alone or not breaths or chars + more > BATCH_CHARS:
            breaths.append([])
            chars = 0
        breaths[-1].append(piece)
        chars += more
    if len(breaths) > 1 and chars < SHORT_CHARS and len(breaths[-2]) > 1 and not alone:
        moved = breaths[-2][-1]
        if len(moved.spoken or "") + chars <= BATCH_CHARS:
            breaths[-1].insert(0, breaths[-2].pop())
    return breaths


def _joined(text: str, breath: Sequence[_Piece]) -> str:
    """What is said in one breath. Chinese sentences have no space between; others have it where it was forgotten."""
    spoken = breath[0].spoken or ""
    for before, piece in pairwise(breath):
        apart = text[before.end : piece.start] or not CJK.search(text[before.end - 1 : piece.start + 1])
        spoken += (" " if apart else "") + (piece.spoken or "")
    return spoken.strip()
