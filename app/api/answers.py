"""Response models for `openapi.json`; tests validate responses against them.

They only describe: handlers serialise domain values. Where a response is such a value with some fields more or fewer,
its model is derived from the value's own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import BaseModel, Field, create_model

from app.fleet.worker import Worker
from app.narration.models import Narration, NarrationOutput, NarrationSource, ScriptSegment, TextFinding
from app.platform.api_keys import ApiKey
from app.platform.audit import AuditEntry
from app.platform.codecs import CONTENT_TYPES
from app.platform.projects import Project
from app.speech.choices import NarrationFormat
from app.voices.models import SAMPLE_TYPES, CloneJob, Consent, Sample, VoiceRecord

AUDIOBOOK_TYPES = ("audio/mp4", "audio/mpeg", "audio/flac", "audio/ogg", "audio/wav")
"""Of NarrationFormat, in some order."""
assert len(AUDIOBOOK_TYPES) == len(NarrationFormat)


@dataclass(frozen=True)
class Answer:
    """What one operation answers with: JSON of a model, or bodies of other media types."""

    model: type[BaseModel] | None = None
    media_types: tuple[str, ...] = ()
    description: str = ""
    others: Mapping[int, tuple[str, type[BaseModel] | None]] = field(default_factory=dict)
    """Other statuses that are no failures."""


def _derived(title: str, of: type[BaseModel], *, without: Iterable[str] = (), **more: Any) -> type[BaseModel]:
    fields: dict[str, Any] = {
        name: (info.annotation, info) for name, info in of.model_fields.items() if name not in set(without)
    }
    return create_model(title, __doc__=of.__doc__, **(fields | more))


def _list_of(name: str, item: type[BaseModel]) -> type[BaseModel]:
    return create_model(name, object=(Literal["list"], ...), data=(list[item], ...))  # pyright: ignore[reportInvalidTypeForm]


class ModelDetails(BaseModel):
    """A model that is served."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    stand_in: bool = Field(description="A small model that is no real voice.")
    languages: list[str]
    sample_rate_hz: int


class SpeechModels(BaseModel):
    models: list[ModelDetails]


class SpeakingVoice(BaseModel):
    """A voice that can be spoken with."""

    id: str
    name: str
    model: str
    language: str
    kind: Literal["clone", "built_in"]


class SpeakingVoices(BaseModel):
    voices: list[SpeakingVoice]


class OpenAIConsent(BaseModel):
    id: str
    object: Literal["audio.voice_consent"]
    name: str
    language: str
    created_at: int


class OpenAIConsents(BaseModel):
    object: Literal["list"]
    data: list[OpenAIConsent]
    first_id: str | None
    last_id: str | None
    has_more: bool


class OpenAIVoice(BaseModel):
    id: str
    object: Literal["audio.voice"]
    name: str
    type: Literal["audio_sample"]
    created_at: int


class Deleted(BaseModel):
    id: str
    object: str | None = None
    deleted: Literal[True]


class Staying(BaseModel):
    what: Literal["narrations", "usage", "audit", "tombstone"]
    ids: list[str]
    why: str


class DeletedVoice(BaseModel):
    id: str
    deleted: Literal[True]
    stays: list[Staying] = Field(description="What is not deleted with the voice.")


ConsentDetails = _derived("ConsentDetails", Consent, without=["object_key"], checked=(bool, ...))
VoiceDetails = _derived(
    "VoiceDetails",
    VoiceRecord,
    without=["consent_number", "deleted_at"],
    consent=(ConsentDetails | None, ...),
    consent_phrase=(str, ...),
    state=(Literal["empty", "collecting", "ready"], ...),
)
SampleDetails = _derived("SampleDetails", Sample, without=["object_key"])


class VoiceConsent(BaseModel):
    phrase: str = Field(description="What the speaker reads aloud.")
    consent: ConsentDetails | None  # pyright: ignore[reportInvalidTypeForm]


class RejectedFile(BaseModel):
    file_name: str
    code: str
    message: str


