"""The nouns of the project and their Arrow schemas: one spelling for everything that moves between stages.

Knows shapes only: no files, no database, no model. Instants are time-zone-aware and compared in UTC; a person's own
clock is the `time_zone` beside them. Open-ended key-value data (`extra`, `attributes`) travels in Arrow as one JSON
object per row, so that a schema never depends on the data.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

import numpy as np
import pyarrow as pa

Kind = Literal["items", "users", "events", "edges"]
"""What a record batch holds."""


@dataclass(frozen=True, kw_only=True)
class Context:
    """Where and on what something happened; every part may be unknown."""

    time_zone: str | None = None
    """IANA name of the clock on the wall there, e.g. ``Europe/Paris``."""
    place: str | None = None
    """Name of the place in words, e.g. ``store 31``."""
    latitude: float | None = None
    """Degrees north, -90 to 90."""
    longitude: float | None = None
    """Degrees east, -180 to 180."""
    device: str | None = None
    """What it happened on, in words, e.g. ``phone``."""
    extra: Mapping[str, str] = field(default_factory=dict)
    """Further context by name, e.g. ``{"weather": "rain"}``."""


@dataclass(frozen=True, kw_only=True)
class Event:
    """A person did something with an item at an instant."""

    user_id: str
    item_id: str
    at: datetime
    """The instant, time-zone-aware."""
    event_id: str | None = None
    """The source's own id; without one the store derives it from the content."""
    action: str = "interact"
    """What the person did: ``buy``, ``view``, ``play``, ``rate`` …"""
    value: float | None = None
    """How much: a quantity, a rating, seconds played."""
    context: Context = field(default_factory=Context)
    weight: float = 1.0
    """How much it counts as a choice: see `genrec.actions`. A store tells it; it is no part of the schema."""


@dataclass(frozen=True, kw_only=True)
class Item:
    """Something that can be recommended."""

    item_id: str
    title: str
    """Its name as a person would read it."""
    category: str | None = None
    attributes: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class User:
    """A person, household or account."""

    user_id: str
    time_zone: str | None = None
    """IANA name of the clock the person lives by; events may name their own."""
    attributes: Mapping[str, str] = field(default_factory=dict)
    struck: frozenset[str] = frozenset()
    """What the person does not want said of them: names of attributes, and keys of tags such as ``interest:beer``. Only
    the store knows; it is no part of the schema."""


@dataclass(frozen=True, kw_only=True)
class Edge:
    """A directed relation between two users."""

    from_id: str
    to_id: str
    kind: str = "knows"
    weight: float = 1.0


@dataclass(frozen=True, kw_only=True)
class Medium:
    """What a reader made of the picture, sound or text that an item names."""

    item_id: str
    reader: str
    """Name of the reader."""
    file: str
    """What the item names, as it stands there."""
    content: str
    """Hash of the file and of what read it: where two are equal, so are words and vector."""
    words: str
    """One clean line; empty where there was nothing to say."""
    vector: bytes | None = None
    """Numbers that tell what is alike, as float32, little-endian; null where the reader gives none."""


def _text(name: str) -> pa.Field:
    return pa.field(name, pa.string(), nullable=False)


SCHEMAS: Mapping[Kind, pa.Schema] = {
    "events": pa.schema(
        [
            pa.field("event_id", pa.string()),
            _text("user_id"),
            _text("item_id"),
            pa.field("at", pa.timestamp("us", tz="UTC"), nullable=False),
            _text("action"),
            pa.field("value", pa.float64()),
            pa.field("time_zone", pa.string()),
            pa.field("place", pa.string()),
            pa.field("latitude", pa.float64()),
            pa.field("longitude", pa.float64()),
            pa.field("device", pa.string()),
            pa.field("extra", pa.string()),
        ]
    ),
    "items": pa.schema(
        [_text("item_id"), _text("title"), pa.field("category", pa.string()), pa.field("attributes", pa.string())]
    ),
    "users": pa.schema([_text("user_id"), pa.field("time_zone", pa.string()), pa.field("attributes", pa.string())]),
    "edges": pa.schema(
        [_text("from_id"), _text("to_id"), _text("kind"), pa.field("weight", pa.float64(), nullable=False)]
    ),
}
"""The Arrow schema of a record batch of each kind."""

WEIGHED = SCHEMAS["events"].append(pa.field("weight", pa.float64(), nullable=False))
"""The schema of events with how much each counts as a choice: see `genrec.actions`."""


def weights_of(events: pa.RecordBatch) -> np.ndarray:
    """How much each event counts as a choice, 1 where the batch does not say. Shape ``(n_events,)``, float64."""
    told = "weight" in events.schema.names
    weights: np.ndarray = events["weight"].to_numpy() if told else np.ones(len(events))
    return weights


def to_json(mapping: Mapping[str, str]) -> str | None:
    """Write key-value data the one way the schemas store it: sorted JSON, or null when empty."""
    return json.dumps(dict(mapping), ensure_ascii=False, sort_keys=True, separators=(",", ":")) if mapping else None


def from_json(text: str | None) -> dict[str, str]:
    """Read back what `to_json` wrote."""
    return {str(k): str(v) for k, v in json.loads(text).items()} if text else {}


def event_row(event: Event) -> dict[str, Any]:
    """An event as a row of ``SCHEMAS["events"]``."""
    context = event.context
    return {
        "event_id": event.event_id,
        "user_id": event.user_id,
        "item_id": event.item_id,
        "at": event.at,
        "action": event.action,
        "value": event.value,
        "time_zone": context.time_zone,
        "place": context.place,
        "latitude": context.latitude,
        "longitude": context.longitude,
        "device": context.device,
        "extra": to_json(context.extra),
    }


def event_of(row: Mapping[str, Any]) -> Event:
    """A row of ``SCHEMAS["events"]`` or of `WEIGHED` as an event."""
    return Event(
        event_id=row["event_id"],
        user_id=row["user_id"],
        item_id=row["item_id"],
        at=row["at"],
        action=row["action"],
        value=row["value"],
        context=Context(
            time_zone=row["time_zone"],
            place=row["place"],
            latitude=row["latitude"],
            longitude=row["longitude"],
            device=row["device"],
            extra=from_json(row["extra"]),
        ),
        weight=row.get("weight", 1.0),
    )


def item_row(item: Item) -> dict[str, Any]:
    """An item as a row of ``SCHEMAS["items"]``."""
    return {**vars(item), "attributes": to_json(item.attributes)}


def user_row(user: User) -> dict[str, Any]:
    """A user as a row of ``SCHEMAS["users"]``."""
    return {"user_id": user.user_id, "time_zone": user.time_zone, "attributes": to_json(user.attributes)}


def edge_row(edge: Edge) -> dict[str, Any]:
    """An edge as a row of ``SCHEMAS["edges"]``."""
    return dict(vars(edge))


def batch(kind: Kind, values: Iterable[Event | Item | User | Edge]) -> pa.RecordBatch:
    """Put values of one kind into a record batch of that kind's schema."""
    to_row: dict[str, Any] = {"events": event_row, "items": item_row, "users": user_row, "edges": edge_row}
    return pa.RecordBatch.from_pylist([to_row[kind](value) for value in values], schema=SCHEMAS[kind])


def items_of(batches: Iterable[pa.RecordBatch]) -> Iterator[Item]:
    """The items in record batches of ``SCHEMAS["items"]``."""
    for rows in batches:
        for row in rows.to_pylist():
            yield Item(**{**row, "attributes": from_json(row["attributes"])})
