"""Moments as of an instant: nothing of the future, no order that is not real."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from genrec.errors import DataError
from genrec.events import Context, Event, User, batch
from genrec.history import moments, read_history
from genrec.store import Store

START = datetime(2026, 3, 1, 12, tzinfo=UTC)


def event(item_id: str, minute: int, user_id: str = "ann") -> Event:
    return Event(user_id=user_id, item_id=item_id, at=START + timedelta(minutes=minute))


def test_events_of_one_instant_are_one_moment_and_each_item_counts_once() -> None:
    got = moments([event("milk", 0), event("bread", 0), event("milk", 0), event("milk", 5)])
    assert [(m.at, set(m.item_ids), len(m.item_ids)) for m in got] == [
        (START, {"milk", "bread"}, 2),
        (START + timedelta(minutes=5), {"milk"}, 1),
    ]


@given(st.permutations(["milk", "bread", "eggs", "tea", "wine", "salt"]))
def test_the_order_in_which_a_moment_was_written_leaves_no_trace(items: list[str]) -> None:
    [moment] = moments([event(item, 0) for item in items])
    [again] = moments([event(item, 0) for item in sorted(items)])
    assert moment.item_ids == again.item_ids


def test_items_of_a_moment_are_in_no_fixed_order() -> None:
    items = ["milk", "bread", "eggs", "tea", "wine", "salt"]
    firsts = {moments([event(item, minute) for item in items])[0].item_ids[0] for minute in range(60)}
    assert firsts == set(items)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path / "log.db") as store:
        store.put("users", [batch("users", [User(user_id="ann")])])
        store.append([batch("events", [event("milk", 0), event("bread", 1), event("tea", 2)])], source="test")
        yield store


@pytest.mark.parametrize("minute", [0, 1, 2, 3, 10])
def test_nothing_at_or_after_the_instant_is_seen(store: Store, minute: int) -> None:
    history = read_history(store, "ann", START + timedelta(minutes=minute), max_events=100)
    assert [m.at for m in history.moments] == [START + timedelta(minutes=m) for m in (0, 1, 2) if m < minute]
    assert history.user == User(user_id="ann")


def test_a_stranger_has_an_empty_history(store: Store) -> None:
    history = read_history(store, "nobody", START, max_events=100)
    assert (history.user, history.moments) == (None, ())


def test_a_time_zone_that_this_machine_does_not_know_counts_as_none(store: Store) -> None:
    zones = ["Mars/Olympus", "Europe/Paris", "../etc", ""]
    events = [
        Event(user_id="bob", item_id="tea", at=START + timedelta(minutes=m), context=Context(time_zone=zone, place="x"))
        for m, zone in enumerate(zones)
    ]
    store.append([batch("events", events)], source="test")
    store.put("users", [batch("users", [User(user_id="bob", time_zone="Mars/Olympus", attributes={"age": "40"})])])
    history = read_history(store, "bob", START + timedelta(hours=1), max_events=100)
    assert [m.context.time_zone or None for m in history.moments] == [None, "Europe/Paris", None, None]
    assert {m.context.place for m in history.moments} == {"x"}
    assert history.user == User(user_id="bob", attributes={"age": "40"})


def test_an_instant_without_a_zone_is_refused(store: Store) -> None:
    with pytest.raises(DataError, match="zone"):
        read_history(store, "ann", datetime(2026, 3, 1), max_events=100)
