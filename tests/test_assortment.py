"""Items added and retired while the store is in use: durable, seen at once, there after a restart."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from genrec.assortment import add_items, retire_items
from genrec.catalog import Catalog
from genrec.errors import DataError, StoreError
from genrec.events import Item
from genrec.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path / "genrec.db") as store:
        yield store


def read(store: Store) -> Catalog:
    return Catalog.read(store.items(), store.texts(), retired=store.retired())


def test_what_is_added_is_there_after_a_restart_with_the_same_rows_and_texts(store: Store) -> None:
    catalog = read(store)
    added = add_items(store, catalog, [Item(item_id="a", title="Heat"), Item(item_id="b", title="Fargo")])
    assert (added.rows, added.n_replaced) == ({"a": 0, "b": 1}, 0)
    added = add_items(
        store, catalog, [Item(item_id="c", title="Heat"), Item(item_id="a", title="Heat", attributes={"x": "1"})]
    )
    assert (added.rows, added.n_replaced) == ({"c": 2}, 1)
    assert add_items(store, catalog, []).n_replaced == 0
    again = read(store)
    assert again.texts == catalog.texts == ["Heat", "Fargo", "Heat (2)"]
    assert list(again.items) == list(catalog.items)
    assert again.fingerprint == catalog.fingerprint
    assert again.new_texts == {}


def test_retired_items_stay_so_after_a_restart_until_they_are_added_again(store: Store) -> None:
    catalog = read(store)
    add_items(store, catalog, [Item(item_id="a", title="Heat"), Item(item_id="b", title="Fargo")])
    assert retire_items(store, catalog, ["b", "nobody"]) == {"b"}
    assert catalog.retired == read(store).retired == {1}
    add_items(store, catalog, [Item(item_id="c", title="Fargo"), Item(item_id="b", title="Fargo")])
    assert catalog.retired == read(store).retired == set()
    assert read(store).texts == ["Heat", "Fargo", "Fargo (2)"]


def test_what_cannot_be_stored_is_not_seen_and_takes_no_text(store: Store) -> None:
    catalog = read(store)
    with pytest.raises(DataError, match="NUL"):
        add_items(store, catalog, [Item(item_id="a", title="Heat"), Item(item_id="\0", title="Heat")])
    assert len(catalog) == 0
    add_items(store, catalog, [Item(item_id="b", title="Heat")])
    assert read(store).texts == catalog.texts == ["Heat"]
    store.close()


def test_texts_that_another_process_assigned_meanwhile_are_respected(store: Store) -> None:
    here, there = read(store), read(store)
    add_items(store, there, [Item(item_id="a", title="Heat"), Item(item_id="b", title="Fargo")])
    added = add_items(store, here, [Item(item_id="c", title="Heat"), Item(item_id="b", title="Fargo, renamed")])
    assert added.rows == {"c": 0, "b": 1}
    assert here.texts == ["Heat (2)", "Fargo"]
    assert read(store).texts == ["Heat", "Fargo", "Heat (2)"]


def test_a_text_that_cannot_be_had_is_an_error(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store.save_texts({"a": "Heat"})
    monkeypatch.setattr(Store, "texts", lambda self, item_ids=None: {})
    catalog = Catalog()
    with pytest.raises(StoreError, match="belongs to item 'a'"):
        add_items(store, catalog, [Item(item_id="c", title="Heat")])
    assert len(catalog) == 0


def test_several_threads_add_at_once(store: Store) -> None:
    catalog = read(store)

    def add(worker: int) -> None:
        for n in range(15):
            add_items(store, catalog, [Item(item_id=f"{worker} {n}", title="Gift card")])

    threads = [threading.Thread(target=add, args=(worker,)) for worker in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(catalog.texts)) == len(catalog) == 60
    assert read(store).texts == catalog.texts
