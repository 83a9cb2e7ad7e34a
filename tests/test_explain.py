"""Evidence is what asking without it gives, to the last digit."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import pairwise
from math import inf, log
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from genrec.catalog import Catalog
from genrec.context import FEATURES
from genrec.decoding.scoring import Scoring
from genrec.decoding.search import score
from genrec.engines.transformers import TransformersEngine
from genrec.events import Context, Edge, Event, Item, batch, items_of
from genrec.explain import ALL_WORDS, MAX_ITEMS, moves
from genrec.history import History, read_history
from genrec.priors.base import Prior
from genrec.priors.popularity import Popularity
from genrec.prompt import bundled_prompts, load_template, render
from genrec.recommendation import Evidence, Query, Recommendation
from genrec.recommender import Recommender
from genrec.store import Store
from tests.support import corner_shop
from tests.support.corner_shop import NEW_YORK

LATER = datetime(2025, 6, 16, 19, tzinfo=NEW_YORK)
LAST_BEER = datetime(2025, 6, 13, 20, tzinfo=NEW_YORK)  # of bob's
ONLY_MILK = datetime(2025, 6, 7, 20, tzinfo=NEW_YORK)
IDS = [item.item_id for item in corner_shop.ITEMS]
SCORINGS = [Scoring(name="joint"), Scoring(name="masked"), Scoring(name="fused", gamma=0.7)]


@contextmanager
def shop(folder: Path, events: Iterable[Event]) -> Iterator[Store]:
    """The corner shop with other events."""
    with Store.open(folder / "genrec.db") as store:
        store.put("items", [batch("items", corner_shop.ITEMS)])
        store.put("users", [batch("users", corner_shop.USERS)])
        store.append([batch("events", events)], source="corner-shop")
        yield store


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    with shop(tmp_path_factory.mktemp("shop"), corner_shop.events()) as store:
        yield store


@pytest.fixture(scope="module")
def prior(store: Store) -> Popularity:
    """Fitted once, to everything: what is left out of a history is not left out of what everybody does."""
    prior = Popularity(strength=1.0)
    prior.fit(Catalog.of(corner_shop.ITEMS), store.events())
    return prior


@pytest.fixture(scope="module")
def engine(tiny_model: Path) -> Iterator[TransformersEngine]:
    engine = TransformersEngine(tiny_model, model="tiny", dtype="float64")  # so that what is cached rounds no other way
    yield engine
    engine.close()


def recommender(store: Store, prior: Prior, engine: TransformersEngine | None = None, **options: Any) -> Recommender:
    template = load_template(options.pop("template", "next-item"), [bundled_prompts()]) if engine else None
    catalog = Catalog.of(items_of(store.items()))
    return Recommender(store=store, catalog=catalog, prior=prior, engine=engine, template=template, **options)


def changes(answer: Recommendation, **which: Any) -> dict[str, float]:
    """Of each item, the change from leaving one thing out; it is named by its fields."""
    found = {}
    for item in answer.items:
        [found[item.item_id]] = [
            one.change
            for one in item.evidence or ()
            if all(getattr(one, name) == value for name, value in which.items())
        ]
    return found


def logprobs(answer: Recommendation) -> dict[str, float]:
    return {item.item_id: item.logprob for item in answer.items}


def difference(answer: Recommendation, without: Recommendation) -> dict[str, float]:
    left = logprobs(without)
    return {item: logprob - left[item] for item, logprob in logprobs(answer).items()}


def test_the_prior_alone_explains_itself(store: Store, prior: Popularity) -> None:
    answer = recommender(store, prior).recommend("bob", at=LATER, explain=True)
    beer = answer.items[0]
    assert beer.title == "Beer"
    # bob bought beer 3 times of 4; everybody's share of it is 3.5 / 16.5, and a purchase of one's own weighs as much
    share = 3.5 / 16.5
    assert [(one.kind, one.what, one.n_events, one.at, one.change) for one in beer.evidence or ()] == [
        ("item", "Beer", 3, LAST_BEER, pytest.approx(log((3 + share) / 5) - log(share / 2))),
        ("item", "Milk", 1, ONLY_MILK, pytest.approx(log((3 + share) / 5) - log((3 + share) / 4))),
    ]
    assert answer.timings_s["explain"] > 0


@pytest.mark.parametrize("scoring", [None, *SCORINGS])
@pytest.mark.parametrize(("user", "item"), [("bob", "i-beer"), ("bob", "i-milk"), ("ann", "i-bread")])
def test_an_item_changes_what_recommending_without_it_gives(
    store: Store,
    prior: Popularity,
    engine: TransformersEngine,
    tmp_path: Path,
    scoring: Scoring | None,
    user: str,
    item: str,
) -> None:
    options = {"engine": engine, "scoring": scoring} if scoring else {}
    answer = recommender(store, prior, **options).recommend(user, at=LATER, explain=True)
    rest = [e for e in corner_shop.events() if (e.user_id, e.item_id) != (user, item)]
    with shop(tmp_path, rest) as poorer:
        without = recommender(poorer, prior, **options).recommend(user, at=LATER, candidates=IDS)
    found = changes(answer, kind="item", item_id=item, n_events=len(corner_shop.events()) - len(rest))
    assert found == pytest.approx(difference(answer, without), abs=1e-6)
    assert max(map(abs, found.values())) > 1e-4


@pytest.mark.parametrize("scoring", SCORINGS)
def test_a_place_changes_what_recommending_without_it_gives(
    store: Store, prior: Popularity, engine: TransformersEngine, scoring: Scoring
) -> None:
    asked = recommender(store, prior, engine, scoring=scoring)
    answer = asked.recommend("ann", at=LATER, place="harbour kiosk", device="phone", explain=True)
    for feature, kept in (("place", {"device": "phone"}), ("device", {"place": "harbour kiosk"})):
        found = changes(answer, kind="context", feature=feature)
        assert found == pytest.approx(difference(answer, asked.recommend("ann", at=LATER, **kept)), abs=1e-6)
        assert max(map(abs, found.values())) > 1e-4


def test_the_words_of_now_are_left_out_of_that_line_alone(
    store: Store, prior: Popularity, engine: TransformersEngine
) -> None:
    scoring = Scoring(name="joint")
    asked = recommender(store, prior, engine, scoring=scoring)
    answer = asked.recommend("ann", at=LATER, explain=True)
    words = {one.feature: one.what for one in answer.items[0].evidence or () if one.kind == "context"}
    assert words == {"weekday": "Monday", "part_of_day": "evening", "since": "two days later"}  # it is summer as before
    [prompt] = asked.prompts([Query(user_id="ann", at=LATER)])
    assert prompt.lines[-1] == "Monday evening, two days later |"
    history = read_history(store, "ann", LATER, max_events=200)
    template = load_template("next-item", [bundled_prompts()])
    silent = render(template, history, answer.context, asked.encoded, engine.tokenizer, instead={"since": ""})
    assert silent.lines == (*prompt.lines[:-1], "Monday evening |")
    [weights] = engine.run([(silent.token_ids, score(asked.encoded.trie, range(len(IDS)), scoring=scoring))])
    left = {item: logprob - weights[asked.catalog.row[item]] for item, logprob in logprobs(answer).items()}
    assert changes(answer, feature="since") == pytest.approx(left, abs=1e-6)


def without_words(asked: Recommender, at: datetime, **query: Any) -> dict[str, float]:
    """What ann's items weigh where the line for "now" says nothing."""
    assert asked.engine is not None
    assert asked.template is not None
    assert asked.prior is not None
    history, now = read_history(asked.store, "ann", at, max_events=200), Context(time_zone="America/New_York", **query)
    instead = dict.fromkeys(FEATURES, "")
    silent = render(asked.template, history, now, asked.encoded, asked.tokenizer, instead=instead)
    assert silent.lines[-1] == "|"
    mass = asked.prior.log_mass(history, now)
    search = score(asked.encoded.trie, range(len(IDS)), scoring=asked.scoring, log_mass=mass)
    [weights] = asked.engine.run([(silent.token_ids, search)])
    return {item: weights[asked.catalog.row[item]] for item in IDS}


