"""The nouns of narration: a manuscript, the script it is spoken from, its segments as they were rendered, and the job.

    Manuscript   what was submitted: chapters of paragraphs, each with the character who speaks it
    Script       what will be said: segments with the text as written and as spoken, and the exact gap after each
    Take         one segment as it was rendered, and what was measured of it
    Timeline     where everything lies in the finished file, in samples
    Narration    the job: how far it is, what it cost, how it ended

No value here knows how a text is parsed, how audio is made or where anything is stored.
"""

from __future__ import annotations

import hashlib
import json
import unicodedata
from collections.abc import Collection, Mapping
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Literal, Self

from pydantic import ConfigDict, Field, field_validator, model_validator

from app.errors import ManuscriptUnfit
from app.platform.jobs import JobError
from app.platform.tables import DEFAULT_PROJECT
from app.speech.choices import NarrationFormat
from app.speech.text.options import CodeReading
from app.speech.text.respelling import Respelling, WrittenWord, check_distinct
from app.speech.voices import Frozen, Voice

MAX_TEXT_BYTES = 5 * 1024 * 1024
NARRATOR = "narrator"
"""The character who speaks what no other character does."""

CharacterName = Annotated[str, Field(min_length=1, max_length=64)]

MAX_COMPOSED_CHARS = 256
"""No one has a longer name, and marks in thousands take quadratic time to compose."""


def character_name(written: str) -> str:
    """A character's name as it is compared: `[Hero]` in the text is `hero` in the cast, accents composed (NFC)."""
    name = " ".join(written.lower().replace("’", "'").split())
    return unicodedata.normalize("NFC", name) if len(name) <= MAX_COMPOSED_CHARS else name


class SourceKind(StrEnum):
    TEXT = "text"
    MARKDOWN = "markdown"
    EPUB = "epub"
    HTML = "html"
    DOCX = "docx"
    SSML = "ssml"


# The request.


NarrationMarkup = Literal["auto", "plain", "markdown", "ssml"]


class Pauses(Frozen):
    """Silence, exact to the sample, between the speech on either side; a `<break time="800ms"/>` replaces it."""

    sentence_s: float | None = Field(
        default=None,
        ge=0,
        le=10,
        description="None: neighbouring sentences are spoken in one breath, with the voice's own pauses; "
        "a number: each sentence is spoken alone and followed by this.",
    )
    segment_s: float = Field(default=0.35, ge=0, le=10, description="Between segments of one paragraph.")
    paragraph_s: float = Field(default=0.7, ge=0, le=10)
    title_s: float = Field(default=1.0, ge=0, le=10, description="After a chapter's title.")
    chapter_s: float = Field(default=2.0, ge=0, le=30)


class NarrationOptions(Frozen):
    """How a narration is read and delivered."""

    pauses: Pauses = Pauses()
    replacements: Mapping[WrittenWord, Respelling] = Field(
        default_factory=dict, max_length=3_000, description="Whole words, in any case, and how to say them."
    )
    voice_replacements: Mapping[
        Annotated[str, Field(min_length=1, max_length=128)],
        Annotated[Mapping[WrittenWord, Respelling], Field(max_length=3_000)],
    ] = Field(
        default_factory=dict,
        max_length=256,
        description="A voice's name -> such words for what that voice speaks; they go before `replacements`.",
    )
    normalise: bool = Field(default=True, description="Read numbers, dates, currency and abbreviations as words.")
    chapters: tuple[Annotated[int, Field(ge=1)], ...] | None = Field(
        default=None, min_length=1, max_length=1000, description="Only these of the text's chapters, from 1; None: all."
    )
    markup: NarrationMarkup = Field(
        default="auto",
        description="markdown, ssml, or plain: what the text is, whatever the file's name says; auto: as `kind` says.",
    )
    code: CodeReading = Field(default=CodeReading.SKIP, description="What becomes of blocks of program code.")
    read_titles: bool = Field(default=True, description="Speak each chapter's title before it.")
    retakes: int = Field(
        default=3, ge=0, le=3, description="A segment that fails its checks is rendered again so often."
    )
    temperature: float | None = Field(default=None, ge=0, le=2, description="None: the model's own.")
    loudness_lufs: float = Field(default=-19.0, ge=-31, le=-9, description="Integrated, over the whole; mono.")
    max_true_peak_dbtp: float = Field(default=-3.0, ge=-12, le=-1)
    title: str | None = Field(default=None, max_length=300, description="None: the manuscript's own.")
    author: str | None = Field(default=None, max_length=300)
    language: str | None = Field(
        default=None, max_length=16, description="None: the manuscript's, or else the narrator's voice's."
    )

    @field_validator("replacements")
    @classmethod
    def _no_word_is_replaced_twice(cls, replacements: Mapping[str, str]) -> Mapping[str, str]:
        check_distinct(replacements)
        return replacements

    @field_validator("voice_replacements")
    @classmethod
    def _nor_in_one_voice(cls, of_voices: Mapping[str, Mapping[str, str]]) -> Mapping[str, Mapping[str, str]]:
        for words in of_voices.values():
            check_distinct(words)
        return of_voices


