from __future__ import annotations

import os
import random
import signal
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import closing, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from uuid import uuid4

import pyarrow as pa
import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import event as sql_event
from sqlalchemy import text

from genrec.actions import Actions
from genrec.errors import DataError, StoreError, TextTakenError
from genrec.events import SCHEMAS, Context, Edge, Event, Item, Medium, User, batch, event_of
from genrec.store import Appended, Forgotten, Mark, Store, Taken
from genrec.store.connection import VERSION_TABLE
from genrec.store.rows import content_digests
from genrec.store.tables import metadata

NOON = datetime(2024, 11, 27, 12, tzinfo=UTC)
SCRIPT = Path(__file__).parent / "support" / "append_events.py"


@pytest.fixture(params=["sqlite", "postgres"])
def where(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where a new, empty store may be made."""
    if request.param == "sqlite":
        return str(tmp_path / "store.db")
    return new_schema(request.getfixturevalue("postgres"))


def new_schema(server: str) -> str:
    import psycopg

    name = f"test_{uuid4().hex}"
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f"CREATE SCHEMA {name}")
    return f"{server}?options=-csearch_path%3D{name}"


def new_database(server: str) -> str:
    import psycopg

    name = f"test_{uuid4().hex}"
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    return server.rsplit("/", 1)[0] + f"/{name}"


@pytest.fixture
def store(where: str) -> Iterator[Store]:
    with Store.open(where) as opened:
        yield opened


def at(hours: float) -> datetime:
    return NOON + timedelta(hours=hours)


def bought(item_id: str, hours: float = 0, *, user_id: str = "ann", event_id: str | None = None) -> Event:
    return Event(user_id=user_id, item_id=item_id, at=at(hours), event_id=event_id, action="buy")


def append(store: Store, *events: Event, source: str = "shop") -> Appended:
    return store.append([batch("events", events)], source=source)


def read(batches: Iterable[pa.RecordBatch]) -> list[Event]:
    return [event_of(row) for rows in batches for row in rows.to_pylist()]


def bag(store: Store, user_id: str = "ann", hours: float = 1000) -> list[str]:
    return [event.item_id for event in store.history(user_id, at(hours), max_events=1000)]


# What comes back


def test_an_event_comes_back_as_it_was(store: Store) -> None:
    context = Context(
        time_zone="Asia/Tokyo",
        place="店 31 🏪",
        latitude=-0.1,
        longitude=139.7,
        device="phone",
        extra={"weather": "rain; | \n", "b": "1"},
    )
    full = Event(user_id="ann", item_id="i1", at=NOON, event_id="e1", action="rate", value=0.1 + 0.2, context=context)
    early = Event(user_id="ann", item_id="i2", at=datetime(1905, 6, 30, 23, 59, 59, 999_999, tzinfo=UTC), event_id="e2")
    append(store, full, early)
    assert store.history("ann", at(1), max_events=10) == [early, full]
    assert read(store.events()) == [early, full]
    assert all(rows.schema == SCHEMAS["events"] for rows in store.events())


def test_a_store_is_still_there_after_closing(where: str) -> None:
    with Store.open(where) as store:
        append(store, bought("tea"))
        store.close()
    with Store.open(where) as store:
        assert bag(store) == ["tea"]


def test_an_empty_store_answers(store: Store) -> None:
    summary = store.summary()
    assert (summary.n_events, summary.n_users, summary.n_items, summary.n_edges) == (0, 0, 0, 0)
    assert (summary.sources, summary.first_at, summary.last_at) == ({}, None, None)
    assert summary.n_bytes > 0
    assert list(store.events()) == list(store.items()) == []
    assert store.history("ann", NOON, max_events=5) == []
    assert store.user("ann") is None
    assert store.user_ids() == []
    assert store.append([], source="shop") == Appended()


# Ids, versions, identical rows


def test_the_same_data_again_adds_nothing(store: Store) -> None:
    day = [bought("tea", 0, event_id="e1"), bought("milk", 1, event_id="e2")]
    assert append(store, *day) == Appended(n_new=2)
    assert append(store, *day, bought("rice", 2, event_id="e3")) == Appended(n_new=1, n_known=2)
    assert bag(store) == ["tea", "milk", "rice"]


def test_ids_belong_to_their_source(store: Store) -> None:
    append(store, bought("tea", event_id="e1"), source="shop")
    assert append(store, bought("tea", event_id="e1"), source="kiosk") == Appended(n_new=1)
    assert store.summary().sources == {"kiosk": 1, "shop": 1}


def test_a_correction_is_a_new_version(store: Store) -> None:
    append(store, bought("tea", 0, event_id="e1"), bought("milk", 1, event_id="e2"))
    assert append(store, bought("coffee", 0, event_id="e1")) == Appended(n_corrected=1)
    assert bag(store) == ["coffee", "milk"]
    assert append(store, bought("coffee", 0, event_id="e1")) == Appended(n_known=1)
    assert append(store, bought("tea", 0, event_id="e1")) == Appended(n_corrected=1)
    assert bag(store) == ["tea", "milk"]
    summary = store.summary()
    assert (summary.n_events, summary.n_superseded) == (2, 2)


def test_a_correction_can_move_an_event_to_another_person_and_time(store: Store) -> None:
    append(store, bought("tea", 0, event_id="e1"))
    append(store, bought("tea", 5, user_id="bob", event_id="e1"))
    assert bag(store) == []
    assert store.history("bob", at(5), max_events=9) == []
    assert bag(store, "bob") == ["tea"]
    assert store.user_ids() == ["bob"]


def test_identical_rows_of_one_import_are_different_events(store: Store) -> None:
    twins = batch("events", [bought("tea"), bought("tea"), bought("milk")])
    assert store.append([twins, twins], source="shop") == Appended(n_new=6)
    assert store.append([twins, twins], source="shop") == Appended(n_known=6)
    assert store.append([twins], source="shop") == Appended(n_known=3)
    assert store.append([twins, twins, twins], source="shop") == Appended(n_new=3, n_known=6)
    assert Counter(bag(store)) == {"tea": 6, "milk": 3}


ROW = st.tuples(st.sampled_from([None, "a", "b", "c"]), st.sampled_from(["tea", "milk", "rice"]))


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.lists(ROW, max_size=8), max_size=5))
def test_the_outcome_is_that_of_taking_rows_one_by_one(
    store: Store, batches: list[list[tuple[str | None, str]]]
) -> None:
    unique = uuid4().hex  # a source and a person of this example's own
    current: dict[str, str] = {}
    expected = Appended()
    seen: Counter[str] = Counter()
    for own_id, item in (row for rows in batches for row in rows):
        seen[item] += own_id is None
        name = own_id or f"{item} {seen[item]}"
        if name not in current:
            expected += Appended(n_new=1)
        elif current[name] == item:
            expected += Appended(n_known=1)
        else:
            expected += Appended(n_corrected=1)
        current[name] = item
    arrow = [batch("events", [bought(item, user_id=unique, event_id=own) for own, item in rows]) for rows in batches]
    assert store.append(arrow, source=unique) == expected
    assert Counter(bag(store, unique)) == Counter(current.values())


def test_the_name_of_an_event_without_id_never_changes(store: Store) -> None:
    """These names are in people's databases: another name for the same content would import everything twice."""
    event = Event(user_id="ann", item_id="tea", at=NOON, value=1.5, context=Context(place="", device=None))
    append(store, event, event)
    names = [event.event_id for event in read(store.events())]
    assert names == ["9343c10b2cb2851a926d2805d7c5429a:1", "9343c10b2cb2851a926d2805d7c5429a:2"]


CONTENT = st.builds(
    Event,
    user_id=st.text("a1-é,", max_size=3),
    item_id=st.text("a1-é,", max_size=3),
    at=st.sampled_from([NOON, at(1)]),
    value=st.sampled_from([None, 0.0, 1.0, -1.0]),
    context=st.builds(
        Context, place=st.none() | st.text("a1- ", max_size=3), device=st.none() | st.text("a1- ", max_size=3)
    ),
)


@given(CONTENT, CONTENT)
def test_different_contents_have_different_digests(one: Event, other: Event) -> None:
    digests = content_digests(batch("events", [one, other]))
    assert (digests[0].tolist() == digests[1].tolist()) == (one == other)


# One batch, one transaction


def test_a_batch_is_stored_before_it_is_reported(store: Store, where: str) -> None:
    seen = []
    with Store.open(where) as other:
        store.append(
            [batch("events", [bought("tea", event_id="e1")]), batch("events", [bought("milk", 1, event_id="e2")])],
            source="shop",
            on_batch=lambda counts: seen.append((counts, bag(other))),
        )
    assert seen == [(Appended(n_new=1), ["tea"]), (Appended(n_new=1), ["tea", "milk"])]


def test_what_came_before_a_failure_stays(store: Store) -> None:
    def batches() -> Iterator[pa.RecordBatch]:
        yield batch("events", [bought("tea", event_id="e1")])
        raise OSError("the network is gone")

    with pytest.raises(OSError, match="network"):
        store.append(batches(), source="shop")
    with pytest.raises(DataError):
        store.append([batch("events", [bought("milk", event_id="e2")]), batch("items", [])], source="shop")
    assert Counter(bag(store)) == {"tea": 1, "milk": 1}


# Reading as of an instant


def test_history_ends_strictly_before_the_instant(store: Store) -> None:
    append(store, bought("noon", 0), bought("one", 1), bought("two", 2), bought("other's", 0, user_id="bob"))
    assert bag(store, hours=1) == ["noon"]
    assert [e.item_id for e in store.history("ann", at(1) + timedelta(microseconds=1), max_events=9)] == ["noon", "one"]
    in_new_york = at(1).astimezone(timezone(timedelta(hours=-5)))
    assert [e.item_id for e in store.history("ann", in_new_york, max_events=9)] == ["noon"]


def test_events_of_one_instant_keep_the_order_they_came_in(store: Store) -> None:
    append(store, bought("late", 1), bought("first"), bought("second"))
    append(store, bought("third"))
    assert bag(store) == ["first", "second", "third", "late"]
    assert [event.item_id for event in read(store.events())] == ["first", "second", "third", "late"]


def test_a_long_history_starts_at_the_same_event_for_a_while(store: Store) -> None:
    append(store, *(bought(str(n), n) for n in range(30)))
    starts = []
    for n in range(31):
        found = bag_of(store, n, max_events=8)
        assert found == list(range(found[0] if found else 0, n))
        assert len(found) == n if n <= 8 else 6 < len(found) <= 8
        starts.append(found[0] if found else 0)
    assert starts[8:15] == [0, 2, 2, 4, 4, 6, 6]
    assert len(bag_of(store, 30, max_events=1)) == 1


def bag_of(store: Store, hours: float, *, max_events: int) -> list[int]:
    return [int(event.item_id) for event in store.history("ann", at(hours), max_events=max_events)]


def test_an_instant_needs_a_time_zone(store: Store) -> None:
    naive = datetime(2024, 11, 27, 12)
    with pytest.raises(DataError, match="no time zone"):
        store.history("ann", naive, max_events=5)
    with pytest.raises(DataError, match="no time zone"):
        store.events(before=naive)
    with pytest.raises(DataError, match="no time zone"):
        store.item_ids("ann", naive)
    with pytest.raises(DataError, match="at least 1"):
        store.history("ann", NOON, max_events=0)


def test_what_a_person_has_is_known_however_long_ago(store: Store) -> None:
    append(store, bought("tea", event_id="e1"), bought("milk", 1), bought("milk", 2), bought("eggs", 3))
    append(store, bought("coffee", event_id="e1"), bought("beer", user_id="bob"))
    assert store.item_ids("ann", at(3)) == {"coffee", "milk"}
    assert store.item_ids("ann", at(9)) == {"coffee", "milk", "eggs"}
    assert store.item_ids("zoe", at(9)) == set()


def test_all_events_stream_in_order(store: Store) -> None:
    hours = list(range(45_000))
    random.Random(0).shuffle(hours)
    append(store, *(bought(str(n), n / 60, user_id=f"user {n % 7}") for n in hours))
    batches = list(store.events())
    assert len(batches) > 1
    assert [event.item_id for event in read(batches)] == [str(n) for n in range(45_000)]
    assert [event.item_id for event in read(store.events(before=at(10)))] == [str(n) for n in range(600)]
    stream = store.events()
    first = next(stream)
    append(store, bought("late", 10_000))
    rest = sum(rows.num_rows for rows in stream)
    assert first.num_rows + rest == 45_000


def test_without_an_action_or_a_source_it_is_as_if_they_had_never_come(store: Store) -> None:
    for source in ("shop", "app"):
        events = (
            replace(bought(f"{source} {n}", n, user_id="ann" if n % 3 else "bob"), action=a)
            for n, a in enumerate(["look", "buy", "look"] * 4)
        )
        append(store, *events, source=source)
    every = read(store.events())
    for left, kept in (
        (store.without("action", "look"), [one for one in every if one.action == "buy"]),
        (store.without("source", "shop"), [one for one in every if one.item_id.startswith("app")]),
        (
            store.without("source", "app").without("action", "buy"),
            [one for one in every if one.action == "look" and one.item_id.startswith("shop")],
        ),
        (store.without("action", "sing").without("source", "choir"), every),
    ):
        assert read(left.events()) == kept
        assert bag(left) == [one.item_id for one in kept if one.user_id == "ann"]
        assert left.item_ids("bob", at(99)) == {one.item_id for one in kept if one.user_id == "bob"}
        assert left.mark().n_events == len(kept)
        assert set(left.user_ids()) == {one.user_id for one in kept}
    assert read(store.events()) == every


def test_a_mark_tells_every_change_of_the_events_from_every_other(store: Store) -> None:
    marks = [store.mark()]
    for change in (
        lambda: append(store, bought("tea", event_id="e1")),
        lambda: append(store, bought("milk", 5, user_id="bob", event_id="e2")),
        lambda: append(store, bought("coffee", event_id="e1")),  # a correction: as many events as before
        lambda: store.forget("bob"),
        lambda: append(store, bought("beer", 5, user_id="bob", event_id="e2")),  # SQLite numbers it as the one before
    ):
        change()
        assert store.mark() not in marks
        marks.append(store.mark())
    append(store, bought("beer", 5, user_id="bob", event_id="e2"))
    store.put("users", [batch("users", [User(user_id="ann")])])
    assert store.mark() == marks[-1]
    assert marks[0] == Mark(n_events=0, last=0, numbers=0, content=0, last_at=0) == store.mark(before=at(0))
    assert store.mark(before=at(5)).n_events == 1
    assert store.mark(before=at(9)) == marks[-1]


def test_a_mark_holds_until_what_it_stands_for_is_touched(store: Store) -> None:
    append(store, bought("tea", event_id="e1"), bought("milk", user_id="bob", event_id="e2"))
    mark = store.mark()
    append(store, bought("eggs", -9, event_id="e3"), bought("beer", 9, event_id="e4"))
    assert store.mark(until=mark) == mark
    assert store.mark(before=at(5), until=mark) == mark
    now, later = store.marked_choices(since=mark)
    assert ([event.item_id for event in read(later)], now) == (["eggs", "beer"], store.mark())
    now, later = store.marked_choices(before=at(5), since=mark)
    assert ([event.item_id for event in read(later)], now) == (["eggs"], store.mark(before=at(5)))
    append(store, bought("wine", 9, event_id="e4"))
    assert store.mark(until=mark) == mark
    append(store, bought("coffee", event_id="e1"))
    assert store.mark(until=mark) != mark


def test_either_database_tells_choices_from_refusals(where: str) -> None:
    told = [("tea", "View", None), ("tea", "rate", 2.0), ("ale", "DIS-LIKE", None), ("ale", "impression", None)]
    told += [("gin", "Hide", None), ("gin", "rate", 4.0), ("rum", "rate", None), ("tea", "view", None)]
    seen = [
        Event(user_id="ann", item_id=item, at=at(n), action=action, value=value)
        for n, (item, action, value) in enumerate(told)
    ]
    with Store.open(where, actions=Actions.of({"rate": {"positive": 4}})) as store:
        store.append([batch("events", seen)], source="shop")
        past = store.history("ann", at(99), max_events=9)
        assert [(e.item_id, e.weight) for e in past] == [("tea", 0.3), ("gin", 1.0), ("rum", 1.0), ("tea", 0.3)]
        assert len(store.history("ann", at(99), max_events=3)) == 3
        assert store.item_ids("ann", at(99)) == {"tea", "gin", "rum"}
        assert store.refused("ann", at(99)) == {"tea", "ale"}
        assert store.refused("ann", at(5)) == {"tea", "ale", "gin"}
        assert [row["weight"] for rows in store.weighed() for row in rows.to_pylist()] == [
            *(0.3, -1.0, -1.0, 0.0, -1.0, 1.0, 1.0, 0.3)
        ]
        assert sum(map(len, store.choices())) == 4
        left = store.without("action", "rate")
        assert {(e.item_id, e.weight) for e in left.history("ann", at(99), max_events=9)} == {("tea", 0.3)}
        assert left.refused("ann", at(99)) == {"ale", "gin"}


def test_marked_choices_are_those_of_the_mark_whatever_comes_meanwhile(store: Store) -> None:
    append(store, bought("tea"))
    mark, events = store.marked_choices()
    append(store, bought("late"))
    store.append([batch("events", [bought("milk", user_id="bob")])], source="other")
    assert [event.item_id for event in read(events)] == ["tea"]
    assert mark != store.mark() == store.marked_choices()[0]


# Items, users, edges


def test_put_adds_and_replaces(store: Store) -> None:
    tea, milk = (
        Item(item_id="i2", title="Tea"),
        Item(item_id="i1", title="Milk", category="dairy", attributes={"l": "1"}),
    )
    assert store.put("items", [batch("items", [tea]), batch("items", [milk])]) == 2
    assert store.put("items", [batch("items", [Item(item_id="i2", title="Green tea")])]) == 1
    titles = [row["title"] for rows in store.items() for row in rows.to_pylist()]
    assert titles == ["Green tea", "Milk"]  # in the order they first came
    store.put("users", [batch("users", [User(user_id="ann", time_zone="Europe/Paris", attributes={"age": "45-54"})])])
    assert store.user("ann") == User(user_id="ann", time_zone="Europe/Paris", attributes={"age": "45-54"})
    store.put("users", [batch("users", [User(user_id="ann"), User(user_id="bob")])])
    assert store.user("ann") == User(user_id="ann")
    assert [row["user_id"] for rows in store.users() for row in rows.to_pylist()] == ["ann", "bob"]


def test_an_edge_is_known_by_both_ends_and_its_kind(store: Store) -> None:
    edges = [
        Edge(from_id="ann", to_id="bob"),
        Edge(from_id="bob", to_id="ann"),
        Edge(from_id="ann", to_id="bob", kind="likes"),
    ]
    store.put("edges", [batch("edges", edges)])
    store.put("edges", [batch("edges", [Edge(from_id="ann", to_id="bob", weight=0.5)])])
    assert list(store.edges()) == [batch("edges", [Edge(from_id="ann", to_id="bob", weight=0.5), *edges[1:]])]


def test_users_are_those_with_a_row_or_an_event(store: Store) -> None:
    store.put("users", [batch("users", [User(user_id="ann"), User(user_id="idle"), User(user_id="Zoe")])])
    append(store, bought("tea", user_id="bob"), bought("tea", 1, user_id="bob"), bought("tea", user_id="ann"))
    assert store.user_ids() == ["bob", "ann", "Zoe", "idle"]  # ties in code point order, on every database
    assert store.user_ids(limit=2) == ["bob", "ann"]
    assert store.user("bob") is None
    assert store.summary().n_users == 4


def test_summary_counts(store: Store) -> None:
    append(store, bought("tea", 3, event_id="e1"), bought("milk", -2, event_id="e2"))
    append(store, bought("coffee", 2, event_id="e1"))
    append(store, bought("tea", 1, user_id="bob"), source="kiosk")
    store.put("items", [batch("items", [Item(item_id="tea", title="Tea")])])
    store.put("edges", [batch("edges", [Edge(from_id="ann", to_id="bob")])])
    summary = store.summary()
    assert (summary.n_events, summary.n_superseded, summary.n_users) == (3, 1, 2)
    assert (summary.n_items, summary.n_edges) == (1, 1)
    assert summary.sources == {"kiosk": 1, "shop": 2}
    assert (summary.first_at, summary.last_at) == (at(-2), at(2))


# Texts


def test_a_text_is_assigned_for_good(store: Store) -> None:
    store.save_texts({})
    store.save_texts({"i1": "Heat", "i2": "Alien"})
    store.save_texts({"i1": "Heat", "i3": "Heat (1972)"})
    expected = {"i1": "Heat", "i2": "Alien", "i3": "Heat (1972)"}
    assert store.texts() == expected
    with pytest.raises(TextTakenError, match="'i1' cannot get the text 'Warm': it has the text 'Heat'"):
        store.save_texts({"i4": "Dune", "i1": "Warm"})
    with pytest.raises(TextTakenError, match="'i4' cannot get the text 'Alien': that text belongs to item 'i2'"):
        store.save_texts({"i5": "Dune", "i4": "Alien"})
    assert store.texts() == expected


def test_the_texts_of_some_items(store: Store) -> None:
    store.save_texts({f"i{n}": f"text {n}" for n in range(2_500)})
    assert store.texts(["i7", "gone", "i2400"]) == {"i7": "text 7", "i2400": "text 2400"}
    assert store.texts([]) == {}
    assert len(store.texts(f"i{n}" for n in range(2_500))) == 2_500


def test_items_and_their_texts_are_added_together_or_not_at_all(store: Store) -> None:
    heat, dune = Item(item_id="i1", title="Heat"), Item(item_id="i2", title="Dune")
    store.add_items(batch("items", [heat]), {"i1": "Heat"})
    with pytest.raises(TextTakenError, match="that text belongs to item 'i1'"):
        store.add_items(batch("items", [dune]), {"i2": "Heat"})
    assert store.texts() == {"i1": "Heat"}
    assert [row["item_id"] for rows in store.items() for row in rows.to_pylist()] == ["i1"]
    with pytest.raises(DataError, match="NUL"):
        store.add_items(batch("items", [Item(item_id="i3", title="\0")]), {"i3": "x"})


# Media


def test_media_come_back_as_they_were_by_item_and_reader(store: Store) -> None:
    made = [
        Medium(item_id=item, reader=reader, file="a.png", content=f"{item} {reader}", words="Tee ☕", vector=vector)
        for item, reader, vector in (("i1", "ocr", None), ("i1", "tags", b"\0\xff" * 8), ("i2", "ocr", b""))
    ]
    store.put_media([])
    store.put_media(made[::-1])
    assert list(store.media(vectors=True)) == made
    assert list(store.media()) == [replace(one, vector=None) for one in made]
    assert store.medium("i1 tags") == made[1]
    assert store.medium("i3 tags") is None
    store.put_media([replace(made[0], words="Kaffee")])
    assert [one.words for one in store.media()] == ["Kaffee", "Tee ☕", "Tee ☕"]
    store.drop_media("ocr", ["i1", "gone"])
    assert list(store.media(vectors=True)) == made[1:]


# Retiring


def test_a_retired_item_keeps_its_row_and_text_and_comes_back_when_it_is_put(store: Store) -> None:
    some = [Item(item_id=f"i{n}", title=f"Title {n}") for n in range(3)]
    store.put("items", [batch("items", some)])
    store.save_texts({"i1": "Title 1"})
    assert store.retired() == set()
    assert store.retire(["i1", "i2", "nobody"]) == {"i1", "i2"}
    assert store.retire(["i1"]) == {"i1"}
    assert store.retired() == {"i1", "i2"}
    assert store.texts() == {"i1": "Title 1"}
    assert sum(rows.num_rows for rows in store.items()) == 3
    store.put("items", [batch("items", some[1:2])])
    assert store.retired() == {"i2"}
    store.add_items(batch("items", some[2:]), {})
    assert store.retired() == set()


def test_a_store_of_the_first_schema_is_brought_up_to_date(tmp_path: Path) -> None:
    file = tmp_path / "store.db"
    with Store.open(file) as store:
        store.put("items", [batch("items", [Item(item_id="i1", title="Heat")])])
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.execute("DROP TABLE item_media")
        connection.execute("DROP TABLE corrections")
        connection.execute("DROP INDEX items_retired")
        connection.execute("ALTER TABLE items DROP COLUMN retired_at")
        connection.execute("UPDATE genrec_version SET version_num = '0001'")
    with Store.open(file) as store:
        assert store.retired() == set()
        assert store.retire(["i1"]) == {"i1"}
        assert list(store.media()) == []
        store.correct("ann", {"age": "45-54"})


# What people correct


def test_a_correction_comes_before_what_any_source_says_now_and_later(where: str) -> None:
    source = [batch("users", [User(user_id="ann", time_zone="Asia/Tokyo", attributes={"age": "35-44", "kids": "2"})])]
    with Store.open(where) as store:
        store.put("users", source)
        store.correct("ann", {"age": "45-54", "kids": None, "diet": "vegan", "time_zone": "Europe/Paris"})
        store.correct("ann", {"interest:beer": None, "diet": "vegetarian"})
    with Store.open(where) as store:
        corrected = User(
            user_id="ann",
            time_zone="Europe/Paris",
            attributes={"age": "45-54", "diet": "vegetarian"},
            struck=frozenset({"kids", "interest:beer"}),
        )
        assert store.user("ann") == corrected
        store.put("users", source)
        assert store.user("ann") == corrected
        assert list(store.users()) == source, "what sources say is kept as it was"
        store.withdraw("ann", ["age", "kids", "interest:beer", "time_zone", "unknown"])
        store.withdraw("ann", [])
        assert store.user("ann") == User(
            user_id="ann", time_zone="Asia/Tokyo", attributes={"diet": "vegetarian", "age": "35-44", "kids": "2"}
        )
        store.correct("ann", {"time_zone": None})
        assert store.user("ann") == User(user_id="ann", attributes={"diet": "vegetarian", "age": "35-44", "kids": "2"})


def test_who_is_known_by_events_alone_can_correct_too(store: Store) -> None:
    append(store, bought("tea", user_id="bob"))
    assert (store.knows("bob"), store.knows("Bob"), store.user("bob")) == (True, False, None)
    store.correct("bob", {})
    assert store.user("bob") is None
    store.correct("bob", {"diet": "vegan"})
    assert store.user("bob") == User(user_id="bob", attributes={"diet": "vegan"})
    store.put("users", [batch("users", [User(user_id="idle")])])
    assert store.knows("idle")
    assert [store.n_events("bob", at(hours)) for hours in (0, 1)] == [0, 1]


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("", "x", "empty"),
        ("", None, "empty"),
        ("a\0", "x", "NUL"),
        ("a", "\0", "NUL"),
        ("a", "\ud800", "Unicode"),
        ("a|b", "x", "cannot be the name"),
        ("a\nb", "x", "cannot be the name"),
        ("<|im_start|>", "x", "cannot be the name"),
        ("n" * 41, "x", "cannot be the name"),
        ("a", " \n ", "no value"),
    ],
)
def test_what_could_not_be_shown_is_refused_and_nothing_is_kept(
    store: Store, key: str, value: str | None, says: str
) -> None:
    with pytest.raises(DataError, match=says):
        store.correct("ann", {"fine": "x", key: value})
    assert store.corrections("ann") == {}


