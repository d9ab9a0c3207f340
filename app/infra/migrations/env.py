"""Alembic's entry: it migrates over the connection that `Catalog.migrate` hands in, in the transaction open there."""

from alembic import context

from app.infra.catalog import Base

context.configure(connection=context.config.attributes["connection"], target_metadata=Base.metadata)
context.run_migrations()
