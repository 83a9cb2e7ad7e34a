"""Habits: what speaks for an item, one thing at a time, and that the weights find out which."""

from __future__ import annotations

from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np
import pytest

from genrec.catalog import Catalog
from genrec.errors import ConfigError
from genrec.events import Context, Event, Item, batch
from genrec.history import History, moments
from genrec.priors.blend import Blend
from genrec.priors.repeat import FEATURES, Repeat

NEW_YORK = ZoneInfo("America/New_York")
MONDAY = datetime(2025, 6, 2, tzinfo=NEW_YORK)
CATALOG = Catalog.of([Item(item_id=name, title=name) for name in ("coffee", "beer", "bread", "tea", "cake")])
COFFEE, BEER, BREAD, TEA, CAKE = range(5)


def taken(user: str, item: str, day: float, hour: float = 12, zone: str | None = "America/New_York") -> Event:
    return Event(user_id=user, item_id=item, at=at(day, hour), context=Context(time_zone=zone))


def at(day: float, hour: float = 12) -> datetime:
    return MONDAY + timedelta(days=day, hours=hour)


def likely(prior: Repeat, own: list[Event], now: datetime, zone: str | None = "America/New_York") -> np.ndarray:
    past = moments(sorted((event for event in own if event.at < now), key=lambda event: event.at))
    history = History(user_id=own[0].user_id if own else "stranger", user=None, at=now, moments=past)
    return np.exp(prior.log_mass(history, Context(time_zone=zone)))


def unfitted(events: list[Event], **options: object) -> Repeat:
    prior = Repeat(n_fit=0, **options)  # type: ignore[arg-type]
    prior.fit(CATALOG, [batch("events", events)])
    return prior


DAILY = [one for day in range(5) for one in (taken("ann", "coffee", day, 8), taken("ann", "beer", day, 20))]
"""Coffee in the morning and beer in the evening, Monday to Friday."""


def test_the_hour_decides_between_habits() -> None:
    prior = unfitted(DAILY)
    morning, evening = likely(prior, DAILY, at(7, 8)), likely(prior, DAILY, at(7, 20))
    assert morning[COFFEE] > morning[BEER]
    assert evening[BEER] > evening[COFFEE]
    assert min(morning[COFFEE], evening[BEER]) > 10 * morning[TEA]


def test_midnight_is_no_border() -> None:
    own = [taken("ann", "beer", day, 23.75) for day in range(3)] + [taken("ann", "coffee", day, 12) for day in range(3)]
    found = likely(unfitted(own), own, at(7, 0.25))
    assert found[BEER] > found[COFFEE]


def test_the_clock_is_the_one_on_the_wall() -> None:
    prior = unfitted(DAILY)
    paris = datetime(2025, 6, 9, 8, tzinfo=ZoneInfo("Europe/Paris"))  # where it is 2 in the morning in New York
    abroad = likely(prior, DAILY, paris, "Europe/Paris")
    assert abroad[COFFEE] > abroad[BEER]
    unknown = [taken("ann", event.item_id, 0, zone=None) for event in DAILY]
    unknown = [Event(user_id="ann", item_id=old.item_id, at=old.at) for old in DAILY]
    np.testing.assert_allclose(likely(unfitted(unknown), unknown, at(7, 8)), likely(prior, DAILY, at(7, 8)))


def test_a_weekend_is_like_a_weekend() -> None:
    own = [taken("ann", "cake" if day % 7 >= 5 else "bread", day, 10) for day in range(14)]
    prior = unfitted(own)
    saturday, monday = likely(prior, own, at(19, 10)), likely(prior, own, at(21, 10))
    assert saturday[CAKE] / saturday[BREAD] > 1.2 * monday[CAKE] / monday[BREAD]


def test_what_was_long_ago_fades() -> None:
    own = [taken("ann", "bread", day) for day in (0, 1, 2)] + [taken("ann", "cake", day) for day in (200, 201, 202)]
    own.append(taken("ann", "tea", 203))
    found = likely(unfitted(own), own, at(204))
    assert found[CAKE] > 1.5 * found[BREAD]
    forgetful, faithful = (likely(unfitted(own, half_life=days), own, at(204)) for days in (1.0, 1e6))
    assert forgetful[CAKE] / forgetful[BREAD] > faithful[CAKE] / faithful[BREAD]


def test_what_came_before_tells_what_comes() -> None:
    order = ("coffee", "cake", "beer", "bread")  # one after the other, at any hour
    own = [taken("ann", item, 4 * turn + i, 9 + 3 * turn) for turn in range(3) for i, item in enumerate(order)]
    own.append(taken("ann", "coffee", 12, 15))
    found = likely(unfitted(own), own, at(13, 4))
    assert found[CAKE] == max(found[[CAKE, BEER, BREAD]])
    others = [taken(f"u{i}", item, i + n) for i in range(9) for n, item in enumerate(("coffee", "tea"))]
    stranger = [taken("new", "coffee", 0)]
    found = likely(unfitted(others), stranger, at(30))
    assert found[TEA] > found[CAKE], "it did for others"


def test_where_the_moment_is_unknown_its_time_tells_nothing() -> None:
    prior = unfitted(DAILY, clock=False)
    np.testing.assert_allclose(likely(prior, DAILY, at(7, 8)), likely(prior, DAILY, at(7, 20)))
    np.testing.assert_allclose(likely(prior, DAILY, at(7, 8)), likely(prior, DAILY, at(300, 20)))


