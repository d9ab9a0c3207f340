"""A step of a narration says what it is: its number did, by two values that no chapter has."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.add_column("narration_steps", sa.Column("kind", sa.String))
    op.execute(
        "UPDATE narration_steps SET kind = CASE number WHEN 0 THEN 'plan' WHEN 1000000 THEN 'master' ELSE 'chapter' END"
    )
    with op.batch_alter_table("narration_steps") as steps:  # SQLite gets a new table
        steps.alter_column("kind", existing_type=sa.String, nullable=False)
