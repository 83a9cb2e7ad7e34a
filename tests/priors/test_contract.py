"""What every prior promises: a distribution, nothing from the future, nothing of oneself where held out."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from genrec.catalog import Catalog
from genrec.errors import ConfigError
from genrec.events import Context, Event, Item, batch
from genrec.history import History, moments
from genrec.plugins import Registry
from genrec.priors.base import Prior
from genrec.priors.blend import Blend
from genrec.priors.saved import load, save

START = datetime(2025, 3, 1, tzinfo=UTC)
TITLES = ("red wool socks", "green wool socks", "hammer", "nails", "tea", "cup")
PLACES = ("shop", "home", None)
NOW = Context(time_zone="Asia/Tokyo", place="shop", latitude=50.5, longitude=8.0)
SINGLE = [name for name in Registry().names("priors") if name != "blend"]
NAMES = [*SINGLE, "blend"]
Taken = tuple[str, str, float]
"""Who took what on which day."""


def made(name: str, **options: object) -> Prior:
    """A prior by name; a blend is one of two others."""
    if name == "repeat":
        options |= {"place": True}
    prior: Prior = Registry().build("priors", name, {} if name == "popularity" else options)
    if isinstance(prior, Blend):
        return Blend.of({single: made(single, **options) for single in ("sequence", "ease")}, **options)  # type: ignore[arg-type]
    return prior


def event(taken: Taken) -> Event:
    user, item, day = taken
    return Event(
        user_id=user,
        item_id=item,
        at=START + timedelta(days=day),
        context=Context(time_zone="Asia/Tokyo" if user == "ann" else None, place=PLACES[int(2 * day) % 3]),
    )


def catalogue(titles: Sequence[str] = TITLES) -> Catalog:
    return Catalog.of(
        [
            Item(item_id=title, title=title, attributes={"latitude": str(50 + n), "longitude": "8"} if n % 3 else {})
            for n, title in enumerate(titles)
        ]
    )


def fitted(name: str, taken: Sequence[Taken], catalog: Catalog | None = None, **options: object) -> Prior:
    prior = made(name, **options)
    events = [event(one) for one in taken]
    prior.fit(catalog or catalogue(), [batch("events", events[::2]), batch("events", events[1::2])])
    return prior


def history(taken: Sequence[Taken], user: str, day: float) -> History:
    """What someone did strictly before a day."""
    own = sorted((event(one) for one in taken if one[0] == user and one[2] < day), key=lambda e: e.at)
    return History(user_id=user, user=None, at=START + timedelta(days=day), moments=moments(own))


def everyday(n_people: int = 40, n: int = 6) -> list[Taken]:
    """People who take the items in turn, some of them two at once, at all hours."""
    return [
        (f"u{person}", TITLES[(person + i + also) % len(TITLES)], i * 1.3 + person / 7)
        for person in range(n_people)
        for i in range(n)
        for also in range(1 + person % 2)
    ]


@pytest.fixture(scope="module", params=NAMES)
def each(request: pytest.FixtureRequest) -> str:
    """The name of each prior."""
    return str(request.param)


@pytest.fixture(scope="module")
def learned(each: str) -> Prior:
    """Each prior, fitted once to everyday people, its weights too."""
    return fitted(each, everyday())


@pytest.mark.parametrize("held_out", [False, True])
@pytest.mark.parametrize(("user", "day"), [("u3", 5.0), ("u3", 99.0), ("u3", 0.0), ("nobody", 5.0), ("nobody", -9.0)])
def test_it_is_a_distribution_with_mass_everywhere(learned: Prior, user: str, day: float, held_out: bool) -> None:
    say = learned.log_mass_held_out if held_out else learned.log_mass
    log_mass = say(history(everyday(), user, day), Context(time_zone="Europe/Berlin"))
    assert log_mass.shape == (len(TITLES),)
    assert log_mass.dtype == np.float64
    assert np.isfinite(log_mass).all()
    assert np.exp(log_mass).sum() == pytest.approx(1.0, abs=1e-9)


@pytest.mark.parametrize("name", NAMES)
def test_it_bears_items_that_it_does_not_know(name: str) -> None:
    catalog = catalogue()
    prior = fitted(name, [*everyday(), ("u1", "gone", 3.0)], catalog, n_fit=0)
    catalog.add([Item(item_id="newcomer", title="newcomer")])
    taken = [("new", item, i) for i, item in enumerate(("tea", "gone", "newcomer"))]
    for say in (prior.log_mass, prior.log_mass_held_out):
        log_mass = say(history(taken, "new", 50), Context())
        assert len(log_mass) in (len(TITLES), len(TITLES) + 1)
        assert np.exp(log_mass).sum() == pytest.approx(1.0, abs=1e-9)


@pytest.mark.parametrize("name", NAMES)
def test_without_any_event_nothing_is_known(name: str) -> None:
    log_mass = fitted(name, []).log_mass(history([], "nobody", 1), Context())
    np.testing.assert_allclose(np.exp(log_mass), 1 / len(TITLES))


@pytest.mark.parametrize("name", NAMES)
def test_an_event_at_the_very_instant_is_not_known_yet(name: str) -> None:
    prior = fitted(name, [("bob", "tea", 5.0), ("cat", "tea", 5.0)], n_fit=0)
    np.testing.assert_allclose(np.exp(prior.log_mass(history([], "nobody", 5.0), Context())), 1 / len(TITLES))


USERS, ITEMS = st.sampled_from(["ann", "bob", "cat", "dan"]), st.sampled_from([*TITLES, "gone"])
TAKEN = st.lists(st.tuples(USERS, ITEMS, st.integers(0, 40).map(lambda half: half / 2)), max_size=25)


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=15)
@given(taken=TAKEN, day=st.integers(0, 20), asked_before=st.lists(st.integers(0, 21), max_size=3))
def test_the_future_changes_nothing(name: str, taken: list[Taken], day: int, asked_before: list[int]) -> None:
    past = [one for one in taken if one[2] < day]
    with_future = fitted(name, taken, n_fit=0)
    for other_day in asked_before:  # whatever was asked before must not show in the answer
        with_future.log_mass(history(taken, "bob", other_day), Context())
    for user in ("ann", "nobody"):
        asked = history(past, user, day), NOW
        np.testing.assert_allclose(
            with_future.log_mass(*asked), fitted(name, past, n_fit=0).log_mass(*asked), atol=1e-5
        )


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=15)
@given(taken=TAKEN, day=st.integers(0, 20))
def test_held_out_nothing_counts_that_the_person_did_later(name: str, taken: list[Taken], day: int) -> None:
    asked = history(taken, "ann", day), Context()
    without_later = [one for one in taken if one[0] != "ann" or one[2] < day]
    np.testing.assert_allclose(
        fitted(name, taken, n_fit=0).log_mass_held_out(*asked),
        fitted(name, without_later, n_fit=0).log_mass_held_out(*asked),
        atol=1e-5,
    )


@given(user=USERS, day=st.integers(0, 20), held_out=st.booleans(), taken=TAKEN)
@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_was_kept_and_is_mapped_again_says_the_very_same(
    learned: Prior, kept: Prior, user: str, day: int, held_out: bool, taken: list[Taken]
) -> None:
    for name in (user, "u3"):  # one without events, and one with
        asked = (
            history([(name, item, at) for _, item, at in taken], name, day),
            NOW,
        )
        one, other = ((p.log_mass_held_out if held_out else p.log_mass)(*asked) for p in (learned, kept))
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("name", NAMES)
def test_what_knows_nothing_can_be_kept(name: str, tmp_path: Path) -> None:
    catalog = catalogue()
    kept = again(fitted(name, [], catalog), made(name), catalog, tmp_path)
    np.testing.assert_allclose(np.exp(kept.log_mass(history([], "nobody", 1), Context())), 1 / len(TITLES))


def again(prior: Prior, other: Prior, catalog: Catalog, folder: Path) -> Prior:
    """Another one that became what a prior is, by way of the disk."""
    state = prior.state()
    assert state is not None
    save(state, folder / "kept")
    other.restore(catalog, load(folder / "kept"))
    return other


@pytest.fixture(scope="module")
def kept(each: str, learned: Prior, tmp_path_factory: pytest.TempPathFactory) -> Prior:
    """What `learned` becomes by way of the disk."""
    return again(learned, made(each), catalogue(), tmp_path_factory.mktemp("kept"))


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=15)
@given(taken=TAKEN, day=st.integers(0, 20))
def test_growing_makes_what_fitting_to_everything_makes(name: str, taken: list[Taken], day: int) -> None:
    catalog = catalogue()
    grown = fitted(name, [one for one in taken if one[2] < day], catalog, n_fit=0)
    did = grown.grow([batch("events", [event(one) for one in taken if one[2] >= day])])
    assert did == (name == "popularity")
    if did:
        everything = fitted(name, taken, catalog)
        for at in (day, 99):
            asked = history(taken, "ann", at), Context()
            np.testing.assert_array_equal(grown.log_mass(*asked), everything.log_mass(*asked))


@pytest.mark.parametrize("name", SINGLE)
def test_options_without_sense_are_refused(name: str) -> None:
    wrong = {"popularity": {"strength": 0.0}}.get(name, {"n_fit": -1})
    with pytest.raises(ConfigError, match=f"prior '{name}' needs"):
        Registry().build("priors", name, wrong)
