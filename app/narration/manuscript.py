"""From a text's blocks to a manuscript: where its chapters begin, who speaks which paragraph, and where it pauses.

A reader (`app.narration.text_blocks_child`) has taken a file apart into blocks; `compose` puts a `Manuscript` together
from them. What an author may write into a text, whatever kind of file it comes in:

    [narrator] [hero] [Old Tom]   who speaks, and `[voice: NAME]` with which voice. Alone on its line, a marker holds
                                  until the next such line or the end of the chapter; at the start of a paragraph, and
                                  followed by a space, for that paragraph alone. Several may stand side by side. A
                                  character's name takes the voice back to the cast's; one under which no one speaks
                                  is reported. Anywhere else, and without a letter (`[1]`), brackets are text.
    <break time="800ms"/>         a pause of 0 to 30 s, in place of the usual one; several in a row add up. Quotes are
                                  optional, the unit (ms or s) is not. One that cannot be understood is a
                                  finding; it is never read aloud.
    <laugh>                       a speech tag: kept as text. The script knows which ones the voice can speak.

Chapters begin at headings down to one level: the highest that occurs twice, or the one below it where most of its
headings stand directly over another ("Part One" over "Chapter 1"; their titles are then joined). In a book of many
documents, one that has no heading but an entry in the table of contents begins a chapter too. This module does not
know file formats, sentences or which voices exist.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, NamedTuple

from app.errors import ManuscriptUnfit
from app.narration.models import NARRATOR, Manuscript, ManuscriptChapter, Paragraph, TextFinding, character_name
from app.speech.text import has_speech
from app.speech.text.marks import reading_mark
from app.speech.text.markup import MAX_VERSE_CHARS

MAX_BREAK_S = 30.0
MAX_PAUSE_S = 120.0
"""Of breaks in a row: silence is small to write, and without a bound a short text could ask for days of it."""
MAX_CHAPTERS = 2000
MAX_PARAGRAPHS = 100_000
"""As cut by breaks and markers; a long novel has 10,000."""
MAX_TITLE_CHARS = 300
MAX_FINDINGS = 20
"""Of one code; a further one counts the rest."""

_MARKER = re.compile(r"\s*+\[(?P<inside>[^\]\n]{1,200}+)\]:?(?=\s|\Z)")  # in steps that grow with the text alone
_INSIDE = re.compile(r"(?<=\S)\s+\[(?P<inside>[^\]\n]{1,64})\]")
_VOICE = re.compile(r"voice\s*+:\s*+(?P<name>.{1,100})", re.I)
_SIGNS_OF_NAMES = " ._'’-"
MAX_CHARACTER_CHARS = 64
_PICTURE = re.compile(r"\s*\[(?:illustration|picture|image)\b[^\]]*\]\s*", re.I)
_BREAK = re.compile(r"<\s*break\b[^<>]{0,200}>|<\s*break\b(?:\s*time\s*=\s*[^\s<>]{0,20})?", re.I)
_BREAK_END = re.compile(r"<\s*/\s*break\s*>", re.I)
_BREAK_TIME = re.compile(
    r"<\s*break\s+time\s*=\s*(?P<quote>[\"'“”]?)\s*(?P<number>\d{1,6}(?:\.\d{1,6})?|\.\d{1,6})\s*(?P<unit>ms|s)\s*"
    r"(?(quote)[\"'“”]?)\s*/?\s*>",
    re.I,
)
_DROPPED = {
    "picture": "pictures",
    "note": "footnotes",
    "table": "tables of several columns",
    "code": "listings of program code",
    "thought": "thoughts of a language model",
    "contents": "tables of contents",
    "aside": 'documents that stand outside of the book\'s order (linear="no")',
    "broken_contents": "tables of contents that are no XML, and whatever chapters they name,",
}


class Block(NamedTuple):
    """One block of a text as a reader found it: lines are kept, all other formatting is gone.

    `document` is no text: it says that another file of a book begins, by its name. `dropped` is what is left out.
    """

    kind: Literal["heading", "text", "document", "dropped"]
    text: str
    level: int = 0


@dataclass(slots=True)
class _Section:
    title: str
    texts: list[str]
    dropped: bool = False
    """Something of it is not read aloud: a heading over nothing else is then not read either."""


def compose(
    blocks: Iterable[Block],
    *,
    name: str,
    title: str = "",
    author: str = "",
    language: str = "",
    contents: Mapping[str, str] | None = None,
) -> Manuscript:
    """The manuscript of a text called `name`. `contents` maps a book's documents to their entries in its contents.

    Raises ManuscriptUnfit where there is nothing to speak, or more than 2000 chapters or 100,000 paragraphs.
    """
    listed = list(blocks)
    findings = Findings()
    for dropped, count in sorted(Counter(b.text for b in listed if b.kind == "dropped").items()):
        what, _, name_of = dropped.partition(": ")
        if what == "ssml":
            findings.add("check", what, f"<{name_of}> is read, and not obeyed: what it says of the voice is not done")
            continue
        if name_of:
            findings.add("left_out", what, f"{name_of!r} is named by the book, and is not in it; the rest is read")
            continue
        findings.add("left_out", what, f"{_DROPPED.get(what, what)} are not read aloud: {count} left out")
    depth = _chapter_level(listed)
    _tell_breaks_in_titles(listed, depth, findings)
    title = title or _book_title(listed, depth)
    chapters: list[ManuscriptChapter] = []
    empty, room = 0, MAX_PARAGRAPHS
    for section in _sections(listed, depth, contents or {}, title):
        chapter = _Chapter(name, room)
        for text in section.texts:
            chapter.add(text)
        chapter.end()
        room -= len(chapter.paragraphs)
        named_only = not section.texts and not section.dropped and has_speech(section.title)
        if any(p.text for p in chapter.paragraphs) or named_only:
            chapters.append(ManuscriptChapter(title=section.title, paragraphs=tuple(chapter.paragraphs)))
            findings.take(chapter.findings, len(chapters))
            continue
        findings.take(chapter.findings, None)
        if section.title:
            empty += 1
            place = f'chapter {len(chapters) + empty} of the text, "{section.title}",'
            findings.add("left_out", "empty_chapter", f"{place} has nothing to speak and is left out")
    if not any(chapter.paragraphs for chapter in chapters):
        raise ManuscriptUnfit(f"{name} holds nothing to speak: no letter and no digit; hand in a text.", param="file")
    if len(chapters) > MAX_CHAPTERS:
        raise ManuscriptUnfit(
            f"{name} has {len(chapters)} chapters; at most {MAX_CHAPTERS} are accepted: split it, or use fewer "
            "headings.",
            param="file",
        )
    return Manuscript(
        title=title[:MAX_TITLE_CHARS],
        author=author[:MAX_TITLE_CHARS],
        language=language,
        chapters=tuple(chapters),
        findings=findings.listed(),
    )


class Findings:
    """Findings, with a limit for each code."""

    def __init__(self) -> None:
        self._kept: list[TextFinding] = []
        self._counts: Counter[str] = Counter()

    def add(
        self,
        severity: Literal["left_out", "fixed", "check"],
        code: str,
        message: str,
        chapter: int | None = None,
        segment: int | None = None,
    ) -> None:
        self._counts[code] += 1
        if self._counts[code] <= MAX_FINDINGS:
            found = TextFinding(severity=severity, code=code, message=message, chapter=chapter, segment=segment)
            self._kept.append(found)

    def take(self, others: Findings, chapter: int | None) -> None:
        """Those of one chapter, once its number is known; None: it is left out."""
        for found in others._kept:
            self.add(found.severity, found.code, found.message, chapter)
        self._counts += others._counts - Counter(found.code for found in others._kept)

    def listed(self) -> tuple[TextFinding, ...]:
        more = [
            TextFinding(severity="check", code=code, message=f"{count - MAX_FINDINGS} more of this kind are not listed")
            for code, count in self._counts.items()
            if count > MAX_FINDINGS
        ]
        return (*self._kept, *more)


# Where chapters begin.


def _chapter_level(blocks: Sequence[Block]) -> int:
    """Down to which level headings begin chapters; 0: there are none."""
    counts = Counter(block.level for block in blocks if block.kind == "heading")
    if not counts:
        return 0
    level = min((level for level, count in counts.items() if count > 1), default=min(counts))
    below = level + 1
    if counts[below] > counts[level] and 2 * _direct(blocks, level, below) >= counts[level]:
        return below
    return level


def _direct(blocks: Sequence[Block], level: int, below: int) -> int:
    """How many headings of `level` have nothing between them and one of `below`."""
    seen = [block for block in blocks if block.kind in ("heading", "text")]
    return sum(
        over.kind == under.kind == "heading" and over.level == level and under.level == below
        for over, under in pairwise(seen)
    )


def _book_title(blocks: Sequence[Block], depth: int) -> str:
    """The first heading, if it stands above the chapters and no other does so as high: then it is the whole text's."""
    headings = [block for block in blocks if block.kind == "heading"]
    highest = min((block.level for block in headings), default=0)
    alone = sum(block.level == highest for block in headings) == 1
    return _one_line(headings[0].text) if alone and headings[0].level == highest < depth else ""


