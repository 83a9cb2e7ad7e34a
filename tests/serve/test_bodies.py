"""What clients may send: every field of a query and an event, and an error that names what is wrong."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import fields
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from genrec.events import Context, Event, Item
from genrec.recommendation import Query
from genrec.serve.bodies import MAX_ROWS, EventBody, ItemBody, QueryBody, read_events, read_items, read_queries, schemas
from genrec.serve.errors import ServeError

EVENT = {"user_id": "ann", "item_id": "i-tea", "at": "2025-06-14T08:00-04:00"}


def dumped(value: Any) -> bytes:
    return json.dumps(value).encode()


def wrong(body: bytes, read: Any = lambda body: read_queries(body, k=10)) -> ServeError:
    with pytest.raises(ServeError) as error:
        read(body)
    return error.value


def test_a_query_has_the_fields_of_query_and_an_event_those_of_event_and_context() -> None:
    assert set(QueryBody.model_fields) == {field.name for field in fields(Query)}
    flat = {field.name for value in (Event, Context) for field in fields(value)} - {"context", "weight"}
    assert set(EventBody.model_fields) == flat
    assert set(ItemBody.model_fields) == {field.name for field in fields(Item)}
    assert json.dumps(schemas())


def test_one_query() -> None:
    [query], timeout_s, is_batch = read_queries(dumped({"user_id": "ann"}), k=7)
    assert (query, timeout_s, is_batch) == (Query(user_id="ann", k=7), None, False)
    body = {"user_id": "ann", "at": "2025-06-14", "k": 3, "place": "home", "device": "phone", "exclude_seen": True}
    [query], _, _ = read_queries(
        dumped(body | {"categories": ["a"], "near": [1, 2], "within_km": 3, "position": [4, 5]}), k=7
    )
    assert query == Query(**body, categories=("a",), near=(1, 2), within_km=3, position=(4, 5))  # type: ignore[arg-type]
    [query], timeout_s, _ = read_queries(dumped(body | {"timeout_s": 2}), k=7)
    assert query == Query(**body)  # type: ignore[arg-type]
    assert timeout_s == 2


def test_a_batch_keeps_its_order_and_refuses_one_by_one() -> None:
    body = {"queries": [{"user_id": "ann"}, {"user": "bob"}, {"user_id": "cat", "k": 2}]}
    queries, timeout_s, is_batch = read_queries(dumped(body), k=10)
    assert (queries[0], queries[2]) == (Query(user_id="ann"), Query(user_id="cat", k=2))
    assert isinstance(queries[1], ServeError)
    assert str(queries[1]) == "user_id: Field required; user: there is no such field"
    assert (timeout_s, is_batch) == (None, True)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"user_id": ""}, "user_id"),
        ({"user_id": "x" * 513}, "user_id"),
        ({"user_id": 7}, "user_id"),
        ({"user_id": "ann", "k": 0}, "k: "),
        ({"user_id": "ann", "k": 10_001}, "k: "),
        ({"user_id": "ann", "at": 1750000000}, "at: "),
        ({"user_id": "ann", "timeout_s": 0}, "timeout_s: "),
        ({"queries": []}, "queries: "),
        ({"queries": [3]}, "queries.0: "),
        ({"queries": [{"user_id": "ann"}], "k": 3}, "k: there is no such field"),
        ([], "one JSON object"),
        ("ann", "one JSON object"),
    ],
)
def test_what_is_wrong_is_named(body: Any, message: str) -> None:
    error = wrong(dumped(body))
    assert error.status == 422
    assert message in str(error)


@pytest.mark.parametrize(
    "body", [b"", b"{", b"\xff", b"NaN", b'{"user_id": NaN}', b'"\\ud800"', b"[" * 100_000, b"1" * 9_999, b"{} {}"]
)
def test_what_is_no_json_is_malformed(body: bytes) -> None:
    assert (wrong(body).status, wrong(body).type) == (400, "malformed")
    assert wrong(body, read_events).status == 400


def test_an_error_names_fields_and_never_what_stood_in_them() -> None:
    for secret in ({"user_id": "ann", "k": "s3cret"}, {"user_id": "ann", "at": {"s3cret": 1}}):
        assert "s3cret" not in str(wrong(dumped(secret)).to_dict())


def test_events_one_or_many() -> None:
    whole = {
        "event_id": "e1",
        "action": "buy",
        "value": 2,
        "time_zone": "Europe/Paris",
        "place": "store 31",
        "latitude": 48.9,
        "longitude": 2.3,
        "device": "till",
        "extra": {"weather": "rain"},
    }
    [event], source = read_events(dumped(EVENT | whole | {"source": "tills"}))
    assert source == "tills"
    assert event == Event(
        user_id="ann",
        item_id="i-tea",
        at=datetime(2025, 6, 14, 8, tzinfo=timezone(timedelta(hours=-4))),
        event_id="e1",
        action="buy",
        value=2.0,
        context=Context(
            time_zone="Europe/Paris",
            place="store 31",
            latitude=48.9,
            longitude=2.3,
            device="till",
            extra={"weather": "rain"},
        ),
    )
    events, source = read_events(dumped({"events": [EVENT, EVENT | {"at": "2025-06-14T09:00Z"}]}))
    assert [event.at.astimezone(UTC).hour for event in events] == [12, 9]
    assert source == "api"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"at": "2025-06-14T08:00"}, "events.1.at: Value error, names no time zone"),
        ({"at": "yesterday"}, "events.1.at: Value error, cannot be read"),
        ({"at": 1750000000}, "events.1.at"),
        ({"latitude": 91}, "events.1.latitude"),
        ({"longitude": -181}, "events.1.longitude"),
        ({"time_zone": "Mars/Base"}, "events.1.time_zone: Value error, there is no such time zone"),
        ({"userid": "x"}, "events.1.userid: there is no such field"),
        ({"weight": 0.5}, "events.1.weight: there is no such field"),
        ({"item_id": None}, "events.1.item_id"),
        ({"extra": {"a": 1}}, "events.1.extra.a"),
    ],
)
def test_one_wrong_event_refuses_all(change: dict[str, Any], message: str) -> None:
    error = wrong(dumped({"events": [EVENT, EVENT | change]}), read_events)
    assert error.status == 422
    assert message in str(error)


def test_items_one_or_many() -> None:
    coffee = {"item_id": "i-coffee", "title": "Coffee", "category": "drinks", "attributes": {"roast": "dark"}}
    assert read_items(dumped(coffee)) == [Item(**coffee)]  # type: ignore[arg-type]
    assert [item.title for item in read_items(dumped({"items": [coffee, {"item_id": "x", "title": "X"}]}))] == [
        "Coffee",
        "X",
    ]
    assert "items.1.title" in str(wrong(dumped({"items": [coffee, {"item_id": "x", "title": ""}]}), read_items))
    assert "attributes.n" in str(wrong(dumped(coffee | {"attributes": {"n": 3}}), read_items))


def test_too_many_events() -> None:
    assert "10000" in str(wrong(dumped({"events": [EVENT] * (MAX_ROWS + 1)}), read_events))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
NAMES = st.sampled_from(
    [*QueryBody.model_fields, *EventBody.model_fields, "queries", "events", "items", "timeout_s", "source"]
)


@given(st.binary(max_size=50) | st.dictionaries(NAMES, JSON | st.lists(st.dictionaries(NAMES, JSON))).map(dumped))
def test_any_body_is_read_or_refused(body: bytes) -> None:
    for read in (lambda body: read_queries(body, k=10), read_events, read_items):
        with suppress(ServeError):
            read(body)


def test_in_a_batch_a_query_that_contradicts_itself_is_refused_by_itself() -> None:
    body = dumped({"queries": [{"user_id": "ann"}, {"user_id": "bob", "near": [1, 2]}]})
    queries, _, is_batch = read_queries(body, k=10)
    assert is_batch
    assert isinstance(queries[0], Query)
    assert isinstance(queries[1], ServeError)


def test_names_that_no_database_takes_and_endless_lists_are_refused() -> None:
    assert "user_id" in str(wrong(dumped({"user_id": "a\0b"})))
    assert "candidates" in str(wrong(dumped({"user_id": "ann", "candidates": ["x"] * 10_001})))
