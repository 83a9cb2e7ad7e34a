"""Masks over rows against the definition, item by item; and what changes while they are in use."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from genrec.catalog import Catalog
from genrec.errors import ConfigError
from genrec.events import Item
from genrec.filters import EARTH_KM, Filters

PARIS, LYON = (48.8566, 2.3522), (45.764, 4.8357)

words = st.sampled_from(["a", "b", "c"])
attributes = st.dictionaries(st.sampled_from(["tenant", "colour"]), words) | st.fixed_dictionaries(
    {
        "latitude": st.floats(-90, 90).map(str) | st.sampled_from(["", "north", "nan", "91"]),
        "longitude": st.floats(-180, 180).map(str),
    },
    optional={"tenant": words},
)
items = st.builds(
    lambda category, attributes: Item(item_id="", title="x", category=category, attributes=attributes),
    st.none() | words,
    attributes,
)


def numbered(drawn: list[Item], start: int = 0) -> list[Item]:
    return [Item(**{**vars(item), "item_id": f"i{n}"}) for n, item in enumerate(drawn, start)]


def kilometres(item: Item, near: tuple[float, float]) -> float:
    """By the haversine formula; nowhere is infinitely far."""
    try:
        north, east = float(item.attributes["latitude"]), float(item.attributes["longitude"])
    except (KeyError, ValueError):
        return math.inf
    if not abs(north) <= 90:
        return math.inf
    phi, phi0, delta = math.radians(north), math.radians(near[0]), math.radians(east - near[1])
    h = math.sin((phi - phi0) / 2) ** 2 + math.cos(phi) * math.cos(phi0) * math.sin(delta / 2) ** 2
    return 2 * EARTH_KM * math.asin(min(1.0, math.sqrt(h)))


@given(
    st.lists(items, min_size=1, max_size=20),
    st.lists(items, max_size=6),
    st.sets(words),
    st.dictionaries(st.sampled_from(["tenant", "colour"]), words, max_size=2),
    st.none() | st.tuples(st.floats(-90, 90), st.floats(-180, 180), st.floats(1, 25_000)),
    st.data(),
)
def test_a_mask_is_what_its_words_say(
    first: list[Item],
    more: list[Item],
    categories: set[str],
    where: Mapping[str, str],
    circle: tuple[float, float, float] | None,
    data: st.DataObject,
) -> None:
    near, within_km = (circle[:2], circle[2]) if circle else (None, None)
    catalog = Catalog.of(numbered(first))
    filters = Filters(catalog)
    if data.draw(st.booleans()):
        filters.prepare()
    now = numbered(first)
    for step in range(3):
        if step == 1:  # newcomers, and one that comes again as another
            now += numbered(more, len(now))
            now[0] = Item(item_id="i0", title="x", category="b", attributes={"tenant": "b"})
            catalog.add([*now[len(first) :], now[0]])
        if step == 2:
            catalog.retire(data.draw(st.lists(st.sampled_from(catalog.item_ids), max_size=3)))
        seen = data.draw(st.sets(st.integers(0, len(now) - 1), max_size=3))
        lacking = categories - {item.category for item in now if item.category}
        lacking |= set(where) - {name for item in now for name in item.attributes}
        ask = {"categories": categories, "where": where, "near": near, "within_km": within_km, "without": seen}
        try:
            live = filters.live(len(now), **ask)  # type: ignore[arg-type]
        except ConfigError:
            assert lacking
            return
        expected = [
            row not in seen
            and row not in catalog.retired
            and (not categories or item.category in categories)
            and all(item.attributes.get(name) == value for name, value in where.items())
            and (near is None or within_km is None or kilometres(item, near) <= within_km)
            for row, item in enumerate(now)
        ]
        far = [kilometres(item, near) if near else 0 for item in now]
        doubtful = [within_km is not None and abs(km - within_km) < within_km / 50 for km in far]
        found = np.ones(len(now), bool) if live is None else live
        assert live is None or not live.all()
        np.testing.assert_array_equal(found | doubtful, np.array(expected) | doubtful)


def test_next_door_is_nearer_than_round_the_corner() -> None:
    places = [PARIS, (PARIS[0] + 0.0001, PARIS[1]), (PARIS[0] + 0.001, PARIS[1]), LYON]  # 0, 11 m, 111 m, 392 km
    catalog = Catalog.of(
        Item(item_id=str(n), title="x", attributes={"latitude": str(north), "longitude": str(east)})
        for n, (north, east) in enumerate(places)
    )
    filters = Filters(catalog)
    for within_km, n in ((0.001, 1), (0.02, 2), (0.2, 3), (391, 3), (393, 4)):
        live = filters.live(4, near=PARIS, within_km=within_km)
        assert (4 if live is None else live.sum()) == n


def test_across_the_date_line_and_over_the_pole() -> None:
    places = [(0.0, 179.9), (0.0, -179.9), (89.9, 0.0), (89.9, 180.0)]
    catalog = Catalog.of(
        Item(item_id=str(n), title="x", attributes={"latitude": str(north), "longitude": str(east)})
        for n, (north, east) in enumerate(places)
    )
    filters = Filters(catalog)
    assert filters.live(4, near=(0.0, 180.0), within_km=20).tolist() == [True, True, False, False]  # type: ignore[union-attr]
    assert filters.live(4, near=(89.9, 90.0), within_km=20).tolist() == [False, False, True, True]  # type: ignore[union-attr]


def test_no_condition_is_no_mask_and_rows_beyond_are_passed_over() -> None:
    filters = Filters(Catalog.of(numbered([Item(item_id="", title="x")] * 3)))
    assert filters.live(3) is None
    assert filters.live(2, without=[2]) is None
    assert filters.live(2, without=[1, 2]).tolist() == [True, False]  # type: ignore[union-attr]


def test_what_no_item_has_is_said_with_what_was_meant() -> None:
    catalog = Catalog.of([Item(item_id="1", title="x", category="dairy", attributes={"tenant": "a", "latitude": "1"})])
    filters = Filters(catalog)
    with pytest.raises(ConfigError, match="no item has the category 'diary'") as caught:
        filters.live(1, categories=["diary"])
    assert caught.value.hint == "Did you mean 'dairy'?"
    with pytest.raises(ConfigError, match="no item has the attribute 'shop'") as caught:
        filters.live(1, where={"shop": "a"})
    assert caught.value.hint == "There are: tenant."
    assert not filters.live(1, where={"tenant": "b"}).any()  # type: ignore[union-attr]