def _sections(blocks: Sequence[Block], depth: int, contents: Mapping[str, str], book_title: str) -> Iterator[_Section]:
    """Chapters with their text. A heading directly over a deeper one goes into that one's title."""
    section, level = _Section("", []), 0
    untitled = not contents and not depth
    for place, block in enumerate(blocks):
        begins: str | None = None
        if block.kind == "heading" and 0 < block.level <= depth and len(block.text) <= MAX_TITLE_CHARS:
            begins = _one_line(block.text)
            if section.title and not section.texts and level < block.level:
                begins = begins if section.title == book_title else f"{section.title}: {begins}"
                section = _Section("", [])
        elif block.kind == "document" and (untitled or block.text in contents) and not _has_heading(blocks, place):
            begins = _one_line(contents.get(block.text, ""))
        elif block.kind in ("heading", "text"):
            section.texts.append(block.text)
        elif block.kind == "dropped":
            section.dropped = True
        if begins is not None:
            yield section
            section, level = _Section(begins, []), block.level
    yield section


def _has_heading(blocks: Sequence[Block], document: int) -> bool:
    for place in range(document + 1, len(blocks)):
        if blocks[place].kind == "document":
            return False
        if blocks[place].kind == "heading":
            return True
    return False


def _tell_breaks_in_titles(blocks: Sequence[Block], depth: int, findings: Findings) -> None:
    for block in blocks:
        if block.kind == "heading" and 0 < block.level <= depth and _BREAK.search(block.text):
            message = f'a pause in the title "{_one_line(block.text)[:60]}" is left out; write it below the title'
            findings.add("left_out", "lost_break", message)


