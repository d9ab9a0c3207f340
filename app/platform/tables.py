"""The catalogue's tables. The migrations beside this file make them; a test compares the two."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import JSON, DateTime, Dialect, ForeignKey, Index, TypeDecorator, UniqueConstraint, text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

DEFAULT_PROJECT = "default"
"""The id of the project that a catalogue is made with, to which belongs all that was made before there were others."""


class Moment(TypeDecorator[datetime]):
    """An instant, in UTC on both databases; SQLite itself forgets the zone."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return value and value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return value and (value if value.tzinfo else value.replace(tzinfo=UTC))


class Base(DeclarativeBase):
    type_annotation_map = {  # noqa: RUF012
        datetime: Moment,
        list[str]: JSON,
        list[Any]: JSON,
        dict[str, str]: JSON,
        dict[str, Any]: JSON(none_as_null=True),
    }


def _project_id() -> Mapped[str]:
    """The project that a row belongs to."""
    return mapped_column(server_default=DEFAULT_PROJECT)


class ProjectRow(Base):
    __tablename__ = "projects"

    id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    created_at: Mapped[datetime]
    limits: Mapped[dict[str, Any] | None]


class KeyRow(Base):
    """An API key. After a rotation the token before is good until `previous_until`."""

    __tablename__ = "api_keys"

    id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str]
    digest: Mapped[str]
    scopes: Mapped[list[str]]
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime | None]
    last_used_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]
    project_id: Mapped[str] = _project_id()
    previous_digest: Mapped[str | None]
    previous_until: Mapped[datetime | None]
    limits: Mapped[dict[str, Any] | None]


class VoiceRow(Base):
    """A deleted voice keeps its row as a tombstone: `deleted_at` is set, its name is free again."""

    __tablename__ = "voices"

    id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str]
    model: Mapped[str]
    language: Mapped[str]
    description: Mapped[str]
    prompt_name: Mapped[str]
    version: Mapped[int]
    consent_number: Mapped[str]
    created_at: Mapped[datetime]
    deleted_at: Mapped[datetime | None]
    project_id: Mapped[str] = _project_id()

    __table_args__ = (
        Index(
            "voices_project_model_name",
            "project_id",
            "model",
            "name",
            unique=True,
            sqlite_where=text("deleted_at IS NULL"),
            postgresql_where=text("deleted_at IS NULL"),
        ),
    )


class AdapterRow(Base):
    __tablename__ = "adapter_versions"
    __table_args__ = (UniqueConstraint("voice_id", "version"), {"sqlite_autoincrement": True})

    lora_id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    voice_id: Mapped[str] = mapped_column(ForeignKey("voices.id", ondelete="CASCADE"))
    version: Mapped[int]
    uri: Mapped[str]
    sha256: Mapped[dict[str, str]]
    rank: Mapped[int]
    created_at: Mapped[datetime]
    published_at: Mapped[datetime | None]


class SampleRow(Base):
    __tablename__ = "samples"

    id: Mapped[str] = mapped_column(primary_key=True)
    voice_id: Mapped[str] = mapped_column(ForeignKey("voices.id", ondelete="CASCADE"), index=True)
    file_name: Mapped[str]
    size_bytes: Mapped[int]
    facts: Mapped[dict[str, Any]]
    transcript: Mapped[str | None]
    object_key: Mapped[str]
    created_at: Mapped[datetime]


class ConsentRow(Base):
    __tablename__ = "consents"

    id: Mapped[str] = mapped_column(primary_key=True)
    voice_id: Mapped[str] = mapped_column(ForeignKey("voices.id", ondelete="CASCADE"), index=True)
    kind: Mapped[str]
    number: Mapped[str]
    statement: Mapped[str | None]
    object_key: Mapped[str | None]
    key_id: Mapped[str | None]
    created_at: Mapped[datetime]