# The input.


class Paragraph(Frozen):
    """A stretch of one character's text as written. `pause_s` is an explicit break after it; None: as usual."""

    text: str
    character: str = NARRATOR
    voice: str | None = Field(default=None, description="A voice's name given in the text itself: `[voice: NAME]`.")
    pause_s: float | None = None
    joined: bool = Field(default=False, description="Goes on the paragraph before it, which a break or a name cut.")


class ManuscriptChapter(Frozen):
    title: str = ""
    paragraphs: tuple[Paragraph, ...] = ()


class TextFinding(Frozen):
    """One thing about a text, and where: what was left out, mended, or should be looked at."""

    severity: Literal["left_out", "fixed", "check"]
    code: str = Field(description="Stable, for programs: empty_chapter, long_sentence, unread, segment_flagged …")
    message: str = Field(description="For people: the value, and the remedy.")
    chapter: int | None = Field(default=None, description="From 1.")
    segment: int | None = Field(default=None, description="From 1, through the whole script.")


class Manuscript(Frozen):
    title: str = ""
    author: str = ""
    language: str = ""
    chapters: tuple[ManuscriptChapter, ...]
    findings: tuple[TextFinding, ...] = ()

    def chosen(self, numbers: Collection[int] | None) -> Self:
        """This text with these of its chapters alone. Raises ManuscriptUnfit for one that is not there."""
        if numbers is None:
            return self
        if (last := max(numbers)) > len(self.chapters):
            raise ManuscriptUnfit(
                f"there is no chapter {last}; the text has {len(self.chapters)}", param="options.chapters"
            )
        chapters = (chapter for number, chapter in enumerate(self.chapters, start=1) if number in numbers)
        return self.model_copy(update={"chapters": tuple(chapters)})

    @property
    def characters(self) -> frozenset[str]:
        return frozenset(p.character for chapter in self.chapters for p in chapter.paragraphs)

    @property
    def voices(self) -> frozenset[str]:
        """The voices that the text itself names."""
        return frozenset(p.voice for chapter in self.chapters for p in chapter.paragraphs if p.voice)


# The script.


class Stored(Frozen):
    """What one process keeps and another reads, perhaps of an older version: it passes over what it does not know."""

    model_config = ConfigDict(extra="ignore")


class ScriptSegment(Stored):
    """A few sentences that are spoken in one breath: one request of the engine."""

    number: int = Field(ge=1, description="Through the whole script.")
    character: str = NARRATOR
    voice: str | None = None
    written: str
    spoken: str
    gap_s: float = Field(default=0.0, ge=0, description="Silence after it.")


class ScriptChapter(Stored):
    number: int = Field(ge=1)
    title: str
    segments: tuple[ScriptSegment, ...]


class Script(Stored):
    title: str
    author: str
    language: str
    chapters: tuple[ScriptChapter, ...]
    findings: tuple[TextFinding, ...] = ()

    @property
    def segments(self) -> int:
        return sum(len(chapter.segments) for chapter in self.chapters)


# What was rendered.


class WordTimes(Stored):
    """When each word of a segment's `spoken` text is heard in its take, as white space parts them."""

    times_s: tuple[tuple[float, float], ...]
    approximate: bool = Field(description="Laid out by the words' lengths, not heard.")


class Take(Stored):
    """A segment as it was rendered, before it is trimmed. `flags` names the checks that even the best try failed."""

    key: str = Field(description="Of its audio in the object store: a FLAC, mono, 16 bit.")
    samples: int
    sample_rate_hz: int
    speech_s: float = Field(description="From its first sound to its last.")
    voice: str = Field(description="The voice's name.")
    worker: str
    tries: int = Field(default=1, ge=1)
    busy_s: float = Field(description="Time a worker spoke for it, all tries together.")
    flags: tuple[str, ...] = ()
    words: WordTimes | None = Field(default=None, description="None: it was rendered before words were timed.")

    @property
    def audio_s(self) -> float:
        return self.samples / self.sample_rate_hz


def take_digest(
    voice: Voice, spoken: str, options: NarrationOptions, *, take: int, project: str = DEFAULT_PROJECT
) -> str:
    """What a segment's audio depends on, as hex digits: its name in the store, so that nothing is rendered twice.

    `take` counts how many other readings of the same words were asked for. Each `project` has names of its own,
    also for a voice that all have: how fast a text is rendered tells nothing about what another project had read.
    """
    adapter = voice.adapter
    facts = {
        "model": voice.model,
        "voice": voice.id,
        "version": adapter.version if adapter else 0,
        "prompt_name": voice.prompt_name,
        "text": spoken,
        "temperature": options.temperature,
        "retakes": options.retakes,
        "take": take,
    }
    if project != DEFAULT_PROJECT:  # whose names are those of before there were others
        facts["project"] = project
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