@pytest.mark.parametrize("scoring", SCORINGS)
def test_all_words_at_once_are_all_of_them(
    store: Store, prior: Popularity, engine: TransformersEngine, scoring: Scoring
) -> None:
    asked = recommender(store, prior, engine, scoring=scoring)
    answer = asked.recommend("ann", at=LATER, place="harbour kiosk", device="phone", explain=True)
    silent = without_words(asked, LATER)
    found = changes(answer, kind="now")
    assert found == pytest.approx({item: lp - silent[item] for item, lp in logprobs(answer).items()}, abs=1e-6)
    assert max(map(abs, found.values())) > 1e-3


def test_context_alone_is_explained_as_with_the_history(
    store: Store, prior: Popularity, engine: TransformersEngine
) -> None:
    asked = recommender(store, prior, engine)
    whole = asked.recommend("ann", at=LATER, place="harbour kiosk", explain=True)
    part = asked.recommend("ann", at=LATER, place="harbour kiosk", explain="context")
    for item, same in zip(part.items, whole.items, strict=True):
        expected = {replace(e, change=0.0): e.change for e in same.evidence or () if e.kind not in ("item", "others")}
        found = {replace(e, change=0.0): e.change for e in item.evidence or ()}
        assert len(found) == 2 + 4 + 1
        assert found == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("scoring", SCORINGS)