# Forgetting


def test_forgetting_deletes_every_trace_of_a_person_and_of_nobody_else(store: Store) -> None:
    append(
        store, bought("tea", event_id="e1"), bought("milk", event_id="e2"), bought("tea", user_id="bob", event_id="e3")
    )
    append(store, bought("coffee", event_id="e1"))
    store.put("users", [batch("users", [User(user_id="ann"), User(user_id="bob")])])
    people = [("ann", "bob"), ("bob", "ann"), ("bob", "eve")]
    store.put("edges", [batch("edges", [Edge(from_id=a, to_id=b) for a, b in people])])
    for who in ("ann", "bob"):
        store.correct(who, {"age": "45-54", "interest:tea": None})
    assert store.forget("ann") == Forgotten(n_events=3, n_users=1, n_edges=2, n_corrections=2)
    assert store.forget("ann") == Forgotten(n_events=0, n_users=0, n_edges=0, n_corrections=0)
    assert store.corrections("ann") == {}
    assert store.corrections("bob") == {"age": "45-54", "interest:tea": None}
    assert bag(store) == []
    assert store.user("ann") is None
    assert store.user_ids() == ["bob"]
    assert bag(store, "bob") == ["tea"]
    assert list(store.edges()) == [batch("edges", [Edge(from_id="bob", to_id="eve")])]
    assert store.summary().n_superseded == 0
    assert append(store, bought("tea", event_id="e1")) == Appended(n_new=1)