class AddedSamples(BaseModel):
    samples: list[SampleDetails]  # pyright: ignore[reportInvalidTypeForm]
    rejected: list[RejectedFile]
    sample_count: int
    sample_s: float


class UploadAddress(BaseModel):
    id: str
    file_name: str
    url: str


class UploadAddresses(BaseModel):
    uploads: list[UploadAddress]
    method: Literal["PUT"]
    expires_s: int


CloneDetails = _derived(
    "Clone",
    CloneJob,
    object=(Literal["clone"], ...),
    over=(bool, ...),
    waits_for=(str | None, Field(description="What keeps it from beginning.")),
)


class NarrationLinks(BaseModel):
    """Addresses that need no key, until they expire."""

    audio: str
    captions_vtt: str
    captions_srt: str
    chapters: str
    expires_at: str


NarrationDetails = _derived(
    "Narration",
    Narration,
    without=["voices", "script_key"],
    object=(Literal["narration"], ...),
    source=(_derived("NarrationText", NarrationSource, without=["key", "cover_key"]), ...),
    output=(_derived("NarrationFile", NarrationOutput, without=["key", "timeline_key"]) | None, None),
    over=(bool, ...),
    has_cover=(bool, ...),
    segments=(int, ...),
    segments_done=(int, ...),
    flagged=(int, ...),
    audio_s=(float, ...),
    busy_s=(float, ...),
    real_time_factor=(float | None, ...),
    waits_for=(str | None, Field(description="What keeps it from going on: others before it, a worker.")),
    eta_s=(float | None, ...),
    cost_usd=(float | None, ...),
    links=(NarrationLinks | None, ...),
)


class SpokenWord(BaseModel):
    """As it was written, and when it is spoken in the file."""

    text: str
    start_s: float
    end_s: float


SegmentDetails = _derived(
    "Segment",
    ScriptSegment,
    without=["gap_s"],
    chapter=(int, ...),
    start_s=(float | None, ...),
    end_s=(float | None, ...),
    flags=(list[str], ...),
    words=(list[SpokenWord] | None, Field(default=None, description="Where they were asked for, and there is a file.")),
    approximate=(bool | None, Field(default=None, description="Of `words`: laid out by their lengths, not heard.")),
)


class Chapter(BaseModel):
    number: int
    title: str
    start_s: float
    end_s: float
    startTime: float
    endTime: float


class Chapters(BaseModel):
    version: str
    title: str
    chapters: list[Chapter]


class Workers(BaseModel):
    workers: list[Worker]


class Drain(BaseModel):
    id: str
    epoch: int
    state: str
    deadline_s: float | None


class MadeKey(BaseModel):
    object: Literal["key"]
    id: str
    token: str = Field(description="In this answer, and nowhere else.")


class RevokedKey(BaseModel):
    id: str
    revoked: Literal[True]


class Pronunciations(BaseModel):
    object: Literal["pronunciations"]
    words: dict[str, str]


class Alive(BaseModel):
    status: Literal["ok"]


class Version(BaseModel):
    name: str
    version: str


class Readiness(BaseModel):
    status: str
    workers: int
    starting: dict[str, str]


class PreviewChapter(BaseModel):
    number: int
    title: str
    paragraphs: int
    chars: int
    audio_s: float
    first: str
    first_character: str | None


class PreviewCharacter(BaseModel):
    name: str
    chars: int


class PreviewName(BaseModel):
    """A name in the text, to hear before a book is read."""

    word: str
    count: int


class NarrationPreview(BaseModel):
    """What a text or a book would become."""

    object: Literal["narration.preview"]
    title: str
    author: str
    language: str
    chapters: list[PreviewChapter]
    characters: list[PreviewCharacter]
    voices: list[str]
    names: list[PreviewName]
    findings: list[TextFinding]
    audio_s: float
    cost_usd: float | None


class Prefetched(BaseModel):
    """A version of a voice that a worker has loaded."""

    id: str
    version: int
    worker: str


