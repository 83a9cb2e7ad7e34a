"""Distance decay: what is near to here or to own places, and that the exponents find out how much it matters."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from genrec.catalog import Catalog
from genrec.earth import kilometres
from genrec.errors import ConfigError
from genrec.events import Context, Event, Item, batch
from genrec.history import History, moments
from genrec.priors.nearby import Nearby

START = datetime(2026, 1, 1, tzinfo=UTC)
PLACES = {
    "alexanderplatz": (52.5219, 13.4132),
    "museum": (52.5169, 13.4019),
    "potsdam": (52.3906, 13.0645),
    "munich": (48.1374, 11.5755),
    "fiji": (-17.7134, 178.065),
}
CATALOG = Catalog.of(
    [
        *(
            Item(item_id=name, title=name, attributes={"latitude": str(lat), "longitude": str(lon)})
            for name, (lat, lon) in PLACES.items()
        ),
        Item(item_id="online", title="online"),
    ]
)


def visits(user: str, *items: str) -> list[Event]:
    return [Event(user_id=user, item_id=item, at=START + timedelta(hours=n)) for n, item in enumerate(items)]


def log_mass(prior: Nearby, *own: str, here: tuple[float, float] | None = None) -> dict[str, float]:
    history = History(user_id="me", user=None, at=START + timedelta(days=9), moments=moments(visits("me", *own)))
    now = Context(latitude=here[0], longitude=here[1]) if here else Context()
    return dict(zip(CATALOG.item_ids, prior.log_mass(history, now).tolist(), strict=True))


def unfitted(**options: object) -> Nearby:
    prior = Nearby(n_fit=0, **options)  # type: ignore[arg-type]
    prior.fit(CATALOG, [batch("events", [])])
    return prior


def test_the_nearer_the_likelier_from_the_last_place_or_from_where_the_person_says_to_be() -> None:
    found = log_mass(unfitted(), "alexanderplatz")
    others = [name for name in PLACES if name != "alexanderplatz"]
    assert sorted(others, key=found.__getitem__, reverse=True) == others, "in the order of distance"
    assert found["online"] == pytest.approx(found["fiji"]), "what is nowhere is like what is farthest"
    bavarian = log_mass(unfitted(), "alexanderplatz", here=(48.14, 11.58))
    assert bavarian["munich"] - bavarian["museum"] > found["munich"] - found["museum"] + 3
    assert np.ptp(list(log_mass(unfitted()).values())) == 0, "nobody knows where a stranger is"
    assert log_mass(unfitted(), "online") == log_mass(unfitted())
    for nowhere in ((0.0, 0.0), (95.0, 8.0), (float("nan"), 8.0)):
        assert log_mass(unfitted(), "alexanderplatz", here=nowhere) == found
    assert np.ptp(list(log_mass(unfitted(without=("distance",)), "museum", here=(48.14, 11.58)).values())) == 0


def test_distances_are_those_of_the_earth_and_every_own_place_counts() -> None:
    prior = unfitted()
    rows = [CATALOG.row[name] for name in ("potsdam", "fiji")]
    nearest = np.expm1(-prior._nearness(prior._where[rows]))
    wanted = [min(kilometres(*place, *PLACES[own]) for own in ("potsdam", "fiji")) for place in PLACES.values()]
    np.testing.assert_allclose(nearest[: len(PLACES)], wanted, atol=1e-3)
    few, many = log_mass(unfitted(n_last=1), "munich", "museum"), log_mass(unfitted(), "munich", "museum")
    assert many["munich"] > few["munich"]


def test_the_exponents_find_out_whether_distance_matters() -> None:
    rng = np.random.default_rng(0)
    town = {f"{n}": (50 + rng.normal() / 5, 8 + rng.normal() / 5) for n in range(40)}
    items = [
        Item(item_id=name, title=name, attributes={"latitude": str(lat), "longitude": str(lon)})
        for name, (lat, lon) in town.items()
    ]
    catalog, where = Catalog.of(items), np.array(list(town.values()))

    def exponent(strength: float) -> float:
        events = []
        for person in range(60):
            here = int(rng.integers(40))
            for step in range(12):
                events += [Event(user_id=f"u{person}", item_id=str(here), at=START + timedelta(hours=step))]
                km = np.array([kilometres(*where[here], *there) for there in where])
                p = (1 + km) ** -strength
                here = int(rng.choice(40, p=p / p.sum()))
        prior = Nearby()
        prior.fit(catalog, [batch("events", events)])
        return float(prior.weights[0, 0])

    assert abs(exponent(0.0)) < 0.4
    assert exponent(2.0) == pytest.approx(2.0, abs=0.5)


def test_options_without_sense_are_refused() -> None:
    with pytest.raises(ConfigError, match="n_last from 1"):
        Nearby(n_last=0)