def test_what_friends_took_is_told_each_item_once_and_nobody_is_named(store: Store) -> None:
    edges = [
        Edge(from_id="ann", to_id="bob", kind="follows"),
        Edge(from_id="ann", to_id="bob", kind="likes", weight=0.5),
        Edge(from_id="ann", to_id="cat", weight=3.0),
        Edge(from_id="ann", to_id="dan", weight=0.0),
        Edge(from_id="eve", to_id="ann"),
        Edge(from_id="ann", to_id="ann"),
    ]
    store.put("edges", [batch("edges", edges)])
    events = [bought(item, 30, user_id=who) for who in ("ann", "dan", "eve", "zoe") for item in ("tea", "milk", "figs")]
    events += [bought("tea", hours, user_id="bob") for hours in (24, 48)]
    events += [bought("figs", 72, user_id="bob"), bought("tea", 96, user_id="cat")]
    store.append([batch("events", events)], source="test")
    early = [Taken(item_id="figs", at=at(72), weight=1.5), Taken(item_id="tea", at=at(48), weight=1.5)]
    late = [Taken(item_id="tea", at=at(96), weight=3.0)]
    assert store.taken_by_friends("ann", at(96), days=10) == early
    assert store.taken_by_friends("ann", at(97), days=10) == late + early
    assert store.taken_by_friends("ann", at(97), days=1) == late
    assert store.taken_by_friends("ann", at(97), days=10, max_friends=1) == late, "the heaviest relation"
    assert store.taken_by_friends("ann", at(97), days=10, max_each=1) == [*late, early[0]], "the latest of each"
    assert store.without("action", "buy").taken_by_friends("ann", at(97), days=10) == []
    assert store.taken_by_friends("nobody", at(97), days=10) == []
    with pytest.raises(DataError, match="no time zone"):
        store.taken_by_friends("ann", at(96).replace(tzinfo=None), days=10)
    store.forget("bob")
    assert store.taken_by_friends("ann", at(97), days=10) == late


