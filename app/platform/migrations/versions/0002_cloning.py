"""Recordings, consents and clone jobs; voices gain what their owners manage."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

MOMENT = sa.DateTime(timezone=True)
LIVING = sa.text("deleted_at IS NULL")
ACTIVE = sa.text("finished_at IS NULL")


def upgrade() -> None:
    _rebuild_voices()
    op.add_column("adapter_versions", sa.Column("published_at", MOMENT))
    op.execute("UPDATE adapter_versions SET published_at = created_at")
    op.create_table(
        "samples",
        sa.Column("id", sa.String, primary_key=True),
        sa.Column("voice_id", sa.String, sa.ForeignKey("voices.id", ondelete="CASCADE"), nullable=False, index=True),
        sa.Column("file_name", sa.String, nullable=False),
        sa.Column("size_bytes", sa.Integer, nullable=False),
        sa.Column("facts", sa.JSON, nullable=False),
        sa.Column("transcript", sa.String),
        sa.Column("object_key", sa.String, nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
    )
    op.create_table(
        "consents",
        sa.Column("id", sa.String, primary_key=True),
        sa.Column("voice_id", sa.String, sa.ForeignKey("voices.id", ondelete="CASCADE"), nullable=False, index=True),
        sa.Column("kind", sa.String, nullable=False),
        sa.Column("number", sa.String, nullable=False),
        sa.Column("statement", sa.String),
        sa.Column("object_key", sa.String),
        sa.Column("key_id", sa.String),
        sa.Column("created_at", MOMENT, nullable=False),
    )
    op.create_table(
        "clone_jobs",
        sa.Column("id", sa.String, primary_key=True),
        sa.Column("voice_id", sa.String, sa.ForeignKey("voices.id", ondelete="CASCADE"), nullable=False),
        sa.Column("kind", sa.String, nullable=False),
        sa.Column("state", sa.String, nullable=False),
        sa.Column("config", sa.JSON, nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("revision", sa.Integer, nullable=False),
        sa.Column("cancel_requested", sa.Boolean, nullable=False),
        sa.Column("progress", sa.JSON),
        sa.Column("report", sa.JSON),
        sa.Column("gate", sa.JSON),
        sa.Column("version", sa.Integer),
        sa.Column("error", sa.JSON),
        sa.Column("webhook_url", sa.String),
        sa.Column("webhook_done_at", MOMENT),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("started_at", MOMENT),
        sa.Column("finished_at", MOMENT),
        sa.Column("lease_expires_at", MOMENT),
    )
    op.create_index(
        "clone_jobs_one_active", "clone_jobs", ["voice_id"], unique=True, sqlite_where=ACTIVE, postgresql_where=ACTIVE
    )


def _rebuild_voices() -> None:
    """A name need only be unique among the living voices of one model. SQLite cannot drop a constraint: a new table."""
    if op.get_bind().dialect.name == "sqlite":
        _make_voices_anew()
    else:
        op.drop_constraint("voices_name_key", "voices")
        for name in ("description", "prompt_name", "consent_number"):
            op.add_column("voices", sa.Column(name, sa.String))
        op.add_column("voices", sa.Column("deleted_at", MOMENT))
        op.execute("UPDATE voices SET description = '', prompt_name = id, consent_number = '00000000'")
        for name in ("description", "prompt_name", "consent_number"):
            op.alter_column("voices", name, nullable=False)
    op.create_index(
        "voices_model_name", "voices", ["model", "name"], unique=True, sqlite_where=LIVING, postgresql_where=LIVING
    )


def _make_voices_anew() -> None:
    """Both tables are read, dropped, the child first, and filled again; nothing here is ever large."""
    bind = op.get_bind()
    voices = bind.execute(sa.text("SELECT id, name, model, language, version, created_at FROM voices")).mappings().all()
    adapters = (
        bind.execute(sa.text("SELECT lora_id, voice_id, version, uri, sha256, rank, created_at FROM adapter_versions"))
        .mappings()
        .all()
    )
    op.drop_table("adapter_versions")
    op.drop_table("voices")
    op.create_table(
        "voices",
        sa.Column("id", sa.String, primary_key=True),
        sa.Column("name", sa.String, nullable=False),
        sa.Column("model", sa.String, nullable=False),
        sa.Column("language", sa.String, nullable=False),
        sa.Column("description", sa.String, nullable=False),
        sa.Column("prompt_name", sa.String, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("consent_number", sa.String, nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("deleted_at", MOMENT),
    )
    op.create_table(
        "adapter_versions",
        sa.Column("lora_id", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("voice_id", sa.String, sa.ForeignKey("voices.id", ondelete="CASCADE"), nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("uri", sa.String, nullable=False),
        sa.Column("sha256", sa.JSON, nullable=False),
        sa.Column("rank", sa.Integer, nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.UniqueConstraint("voice_id", "version"),
        sqlite_autoincrement=True,
    )
    for voice in voices:
        bind.execute(
            sa.text(
                "INSERT INTO voices (id, name, model, language, description, prompt_name, version, consent_number,"
                " created_at) VALUES (:id, :name, :model, :language, '', :id, :version, '00000000', :created_at)"
            ),
            dict(voice),
        )
    for adapter in adapters:
        bind.execute(
            sa.text(
                "INSERT INTO adapter_versions (lora_id, voice_id, version, uri, sha256, rank, created_at)"
                " VALUES (:lora_id, :voice_id, :version, :uri, :sha256, :rank, :created_at)"
            ),
            dict(adapter),
        )
