"""A blend listens to the voice that is right, and is not fooled by one that knows its lesson by heart."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from genrec.catalog import Catalog
from genrec.config import create_workspace
from genrec.errors import ConfigError
from genrec.events import Context, Event, Item, batch
from genrec.history import History, moments
from genrec.priors.base import Prior, instant
from genrec.priors.blend import Blend
from genrec.priors.popularity import Popularity
from genrec.priors.repeat import Repeat
from genrec.store import Store
from genrec.workspace import open_workspace
from tests.support.corner_shop import fill

START = datetime(2025, 3, 1, tzinfo=UTC)
NAMES = ("milk", "bread", "beer", "eggs", "tea")
CATALOG = Catalog.of([Item(item_id=name, title=name) for name in NAMES])
TURNS = [
    Event(user_id=f"u{i}", item_id=NAMES[(i + n) % 5], at=START + timedelta(days=n, minutes=i))
    for i in range(50)
    for n in range(10)
]
"""Everybody takes the five items in turn, again and again."""


class Turn(Prior):
    """Knows that the item after the last one is next, nine times out of ten."""

    def fit(self, catalog: Catalog, events: Iterable[pa.RecordBatch]) -> None:
        """Nothing to learn."""

    def log_mass(self, history: History, now: Context) -> np.ndarray:
        mass = np.full(5, 0.025)
        if history.moments:
            mass[(NAMES.index(history.moments[-1].item_ids[0]) + 1) % 5] = 0.9
        return np.log(mass / mass.sum())


class Parrot(Prior):
    """Knows what was fitted by heart, and says so even of the moment itself."""

    def fit(self, catalog: Catalog, events: Iterable[pa.RecordBatch]) -> None:
        self.heard = {
            (user, instant(at)): NAMES.index(item)
            for one in events
            for user, at, item in zip(*(one[name].to_pylist() for name in ("user_id", "at", "item_id")), strict=True)
        }

    def log_mass(self, history: History, now: Context) -> np.ndarray:
        mass = np.full(5, 1e-9)
        if (row := self.heard.get((history.user_id, instant(history.at)))) is not None:
            mass[row] = 1
        return np.log(mass / mass.sum())


def fitted(voices: dict[str, Prior], **options: int) -> Blend:
    blend = Blend.of(voices, **options)
    blend.fit(CATALOG, [batch("events", TURNS[::2]), batch("events", TURNS[1::2])])
    return blend


def history(*items: str) -> History:
    own = [Event(user_id="new", item_id=item, at=START + timedelta(days=n)) for n, item in enumerate(items)]
    return History(user_id="new", user=None, at=START + timedelta(days=99), moments=moments(own))


def test_the_voice_that_is_right_gets_the_weight() -> None:
    blend = fitted({"popularity": Popularity(), "turn": Turn()})
    assert blend.weights[1] > 1, "what never fails deserves more than nine in ten"
    after_bread = np.exp(blend.log_mass(history("milk", "bread"), Context()))
    assert after_bread[NAMES.index("beer")] > 0.95
    assert after_bread.sum() == pytest.approx(1)


def test_a_voice_that_was_learned_by_heart_gets_none() -> None:
    blend = fitted({"turn": Turn(), "parrot": Parrot()})
    assert len(blend.voices["parrot"].heard) == len(TURNS), "in the end each knows everything"  # type: ignore[attr-defined]
    assert blend.weights[0] > 1
    expected = Turn().log_mass(history("tea"), Context()) * blend.weights[0]
    np.testing.assert_allclose(
        blend.log_mass(history("tea"), Context()), expected - np.log(np.exp(expected).sum()), atol=1e-9
    )


def test_no_voice_speaks_against_itself() -> None:
    class Wrong(Turn):
        def log_mass(self, history: History, now: Context) -> np.ndarray:
            return np.roll(super().log_mass(history, now), 2)

    blend = fitted({"wrong": Wrong()})
    assert blend.weights == 0, "below 0 it would be of use, and nobody could say why"
    np.testing.assert_allclose(np.exp(blend.log_mass(history("milk"), Context())), 0.2)


def test_without_enough_to_learn_from_all_weigh_the_same() -> None:
    blend = fitted({"popularity": Popularity(), "turn": Turn()}, n_fit=0)
    assert blend.weights.tolist() == [0.5, 0.5]
    said = [voice.log_mass(history("milk"), Context()) for voice in blend.voices.values()]
    mean = np.exp(np.mean(said, axis=0))
    np.testing.assert_allclose(np.exp(blend.log_mass(history("milk"), Context())), mean / mean.sum())


def test_weights_of_choices_of_ones_own() -> None:
    class Counted(Turn):
        asked = 0

        def log_mass(self, history: History, now: Context) -> np.ndarray:
            self.asked += 1
            return np.roll(super().log_mass(history, now), 2)

    wrong = Counted()
    blend = fitted({"turn": Turn(), "wrong": wrong}, n_fit=0)
    assert blend.weights.tolist() == [0.5, 0.5]
    blend.weigh([(history(name), Context(), (i + 1) % 5) for i, name in enumerate(NAMES)] * 100)
    assert blend.weights[0] > 0.9
    assert blend.weights[1] < 0.1
    blend.weights[1] = wrong.asked = 0
    blend.log_mass(history("milk"), Context())
    assert not wrong.asked, "a voice without weight costs nothing"


def test_shares_tell_who_speaks_for_an_item() -> None:
    blend = fitted({"popularity": Popularity(), "turn": Turn()}, n_fit=0)
    shares = blend.shares(history("milk"), Context(), NAMES.index("bread"))
    assert shares["turn"] > 0.99
    assert sum(shares.values()) == pytest.approx(1)
    milk_again = blend.shares(history("milk", *["tea"] * 99), Context(), NAMES.index("tea"))
    assert milk_again["popularity"] == pytest.approx(1), "it was had so often; it is not its turn"
    assert set(blend.shares(history("milk"), Context(), NAMES.index("beer")).values()) == {0.0}


def test_no_voice_has_a_veto_and_newcomers_weigh_as_the_least_likely() -> None:
    class Sure(Turn):
        def log_mass(self, history: History, now: Context) -> np.ndarray:
            return np.array([0.0, -np.inf, -np.inf])  # fitted before the last two items came

    blend = Blend.of({"sure": Sure(), "turn": Turn()}, n_fit=0)
    mass = blend.log_mass(history("milk"), Context())
    assert np.isfinite(mass).all()
    assert mass[1] > mass[2] == pytest.approx(mass[4])


def test_a_workspace_makes_the_voices_with_their_own_options(tmp_path: Path) -> None:
    create_workspace(
        tmp_path,
        {
            "prior": "blend",
            "engine": "none",
            "priors": {"blend": {"members": ["popularity", "repeat"]}, "repeat": {"half_life": 7.0}},
        },
    )
    with Store.open(tmp_path / "genrec.db") as store:
        fill(store)
    with open_workspace(tmp_path) as workspace:
        blend = workspace.prior
        assert isinstance(blend, Blend)
        assert list(blend.voices) == ["popularity", "repeat"]
        assert isinstance(blend.voices["repeat"], Repeat)
        assert blend.voices["repeat"].half_life == 7.0
        best = workspace.recommender().recommend("bob", at="2025-06-15T20:00", k=1).items[0]
        assert best.title == "Beer"
        assert best.probability is not None


@pytest.mark.parametrize("members", [(), ("blend",), ("repeat", "repeat")])
def test_members_without_sense_are_refused(members: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError, match="needs members"):
        Blend(members=members)


def test_a_blend_without_its_voices_says_so() -> None:
    with pytest.raises(ConfigError, match="voices of a blend"):
        Blend().fit(CATALOG, [])