def test_what_moved_items_between_two_moments(
    store: Store, prior: Popularity, engine: TransformersEngine, scoring: Scoring
) -> None:
    asked = recommender(store, prior, engine, scoring=scoring)
    days = (datetime(2025, 6, 8, 9, tzinfo=NEW_YORK), LATER)
    before, after = (
        asked.recommend("ann", at=at, explain="context", place=place)
        for at, place in zip(days, (None, "harbour kiosk"), strict=True)
    )
    by_prior = [recommender(store, prior).recommend("ann", at=at) for at in days]
    silent = [without_words(asked, at) for at in days]
    found = moves(before, after)
    assert {move.item_id for move in found} == set(IDS)
    assert all(move.words >= other.words for move, other in pairwise(found))
    for move in found:
        item = move.item_id
        assert move.change == logprobs(after)[item] - logprobs(before)[item]
        without = silent[1][item] - silent[0][item]
        assert move.words == pytest.approx(move.change - without, abs=1e-6)
        if scoring.name == "fused":
            expected = logprobs(by_prior[1])[item] - logprobs(by_prior[0])[item]
            assert move.prior == pytest.approx(expected, abs=1e-6)
            assert move.past == pytest.approx(without - expected, abs=1e-6)
        else:
            assert move.prior is None
            assert move.past == pytest.approx(without, abs=1e-6)
        assert move.alone["place"] == changes(after, feature="place")[item]  # which only one line says
        weekdays = [changes(answer, feature="weekday")[item] for answer in (before, after)]
        assert move.alone["weekday"] == weekdays[1] - weekdays[0]


def test_of_items_that_one_answer_lacks_nothing_is_said(store: Store, prior: Popularity) -> None:
    asked = recommender(store, prior)
    before, after = (asked.recommend("bob", at=LATER, candidates=ids, explain="context") for ids in (IDS[:2], IDS[1:3]))
    [move] = moves(before, after)
    assert (move.item_id, move.change, move.prior, move.past, move.words, move.alone) == (IDS[1], 0, None, 0, 0, {})


def test_what_is_impossible_without_the_same_thing_both_times_did_not_move(store: Store, prior: Popularity) -> None:
    answer = recommender(store, prior).recommend("bob", at=LATER, candidates=IDS[:1])
    evidence = (
        Evidence(kind="voice", what="the model", change=inf),
        Evidence(kind="context", what="kiosk", feature="place", change=inf),
        Evidence(kind="now", what=ALL_WORDS, change=inf),
    )
    answer = replace(answer, items=tuple(replace(item, evidence=evidence) for item in answer.items))
    [move] = moves(answer, answer)
    assert (move.change, move.prior, move.past, move.words, move.alone) == (0, 0, 0, 0, {"place": 0})


def test_each_voice_changes_what_recommending_without_it_gives(
    store: Store, prior: Popularity, engine: TransformersEngine
) -> None:
    def with_(gamma: float, beta: float) -> Recommendation:
        scoring = Scoring(name="fused", gamma=gamma, beta=beta)
        return recommender(store, prior, engine, scoring=scoring).recommend("bob", at=LATER, explain=True)

    answer = with_(0.7, 0.9)
    for what, without in (("the model", with_(0.0, 0.9)), ("the prior", with_(0.7, 0.0))):
        found = changes(answer, kind="voice", what=what)
        assert found == pytest.approx(difference(answer, without), abs=1e-6)
        assert max(map(abs, found.values())) > 1e-3
    alone = recommender(store, prior, engine, scoring=Scoring(name="masked")).recommend("bob", at=LATER, explain=True)
    assert all(one.kind != "voice" for item in alone.items for one in item.evidence or ())


