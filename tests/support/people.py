"""A few people with a habit that can be learned, and how they are written."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from genrec.catalog import Catalog
from genrec.context import Words
from genrec.events import Context, Item
from genrec.finetune.packing import Writing
from genrec.history import History, Moment
from genrec.prompt import bundled_prompts, load_template
from genrec.tokenizer import HfTokenizer

START = datetime(2017, 6, 5, 9, tzinfo=UTC)
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