class UseSum(BaseModel):
    """A sum of use; of the dimensions that were asked for it has those."""

    day: str | None = None
    project: str | None = None
    key: str | None = None
    voice: str | None = None
    utterances: int
    jobs: int
    characters: int
    audio_s: float
    gpu_s: float
    cost_usd: float


class Budget(BaseModel):
    usd_per_month: float
    spent_usd: float
    state: Literal["ok", "warned", "spent"]


UsageDetails = create_model(
    "UsageDetails",
    object=(Literal["list"], ...),
    first=(str, Field(alias="from")),
    last=(str, Field(alias="to")),
    data=(list[UseSum], ...),
    total=(UseSum, ...),
    budget=(Budget | None, ...),
)
ProjectDetails = _derived("ProjectDetails", Project, object=(Literal["project"], ...))
ProjectList = _list_of("ProjectList", ProjectDetails)
AuditEntries = _list_of("AuditEntries", AuditEntry)
VoiceList = _list_of("VoiceList", VoiceDetails)
SampleList = _list_of("SampleList", SampleDetails)
CloneList = _list_of("CloneList", CloneDetails)
KeyList = _list_of("KeyList", ApiKey)
ModelList = _list_of("ModelList", ModelDetails)
NarrationList = _list_of(
    "NarrationList", _derived("NarrationSummary", NarrationDetails, without=["chapters", "findings"])
)
SegmentList = _list_of("SegmentList", SegmentDetails)

EVENTS = Answer(
    media_types=("text/event-stream",),
    description="Server-sent events: `event` is the job's state, `id` its revision, `data` the job as JSON. It "
    "ends with the job, or with the key.",
)

