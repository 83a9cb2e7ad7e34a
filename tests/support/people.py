"""A few people with a habit that can be learned, and how they are written."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

from genrec.catalog import Catalog
from genrec.config import create_workspace
from genrec.context import Words
from genrec.events import Context, Event, Item, batch
from genrec.finetune.packing import Writing
from genrec.history import History, Moment
from genrec.prompt import bundled_prompts, load_template
from genrec.store import Store
from genrec.tokenizer import HfTokenizer

START = datetime(2017, 6, 5, 9, tzinfo=UTC)
OPENING = datetime(2024, 1, 1, 8, tzinfo=UTC)
"""The first day of `shop`."""
ITEMS = ("milk", "bread", "butter", "buns", "coffee", "cheese", "turkey", "tea", "orange juice", "orange peel")


def writing_with(tokenizer: HfTokenizer) -> Writing:
    """How they are written, in a tokenizer's ids."""
    return Writing(
        template=load_template("next-item", [bundled_prompts()]),
        encoded=Catalog.of([Item(item_id=name, title=name) for name in ITEMS]).encode(tokenizer),
        tokenizer=tokenizer,
        words=Words(),
    )


def person(name: str, n: int, *, first: int = 0, per_moment: int = 1) -> History:
    """Someone who takes the items in turn."""
    moments = tuple(
        Moment(
            at=START + timedelta(days=day),
            context=Context(place=f"store {day % 3}"),
            item_ids=tuple(ITEMS[(first + day + i) % len(ITEMS)] for i in range(per_moment)),
        )
        for day in range(n)
    )
    return History(user_id=name, user=None, at=START + timedelta(days=n), moments=moments)


def learners() -> list[History]:
    """Thirty of them."""
    return [person(f"p{i}", 4 + i % 7, first=i) for i in range(30)]


def shop(folder: Path, n: int, *more: Event, **settings: str) -> Path:
    """A workspace of so many people who take the items in turn, one a day for eight days.

    Args:
        folder: Where to make it.
        n: People, ``p00`` and on.
        more: Events beside theirs; an item that is new in them is added.
        settings: Of the workspace.
    """
    create_workspace(folder, settings)
    items = dict.fromkeys((*ITEMS, *(event.item_id for event in more)))
    with Store.open(folder / "genrec.db") as store:
        store.put("items", [batch("items", [Item(item_id=name, title=name) for name in items])])
        events = [
            Event(user_id=f"p{p:02}", item_id=ITEMS[(p + i) % len(ITEMS)], at=OPENING + timedelta(days=i, hours=p % 9))
            for p in range(n)
            for i in range(8)
        ]
        store.append([batch("events", [*events, *more])], source="test")
    return folder