def test_where_the_person_is_decides_between_habits_if_it_is_to_count() -> None:
    where = {"office": "coffee", "pub": "beer"}
    own = [
        Event(user_id="ann", item_id=item, at=at(day, 12), context=Context(place=place))
        for day, (place, item) in enumerate([*where.items()] * 5)
    ]
    history = History(user_id="ann", user=None, at=at(11), moments=moments(own))

    def beer(there: str | None, **options: object) -> float:
        likely = unfitted(own, **options).log_mass(history, Context(place=there))
        return float(likely[BEER] - likely[COFFEE])

    assert beer("pub", place=True) > beer(None, place=True) + 0.1 > beer("office", place=True) + 0.2
    assert beer("", place=True) == beer(None, place=True)
    assert beer("pub") == beer("office") == beer("pub", place=False)
    assert beer("pub", place=True, without=("place",)) == beer(None, place=True)


def test_a_place_that_came_after_fitting_is_like_itself_alone() -> None:
    places = ("office", "office", "office", "pub", "beach", "beach")
    own = [
        Event(user_id="ann", item_id="beer" if place != "office" else "coffee", at=at(n), context=Context(place=place))
        for n, place in enumerate(places)
    ]
    prior = unfitted(own[:4], place=True)
    history = History(user_id="ann", user=None, at=at(11), moments=moments(own))
    likely = [prior.log_mass(history, Context(place=there)) for there in ("beach", None, "moon", "office")]
    beach, unknown, moon, office = (float(one[BEER] - one[COFFEE]) for one in likely)
    assert beach > unknown + 0.1 > moon + 0.1, "where nobody was is known to be another place"
    assert moon > office + 0.1


def test_the_weights_find_out_whether_places_decide_also_in_a_blend() -> None:
    rng, names = np.random.default_rng(0), ("coffee", "beer", "bread", "tea", "cake")
    events = []
    for person in range(60):
        for day in range(8):
            place = f"place {rng.integers(5)}"
            item = names[int(place[-1]) if rng.random() < 0.9 else int(rng.integers(5))]
            events.append(Event(user_id=f"u{person}", item_id=item, at=at(day), context=Context(place=place)))
    own = [one for one in events if one.user_id == "u0"]
    history = History(user_id="u0", user=None, at=at(9), moments=moments(own))
    gains = []
    for prior in (Repeat(place=True), Blend.of({"repeat": Repeat(place=True)}), Repeat()):
        prior.fit(CATALOG, [batch("events", events)])
        told, other = (prior.log_mass(history, Context(place=f"place {BEER if t else TEA}")) for t in (True, False))
        gains.append(float(told[BEER] - other[BEER]))
        restored = Blend.of({"repeat": Repeat(place=True)}) if isinstance(prior, Blend) else Repeat(place=prior.place)
        restored.restore(CATALOG, prior.state() or {})
        np.testing.assert_array_equal(restored.log_mass(history, Context(place=f"place {BEER}")), told)
    alone, blended, deaf = gains
    assert alone > 1
    assert blended > 0.7 * alone
    assert deaf == 0


def test_what_it_does_without_tells_it_nothing() -> None:
    week = [taken("ann", "cake" if day % 7 >= 5 else "bread", day, 10) for day in range(14)]
    hours, days = (DAILY, at(7, 8), at(7, 20)), (week, at(19, 10), at(21, 10))
    moments_of = {"part_of_day": hours, "hour": hours, "weekday": days, "weekend": days}
    for feature, (own, one, other) in moments_of.items():
        knowing, deaf = (unfitted(own, half_life=1e6, without=without) for without in (("since",), ("since", feature)))
        assert np.abs(np.log(likely(knowing, own, one) / likely(knowing, own, other))).max() > 0.1
        np.testing.assert_allclose(likely(deaf, own, one), likely(deaf, own, other), rtol=1e-3)
    soon, late = (likely(unfitted(DAILY, half_life=1e6), DAILY, when) for when in (at(4, 21), at(7, 21)))
    assert soon[BEER] < late[BEER], "what was taken an hour ago"
    soon, late = (
        likely(unfitted(DAILY, half_life=1e6, without=("since", "weekday")), DAILY, when)
        for when in (at(4, 21), at(7, 21))
    )
    np.testing.assert_allclose(soon, late, rtol=1e-3)


def test_a_basket_has_no_order() -> None:
    names = ("bread", "tea", "cake")
    own = [taken("ann", name, day) for day in range(4) for name in names]
    found = likely(unfitted(own), own, at(5))
    np.testing.assert_allclose(found[[BREAD, TEA, CAKE]], found[BREAD])


def test_the_weights_find_out_whether_people_do_things_again() -> None:
    rng = np.random.default_rng(0)
    hours = {"coffee": 8, "beer": 20, "bread": 10, "tea": 16, "cake": 14}
    habits = [
        taken(f"u{i}", item, day, hours[item] + rng.normal() / 4)
        for i in range(60)
        for mine in [rng.permutation(list(hours))[:2]]
        for day in range(10)
        for item in mine
    ]
    prior = Repeat()
    prior.fit(CATALOG, [batch("events", habits)])
    assert likely(prior, DAILY, at(7, 8))[COFFEE] > 0.9
    assert prior.weights.shape == (1, len(FEATURES))
    once = [taken(f"u{i}", item, n) for i in range(200) for n, item in enumerate(rng.permutation(list(hours)))]
    prior.fit(CATALOG, [batch("events", once)])
    assert likely(prior, DAILY, at(7, 8))[[COFFEE, BEER]].sum() < 0.1


def test_options_without_sense_are_refused() -> None:
    with pytest.raises(ConfigError, match="half_life above 0"):
        Repeat(half_life=0)
    with pytest.raises(ConfigError, match="cannot do without") as refused:
        Repeat(without=("hours",))
    assert "part_of_day" in (refused.value.hint or "")
