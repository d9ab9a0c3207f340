"""Alembic's entry: it migrates over the connection that `Database.migrate` hands in, in the transaction open there."""

from alembic import context

from app.platform.tables import Base

context.configure(connection=context.config.attributes["connection"], target_metadata=Base.metadata)
context.run_migrations()
