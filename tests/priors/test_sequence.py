"""Transitions, titles, popularity and repetition: what each teaches, and nothing from the future or from oneself."""

from __future__ import annotations

from collections.abc import Sequence as Many
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from genrec.catalog import Catalog
from genrec.errors import ConfigError
from genrec.events import Context, Event, Item, batch
from genrec.history import History, Moment
from genrec.priors.sequence import FEATURES, START, VISIT, Sequence

DAY = timedelta(days=1)
BEGIN = datetime(2025, 3, 1, tzinfo=UTC)
TITLES = ("red wool socks", "green wool socks", "hammer", "nails", "paint", "brush", "tea", "cup", "radio", "lamp")
CATALOG = Catalog.of([Item(item_id=name, title=name) for name in TITLES])


def fitted(people: dict[str, Many[str]], **options: float) -> Sequence:
    prior = Sequence(**options)  # type: ignore[arg-type]
    events = [
        Event(user_id=user, item_id=item, at=BEGIN + i * DAY)
        for user, items in people.items()
        for i, item in enumerate(items)
    ]
    prior.fit(CATALOG, [batch("events", events[::2]), batch("events", events[1::2])])
    return prior


def history(*items: str, user: str = "new", at_day: float = 99) -> History:
    at = BEGIN + at_day * DAY
    moments = tuple(Moment(at=at - (9 - i) * DAY, context=Context(), item_ids=(n,)) for i, n in enumerate(items))
    return History(user_id=user, user=None, at=at, moments=moments)


def best(log_mass: np.ndarray) -> str:
    assert np.exp(log_mass).sum() == pytest.approx(1)
    return TITLES[int(log_mass.argmax())]


def test_what_came_next_for_others_is_likely_next() -> None:
    prior = fitted({f"u{i}": ("hammer", "nails") for i in range(5)} | {f"v{i}": ("paint", "brush") for i in range(5)})
    assert best(prior.log_mass(history("hammer"), Context())) == "nails"
    assert best(prior.log_mass(history("paint"), Context())) == "brush"


def test_a_title_with_the_same_words_is_likely_where_nothing_else_is_known() -> None:
    log_mass = fitted({}).log_mass(history("red wool socks", "tea"), Context())
    others = [i for i, title in enumerate(TITLES) if title not in ("red wool socks", "tea")]
    assert TITLES[max(others, key=lambda i: log_mass[i])] == "green wool socks"


def test_popularity_is_that_of_the_moment_and_transitions_too() -> None:
    prior = fitted({f"u{i}": ("hammer", "tea", "nails") for i in range(6)})
    stranger = prior.log_mass(history(at_day=0.5), Context())
    assert best(stranger) == "hammer"
    assert stranger[6] == pytest.approx(stranger[7]), "nobody has had tea yet"
    early = prior.log_mass(history("hammer", at_day=0.5), Context())
    late = prior.log_mass(history("hammer", at_day=9), Context())
    assert late[6] - late[7] > 2 > early[6] - early[7] == pytest.approx(0)
    np.testing.assert_array_equal(prior.log_mass(history("hammer", at_day=0.5), Context()), early)


def test_what_was_popular_lately_counts_more_and_is_counted_anew_each_time() -> None:
    prior = Sequence(n_fit=0)
    long_ago = [Event(user_id=f"u{i}", item_id="radio", at=BEGIN) for i in range(20)]
    lately = [Event(user_id=f"v{i}", item_id="lamp", at=BEGIN + 500 * DAY) for i in range(20)]
    prior.fit(CATALOG, [batch("events", long_ago + lately)])
    radio, lamp = TITLES.index("radio"), TITLES.index("lamp")
    gap = {}
    for day in (501, 5, 540, 501, 900, 0):
        log_mass = prior.log_mass(history(at_day=day), Context())
        gap[day] = log_mass[lamp] - log_mass[radio]
        held_out = prior.log_mass_held_out(history(at_day=day, user="v0"), Context())
        if day > 500:
            assert held_out[lamp] < log_mass[lamp], "one person less"
    assert gap[501] > gap[540] > gap[900] == pytest.approx(0)
    assert gap[5] < gap[0] == pytest.approx(0), "nothing has happened yet"


def test_held_out_a_prior_has_not_seen_the_person() -> None:
    people = {f"u{i}": ("hammer", "nails") for i in range(4)}
    without = fitted(people, n_fit=0)
    with_ann = fitted(people | {"ann": ("hammer", "tea", "radio", "lamp")}, n_fit=0)
    seen = history("hammer", user="ann")
    np.testing.assert_allclose(
        with_ann.log_mass_held_out(seen, Context()), without.log_mass_held_out(seen, Context()), atol=1e-12
    )
    served = with_ann.log_mass(seen, Context()), without.log_mass(seen, Context())
    np.testing.assert_allclose(*served, atol=1e-12)  # a history speaks for its person, and nothing else does


