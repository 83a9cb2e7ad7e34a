"""How much a store holds, counted from indexes where there are some."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Select, func, select, text, union

from genrec.store.tables import CURRENT, edges, events, items, metadata, sources, users


@dataclass(frozen=True, kw_only=True)
class Summary:
    """How much the store holds."""

    n_events: int
    """Events, each counted once."""
    n_superseded: int
    """Old versions of corrected events, kept beside them."""
    n_users: int
    """Different people known by a row of their own or by an event."""
    n_items: int
    n_edges: int
    sources: Mapping[str, int]
    """Events of each source, by its name."""
    first_at: datetime | None
    """Instant of the earliest event."""
    last_at: datetime | None
    """Instant of the latest event."""
    n_bytes: int
    """Size on disk, indexes and write-ahead log of a SQLite file included."""


def summarise(connection: Connection) -> Summary:
    """Count what is there."""

    def number(query: Select[Any]) -> Any:
        return connection.execute(query).scalar_one()

    def instant(query: Select[Any]) -> datetime | None:
        us = number(query.where(CURRENT))
        return None if us is None else datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=us)

    people = union(select(users.c.user_id), select(events.c.user_id).where(CURRENT)).subquery()
    by_source = (
        select(sources.c.name, func.count().label("n"))
        .join_from(events, sources)
        .where(CURRENT)
        .group_by(sources.c.name)
        .order_by(sources.c.name)
    )
    counts = {row.name: row.n for row in connection.execute(by_source)}
    n_events = sum(counts.values())
    return Summary(
        n_events=n_events,
        n_superseded=number(select(func.count()).select_from(events)) - n_events,
        n_users=number(select(func.count()).select_from(people)),
        n_items=number(select(func.count()).select_from(items)),
        n_edges=number(select(func.count()).select_from(edges)),
        sources=counts,
        first_at=instant(select(func.min(events.c.at))),
        last_at=instant(select(func.max(events.c.at))),
        n_bytes=_n_bytes(connection),
    )


def _n_bytes(connection: Connection) -> int:
    if connection.dialect.name == "sqlite":
        file = Path(connection.execute(text("SELECT file FROM pragma_database_list WHERE name = 'main'")).scalar_one())
        parts = (file, file.with_name(file.name + "-wal"))
        return sum(part.stat().st_size for part in parts if part.exists())
    size = text("SELECT pg_total_relation_size(CAST(:name AS regclass))")
    return sum(connection.execute(size, {"name": name}).scalar_one() for name in metadata.tables)
