"""Alembic's way in: runs the steps on the connection, and inside the transaction, that the store hands over."""

from __future__ import annotations

from alembic import context

context.configure(
    connection=context.config.attributes["connection"],
    version_table=context.config.attributes["version_table"],
    transactional_ddl=True,  # SQLite's too: the store begins and ends transactions itself
)
with context.begin_transaction():
    context.run_migrations()
