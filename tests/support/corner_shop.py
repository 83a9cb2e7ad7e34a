"""A corner shop whose answers can be seen: five items, three customers, two weeks of June 2025 in New York.

Milk is what everybody buys (6 times), bread comes next (4), then beer (3, all by bob), eggs (1) and tea (never).
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from genrec.config import create_workspace
from genrec.events import Context, Event, Item, User, batch
from genrec.store import Store

NEW_YORK = ZoneInfo("America/New_York")
ITEMS = [
    Item(item_id="i-milk", title="Milk", category="dairy"),
    Item(item_id="i-bread", title="Bread", category="bakery"),
    Item(item_id="i-beer", title="Beer", category="drinks"),
    Item(item_id="i-eggs", title="Eggs", category="dairy"),
    Item(item_id="i-tea", title="Tea", category="drinks"),
]
USERS = [User(user_id="ann", time_zone="America/New_York", attributes={"kids": "2"}), User(user_id="bob")]
_LOG = """
    ann 02T09 milk bread
    cat 03T10 milk
    ann 04T09 milk
    bob 06T20 beer
    bob 07T20 beer milk
    ann 09T09 milk bread
    cat 10T10 bread eggs
    bob 13T20 beer
    ann 14T09 milk bread
"""


def events() -> list[Event]:
    """The log, in order."""
    return [
        Event(
            user_id=user,
            item_id=f"i-{name}",
            at=datetime.fromisoformat(f"2025-06-{hour}:00").replace(tzinfo=NEW_YORK),
            action="buy",
            context=Context(place="corner shop"),
        )
        for user, hour, *names in (line.split() for line in _LOG.strip().splitlines())
        for name in names
    ]


def fill(store: Store) -> None:
    """Put everything into a store."""
    store.put("items", [batch("items", ITEMS)])
    store.put("users", [batch("users", USERS)])
    store.append([batch("events", events())], source="corner-shop")


def make_workspace(folder: Path, settings: Mapping[str, Any] | None = None) -> Path:
    """A workspace with the shop in its store; by default the prior alone answers."""
    create_workspace(folder, {"engine": "none"} | dict(settings or {}))
    with Store.open(folder / "genrec.db") as store:
        fill(store)
    return folder
