"""Projects own what there is; keys can be rotated; who did what, who used how much, and what was answered, is kept.

What was there before is the default project's. Columns are added in place: SQLite drops a table that is made again, and
with it the rows of others that refer to it.
"""

from datetime import UTC, datetime

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"

MOMENT = sa.DateTime(timezone=True)
LIVING = sa.text("deleted_at IS NULL")
DEFAULT = "default"


def upgrade() -> None:
    projects = op.create_table(
        "projects",
        sa.Column("id", sa.String, primary_key=True),
        sa.Column("name", sa.String, nullable=False, unique=True),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("limits", sa.JSON),
    )
    op.bulk_insert(projects, [{"id": DEFAULT, "name": DEFAULT, "created_at": datetime.now(UTC)}])
    for table in ("api_keys", "voices", "clone_jobs", "narrations"):
        op.add_column(table, sa.Column("project_id", sa.String, nullable=False, server_default=DEFAULT))
    op.add_column("api_keys", sa.Column("previous_digest", sa.String))
    op.add_column("api_keys", sa.Column("previous_until", MOMENT))
    op.add_column("api_keys", sa.Column("limits", sa.JSON))
    for table in ("clone_jobs", "narrations"):
        op.add_column(table, sa.Column("key_id", sa.String))
    op.drop_index("voices_model_name", "voices")
    op.create_index(
        "voices_project_model_name",
        "voices",
        ["project_id", "model", "name"],
        unique=True,
        sqlite_where=LIVING,
        postgresql_where=LIVING,
    )
    op.create_table(
        "audit_log",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("at", MOMENT, nullable=False, index=True),
        sa.Column("project_id", sa.String, nullable=False),
        sa.Column("key_id", sa.String),
        sa.Column("action", sa.String, nullable=False),
        sa.Column("object_id", sa.String, nullable=False),
    )
    op.create_table(
        "usage",
        sa.Column("id", sa.String, primary_key=True),
        sa.Column("day", sa.String, nullable=False),
        sa.Column("project_id", sa.String, nullable=False),
        sa.Column("key_id", sa.String),
        sa.Column("voice_id", sa.String, nullable=False),
        sa.Column("kind", sa.String, nullable=False),
        sa.Column("characters", sa.Integer, nullable=False),
        sa.Column("audio_s", sa.Double, nullable=False),
        sa.Column("gpu_s", sa.Double, nullable=False),
    )
    op.create_index("usage_project_day", "usage", ["project_id", "day"])
    op.create_table(
        "idempotency",
        sa.Column("project_id", sa.String, primary_key=True),
        sa.Column("key", sa.String, primary_key=True),
        sa.Column("request", sa.String, nullable=False),
        sa.Column("created_at", MOMENT, nullable=False, index=True),
        sa.Column("status", sa.Integer),
        sa.Column("headers", sa.JSON),
        sa.Column("body", sa.String),
        sa.Column("fingerprint", sa.String),
    )
