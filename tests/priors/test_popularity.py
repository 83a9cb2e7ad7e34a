"""Popularity × own frequency: numbers that can be checked by hand, and nothing from the future."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from genrec.catalog import Catalog
from genrec.errors import ConfigError
from genrec.events import Context, Event, Item, batch
from genrec.history import History, Moment
from genrec.plugins import Registry
from genrec.priors.popularity import Popularity

DAY = timedelta(days=1)
START = datetime(2025, 3, 1, tzinfo=UTC)
CATALOG = Catalog.of([Item(item_id=name, title=name) for name in ("milk", "bread", "beer")])


def fitted(*taken: tuple[str, float], catalog: Catalog = CATALOG, **options: float) -> Popularity:
    """A prior that saw each ``(item, day)``."""
    prior = Popularity(**options)
    events = [Event(user_id="x", item_id=item, at=START + day * DAY) for item, day in taken]
    prior.fit(catalog, [batch("events", events[::2]), batch("events", events[1::2])])
    return prior


def history(at_day: float, *own: str) -> History:
    at = START + at_day * DAY
    moments = tuple(Moment(at=at - DAY, context=Context(), item_ids=(item,)) for item in own)
    return History(user_id="ann", user=None, at=at, moments=moments)


def probabilities(prior: Popularity, past: History) -> list[float]:
    return [float(p) for p in np.exp(prior.log_mass(past, Context()))]


def test_a_stranger_gets_popularity() -> None:
    prior = fitted(("milk", 1), ("milk", 2), ("bread", 3), floor=1.0)
    assert probabilities(prior, history(9)) == pytest.approx([3 / 6, 2 / 6, 1 / 6])


def test_own_counts_pull_with_the_weight_of_the_strength() -> None:
    prior = fitted(("milk", 1), ("milk", 2), ("bread", 3), floor=1.0, strength=6.0)
    # (own + 6 · popularity) / (2 + 6), popularity as above and beer bought twice
    assert probabilities(prior, history(9, "beer", "beer")) == pytest.approx([3 / 8, 2 / 8, 3 / 8])


def test_popularity_is_that_of_the_moment() -> None:
    prior = fitted(("beer", 5), ("milk", 1), ("beer", 4), ("beer", 3), floor=1.0)
    assert probabilities(prior, history(0)) == pytest.approx([1 / 3, 1 / 3, 1 / 3])
    assert probabilities(prior, history(2)) == pytest.approx([2 / 4, 1 / 4, 1 / 4])
    assert probabilities(prior, history(9)) == pytest.approx([2 / 7, 1 / 7, 4 / 7])
    assert probabilities(prior, history(2)) == pytest.approx([2 / 4, 1 / 4, 1 / 4])  # going back in time


def test_an_event_at_the_very_instant_is_not_known_yet() -> None:
    prior = fitted(("beer", 5), floor=1.0)
    assert probabilities(prior, history(5)) == pytest.approx([1 / 3, 1 / 3, 1 / 3])


def test_the_instant_counts_not_the_clock_it_is_read_from() -> None:
    from zoneinfo import ZoneInfo

    prior = fitted(("beer", 5), floor=1.0)
    past = history(5)
    elsewhere = History(user_id="ann", user=None, at=past.at.astimezone(ZoneInfo("Asia/Tokyo")), moments=())
    assert probabilities(prior, elsewhere) == pytest.approx([1 / 3, 1 / 3, 1 / 3])


def test_items_that_the_catalogue_lacks_are_passed_over() -> None:
    prior = fitted(("gone", 1), ("milk", 2), floor=1.0)
    assert probabilities(prior, history(9, "gone")) == pytest.approx([2 / 4, 1 / 4, 1 / 4])


def test_without_any_event_all_items_are_alike() -> None:
    assert probabilities(fitted(), history(1)) == pytest.approx([1 / 3, 1 / 3, 1 / 3])


@pytest.mark.parametrize("options", [{"strength": 0.0}, {"floor": 0.0}])
def test_options_without_sense_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="above 0"):
        Popularity(**options)


def test_core_registers_it_through_the_plugin_door() -> None:
    assert Registry().build("priors", "popularity", {"strength": 7.0}) == Popularity(strength=7.0)


TAKEN = st.lists(st.tuples(st.sampled_from(["milk", "bread", "beer", "gone"]), st.floats(0, 100)), max_size=40)
OWN = st.lists(st.sampled_from(["milk", "bread", "beer", "gone"]), max_size=20)


@given(TAKEN, OWN, st.floats(0, 100), st.floats(0.01, 1e6), st.floats(1e-6, 10))
def test_it_is_a_distribution_with_mass_everywhere(
    taken: list[tuple[str, float]], own: list[str], at_day: float, strength: float, floor: float
) -> None:
    log_mass = fitted(*taken, strength=strength, floor=floor).log_mass(history(at_day, *own), Context())
    assert log_mass.shape == (3,)
    assert log_mass.dtype == np.float64
    assert np.isfinite(log_mass).all()
    assert np.exp(log_mass).sum() == pytest.approx(1.0, abs=1e-12)


@given(TAKEN, TAKEN, st.floats(0, 100), st.lists(st.floats(0, 100), max_size=4))
def test_the_future_changes_nothing(
    past: list[tuple[str, float]], future: list[tuple[str, float]], at_day: float, asked_before: list[float]
) -> None:
    past = [(item, day) for item, day in past if day < at_day]
    future = [(item, day + at_day) for item, day in future]
    with_future = fitted(*past, *future)
    for day in asked_before:  # whatever was asked before must not show in the answer
        with_future.log_mass(history(day), Context())
    np.testing.assert_array_equal(
        with_future.log_mass(history(at_day, "beer"), Context()),
        fitted(*past).log_mass(history(at_day, "beer"), Context()),
    )


def test_items_added_after_fitting_have_the_floor_and_their_own_counts() -> None:
    catalog = Catalog.of([Item(item_id=name, title=name) for name in ("milk", "bread")])
    prior = fitted(("milk", 1), ("milk", 2), ("bread", 3), catalog=catalog, floor=1.0, strength=6.0)
    assert probabilities(prior, history(9)) == pytest.approx([3 / 5, 2 / 5])
    catalog.add([Item(item_id="beer", title="beer")])
    assert probabilities(prior, history(9)) == pytest.approx([3 / 6, 2 / 6, 1 / 6])
    assert probabilities(prior, history(9, "beer", "beer")) == pytest.approx([3 / 8, 2 / 8, 3 / 8])
    assert probabilities(prior, history(2, "beer")) == pytest.approx([2 * 6 / 4 / 7, 1 * 6 / 4 / 7, (1 + 6 / 4) / 7])