def test_weights_are_learned_where_there_is_enough_to_learn_from() -> None:
    rng = np.random.default_rng(0)
    assert (fitted({"u": ("tea", "cup")}).weights == START).all()
    again = {f"u{i}": [TITLES[rng.integers(10)]] * 4 for i in range(200)}
    once = {f"u{i}": [TITLES[j] for j in rng.permutation(10)[:5]] for i in range(200)}
    repeats, explores = fitted(again), fitted(once)
    assert np.exp(repeats.log_mass(history("tea", "tea"), Context()))[6] > 0.8
    assert np.exp(explores.log_mass(history("tea", "cup"), Context()))[6] < 0.05
    assert repeats.weights.shape == START.shape == (2, len(FEATURES))


def test_a_visit_goes_on_otherwise_than_the_next_one_begins() -> None:
    rng = np.random.default_rng(0)
    events = [
        Event(user_id=f"u{i}", item_id=item, at=BEGIN + (i % 50 + 7 * visit) * DAY + n * VISIT / 3)
        for i in range(150)
        for mine in [[TITLES[j] for j in rng.permutation(10)[:2]]]
        for visit in range(4)
        for n, item in enumerate(mine)  # the same two things at each visit, never one twice at one
    ]
    prior = Sequence()
    prior.fit(CATALOG, [batch("events", events)])
    moments = history("tea").moments
    tea = TITLES.index("tea")
    at = moments[-1].at + VISIT / 3
    same_visit = replace(history("tea"), at=at)
    next_visit = replace(history("tea"), at=moments[-1].at + 7 * DAY)
    assert np.exp(prior.log_mass(same_visit, Context()))[tea] < 0.1
    assert np.exp(prior.log_mass(next_visit, Context()))[tea] > 0.4


def test_what_is_taken_together_is_learned_from_what_came_before_it() -> None:
    baskets = (("tea", "cup"), ("radio", "lamp"), ("paint", "brush"))
    rng = np.random.default_rng(0)
    events = [
        Event(user_id=f"u{i}", item_id=item, at=BEGIN + (n + i % 7) * DAY)
        for i in range(120)
        for n, b in enumerate(rng.permutation(3))
        for item in baskets[b]
    ]
    prior = Sequence()
    prior.fit(CATALOG, [batch("events", events)])
    basket = replace(history("tea").moments[0], item_ids=("tea", "cup"))
    after = np.exp(prior.log_mass(replace(history("tea"), moments=(basket,)), Context()))
    tea, cup, *others = (TITLES.index(name) for name in ("tea", "cup", "radio", "lamp", "paint", "brush"))
    assert after[[tea, cup]].sum() < 0.2, "what a basket holds does not tell what the next one holds"
    assert after[others].sum() > 0.7


def test_it_bears_little_data_and_items_it_does_not_know() -> None:
    prior = fitted({})
    np.testing.assert_allclose(np.exp(prior.log_mass(history(), Context())), 0.1)
    grown = Catalog.of([Item(item_id=name, title=name) for name in TITLES])
    prior = Sequence()
    prior.fit(grown, [batch("events", [Event(user_id="u", item_id="unknown", at=BEGIN)])])
    grown.row["newcomer"] = 10
    assert len(prior.log_mass(history("newcomer", "unknown", "tea"), Context())) == 10
    with pytest.raises(ConfigError, match="decay in"):
        Sequence(decay=0)


def test_the_order_in_which_a_basket_is_stored_is_not_learned() -> None:
    events = [
        Event(user_id=f"u{i}", item_id=item, at=BEGIN + (i + n) * DAY)
        for i in range(200)
        for n, basket in enumerate((("tea", "cup"), ("radio", "lamp")))
        for item in basket
    ]
    stored, reversed_ = Sequence(n_fit=0), Sequence(n_fit=0)
    stored.fit(CATALOG, [batch("events", events)])
    reversed_.fit(CATALOG, [batch("events", [*reversed(events)])])
    after = history("tea", at_day=400)
    np.testing.assert_array_equal(stored.log_mass(after, Context()), reversed_.log_mass(after, Context()))


def test_without_the_time_since_a_visit_is_like_any_other_time() -> None:
    for without, differs in (((), True), (("since",), False)):
        prior = Sequence(n_fit=0, without=without)
        prior.fit(CATALOG, [])
        prior.weights = np.ones_like(START)
        [last] = history("tea").moments
        soon, late = (
            prior.log_mass(replace(history("tea"), at=last.at + wait * VISIT), Context()) for wait in (0.5, 1.5)
        )
        assert (np.abs(soon - late).max() > 0.1) == differs