def test_what_friends_refused_or_looked_at_they_did_not_take(where: str) -> None:
    events = [bought("tea", 1, user_id="bob")]
    events += [replace(bought("milk", 2, user_id="bob"), action=action) for action in ("dislike", "view")]
    with Store.open(where, actions=Actions.of()) as store:
        store.put("edges", [batch("edges", [Edge(from_id="ann", to_id="bob")])])
        append(store, *events)
        assert [one.item_id for one in store.taken_by_friends("ann", at(3), days=10)] == ["tea"]


def test_no_byte_of_a_forgotten_person_stays_in_the_file(tmp_path: Path) -> None:
    """People's rows of many lengths, in random order and corrected, so that pages are split again and again."""
    rng = random.Random(2)
    people = [f"person-{n:03d}-marker" for n in range(60)]

    def files() -> bytes:
        return b"".join(path.read_bytes() for path in tmp_path.iterdir())

    with Store.open(tmp_path / "store.db") as store:
        for _ in range(6):
            events = [
                bought("i" * rng.randrange(600), rng.random(), user_id=who, event_id=f"{who}-{rng.randrange(60)}")
                for who in rng.choices(people, k=1500)
            ]
            append(store, *events)
            users = [User(user_id=who, attributes={"k": "v" * rng.randrange(500)}) for who in people]
            store.put("users", [batch("users", users)])
            for who in people:
                store.correct(who, {"about": who * rng.randrange(1, 20)})
        for who in people[:40]:
            assert who.encode() in files()
            store.forget(who)
            assert who.encode() not in files()
        assert people[40].encode() in files()


