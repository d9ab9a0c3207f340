"""The nouns of cloning: recordings of a speaker, the consent to use them, and the job that makes a voice of them.

A configuration is validated once, here; what a job did stands in reports that a person can act on. No value here knows
how audio is read, how a model is trained or where anything is stored.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from app.platform.jobs import JobError
from app.platform.tables import DEFAULT_PROJECT
from app.speech.recipe import CloneConfig, GateConfig, PrepareConfig, TrainConfig
from app.speech.token_layout import SpeechConfig
from app.speech.voices import Frozen, Voice

LANGUAGE = r"^[A-Za-z]{2,3}(-[A-Za-z0-9]{2,8})*$"
"""A BCP 47 tag."""
MAX_LANGUAGE_CHARS = 35

CONSENT_PHRASE = (
    "I am the owner of this voice and I consent to it being used to create a synthetic voice. My number is {number}."
)
"""What the speaker reads aloud; the number is issued for one voice, so that no other recording can stand in for it."""


# Recordings.


class AudioFacts(Frozen):
    """What inspection found in a file."""

    container: Literal["wav", "flac", "mp3", "ogg", "m4a", "webm", "aac"]
    sample_rate_hz: int
    channels: int
    duration_s: float


SAMPLE_TYPES = {
    "wav": "audio/wav",
    "flac": "audio/flac",
    "mp3": "audio/mpeg",
    "ogg": "audio/ogg",
    "m4a": "audio/mp4",
    "webm": "audio/webm",
    "aac": "audio/aac",
}
"""By `AudioFacts.container`."""


class Sample(Frozen):
    """One uploaded recording of a voice."""

    id: str
    voice_id: str
    file_name: str
    size_bytes: int
    facts: AudioFacts
    transcript: str | None = None
    object_key: str
    created_at: datetime

    @property
    def content_type(self) -> str:
        return SAMPLE_TYPES[self.facts.container]


class Consent(Frozen):
    """The speaker's consent to the use of a voice: a recording of the phrase, or an operator's word for it."""

    id: str
    voice_id: str
    kind: Literal["recording", "operator"]
    number: str
    statement: str | None = Field(
        default=None, description="An operator's: where the consent is kept. A recording's: what was heard in it."
    )
    object_key: str | None = None
    key_id: str | None = Field(default=None, description="The API key that recorded it.")
    created_at: datetime

    @property
    def checked(self) -> bool:
        """Whether the words of a recording were heard, and were those of the consent."""
        return self.kind == "recording" and self.statement is not None


class VoiceRecord(Frozen):
    """A voice as its owner manages it; `app.speech.voices.Voice` is what speaking needs of it."""

    id: str
    name: str
    model: str
    language: str
    description: str = ""
    prompt_name: str
    version: int = Field(ge=0, description="The adapter in force; 0 before the first.")
    versions: tuple[int, ...] = ()
    consent_number: str
    consent: Consent | None = None
    sample_count: int = 0
    sample_s: float = 0.0
    created_at: datetime
    deleted_at: datetime | None = None
    project_id: str = DEFAULT_PROJECT

    @property
    def consent_phrase(self) -> str:
        return CONSENT_PHRASE.format(number=" ".join(self.consent_number))


# What preparing found.

Severity = Literal["rejected", "fixed", "check"]


class Finding(Frozen):
    """One thing about a recording: it was left out, it was repaired, or its owner should look at it."""

    severity: Severity
    code: str = Field(description="Stable, for programs: clipping, noise, low_rate, too_short, head_silence …")
    message: str = Field(description="For people: the value, and the remedy.")
    start_s: float | None = None
    end_s: float | None = None


class Transcription(Frozen):
    """What was heard in a recording that came without a transcript; its owner should correct it."""

    text: str
    by: str = Field(description="The recogniser.")
    confidence: float | None = Field(default=None, description="0 to 1, where the recogniser tells it.")


class RecordingReport(Frozen):
    """What became of one file."""

    file_name: str
    duration_s: float
    used_s: float = 0.0
    clips: int = 0
    snr_db: float | None = None
    transcription: Transcription | None = None
    findings: tuple[Finding, ...] = ()


class DataReport(Frozen):
    """What became of all files, for a person to act on."""

    recordings: tuple[RecordingReport, ...]
    clips: int
    usable_s: float
    median_head_silence_s: float | None = Field(default=None, description="As recorded, before trimming.")
    dropped_frame_share: float = 0.0
    seconds_per_char: float | None = Field(default=None, description="The speaker's pace, median over the clips.")
    summary: tuple[str, ...] = ()
    shortfall: str | None = Field(default=None, description="Why there is too little to train on, if there is.")
    consent_distance: float | None = Field(
        default=None, description="From the recorded consent's voice to that of the recordings, in nats."
    )
    voice_matches: bool | None = Field(
        default=None, description="Whether that is one voice; null where it was not measured, or says nothing."
    )


# Training and the gate.


class TrainProgress(Frozen):
    """How far training is."""

    epoch: int = Field(description="From 1.")
    epochs: int
    step: int
    steps: int
    loss: float | None = None
    held_out_losses: tuple[float, ...] = Field(
        default=(), description="Per finished epoch; the base's own comes first."
    )
    eta_s: float | None = None


class GateFigure(Frozen):
    """One measurement: `passed` is None where it is only reported, `measured` where it could not be measured."""

    name: str
    measured: float | None
    limit: str
    passed: bool | None
    note: str = ""


class GateReport(Frozen):
    """What the gate measured; `base` holds the same figures of the model's own voice."""

    figures: tuple[GateFigure, ...]
    base: Mapping[str, float | None] = Field(default_factory=dict)
    prompts: int

    @property
    def passed(self) -> bool:
        return all(figure.passed is not False for figure in self.figures)

    @property
    def failures(self) -> tuple[GateFigure, ...]:
        return tuple(figure for figure in self.figures if figure.passed is False)


