"""Dictionaries of pronunciations, of a key or of a voice."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    op.create_table(
        "pronunciations",
        sa.Column("owner", sa.String, primary_key=True),
        sa.Column("words", sa.JSON, nullable=False),
        sa.Column("changed_at", sa.DateTime(timezone=True), nullable=False),
    )