class JobRow(Base):
    """A clone or polish job. `attempt` is the fencing token: only its holder may change the row."""

    __tablename__ = "clone_jobs"
    __table_args__ = (
        Index(
            "clone_jobs_one_active",
            "voice_id",
            unique=True,
            sqlite_where=text("finished_at IS NULL"),
            postgresql_where=text("finished_at IS NULL"),
        ),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    voice_id: Mapped[str] = mapped_column(ForeignKey("voices.id", ondelete="CASCADE"))
    kind: Mapped[str]
    state: Mapped[str]
    config: Mapped[dict[str, Any]]
    attempt: Mapped[int]
    revision: Mapped[int]
    cancel_requested: Mapped[bool]
    progress: Mapped[dict[str, Any] | None]
    report: Mapped[dict[str, Any] | None]
    gate: Mapped[dict[str, Any] | None]
    version: Mapped[int | None]
    error: Mapped[dict[str, Any] | None]
    webhook_url: Mapped[str | None]
    webhook_done_at: Mapped[datetime | None]
    created_at: Mapped[datetime]
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    lease_expires_at: Mapped[datetime | None]
    project_id: Mapped[str] = _project_id()
    key_id: Mapped[str | None]


class NarrationRow(Base):
    """A narration. `revision` grows with every change of it or of its steps that is worth telling."""

    __tablename__ = "narrations"

    id: Mapped[str] = mapped_column(primary_key=True)
    state: Mapped[str]
    voice: Mapped[str]
    cast: Mapped[dict[str, str]]
    model: Mapped[str]
    voices: Mapped[dict[str, Any]]
    format: Mapped[str]
    options: Mapped[dict[str, Any]]
    source: Mapped[dict[str, Any]]
    title: Mapped[str]
    takes: Mapped[dict[str, Any]]
    revision: Mapped[int]
    cancel_requested: Mapped[bool]
    findings: Mapped[list[Any]]
    script_key: Mapped[str | None]
    output: Mapped[dict[str, Any] | None]
    error: Mapped[dict[str, Any] | None]
    webhook_url: Mapped[str | None]
    webhook_done_at: Mapped[datetime | None]
    created_at: Mapped[datetime]
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    project_id: Mapped[str] = _project_id()
    key_id: Mapped[str | None]


class StepRow(Base):
    """What is to be done for a narration, one row for each message of work: its plan, its chapters, its mastering.

    Steps are done in the order of `number`; `kind` says which they are: `plan`, `chapter` or `master`. `attempt` is the
    fencing token: only its holder may change the row. `setbacks` counts failures of the step since it was last opened:
    processes that died, and transient errors.
    """

    __tablename__ = "narration_steps"

    narration_id: Mapped[str] = mapped_column(ForeignKey("narrations.id", ondelete="CASCADE"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    attempt: Mapped[int]
    setbacks: Mapped[int]
    progress: Mapped[dict[str, Any] | None]
    result_key: Mapped[str | None]
    failed: Mapped[bool]
    finished_at: Mapped[datetime | None]
    released_at: Mapped[datetime]
    lease_expires_at: Mapped[datetime | None]
    kind: Mapped[str]


class AuditRow(Base):
    """An audit entry: who did what to which object, and when; no content."""

    __tablename__ = "audit_log"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    at: Mapped[datetime] = mapped_column(index=True)
    project_id: Mapped[str]
    key_id: Mapped[str | None]
    action: Mapped[str]
    object_id: Mapped[str]


class UsageRow(Base):
    """What one session, or one chapter of a narration, has used so far: always the whole, so that writing it twice
    changes nothing. `day` is of its beginning, in UTC. Clone jobs are their own rows."""

    __tablename__ = "usage"
    __table_args__ = (Index("usage_project_day", "project_id", "day"),)

    id: Mapped[str] = mapped_column(primary_key=True)
    day: Mapped[str]
    project_id: Mapped[str]
    key_id: Mapped[str | None]
    voice_id: Mapped[str]
    kind: Mapped[str]
    characters: Mapped[int]
    audio_s: Mapped[float]
    gpu_s: Mapped[float]


class IdempotencyRow(Base):
    """What a request with an `Idempotency-Key` was answered with; without a status, it is being worked on."""

    __tablename__ = "idempotency"

    project_id: Mapped[str] = mapped_column(primary_key=True)
    key: Mapped[str] = mapped_column(primary_key=True)
    request: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(index=True)
    status: Mapped[int | None]
    headers: Mapped[dict[str, Any] | None]
    body: Mapped[str | None]
    fingerprint: Mapped[str | None]


class PronunciationRow(Base):
    """One dictionary; its owner is a key or a voice."""

    __tablename__ = "pronunciations"

    owner: Mapped[str] = mapped_column(primary_key=True)
    words: Mapped[dict[str, str]]
    changed_at: Mapped[datetime]