def test_what_speaks_most_for_an_item_stands_first_and_nothing_is_said_unasked(
    store: Store, prior: Popularity, engine: TransformersEngine
) -> None:
    asked = recommender(store, prior, engine)
    why, plain = asked.recommend_many([Query(user_id=u, at=LATER, explain=u == "ann") for u in ("ann", "bob")])
    for item in why.items:
        assert all(one.change >= other.change for one, other in pairwise(item.evidence or ()))
        assert len(item.evidence or ()) == 2 + 3 + 1 + 2  # milk and bread, words, all words, voices
    assert all(item.evidence is None for item in plain.items)
    assert "evidence" not in json.dumps(plain.to_dict())
    assert "explain" not in plain.timings_s
    shown = json.loads(json.dumps(why.to_dict()))["items"][0]["evidence"]
    [milk] = [one for one in shown if one["what"] == "Milk"]
    change = milk.pop("change")
    assert milk == {
        "kind": "item",
        "what": "Milk",
        "item_id": "i-milk",
        "n_events": 4,
        "at": "2025-06-14T09:00:00-04:00",
    }
    assert isinstance(change, float)


def test_a_stranger_has_nothing_but_the_moment(store: Store, prior: Popularity, engine: TransformersEngine) -> None:
    answer = recommender(store, prior, engine).recommend("zoe", at=LATER, explain=True)
    assert {one.what for one in answer.items[0].evidence or ()} == {
        "the model",
        "the prior",
        "all words of now",
        "Monday",
        "night",  # the workspace's clock is UTC
        "summer",
    }


def test_what_is_filtered_stays_filtered(store: Store, prior: Popularity) -> None:
    asked = recommender(store, prior)
    answer = asked.recommend("cat", at=LATER, exclude_seen=True, explain=True)
    everything = asked.recommend("cat", at=LATER, explain=True)
    assert {item.title for item in answer.items} == {"Beer", "Tea"}
    by_item = {item.item_id: set(item.evidence or ()) for item in everything.items}
    assert all(set(item.evidence or ()) == by_item[item.item_id] for item in answer.items)


N_LONG = MAX_ITEMS + 10
"""Things that eve has had: the first one five times, the last ones latest."""


@contextmanager
def long_shop(folder: Path, left_out: Collection[str] = ()) -> Iterator[Store]:
    items = [Item(item_id=f"i{n}", title=f"thing {n}") for n in range(N_LONG + 3)]
    days = [0] * 4 + list(range(N_LONG))
    start = datetime(2025, 3, 1, 9, tzinfo=NEW_YORK)
    events = [
        Event(user_id="eve", item_id=f"i{n}", at=start + timedelta(days=day))
        for day, n in enumerate(days)
        if f"i{n}" not in left_out
    ]
    with Store.open(folder / f"{len(events)}.db") as store:
        store.put("items", [batch("items", items)])
        store.append([batch("events", events)], source="long")
        yield store


@pytest.mark.parametrize("scoring", [None, SCORINGS[-1]])
def test_of_a_long_history_the_list_and_the_latest_are_left_out_alone_and_the_rest_together(
    engine: TransformersEngine, tmp_path: Path, scoring: Scoring | None
) -> None:
    options = {"engine": engine, "scoring": scoring} if scoring else {}
    listed, prior = [f"i{n}" for n in range(16)], Popularity(strength=1.0)
    with long_shop(tmp_path) as store:
        catalog = Catalog.of(items_of(store.items()))
        prior.fit(catalog, store.events())
        answer = recommender(store, prior, **options).recommend("eve", at=LATER, candidates=listed, k=16, explain=True)
    alone = {one.item_id for one in answer.items[0].evidence or () if one.kind == "item"}
    best, latest = {item.item_id for item in answer.items[:12]}, {f"i{n}" for n in range(N_LONG - 12, N_LONG)}
    assert alone == best | latest
    assert len(alone) == MAX_ITEMS
    rest = {f"i{n}" for n in range(N_LONG)} - alone
    with long_shop(tmp_path, rest) as shorter:
        without = recommender(shorter, prior, **options).recommend("eve", at=LATER, candidates=listed, k=16)
    found = changes(answer, kind="others", what="all 10 other items")
    assert found == pytest.approx(difference(answer, without), abs=1e-6)
    assert answer.notes[-1] == "Of the history, 24 items were left out one by one, all 10 other items together."
    if scoring:  # all variants begin alike, and what they share is read once
        assert answer.usage["n_cached_tokens"] > answer.usage["n_computed_tokens"]