class CloneKind(StrEnum):
    CLONE = "clone"
    POLISH = "polish"


class CloneState(StrEnum):
    QUEUED = "queued"
    PREPARING = "preparing"
    TRAINING = "training"
    GATING = "gating"
    PUBLISHING = "publishing"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def over(self) -> bool:
        return self in FINAL_STATES


FINAL_STATES = frozenset({CloneState.COMPLETED, CloneState.FAILED, CloneState.CANCELLED})


class RunConfig(Frozen):
    """One job as its stages see it: `run.json` in the directory they work in. Relative paths are below that."""

    kind: CloneKind = CloneKind.CLONE
    prompt_name: str = Field(min_length=1, description="The name the clips' prompts begin with.")
    language: str = "en"
    model_dir: Path = Field(description="A Hugging Face causal language model with a `speech` entry.")
    codec_dir: Path = Field(description="Its SNAC.")
    speech: SpeechConfig | None = Field(default=None, description="What the model speaks; None: as it says itself.")
    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: int = Field(default=1, ge=1, description="Of torch, on a CPU.")
    prepare: PrepareConfig = PrepareConfig()
    train: TrainConfig = TrainConfig()
    gate: GateConfig = GateConfig()
    adapter_prefix: str = Field(default="", description="Where the object store shall have the adapter.")
    voice: Voice | None = Field(default=None, description="The candidate that the gate listens to.")
    base_voices: tuple[Voice, ...] = Field(default=(), description="The model's own, for comparison.")
    reference: str | None = Field(default=None, description="Where the speaker's clips are, for comparison.")
    seconds_per_char: float | None = Field(default=None, description="The speaker's own pace.")


class CloneJob(Frozen):
    """A job that makes one version of one voice. `revision` grows with every change that is worth telling."""

    id: str
    voice_id: str
    kind: CloneKind
    state: CloneState
    config: CloneConfig
    attempt: int = Field(description="0 before the first worker took it; part of every object key the job writes.")
    revision: int
    cancel_requested: bool = False
    progress: TrainProgress | None = None
    report: DataReport | None = None
    gate: GateReport | None = None
    version: int | None = None
    error: JobError | None = None
    webhook_url: str | None = None
    created_at: datetime
    started_at: datetime | None = None
    finished_at: datetime | None = None
    project_id: str = DEFAULT_PROJECT
    key_id: str | None = Field(default=None, description="The API key that asked for it.")
    ahead: int | None = Field(default=None, description="While it is queued: how many go before it; 0: it is next.")

    @model_validator(mode="after")
    def _a_failure_has_a_reason(self) -> Self:
        if self.state is CloneState.FAILED and self.error is None:
            raise ValueError("a failed job needs its error")
        return self
