"""Narrations and their steps."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

MOMENT = sa.DateTime(timezone=True)


def upgrade() -> None:
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