def test_a_server_explains_as_a_program_does(store: Store, prior: Popularity, engine: TransformersEngine) -> None:
    for options in ({}, {"engine": engine}):
        asked = recommender(store, prior, **options)
        query = Query(user_id="bob", at=LATER, explain=True)
        served, [expected] = asyncio.run(asked.answer(query)), asked.recommend_many([query])
        assert [item.title for item in served.items] == [item.title for item in expected.items]
        for one, other in zip(served.items, expected.items, strict=True):
            theirs = {replace(found, change=0.0): found.change for found in other.evidence or ()}
            assert {replace(found, change=0.0): found.change for found in one.evidence or ()} == pytest.approx(theirs)
        assert "explain" in served.timings_s


class Again(Prior):
    """People take what they had, and nothing else."""

    def fit(self, catalog: Catalog, events: Iterable[pa.RecordBatch]) -> None:
        self.row = catalog.row

    def log_mass(self, history: History, now: Context) -> np.ndarray:
        had = np.zeros(len(self.row))
        had[[self.row[item] for moment in history.moments for item in moment.item_ids if item in self.row]] = 1
        with np.errstate(divide="ignore"):
            mass: np.ndarray = np.log(had / max(had.sum(), 1))
        return mass


@pytest.mark.parametrize("with_model", [False, True])
def test_what_an_item_would_be_impossible_without(
    store: Store, engine: TransformersEngine, *, with_model: bool
) -> None:
    prior = Again()
    prior.fit(Catalog.of(corner_shop.ITEMS), [])
    options = {"engine": engine} if with_model else {}
    answer = recommender(store, prior, **options).recommend("bob", at=LATER, candidates=["i-milk"], explain=True)
    [milk] = answer.items
    [had] = [one for one in milk.evidence or () if one.change == inf]
    assert (had.what, had.kind) == ("Milk", "item")
    json.dumps(answer.to_dict(), allow_nan=False)
    assert had.to_dict()["change"] is None


def test_what_friends_took_stays_as_it_was_told_whatever_is_left_out(
    prior: Popularity, engine: TransformersEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, n_looks = corner_shop.events()[0].at, 0
    took = {"fay": ["i-bread", "i-beer", "i-beer"], "gus": ["i-milk", "i-eggs"]}  # a thing a day, the friend first
    events = [
        Event(user_id=who, item_id=item, at=first + timedelta(days=n, hours=who == "fay"))
        for who, items in took.items()
        for n, item in enumerate(items)
    ]
    look_up = Store.taken_by_friends

    def counted(*arguments: Any, **options: Any) -> Any:
        nonlocal n_looks
        n_looks += 1
        return look_up(*arguments, **options)

    monkeypatch.setattr(Store, "taken_by_friends", counted)
    told = []
    for some in (events, events[:-1]):
        (folder := tmp_path / f"{len(some)}").mkdir()
        with shop(folder, some) as store:
            store.put("edges", [batch("edges", [Edge(from_id="fay", to_id="gus")])])
            asked = recommender(store, prior, engine, scoring=SCORINGS[2], template="posts")
            answer = asked.recommend("fay", at=LATER, explain=True)
            [prompt] = asked.prompts([Query(user_id="fay", at=LATER)])
        assert prompt.turns[1][1].startswith("friends took: Milk.")
        told.append([item.evidence for item in answer.items])
    assert told[0] == told[1], "eggs came after the first line, which one of the questions leaves out"
    assert n_looks == 2 * 3, "for the answer, for all that is left out, and for the prompt shown here"


def test_events_without_an_item_say_nothing(prior: Popularity, tmp_path: Path) -> None:
    gone = Event(user_id="bob", item_id="i-gone", at=corner_shop.events()[0].at)
    with shop(tmp_path, [*corner_shop.events(), gone]) as store:
        answer = recommender(store, prior).recommend("bob", at=LATER, explain=True)
    assert [one.item_id for one in answer.items[0].evidence or ()] == ["i-beer", "i-milk"]