# The output.


class TimelineSegment(Stored):
    number: int
    chapter: int
    character: str
    voice: str
    written: str
    spoken: str
    start_sample: int
    end_sample: int
    flags: tuple[str, ...] = ()
    words: tuple[tuple[int, int], ...] = Field(
        default=(), description="`[start_sample, end_sample)` of each word of `written`, as white space parts them."
    )
    approximate: bool = Field(default=True, description="Of `words`: laid out by their lengths, not heard.")


class TimelineChapter(Stored):
    number: int
    title: str
    start_sample: int
    end_sample: int


class Timeline(Stored):
    """Where everything lies in the finished audio, `[start_sample, end_sample)`; the rest is silence."""

    sample_rate_hz: int
    samples: int
    chapters: tuple[TimelineChapter, ...]
    segments: tuple[TimelineSegment, ...]


class NarrationOutput(Frozen):
    """The finished file. `loudness_lufs` and `true_peak_dbtp` are of the audio that was encoded."""

    format: NarrationFormat
    content_type: str
    key: str
    timeline_key: str
    size_bytes: int
    duration_s: float
    sample_rate_hz: int
    loudness_lufs: float
    true_peak_dbtp: float


# The job.


class NarrationState(StrEnum):
    QUEUED = "queued"
    PLANNING = "planning"
    RENDERING = "rendering"
    MASTERING = "mastering"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def over(self) -> bool:
        return self in (NarrationState.COMPLETED, NarrationState.FAILED, NarrationState.CANCELLED)


class StepKind(StrEnum):
    """What is done for a narration: the plan first, then its chapters beside each other, then the mastering."""

    PLAN = "plan"
    CHAPTER = "chapter"
    MASTER = "master"


class ChapterProgress(Frozen):
    """How far one chapter is. `busy_s` is what workers spent on it; what was in the store already cost nothing."""

    number: int
    title: str
    segments: int
    segments_done: int = 0
    audio_s: float = 0.0
    rendered_s: float = Field(
        default=0.0, description="Audio that was spoken for it, takes that were replaced included."
    )
    rendered_chars: int = Field(default=0, description="Of the texts of those takes.")
    busy_s: float = 0.0
    flagged: int = 0
    finished: bool = False
    error: JobError | None = None


class NarrationSource(Frozen):
    kind: SourceKind
    file_name: str
    key: str
    size_bytes: int
    cover_key: str | None = None


class Narration(Frozen):
    """A job that makes one file of one text. `revision` grows with every change that is worth telling."""

    id: str
    state: NarrationState
    voice: str
    cast: Mapping[str, str] = Field(default_factory=dict, description="Character -> the voice's name or id.")
    model: str
    voices: Mapping[str, Voice] = Field(
        default_factory=dict, description="Every voice named above or in the text, as it was when it was handed in."
    )
    format: NarrationFormat
    options: NarrationOptions
    source: NarrationSource
    title: str = ""
    takes: Mapping[int, int] = Field(default_factory=dict, description="Segments of which another take was asked for.")
    revision: int
    cancel_requested: bool = False
    chapters: tuple[ChapterProgress, ...] = ()
    findings: tuple[TextFinding, ...] = ()
    script_key: str | None = None
    output: NarrationOutput | None = None
    error: JobError | None = None
    webhook_url: str | None = None
    created_at: datetime
    started_at: datetime | None = None
    finished_at: datetime | None = None
    project_id: str = DEFAULT_PROJECT
    key_id: str | None = Field(default=None, description="The API key that asked for it.")
    ahead: int | None = Field(default=None, description="While it is queued: how many go before it; 0: it is next.")

    @property
    def segments(self) -> int:
        return sum(chapter.segments for chapter in self.chapters)

    @property
    def segments_done(self) -> int:
        return sum(chapter.segments_done for chapter in self.chapters)

    @property
    def audio_s(self) -> float:
        return sum(chapter.audio_s for chapter in self.chapters)

    @property
    def busy_s(self) -> float:
        """Seconds that places at workers were taken for it."""
        return sum(chapter.busy_s for chapter in self.chapters)

    @property
    def real_time_factor(self) -> float | None:
        """Seconds of a worker's place per second of audio; None before anything was rendered."""
        rendered_s = sum(chapter.rendered_s for chapter in self.chapters)
        return self.busy_s / rendered_s if rendered_s else None

    def voice_of(self, segment: ScriptSegment) -> str:
        """The name or id of the voice that speaks a segment, a key of `voices`."""
        return self.who_speaks(segment.character, segment.voice)

    def who_speaks(self, character: str, voice: str | None) -> str:
        """The name or id of the voice for a character's line, in which the text may name one."""
        return voice or self.cast.get(character) or self.voice

    @model_validator(mode="after")
    def _segment_numbers_count_from_one(self) -> Self:
        if any(number < 1 for number in self.takes):
            raise ValueError("takes: segments count from 1")
        return self
