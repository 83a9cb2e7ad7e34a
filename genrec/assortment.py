"""What is on offer, changed while it serves: first on the disk, then to be seen.

Knows the store and the catalogue made of it; encodings, filters and priors look at the catalogue themselves.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from genrec.catalog import Catalog
from genrec.errors import TextTakenError
from genrec.events import Item, batch
from genrec.store import Store


@dataclass(frozen=True, kw_only=True)
class Added:
    """What adding items did."""

    rows: Mapping[str, int]
    """The newcomers' rows in the catalogue, by item id."""
    n_replaced: int
    """Items that were known and now have other titles, categories or attributes, or are on offer again."""


def add_items(store: Store, catalog: Catalog, items: Iterable[Item]) -> Added:
    """Add newcomers, replace what is known and offer again what was retired; durable when it returns.

    A newcomer gets a text that nothing else has; what is known keeps its own. A search under way does not see what is
    new, the next one does. May be called from several threads.

    Args:
        store: Where they are kept.
        catalog: Made of what the store holds.
        items: The items; of several with one id the last counts.

    Raises:
        DataError: If an item cannot be stored as it is; then nothing is.
        StoreError: If the database fails; then nothing is stored.
    """
    unique = {item.item_id: item for item in items}
    if not unique:
        return Added(rows={}, n_replaced=0)
    with catalog.lock:
        known = store.texts(item_id for item_id in unique if item_id not in catalog.row)
        try:
            texts = catalog.name(unique.values(), known)
            store.add_items(batch("items", unique.values()), texts)
        except TextTakenError:  # another process has assigned one of them meanwhile
            texts = catalog.name(unique.values(), store.texts())
            store.add_items(batch("items", unique.values()), texts)
        new = catalog.add(unique.values(), texts)
        return Added(rows={catalog.item_ids[row]: row for row in new}, n_replaced=len(unique) - len(new))


def retire_items(store: Store, catalog: Catalog, item_ids: Iterable[str]) -> set[str]:
    """Take items off offer; durable when it returns. Their texts stay reserved, and adding them brings them back.

    Returns:
        Those of the ids that there are.

    Raises:
        StoreError: If the database fails.
    """
    with catalog.lock:
        known = store.retire(item_ids)
        catalog.retire(known)
        return known