def test_forgetting_says_when_a_reader_keeps_old_pages(tmp_path: Path) -> None:
    with Store.open(f"sqlite:///{tmp_path}/store.db?timeout=0.1") as store:
        append(store, *(bought(str(n), n) for n in range(20_001)))
        stream = store.events()
        next(stream)
        with pytest.raises(StoreError, match="a reader still keeps old pages") as caught:
            store.forget("ann")
        assert caught.value.hint is not None
        stream.close()
        assert store.forget("ann") == Forgotten(n_events=0, n_users=0, n_edges=0, n_corrections=0)
        assert b"ann" not in (tmp_path / "store.db-wal").read_bytes()


# What may not enter


def change(**columns: object) -> pa.RecordBatch:
    """Two good events, the second with some columns changed."""
    row = batch("events", [bought("tea", event_id="e1")]).to_pylist()[0]
    return pa.RecordBatch.from_pylist([row, {**row, "event_id": "e2", **columns}], schema=SCHEMAS["events"])


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"value": float("nan")}, "row 2 of a batch of events: value is not a finite number"),
        ({"latitude": float("inf")}, "row 2 of a batch of events: latitude is not a finite number"),
        ({"longitude": float("-inf")}, "row 2 of a batch of events: longitude is not a finite number"),
        ({"user_id": None}, "row 2 of a batch of events: user_id is missing"),
        ({"at": None}, "row 2 of a batch of events: at is missing"),
        ({"item_id": "a\0b"}, "row 2 of a batch of events: item_id contains a NUL character"),
        ({"extra": "rain"}, "row 2 of a batch of events: extra is not a JSON object"),
        ({"extra": "[1]"}, "row 2 of a batch of events: extra is not a JSON object"),
    ],
)
def test_a_bad_row_is_refused_by_name(store: Store, columns: dict[str, object], message: str) -> None:
    with pytest.raises(DataError, match=message):
        store.append([change(**columns)], source="shop")
    assert store.summary().n_events == 0


