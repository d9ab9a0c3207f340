"""Keys, voices and adapter versions."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    moment = sa.DateTime(timezone=True)
    op.create_table(
        "api_keys",
        sa.Column("id", sa.String, primary_key=True),
        sa.Column("name", sa.String, nullable=False),
        sa.Column("digest", sa.String, nullable=False),
        sa.Column("scopes", sa.JSON, nullable=False),
        sa.Column("created_at", moment, nullable=False),
        sa.Column("expires_at", moment),
        sa.Column("last_used_at", moment),
        sa.Column("revoked_at", moment),
    )
    op.create_table(
        "voices",
        sa.Column("id", sa.String, primary_key=True),
        sa.Column("name", sa.String, nullable=False, unique=True),
        sa.Column("model", sa.String, nullable=False),
        sa.Column("language", sa.String, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("created_at", moment, nullable=False),
    )
    op.create_table(
        "adapter_versions",
        sa.Column("lora_id", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("voice_id", sa.String, sa.ForeignKey("voices.id", ondelete="CASCADE"), nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("uri", sa.String, nullable=False),
        sa.Column("sha256", sa.JSON, nullable=False),
        sa.Column("rank", sa.Integer, nullable=False),
        sa.Column("created_at", moment, nullable=False),
        sa.UniqueConstraint("voice_id", "version"),
        sqlite_autoincrement=True,
    )


def downgrade() -> None:
    op.drop_table("adapter_versions")
    op.drop_table("voices")
    op.drop_table("api_keys")