def _one_line(text: str) -> str:
    return " ".join(_BREAK_END.sub(" ", _BREAK.sub(" ", text)).split())


# Who speaks, and where it pauses.


class _Chapter:
    """Takes a chapter's blocks of text and makes paragraphs of them, no more than `room`."""

    def __init__(self, name: str, room: int) -> None:
        self.paragraphs: list[Paragraph] = []
        self.findings = Findings()
        self._name = name
        self._room = room
        self._blocks = 0
        self._character: str = NARRATOR
        self._voice: str | None = None
        self._silent: _Marker | None = None
        """The marker alone on its line under which no one has spoken yet."""

    def add(self, text: str) -> None:
        if _PICTURE.fullmatch(text):
            self.findings.add("left_out", "picture", "a line that stands for a picture is left out")
            return
        self._blocks += 1
        lines: list[str] = []
        for line in text.split("\n"):
            markers, rest = _markers(line)
            if rest or not line.strip():
                lines.append(line)
                continue
            self._speak(lines)
            lines = []
            for marker in markers:
                self._take_turn(marker)
        self._speak(lines)

    def end(self) -> None:
        self._tell_silent(self._silent)

    def _take_turn(self, marker: _Marker) -> None:
        if marker.voice is None:
            self._tell_silent(self._silent)
            self._silent = marker
            self._character = marker.character
        self._voice = marker.voice

    def _tell_silent(self, marker: _Marker | None) -> None:
        """Probably a stage direction, which is not spoken."""
        if marker and marker.character != NARRATOR:
            message = f"{marker.written} is taken for a character, who says nothing; without brackets it would be read"
            self.findings.add("left_out", "silent_character", message)

    def _speak(self, lines: Sequence[str]) -> None:
        """Make paragraphs of what stands between two markers, cut at its breaks."""
        character, voice, silent = self._character, self._voice, None
        markers, text = _markers(_run_on(lines))
        for marker in markers:
            if marker.voice is None:
                self._tell_silent(silent)
                character, silent = marker.character, marker
            voice = marker.voice
        self._tell_inside(text)
        text, joined, start = _BREAK_END.sub("", text), False, 0
        parts: list[str] = []
        for found in _BREAK.finditer(text):
            parts.append(text[start : found.start()])
            start = found.end()
            pause_s = self._pause_s(found[0])
            if pause_s is not None:
                joined |= self._append(" ".join(parts), character, voice, joined)
                self._pause(pause_s)
                parts = []
        joined |= self._append(" ".join((*parts, text[start:])), character, voice, joined)
        if not joined:
            self._tell_silent(silent)
        elif character == self._character:
            self._silent = None

    def _tell_inside(self, text: str) -> None:
        """A marker within a paragraph is text: read aloud, which may not have been meant."""
        for found in _INSIDE.finditer(text):
            if _marker(found["inside"]):
                message = (
                    f"paragraph {self._blocks}: {found[0]} stands within a paragraph and is read as text; a speaker's "
                    "marker stands at its start, or alone on a line"
                )
                self.findings.add("check", "marker_inside", message)

    def _append(self, text: str, character: str, voice: str | None, joined: bool) -> bool:
        """Whether there was anything to speak in it."""
        speaks = has_speech(text)
        if speaks:
            if len(self.paragraphs) >= self._room:
                raise ManuscriptUnfit(
                    f"{self._name} has more than {MAX_PARAGRAPHS} paragraphs; split it.",
                    param="file",
                )
            self.paragraphs.append(Paragraph(text=text.strip(), character=character, voice=voice, joined=joined))
        return speaks

    def _pause(self, pause_s: float) -> None:
        """Pause after what was said last; at the start of a chapter, after its title: an empty paragraph stands so."""
        if not self.paragraphs:
            self.paragraphs.append(Paragraph(text=""))
        last = self.paragraphs[-1]
        together_s = (last.pause_s or 0.0) + pause_s
        if together_s > MAX_PAUSE_S:
            message = f"paragraph {self._blocks}: breaks in a row make {MAX_PAUSE_S:g}s at most; the rest is left out"
            self.findings.add("fixed", "long_pause", message)
        self.paragraphs[-1] = last.model_copy(update={"pause_s": min(together_s, MAX_PAUSE_S)})

    def _pause_s(self, written: str) -> float | None:
        match = _BREAK_TIME.fullmatch(written)
        pause_s = float(match["number"]) / (1000 if match["unit"].lower() == "ms" else 1) if match else None
        if pause_s is not None and pause_s <= MAX_BREAK_S:
            return pause_s
        self.findings.add(
            "left_out",
            "bad_break",
            f"paragraph {self._blocks}: {written[:60]} is no pause and is left out; write "
            f'<break time="800ms"/> or <break time="1.5s"/>, at most {MAX_BREAK_S:g}s',
        )
        return None