def test_an_instant_no_datetime_can_say_is_refused(store: Store) -> None:
    rows = change()
    far = pa.array([0, 2**62]).cast(SCHEMAS["events"].field("at").type)
    with pytest.raises(DataError, match="row 2 of a batch of events: at lies outside the years 1 to 9999"):
        store.append([rows.set_column(3, SCHEMAS["events"].field("at"), far)], source="shop")


def test_text_that_is_not_utf8_is_refused(store: Store) -> None:
    broken = pa.StringArray.from_buffers(2, pa.array([0, 1, 2], pa.int32()).buffers()[1], pa.py_buffer(b"\xff\xfe"))
    with pytest.raises(DataError, match="damaged"):
        store.append([change().set_column(1, SCHEMAS["events"].field("user_id"), broken)], source="shop")


def test_a_foreign_schema_is_refused(store: Store) -> None:
    with pytest.raises(DataError, match=r"should have user_id: string, no user: string") as caught:
        store.append([change().rename_columns(["event_id", "user", *SCHEMAS["events"].names[2:]])], source="shop")
    assert "SCHEMAS" in str(caught.value.hint)
    naive = change().drop_columns("at").append_column("at", pa.array([NOON.replace(tzinfo=None)] * 2))
    with pytest.raises(DataError, match=r"should have at: timestamp\[us, tz=UTC\], no at: timestamp\[us\]"):
        store.append([naive], source="shop")
    with pytest.raises(DataError, match="row 1 of a batch of edges: weight is not a finite number"):
        store.put("edges", [batch("edges", [Edge(from_id="a", to_id="b", weight=float("nan"))])])