ANSWERS: dict[tuple[str, str], Answer] = {
    ("post", "/v1/audio/speech"): Answer(
        media_types=(*CONTENT_TYPES, "text/event-stream"),
        description="Audio, sent as it is made; with `stream_format=sse`, events `speech.audio.delta` of base64 audio "
        "and one `speech.audio.done` with usage.",
    ),
    ("get", "/v1/models"): Answer(ModelList),
    ("get", "/v1/audio/models"): Answer(SpeechModels),
    ("get", "/v1/models/{name}"): Answer(ModelDetails),
    ("get", "/v1/audio/voices"): Answer(SpeakingVoices),
    ("post", "/v1/audio/voices"): Answer(OpenAIVoice),
    ("delete", "/v1/audio/voices/{voice_id}"): Answer(Deleted),
    ("post", "/v1/audio/voice_consents"): Answer(OpenAIConsent),
    ("get", "/v1/audio/voice_consents"): Answer(OpenAIConsents),
    ("get", "/v1/audio/voice_consents/{consent_id}"): Answer(OpenAIConsent),
    ("post", "/v1/audio/voice_consents/{consent_id}"): Answer(OpenAIConsent),
    ("delete", "/v1/audio/voice_consents/{consent_id}"): Answer(Deleted),
    ("get", "/v1/sessions/reference"): Answer(media_types=("text/markdown",)),
    ("get", "/v1/projects"): Answer(ProjectList),
    ("post", "/v1/projects"): Answer(ProjectDetails),
    ("put", "/v1/projects/{project}/limits"): Answer(ProjectDetails),
    ("get", "/v1/usage"): Answer(UsageDetails),
    ("get", "/v1/audit"): Answer(AuditEntries),
    ("get", "/v1/voices"): Answer(VoiceList),
    ("post", "/v1/voices"): Answer(VoiceDetails),
    ("get", "/v1/voices/{voice_id}"): Answer(VoiceDetails),
    ("delete", "/v1/voices/{voice_id}"): Answer(DeletedVoice),
    ("post", "/v1/voices/{voice_id}/rollback"): Answer(VoiceDetails),
    ("post", "/v1/voices/{voice_id}/consent"): Answer(ConsentDetails),
    ("get", "/v1/voices/{voice_id}/consent"): Answer(VoiceConsent),
    ("post", "/v1/voices/{voice_id}/samples"): Answer(AddedSamples),
    ("get", "/v1/voices/{voice_id}/samples"): Answer(SampleList),
    ("get", "/v1/voices/{voice_id}/samples/{sample_id}"): Answer(SampleDetails),
    ("delete", "/v1/voices/{voice_id}/samples/{sample_id}"): Answer(Deleted),
    ("put", "/v1/voices/{voice_id}/samples/{sample_id}/transcript"): Answer(SampleDetails),
    ("post", "/v1/voices/{voice_id}/uploads"): Answer(UploadAddresses),
    ("post", "/v1/voices/{voice_id}/uploads/{upload_id}"): Answer(SampleDetails),
    ("post", "/v1/voices/{voice_id}/prefetch"): Answer(Prefetched),
    ("get", "/v1/voices/{voice_id}/samples/{sample_id}/audio"): Answer(media_types=tuple(SAMPLE_TYPES.values())),
    ("post", "/v1/voices/{name}/polish"): Answer(CloneDetails),
    ("post", "/v1/clones"): Answer(CloneDetails),
    **{
        (method, path): Answer(Pronunciations)
        for method in ("get", "put", "delete")
        for path in ("/v1/pronunciations", "/v1/voices/{name}/pronunciations")
    },
    ("get", "/v1/clones"): Answer(CloneList),
    ("get", "/v1/clones/{job_id}"): Answer(CloneDetails),
    ("get", "/v1/clones/{job_id}/events"): EVENTS,
    ("post", "/v1/clones/{job_id}/cancel"): Answer(CloneDetails),
    ("post", "/v1/narrations"): Answer(NarrationDetails),
    ("post", "/v1/narrations/preview"): Answer(NarrationPreview),
    ("get", "/v1/narrations"): Answer(NarrationList),
    ("get", "/v1/narrations/{narration_id}"): Answer(NarrationDetails),
    ("delete", "/v1/narrations/{narration_id}"): Answer(Deleted),
    ("get", "/v1/narrations/{narration_id}/events"): EVENTS,
    ("post", "/v1/narrations/{narration_id}/cancel"): Answer(NarrationDetails),
    ("post", "/v1/narrations/{narration_id}/resume"): Answer(NarrationDetails),
    ("post", "/v1/narrations/{narration_id}/segments/{number}/regenerate"): Answer(NarrationDetails),
    ("post", "/v1/narrations/{narration_id}/segments/regenerate"): Answer(NarrationDetails),
    ("get", "/v1/narrations/{narration_id}/segments/{number}/audio"): Answer(media_types=("audio/flac",)),
    ("get", "/v1/narrations/{narration_id}/segments"): Answer(SegmentList),
    ("get", "/v1/narrations/{narration_id}/audio"): Answer(
        media_types=AUDIOBOOK_TYPES,
        description="The finished file.",
        others={
            206: ("The range of it that `Range` asks for", None),
            304: ("The file that `If-None-Match` names", None),
            412: ("Not the file that `If-Match` names", None),
            416: ("`Range` asks for nothing of it", None),
        },
    ),
    ("get", "/v1/narrations/{narration_id}/captions.vtt"): Answer(media_types=("text/vtt",)),
    ("get", "/v1/narrations/{narration_id}/captions.srt"): Answer(media_types=("application/x-subrip",)),
    ("get", "/v1/narrations/{narration_id}/chapters"): Answer(Chapters),
    ("get", "/v1/fleet"): Answer(Workers),
    ("post", "/v1/fleet/workers/{id}/drain"): Answer(Drain),
    ("get", "/v1/keys"): Answer(KeyList),
    ("post", "/v1/keys"): Answer(MadeKey),
    ("post", "/v1/keys/{key_id}/rotate"): Answer(MadeKey),
    ("delete", "/v1/keys/{key_id}"): Answer(RevokedKey),
    ("get", "/healthz"): Answer(Alive),
    ("get", "/version"): Answer(Version),
    ("get", "/readyz"): Answer(Readiness, others={503: ("No worker is ready yet", Readiness)}),
    ("get", "/metrics"): Answer(media_types=("text/plain",)),
}