def _run_on(lines: Sequence[str]) -> str:
    """Lines as one text. Those of verse, or of an address, are short and all begin like one: a breath parts them."""
    lines = [line.strip() for line in lines if line.strip()]
    short = all(len(line) <= MAX_VERSE_CHARS and (line[0].isupper() or line[0].isdigit()) for line in lines)
    if len(lines) < 2 or not short:
        return " ".join(lines)
    breath = reading_mark("", ",")
    return " ".join(line + breath * (line[-1].isalnum()) for line in lines[:-1]) + " " + lines[-1]


class _Marker(NamedTuple):
    """A character's name, or the voice that is to speak on."""

    written: str
    character: str = ""
    voice: str | None = None


def _markers(text: str) -> tuple[list[_Marker], str]:
    """The markers that `text` begins with, and the text behind them."""
    markers: list[_Marker] = []
    at = 0
    while (match := _MARKER.match(text, at)) and (marker := _marker(match["inside"])):
        markers.append(marker)
        at = match.end()
    return markers, text[at:].strip()


def _marker(inside: str) -> _Marker | None:
    """What stands in brackets as a marker; None: it is text."""
    written = inside.strip()
    if voice := _VOICE.fullmatch(written):
        return _Marker(f"[{written}]", voice=voice["name"].strip())
    name = unicodedata.normalize("NFC", written)
    if len(name) > MAX_CHARACTER_CHARS or not any(map(str.isalpha, name)):
        return None
    if not name[0].isalnum() or not all(map(_is_of_names, name)):
        return None
    return _Marker(f"[{written}]", character=character_name(name))


def _is_of_names(char: str) -> bool:
    """A letter of any script, a mark on one, a digit, or one of a few signs."""
    return char.isalnum() or char in _SIGNS_OF_NAMES or unicodedata.category(char)[0] == "M"