# Databases that fail


def test_a_file_that_is_no_database_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("Dear diary, " * 500)
    with pytest.raises(StoreError, match="not a database") as caught:
        Store.open(path)
    assert "right path" in str(caught.value.hint)
    assert path.read_text() == "Dear diary, " * 500


def test_somebody_elses_database_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "places.db"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE bookmarks (url TEXT)")
    connection.close()
    with pytest.raises(StoreError, match="already holds tables that are not genrec's: bookmarks"):
        Store.open(path)


def test_a_postgres_database_can_be_shared_unless_names_clash(postgres: str) -> None:
    import psycopg

    shared, clashing = new_database(postgres), new_database(postgres)
    with psycopg.connect(shared, autocommit=True) as connection:
        connection.execute("CREATE TABLE bookmarks (url TEXT)")
    with Store.open(shared) as store:
        append(store, bought("tea"))
        assert bag(store) == ["tea"]
    with psycopg.connect(clashing, autocommit=True) as connection:
        connection.execute("CREATE TABLE users (name TEXT)")
    with pytest.raises(StoreError, match="already holds tables that are not genrec's: users") as caught:
        Store.open(clashing)
    assert "schema of genrec's own" in str(caught.value.hint)
    with psycopg.connect(clashing, autocommit=True) as connection:
        connection.execute("CREATE SCHEMA genrec")
    with Store.open(f"{clashing}?options=-csearch_path%3Dgenrec") as store:
        append(store, bought("tea"))
        assert bag(store) == ["tea"]


def test_a_newer_schema_is_refused_with_advice(where: str) -> None:
    with Store.open(where) as store, store._engine.begin() as connection:
        connection.execute(text(f"UPDATE {VERSION_TABLE} SET version_num = '9999'"))
    with pytest.raises(StoreError, match="written by a newer genrec") as caught:
        Store.open(where)
    assert "--upgrade genrec" in str(caught.value.hint)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="unable to open database file") as caught:
        Store.open(tmp_path / "none" / "store.db")
    assert "Create the folder" in str(caught.value.hint)


def test_a_full_disk_loses_nothing_that_was_reported(tmp_path: Path) -> None:
    reported = Appended()

    def report(counts: Appended) -> None:
        nonlocal reported
        reported += counts

    def allow_200_pages(connection: sqlite3.Connection, *_: object) -> None:
        connection.execute("PRAGMA max_page_count = 200")

    batches = [batch("events", [bought(f"item {n}", n) for n in range(i, i + 100)]) for i in range(0, 20_000, 100)]
    with Store.open(tmp_path / "store.db") as store:
        sql_event.listen(store._engine, "checkout", allow_200_pages)
        with pytest.raises(StoreError, match="disk is full") as caught:
            store.append(batches, source="shop", on_batch=report)
        assert "Free some space" in str(caught.value.hint)
    with Store.open(tmp_path / "store.db") as store:
        assert store.summary().n_events == reported.n_new > 0
        assert store.append(batches, source="shop") == Appended(n_new=20_000 - reported.n_new, n_known=reported.n_new)


def test_a_read_only_store_can_be_read(tmp_path: Path) -> None:
    with Store.open(tmp_path / "store.db") as store:
        append(store, bought("tea"))
    with Store.open(f"sqlite:///file:{tmp_path}/store.db?mode=ro&uri=true") as store:
        assert bag(store) == ["tea"]
        with pytest.raises(StoreError, match="readonly") as caught:
            append(store, bought("milk"))
    assert "write permission" in str(caught.value.hint)


