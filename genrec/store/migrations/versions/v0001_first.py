"""The first schema: sources, events, items, users, edges and the items' texts."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
SEQ = sa.BigInteger().with_variant(sa.Integer, "sqlite")
CURRENT = sa.text("is_current")


def upgrade() -> None:
    """Create everything."""
    op.create_table(
        "sources",
        sa.Column("source_id", sa.Integer, primary_key=True),
        sa.Column("name", TEXT, nullable=False, unique=True),
    )
    op.create_table(
        "events",
        sa.Column("seq", SEQ, primary_key=True),
        sa.Column("source_id", sa.Integer, sa.ForeignKey("sources.source_id"), nullable=False),
        sa.Column("event_id", TEXT, nullable=False),
        sa.Column("content", sa.BigInteger, nullable=False),
        sa.Column("is_current", sa.Boolean, nullable=False),
        sa.Column("user_id", TEXT, nullable=False),
        sa.Column("item_id", TEXT, nullable=False),
        sa.Column("at", sa.BigInteger, nullable=False),
        sa.Column("action", TEXT, nullable=False),
        sa.Column("value", sa.Double),
        sa.Column("time_zone", TEXT),
        sa.Column("place", TEXT),
        sa.Column("latitude", sa.Double),
        sa.Column("longitude", sa.Double),
        sa.Column("device", TEXT),
        sa.Column("extra", TEXT),
    )
    for name, columns, unique in (
        ("events_id", ["source_id", "event_id"], True),
        ("events_user", ["user_id", "at"], False),
        ("events_at", ["at"], False),
    ):
        op.create_index(name, "events", columns, unique=unique, sqlite_where=CURRENT, postgresql_where=CURRENT)
    op.create_table(
        "items",
        sa.Column("seq", SEQ, primary_key=True),
        sa.Column("item_id", TEXT, nullable=False, unique=True),
        sa.Column("title", TEXT, nullable=False),
        sa.Column("category", TEXT),
        sa.Column("attributes", TEXT),
    )
    op.create_table(
        "users",
        sa.Column("seq", SEQ, primary_key=True),
        sa.Column("user_id", TEXT, nullable=False, unique=True),
        sa.Column("time_zone", TEXT),
        sa.Column("attributes", TEXT),
    )
    op.create_table(
        "edges",
        sa.Column("seq", SEQ, primary_key=True),
        sa.Column("from_id", TEXT, nullable=False),
        sa.Column("to_id", TEXT, nullable=False, index=True),
        sa.Column("kind", TEXT, nullable=False),
        sa.Column("weight", sa.Double, nullable=False),
        sa.UniqueConstraint("from_id", "to_id", "kind"),
    )
    op.create_table(
        "item_texts",
        sa.Column("item_id", TEXT, primary_key=True),
        sa.Column("text", TEXT, nullable=False, unique=True),
    )
