"""The first public form: keys, voices, recordings, consents, clone jobs and narrations.

It has the revision of the last of the steps that once led here, so that a database of that form goes on from it.
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = None

MOMENT = sa.DateTime(timezone=True)
LIVING = sa.text("deleted_at IS NULL")
ACTIVE = sa.text("finished_at IS NULL")


def upgrade() -> None:
    _keys_and_voices()
    _recordings()
    _clone_jobs()
    _narrations()


def _keys_and_voices() -> None:
    op.create_table(
        "api_keys",
        sa.Column("id", sa.String, primary_key=True),
        sa.Column("name", sa.String, nullable=False),
        sa.Column("digest", sa.String, nullable=False),
        sa.Column("scopes", sa.JSON, nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("expires_at", MOMENT),
        sa.Column("last_used_at", MOMENT),
        sa.Column("revoked_at", MOMENT),
    )
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
    op.create_index(
        "voices_model_name", "voices", ["model", "name"], unique=True, sqlite_where=LIVING, postgresql_where=LIVING
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
        sa.Column("published_at", MOMENT),
        sa.UniqueConstraint("voice_id", "version"),
        sqlite_autoincrement=True,
    )


def _recordings() -> None:
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


def _clone_jobs() -> None:
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


def _narrations() -> None:
    op.create_table(
        "narrations",
        sa.Column("id", sa.String, primary_key=True),
        sa.Column("state", sa.String, nullable=False),
        sa.Column("voice", sa.String, nullable=False),
        sa.Column("cast", sa.JSON, nullable=False),
        sa.Column("model", sa.String, nullable=False),
        sa.Column("voices", sa.JSON, nullable=False),
        sa.Column("format", sa.String, nullable=False),
        sa.Column("options", sa.JSON, nullable=False),
        sa.Column("source", sa.JSON, nullable=False),
        sa.Column("title", sa.String, nullable=False),
        sa.Column("takes", sa.JSON, nullable=False),
        sa.Column("revision", sa.Integer, nullable=False),
        sa.Column("cancel_requested", sa.Boolean, nullable=False),
        sa.Column("findings", sa.JSON, nullable=False),
        sa.Column("script_key", sa.String),
        sa.Column("output", sa.JSON),
        sa.Column("error", sa.JSON),
        sa.Column("webhook_url", sa.String),
        sa.Column("webhook_done_at", MOMENT),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("started_at", MOMENT),
        sa.Column("finished_at", MOMENT),
    )
    op.create_table(
        "narration_steps",
        sa.Column("narration_id", sa.String, sa.ForeignKey("narrations.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("setbacks", sa.Integer, nullable=False),
        sa.Column("progress", sa.JSON),
        sa.Column("result_key", sa.String),
        sa.Column("failed", sa.Boolean, nullable=False),
        sa.Column("finished_at", MOMENT),
        sa.Column("released_at", MOMENT, nullable=False),
        sa.Column("lease_expires_at", MOMENT),
    )