def test_a_busy_store_says_so(tmp_path: Path) -> None:
    with Store.open(f"sqlite:///{tmp_path}/store.db?timeout=0.1") as store:
        other = sqlite3.connect(tmp_path / "store.db", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreError, match="locked") as caught:
            append(store, bought("tea"))
        assert "Another process" in str(caught.value.hint)
        other.close()
        assert append(store, bought("tea")) == Appended(n_new=1)


def test_a_damaged_file_is_recognised(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    with Store.open(path) as store:
        append(store, *(bought(str(n), n) for n in range(5000)))
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(40 * 4096)
        file.write(b"\xaa" * (size - 40 * 4096))
    with Store.open(path) as store, pytest.raises(StoreError, match="malformed") as caught:
        read(store.events())
    assert "backup" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("mysql://root@localhost/genrec", "SQLite or PostgreSQL, not in mysql"),
        ("sqlite://", "names no database"),
        ("postgresql://user:secret@localhost", "names no database"),
        ("postgresql://user:secret@localhost:port/genrec", "not a database URL"),
        ("://", "not a database URL"),
    ],
)
def test_a_url_that_cannot_work_is_refused(where: str, message: str) -> None:
    with pytest.raises(StoreError, match=message) as caught:
        Store.open(where)
    assert "secret" not in str(caught.value)


def test_a_server_that_does_not_answer_is_named_without_its_password() -> None:
    pytest.importorskip("psycopg")
    with pytest.raises(StoreError, match=r"ann:.*@127.0.0.1:1/genrec failed") as caught:
        Store.open("postgres://ann:secret@127.0.0.1:1/genrec")
    assert "server is running" in str(caught.value.hint)
    assert "secret" not in str(caught.value)


def test_a_database_that_is_not_there_is_named(postgres: str) -> None:
    with pytest.raises(StoreError, match="does not exist"):
        Store.open(postgres.rsplit("/", 1)[0] + "/nowhere")


def test_a_missing_driver_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(StoreError, match="psycopg") as caught:
        Store.open("postgresql://ann@localhost/genrec")
    assert caught.value.hint == "pip install 'genrec[postgres]'"


def test_the_migrations_make_the_tables_that_queries_expect(store: Store) -> None:
    with store._engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE, "compare_type": True})
        assert compare_metadata(context, metadata) == []


@pytest.mark.parametrize(
    "index", ["events_user (user_id=? AND at<?)", "events_at", "events_id (source_id=? AND event_id=?)"]
)
def test_queries_use_their_index(tmp_path: Path, index: str) -> None:
    from genrec.store.append import _FIND_SQLITE

    plans: list[str] = []

    def explain(
        connection: object, cursor: sqlite3.Cursor, statement: str, parameters: tuple[object, ...], *_: object
    ) -> None:
        if statement.lstrip().startswith("SELECT"):
            plans.extend(row[3] for row in cursor.connection.execute(f"EXPLAIN QUERY PLAN {statement}", parameters))

    with Store.open(tmp_path / "store.db") as store:
        append(store, bought("tea"))
        sql_event.listen(store._engine, "before_cursor_execute", explain)
        bag(store)
        read(store.events())
        with store._engine.begin() as connection:
            connection.exec_driver_sql(_FIND_SQLITE, ("[]", 1))
    assert any(index in plan for plan in plans), plans
    assert not any("TEMP B-TREE" in plan for plan in plans), plans


# Other processes


def start(where: str, n_events: int, batch_size: int, ids: str) -> subprocess.Popen[str]:
    root = SCRIPT.parents[2]
    command = [sys.executable, str(SCRIPT), where, str(n_events), str(batch_size), ids]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def finish(process: subprocess.Popen[str]) -> None:
    _, errors = process.communicate()
    assert process.returncode == 0, errors


@pytest.mark.parametrize("ids", ["ids", "no-ids"])
def test_two_processes_append_the_same_data_at_once(where: str, ids: str) -> None:
    """On a store that neither has made yet."""
    for process in [start(where, 4000, 500, ids) for _ in range(2)]:
        finish(process)
    with Store.open(where) as store:
        assert store.summary().n_events == 4000
        assert store.summary().n_superseded == 0


def kill_and_rerun(where: str, n_kills: int, n_events: int, batch_size: int) -> None:
    """Kill an import at random points, each time running it again; then let it finish."""
    rng = random.Random(7)
    stored = 0
    for _ in range(n_kills):
        process = start(where, n_events, batch_size, "no-ids")
        assert process.stdout is not None
        assert process.stderr is not None
        reported = 0
        for _ in range(stored // batch_size + rng.randrange(9)):  # let it get somewhat further than the one before …
            reported = int(line) if (line := process.stdout.readline().strip()).isdigit() else reported
        with suppress(subprocess.TimeoutExpired):
            process.wait(timeout=rng.random() / 50)  # … and somewhere into a batch
        process.kill()
        assert process.wait() == -signal.SIGKILL  # it was not done yet
        reported = max([reported, *(int(line) for line in process.stdout if line.strip().isdigit())])
        process.stdout.close()
        process.stderr.close()
        with Store.open(where) as store:
            stored = store.summary().n_events
        assert reported <= stored < n_events
    finish(start(where, n_events, batch_size, "no-ids"))
    with Store.open(where) as store:
        assert store.summary().n_events == n_events
        seen = Counter((event.user_id, event.item_id, event.at) for event in read(store.events()))
        assert set(seen.values()) == {2}  # every row of the table has one identical twin


def test_a_killed_import_is_finished_by_running_it_again(where: str) -> None:
    kill_and_rerun(where, n_kills=3, n_events=20_000, batch_size=200)


@pytest.mark.slow
def test_an_import_killed_twenty_times_is_finished_by_running_it_again(where: str) -> None:
    kill_and_rerun(where, n_kills=20, n_events=150_000, batch_size=1_500)
