"""The tables of the store, as queries see them; `migrations` is what creates them.

Instants are whole microseconds since 1970 in UTC, so that every database agrees on them exactly. Text is compared byte
by byte on PostgreSQL too (collation C, as SQLite does), so that order never depends on a server's locale. `seq` counts
rows in the order they came.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    text,
)

TEXT = Text().with_variant(Text(collation="C"), "postgresql")
SEQ = BigInteger().with_variant(Integer, "sqlite")  # SQLite numbers rows only where the type is called INTEGER
CURRENT = text("is_current")
"""Condition on `events`: not superseded by a correction. Written as in the indexes, or SQLite would not use them."""
RETIRED = text("retired_at IS NOT NULL")
"""Condition on `items`: no longer on offer. Written as in its index."""

metadata = MetaData()

sources = Table(
    "sources",
    metadata,
    Column("source_id", Integer, primary_key=True),
    Column("name", TEXT, nullable=False, unique=True),
)

events = Table(
    "events",
    metadata,
    Column("seq", SEQ, primary_key=True),
    Column("source_id", Integer, ForeignKey("sources.source_id"), nullable=False),
    Column("event_id", TEXT, nullable=False),
    Column("content", BigInteger, nullable=False),  # 64 bits of the content's hash: equal means the same version
    Column("is_current", Boolean, nullable=False),
    Column("user_id", TEXT, nullable=False),
    Column("item_id", TEXT, nullable=False),
    Column("at", BigInteger, nullable=False),
    Column("action", TEXT, nullable=False),
    Column("value", Double),
    Column("time_zone", TEXT),
    Column("place", TEXT),
    Column("latitude", Double),
    Column("longitude", Double),
    Column("device", TEXT),
    Column("extra", TEXT),
    Index("events_id", "source_id", "event_id", unique=True, sqlite_where=CURRENT, postgresql_where=CURRENT),
    # With the action, so that what events count is told from the index; seq keeps the order of one instant.
    Index("events_user", "user_id", "at", "seq", "action", sqlite_where=CURRENT, postgresql_where=CURRENT),
    Index("events_at", "at", sqlite_where=CURRENT, postgresql_where=CURRENT),
)

items = Table(
    "items",
    metadata,
    Column("seq", SEQ, primary_key=True),
    Column("item_id", TEXT, nullable=False, unique=True),
    Column("title", TEXT, nullable=False),
    Column("category", TEXT),
    Column("attributes", TEXT),
    Column("retired_at", BigInteger),  # null: on offer
    Index("items_retired", "retired_at", sqlite_where=RETIRED, postgresql_where=RETIRED),
)

users = Table(
    "users",
    metadata,
    Column("seq", SEQ, primary_key=True),
    Column("user_id", TEXT, nullable=False, unique=True),
    Column("time_zone", TEXT),
    Column("attributes", TEXT),
)

corrections = Table(
    "corrections",
    metadata,
    Column("user_id", TEXT, primary_key=True),
    Column("key", TEXT, primary_key=True),
    Column("value", TEXT),  # null: struck
)

edges = Table(
    "edges",
    metadata,
    Column("seq", SEQ, primary_key=True),
    Column("from_id", TEXT, nullable=False),
    Column("to_id", TEXT, nullable=False, index=True),
    Column("kind", TEXT, nullable=False),
    Column("weight", Double, nullable=False),
    UniqueConstraint("from_id", "to_id", "kind"),
)

item_texts = Table(
    "item_texts",
    metadata,
    Column("item_id", TEXT, primary_key=True),
    Column("text", TEXT, nullable=False, unique=True),
)

item_media = Table(
    "item_media",
    metadata,
    Column("item_id", TEXT, primary_key=True),
    Column("reader", TEXT, primary_key=True),
    Column("file", TEXT, nullable=False),
    Column("content", TEXT, nullable=False, index=True),
    Column("words", TEXT, nullable=False),
    Column("vector", LargeBinary),
)
