"""Neighbours, EASE, baskets and text: scores that brute force or the eye can check."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from genrec.catalog import Catalog
from genrec.errors import ConfigError, ModelError
from genrec.events import Context, Event, Item, Medium, batch
from genrec.history import History, moments
from genrec.priors.basket import Basket
from genrec.priors.ease import Ease
from genrec.priors.loglinear import Past
from genrec.priors.neighbours import Neighbours
from genrec.priors.scored import Scored
from genrec.priors.text import Text
from genrec.store import Store

START = datetime(2025, 3, 1, tzinfo=UTC)
TITLES = ("red wool socks", "green wool socks", "hammer", "nails", "paint", "brush", "tea", "cup")
CATALOG = Catalog.of([Item(item_id=name, title=name) for name in TITLES])
HAMMER, NAILS, PAINT, BRUSH, TEA, CUP = range(2, 8)
RNG = np.random.default_rng(0)
HAS = RNG.random((30, len(TITLES))) < 0.35
"""Who has what, drawn by chance. Shape ``(n_people, n_items)``."""


def taken(user: str, *rows: int, day: float = 0) -> list[Event]:
    """A basket."""
    return [Event(user_id=user, item_id=TITLES[row], at=START + timedelta(days=day)) for row in rows]


def by_chance() -> list[Event]:
    return [one for i, row in enumerate(HAS) for one in taken(f"u{i}", *np.flatnonzero(row), day=i)]


def fitted(prior: Scored, events: list[Event]) -> Scored:
    prior.fit(CATALOG, [batch("events", events)])
    return prior


def history(*rows: int, user: str = "new", day: float = 999) -> History:
    own = [one for n, row in enumerate(rows) for one in taken(user, row, day=n + day - 99)]
    return History(user_id=user, user=None, at=START + timedelta(days=day), moments=moments(own))


def scores(prior: Scored, *rows: int, user: str = "new", day: float = 999, later: bool = False) -> np.ndarray:
    past: Past = prior._past(history(*rows, user=user, day=day), Context(), later=later)
    return prior._scores(past)


def others(user: int | None, day: float = 999) -> np.ndarray:
    """Who has what, without one person and what came later."""
    return np.array([row for i, row in enumerate(HAS) if i != user and i < day], np.float64)


@pytest.mark.parametrize(("user", "day", "later"), [(None, 999, False), (4, 999, False), (4, 12, False), (4, 12, True)])
def test_neighbours_are_those_of_brute_force(user: int | None, day: float, later: bool) -> None:
    x = others(user, 999 if later else day)
    together, n = x.T @ x, x.sum(0) + 3.0
    cosine = together / np.sqrt(np.outer(n, n))
    np.fill_diagonal(cosine, 0)
    prior = fitted(Neighbours(shrink=3.0), by_chance())
    found = scores(prior, HAMMER, TEA, user=f"u{user}", day=day, later=later)
    np.testing.assert_allclose(found, (cosine[HAMMER] + cosine[TEA]) / 2, atol=1e-12)


@pytest.mark.parametrize(("user", "day", "later"), [(None, 999, False), (4, 999, False), (4, 12, False), (4, 12, True)])
def test_ease_is_that_of_brute_force(user: int | None, day: float, later: bool) -> None:
    x = others(user, 999 if later else day)
    inverse = np.linalg.inv(x.T @ x + 2.0 * np.eye(len(TITLES)))
    weights = -inverse / np.diag(inverse)
    np.fill_diagonal(weights, 0)
    prior = fitted(Ease(ridge=2.0), by_chance())
    found = scores(prior, HAMMER, TEA, HAMMER, user=f"u{user}", day=day, later=later)
    np.testing.assert_allclose(found, weights[HAMMER] + weights[TEA], atol=1e-5)


def test_ease_speaks_of_what_most_have_and_leaves_the_rest_to_popularity() -> None:
    prior = fitted(Ease(ridge=2.0, max_items=3), by_chance())
    most = np.sort(np.argsort(-HAS.sum(0), kind="stable")[:3])
    x = HAS[:, most].astype(np.float64)
    inverse = np.linalg.inv(x.T @ x + 2.0 * np.eye(3))
    weights = -inverse / np.diag(inverse)
    np.fill_diagonal(weights, 0)
    found = scores(prior, *most[:2])
    np.testing.assert_allclose(found[most], weights[0] + weights[1], atol=1e-5)
    assert not found[np.setdiff1d(np.arange(len(TITLES)), most)].any()


SHOPPING = [
    one
    for i in range(9)
    for one in (*taken(f"u{i}", HAMMER, NAILS), *taken(f"u{i}", PAINT, BRUSH, day=7), *taken(f"u{i}", TEA, day=14))
]
"""Hammer and nails, a week later paint and brush, a week later tea."""


def test_what_came_in_the_next_basket() -> None:
    prior = fitted(Basket(shrink=1.0), SHOPPING)
    found = scores(prior, HAMMER)
    assert found[[PAINT, BRUSH]] == pytest.approx(9 / 10), "all nine of them, and one that is added"
    assert np.count_nonzero(found) == 2
    both = scores(prior, HAMMER, PAINT)
    assert both[TEA] == pytest.approx(0.9 / 2)
    assert both[PAINT] == both[BRUSH] == pytest.approx(0.6 * 0.9 / 2)
    assert not scores(prior, HAMMER, day=6).any(), "the next baskets are still to come"
    assert scores(prior, HAMMER, day=6, later=True)[PAINT] == pytest.approx(9 / 10)
    assert scores(prior, HAMMER, user="u0")[PAINT] == pytest.approx(8 / 9), "one's own is nobody else's"


def test_while_a_visit_goes_on_what_goes_together_counts() -> None:
    prior = fitted(Basket(shrink=1.0), SHOPPING)
    own = taken("new", HAMMER, day=90)
    for hours, nails in ((1, 9 / 10), (20, 0)):
        at = own[0].at + timedelta(hours=hours)
        past = prior._past(History(user_id="new", user=None, at=at, moments=moments(own)), Context(), later=False)
        found = prior._scores(past)
        assert found[NAILS] == pytest.approx(nails)
        assert found[PAINT] == pytest.approx(9 / 10)


def test_the_latest_moments_with_an_item_speak_for_it() -> None:
    old = [one for i in range(50) for one in (*taken(f"o{i}", HAMMER, day=-60), *taken(f"o{i}", CUP, day=-50))]
    prior = fitted(Basket(shrink=1.0, n_moments=9), SHOPPING + old)
    found = scores(prior, HAMMER)
    assert found[PAINT] == pytest.approx(0.9)
    assert found[CUP] == 0


def test_titles_with_the_same_words_are_alike_and_newcomers_speak_too() -> None:
    prior = fitted(Text(), [])
    found = scores(prior, TEA, 0)
    assert np.argsort(-found)[:3].tolist() == [0, TEA, 1]
    assert found[[HAMMER, NAILS]] == pytest.approx(0)
    assert scores(prior, 0, TEA)[1] < found[1], "the latest counts most"
    assert np.exp(prior.log_mass(history(0), Context())).argmax() in (0, 1), "though nobody took either"


@pytest.mark.llm
def test_vectors_tell_what_means_the_same() -> None:
    try:
        prior = fitted(Text(embedding="minilm-l6-v2"), [])
    except ModelError as error:
        pytest.skip(str(error))
    words, vectors = scores(fitted(Text(), []), PAINT), scores(prior, PAINT)
    assert words[BRUSH] == 0
    assert vectors[BRUSH] > vectors[NAILS]


def test_a_model_that_is_not_here_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ModelError):
        fitted(Text(embedding=str(tmp_path)), [])


@pytest.mark.parametrize("cls", [Neighbours, Ease, Basket])
def test_weights_make_a_distribution_of_a_score(cls: type[Scored]) -> None:
    pairs = ((HAMMER, NAILS), (PAINT, BRUSH), (TEA, CUP))
    events = [
        one for i in range(150) for n, row in enumerate(pairs[i % 3]) for one in taken(f"u{i}", row, day=n + i / 10)
    ]
    prior = fitted(cls(), events)
    found = np.exp(prior.log_mass(history(PAINT), Context()))
    assert found[BRUSH] > 0.8
    assert found.sum() == pytest.approx(1)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Ease(ridge=0), "a ridge from 1"),
        (lambda: Neighbours(shrink=-1), "shrink and n_fit"),
        (lambda: Basket(decay=0), "decay in"),
        (lambda: Text(decay=2), "decay in"),
    ],
)
def test_options_without_sense_are_refused(make: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make()  # type: ignore[operator]


def test_words_and_vectors_of_media_tell_what_is_alike(tmp_path: Path) -> None:
    with Store.open(tmp_path / "genrec.db") as store:
        store.put("items", [batch("items", [Item(item_id=f"i{n}", title=f"Item {n}") for n in range(5)])])

        def scores_after_the_first() -> np.ndarray:
            prior = Text()
            prior.fit(Catalog.read(store.items(), {}, media=store.media), [])
            own = moments([Event(user_id="ann", item_id="i0", at=START)])
            past = History(user_id="ann", user=None, at=START + timedelta(days=1), moments=own)
            return prior._scores(prior._past(past, Context(), later=False))

        def media(reader: str, words: dict[str, str], vectors: dict[str, list[float]]) -> None:
            store.put_media(
                Medium(item_id=i, reader=reader, file="f", content=f"{reader} {i}", words=w, vector=floats(vectors, i))
                for i, w in words.items()
            )

        def floats(vectors: dict[str, list[float]], item_id: str) -> bytes | None:
            return np.array(vectors[item_id], "<f4").tobytes() if item_id in vectors else None

        assert not scores_after_the_first()[1:].any()
        media("ocr", {"i0": "OAT MILK 1L", "i1": "oat milk barista", "i2": "dark chocolate"}, {})
        found = scores_after_the_first()
        assert found[1] > 0.2
        assert not found[2:].any()
        media("tags", dict.fromkeys(("i0", "i3", "i4"), ""), {"i0": [1, 0], "i3": [1, 0.1], "i4": [0, 1]})
        found = scores_after_the_first()
        assert found[0] == pytest.approx(1)
        assert found[3] > 0.4, "the same to the eye, though no word says so"
        assert found[4] < 0
        assert 0 < found[1] < found[3]


def test_attributes_are_read_where_they_are_named() -> None:
    some = [
        Item(item_id=str(n), title=f"Item {n}", attributes={"brand": b}) for n, b in enumerate(("Oatly", "x", "Oatly"))
    ]
    catalog = Catalog.of(some)
    for attributes, alike in (((), False), (("brand",), True), ("brand", True)):
        prior = Text(attributes=attributes)
        prior.fit(catalog, [])
        assert bool(prior._like(0)[2] > 0.1) is alike
