"""The road from a person and a moment to a list, on a shop whose answers can be seen."""

from __future__ import annotations

import asyncio
import itertools
import json
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator, Sequence
from copy import copy
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import genrec
from genrec.catalog import Catalog
from genrec.context import Words
from genrec.decoding.scoring import Scoring
from genrec.decoding.search import Limits
from genrec.engines.transformers import TransformersEngine
from genrec.errors import ConfigError, EmptyCatalogError
from genrec.events import Context, Event, Item, User, batch, items_of
from genrec.history import History
from genrec.priors.base import Prior
from genrec.priors.popularity import Popularity
from genrec.prompt import bundled_prompts, load_template
from genrec.recommendation import Query, Recommendation
from genrec.recommender import Recommender
from genrec.recommender import _best as best_rows
from genrec.rerank import Candidate, Diversity, Reranker
from genrec.store import Store
from tests.support import corner_shop
from tests.support.corner_shop import NEW_YORK

LATER = datetime(2025, 6, 16, 9, tzinfo=NEW_YORK)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    with Store.open(tmp_path_factory.mktemp("shop") / "genrec.db") as store:
        corner_shop.fill(store)
        yield store


@pytest.fixture(scope="module")
def catalog(store: Store) -> Catalog:
    return Catalog.of(items_of(store.items()))


@pytest.fixture(scope="module")
def prior(store: Store, catalog: Catalog) -> Popularity:
    prior = Popularity(strength=1.0)
    prior.fit(catalog, store.events())
    return prior


@pytest.fixture(scope="module")
def engine(tiny_model: Path) -> Iterator[TransformersEngine]:
    engine = TransformersEngine(tiny_model, model="tiny", dtype="float32")
    yield engine
    engine.close()


@pytest.fixture
def by_prior(store: Store, catalog: Catalog, prior: Popularity) -> Recommender:
    return Recommender(store=store, catalog=catalog, prior=prior)


def by_model(store: Store, catalog: Catalog, engine: TransformersEngine, **options: Any) -> Recommender:
    return Recommender(
        store=store, catalog=catalog, engine=engine, template=load_template("next-item", [bundled_prompts()]), **options
    )


def titles(answer: Recommendation) -> list[str]:
    return [item.title for item in answer.items]


# The prior alone


def test_the_prior_alone_mixes_popularity_and_own_purchases(by_prior: Recommender) -> None:
    answer = by_prior.recommend("bob", at=LATER)
    assert titles(answer) == ["Beer", "Milk", "Bread", "Eggs", "Tea"]
    assert (answer.engine, answer.scoring, answer.model, answer.prompt) == ("none", "prior", None, None)
    # bob bought beer 3 times of 4; of 14 events of all 3 are beer; half an event for every item
    assert answer.items[0].probability == pytest.approx((3 + 3.5 / 16.5) / (4 + 1))
    assert sum(item.probability or 0 for item in answer.items) == pytest.approx(1)
    assert [item.rank for item in answer.items] == [1, 2, 3, 4, 5]


def test_nothing_after_the_moment_is_used(by_prior: Recommender) -> None:
    before_the_first_beer = datetime(2025, 6, 6, 20, tzinfo=NEW_YORK)
    assert titles(by_prior.recommend("bob", at=before_the_first_beer, k=2)) == ["Milk", "Bread"]
    assert titles(by_prior.recommend("bob", at=before_the_first_beer + timedelta(microseconds=1), k=1)) == ["Beer"]


def test_excluding_what_was_seen_keeps_the_probabilities(by_prior: Recommender) -> None:
    everything = by_prior.recommend("bob", at=LATER)
    new = by_prior.recommend("bob", at=LATER, exclude_seen=True)
    assert titles(new) == ["Bread", "Eggs", "Tea"]
    assert [item.probability for item in new.items] == [item.probability for item in everything.items[2:]]


def test_all_items_seen_is_an_error_alone_and_a_note_among_others(store: Store, prior: Popularity) -> None:
    catalog = Catalog.of([item for item in corner_shop.ITEMS if item.title in ("Milk", "Bread")])
    small = Popularity()
    small.fit(catalog, store.events())
    recommender = Recommender(store=store, catalog=catalog, prior=small)
    with pytest.raises(EmptyCatalogError, match="already has all 2") as caught:
        recommender.recommend("ann", at=LATER, exclude_seen=True)
    assert "--include-seen" in (caught.value.hint or "")
    ann, bob = recommender.recommend_many([Query(user_id=u, at=LATER, exclude_seen=True) for u in ("ann", "bob")])
    assert ann.items == ()
    assert "already has all 2" in ann.notes[-1]
    assert titles(bob) == ["Bread"]


def test_an_empty_catalogue_says_how_to_fill_it(store: Store) -> None:
    prior = Popularity()
    prior.fit(Catalog.of([]), [])
    with pytest.raises(EmptyCatalogError) as caught:
        Recommender(store=store, catalog=Catalog.of([]), prior=prior).recommend("ann")
    assert "genrec import" in (caught.value.hint or "")


def test_a_catalogue_of_one_item(store: Store, engine: TransformersEngine) -> None:
    one = Catalog.of(corner_shop.ITEMS[:1])
    for scoring in (Scoring(name="joint"), Scoring(name="masked")):
        assert titles(by_model(store, one, engine, scoring=scoring).recommend("ann", at=LATER)) == ["Milk"]


def test_a_stranger_gets_what_is_popular_and_is_told_so(by_prior: Recommender) -> None:
    answer = by_prior.recommend("zoe", at=LATER, k=3)
    assert titles(answer) == ["Milk", "Bread", "Beer"]
    assert "zoe" in answer.notes[0]
    assert "context alone" in answer.notes[0]
    assert by_prior.recommend("ann", at=LATER).notes == ()
    assert "profile" in by_prior.recommend("ann", at=datetime(2025, 1, 1, tzinfo=UTC)).notes[0]


# Time


def test_a_time_without_zone_is_read_on_the_persons_clock(by_prior: Recommender) -> None:
    answer = by_prior.recommend("ann", at="2025-06-16T09:00")
    assert answer.at == LATER
    assert answer.context.time_zone == "America/New_York"
    assert answer.notes == ("2025-06-16T09:00 names no time zone: read in America/New_York, the clock of ann.",)


def test_without_a_clock_of_their_own_it_is_the_workspaces(store: Store, catalog: Catalog, prior: Popularity) -> None:
    recommender = Recommender(store=store, catalog=catalog, prior=prior, words=Words(time_zone="Asia/Tokyo"))
    answer = recommender.recommend("bob", at=datetime(2025, 6, 16, 9))
    assert answer.at.isoformat() == "2025-06-16T09:00:00+09:00"
    assert "Asia/Tokyo, the clock of the workspace" in answer.notes[0]


def test_where_a_position_is_given_its_clock_counts(by_prior: Recommender) -> None:
    answer = by_prior.recommend("ann", at="2025-06-16T15:00", position=(48.85, 2.35))
    assert answer.at == LATER
    assert answer.context.time_zone == "Europe/Paris"
    assert answer.notes == ("2025-06-16T15:00 names no time zone: read in Europe/Paris, the clock of the position.",)
    assert by_prior.recommend("ann", at=LATER, position=(0.0, 0.0)).context.time_zone == "America/New_York"


def test_what_somebody_did_at_home_is_not_read_by_the_clock_of_where_they_are(by_prior: Recommender) -> None:
    seen: dict[str, History] = {}

    def trace(user_id: str, stage: str, value: History) -> None:
        seen[stage] = value

    def zones(position: tuple[float, float] | None) -> set[str | None]:
        by_prior.recommend("ann", at=LATER, position=position, trace=trace)
        return {moment.context.time_zone for moment in seen["history"].moments}

    assert zones(None) == {None}, "the person's, which the line says of now"
    assert zones((48.85, 2.35)) == {"America/New_York"}


@pytest.mark.parametrize(
    ("at", "happened", "utc"),
    [
        ("2025-11-02T01:30", "came twice", "2025-11-02T05:30"),  # the first of the two
        ("2025-03-09T02:30", "was skipped", "2025-03-09T07:30"),
        ("2025-03-09T03:30", None, "2025-03-09T07:30"),
    ],
)
def test_a_time_that_the_clock_showed_twice_or_never_is_said(
    by_prior: Recommender, at: str, happened: str | None, utc: str
) -> None:
    answer = by_prior.recommend("ann", at=at)
    assert answer.at.astimezone(UTC) == datetime.fromisoformat(utc).replace(tzinfo=UTC)
    assert answer.at.replace(tzinfo=None) == answer.at.astimezone(UTC).astimezone(answer.at.tzinfo).replace(tzinfo=None)
    assert [happened in note for note in answer.notes if "clocks changed" in note] == ([True] if happened else [])


def test_a_time_with_zone_is_shown_on_the_persons_clock(by_prior: Recommender) -> None:
    answer = by_prior.recommend("ann", at="2025-06-16T13:00Z")
    assert answer.at.isoformat() == "2025-06-16T09:00:00-04:00"
    assert answer.notes == ()


def test_without_a_time_it_is_now(by_prior: Recommender) -> None:
    before = datetime.now(UTC)
    assert before <= by_prior.recommend("ann").at <= datetime.now(UTC)


def test_a_time_that_is_none_is_refused(by_prior: Recommender) -> None:
    with pytest.raises(ConfigError, match="next tuesday") as caught:
        by_prior.recommend("ann", at="next tuesday")
    assert "2017-11-22T18:00" in (caught.value.hint or "")


@pytest.mark.parametrize("at", ["0001-01-01T00:00Z", "9999-12-31T23:59Z", "0001-01-01T00:00"])
def test_a_time_at_the_end_of_the_calendar_is_refused(by_prior: Recommender, at: str) -> None:
    with pytest.raises(ConfigError, match="years 2 to 9998"):
        by_prior.recommend("ann", at=at)


def test_unknown_time_zones_keep_nobody_from_an_answer(engine: TransformersEngine, tmp_path: Path) -> None:
    with Store.open(tmp_path / "genrec.db") as store:
        corner_shop.fill(store)
        mars = Context(time_zone="Mars/Olympus")
        store.put("users", [batch("users", [User(user_id="eve", time_zone="Mars/Olympus")])])
        store.append(
            [batch("events", [Event(user_id="eve", item_id="i-tea", at=corner_shop.events()[0].at, context=mars)])],
            source="space",
        )
        recommender = by_model(store, Catalog.of(items_of(store.items())), engine, words=Words(time_zone="Asia/Tokyo"))
        eve, bob = recommender.recommend_many([Query(user_id=user, at="2025-06-16T09:00") for user in ("eve", "bob")])
        assert len(eve.items) == len(bob.items) == 5
        assert eve.at.isoformat() == "2025-06-16T09:00:00+09:00"
        assert "'Mars/Olympus', the time zone of eve, is not known" in eve.notes[0]
        assert "Asia/Tokyo, the clock of the workspace" in eve.notes[1]
        [prompt] = recommender.prompts([Query(user_id="eve", at=LATER)])
        assert prompt.lines[0] == "Monday night, summer | Tea;"  # nine in the morning in New York


# The language model


def test_the_model_ranks_as_brute_force_does(
    store: Store, catalog: Catalog, engine: TransformersEngine, tiny_model: Path
) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    recommender = by_model(store, catalog, engine)
    answer = recommender.recommend("ann", at=LATER)
    [prompt] = recommender.prompts([Query(user_id="ann", at=LATER)])
    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    expected = {}
    for row, item in enumerate(catalog.items):
        ids = recommender.encoded.ids(row)
        with torch.inference_mode():
            logits = model(torch.tensor([[*prompt.token_ids, *ids]])).logits[0].log_softmax(-1)
        expected[item.title] = sum(float(logits[len(prompt.token_ids) + n - 1, i]) for n, i in enumerate(ids))
    assert titles(answer) == sorted(expected, key=lambda title: -expected[title])
    assert [item.logprob for item in answer.items] == pytest.approx(sorted(expected.values(), reverse=True), abs=1e-4)
    assert all(item.probability is None for item in answer.items)
    assert (answer.engine, answer.scoring, answer.model, answer.prompt) == (
        "transformers",
        "joint",
        "tiny",
        "next-item",
    )


def test_masked_scoring_is_a_distribution(store: Store, catalog: Catalog, engine: TransformersEngine) -> None:
    answer = by_model(store, catalog, engine, scoring=Scoring(name="masked")).recommend("ann", at=LATER)
    assert sum(item.probability or 0 for item in answer.items) == pytest.approx(1, abs=1e-6)
    part = by_model(store, catalog, engine, scoring=Scoring(name="masked")).recommend(
        "ann", at=LATER, exclude_seen=True
    )
    whole = {item.title: item.logprob for item in answer.items}
    assert set(titles(part)) == {"Beer", "Eggs", "Tea"}
    assert {item.title: item.logprob for item in part.items} == pytest.approx({t: whole[t] for t in titles(part)})


def test_fused_scoring_without_the_model_is_the_prior(
    store: Store, catalog: Catalog, engine: TransformersEngine, prior: Popularity, by_prior: Recommender
) -> None:
    scoring = Scoring(name="fused", gamma=0.0, beta=1.0)
    fused = by_model(store, catalog, engine, prior=prior, scoring=scoring).recommend("bob", at=LATER)
    alone = by_prior.recommend("bob", at=LATER)
    assert titles(fused) == titles(alone)
    assert [i.logprob for i in fused.items] == pytest.approx([i.logprob for i in alone.items])


def test_the_prior_answers_in_the_engines_place_as_it_does_alone(
    store: Store, catalog: Catalog, engine: TransformersEngine, prior: Popularity, by_prior: Recommender
) -> None:
    query = Query(user_id="ann", at=LATER)
    beside_an_engine = by_model(store, catalog, engine, prior=prior, scoring=Scoring(name="fused"))
    found = asyncio.run(beside_an_engine.answer(query, by_prior=True))
    [expected] = by_prior.recommend_many([query])
    assert found.items == expected.items
    assert (found.engine, found.scoring, found.model, found.usage) == ("none", "prior", None, {})


def test_one_run_for_many_gives_what_each_gets_alone(
    store: Store, catalog: Catalog, engine: TransformersEngine
) -> None:
    recommender = by_model(store, catalog, engine)
    together = recommender.recommend_many([Query(user_id=user, at=LATER, k=3) for user in ("ann", "bob", "zoe")])
    for answer in together:
        alone = recommender.recommend(answer.user_id, at=LATER, k=3)
        assert [item.item_id for item in answer.items] == [item.item_id for item in alone.items]
        # what is read on from a cache is rounded differently
        assert [item.logprob for item in answer.items] == pytest.approx(
            [item.logprob for item in alone.items], abs=1e-4
        )
        assert min(answer.usage["n_computed_tokens"], alone.usage["n_computed_tokens"]) > 0


def test_place_and_device_reach_the_prompt(store: Store, catalog: Catalog, engine: TransformersEngine) -> None:
    recommender = by_model(store, catalog, engine)
    [prompt] = recommender.prompts([Query(user_id="ann", at=LATER, place="harbour kiosk", device="tablet")])
    now = prompt.lines[-1]
    assert "harbour kiosk" in now
    assert "tablet" in now
    answer = recommender.recommend("ann", at=LATER, place="harbour kiosk", device="tablet")
    assert (answer.context.place, answer.context.device) == ("harbour kiosk", "tablet")


def test_the_trace_shows_every_stage_in_order(store: Store, catalog: Catalog, engine: TransformersEngine) -> None:
    seen: list[tuple[str, str, Any]] = []
    answer = by_model(store, catalog, engine).recommend(
        "ann", at=LATER, k=2, trace=lambda user_id, stage, value: seen.append((user_id, stage, value))
    )
    assert [(user_id, stage) for user_id, stage, _ in seen] == [
        ("ann", "history"),
        ("ann", "prompt"),
        ("ann", "search"),
        ("ann", "rerank"),
    ]
    values = {stage: value for _, stage, value in seen}
    assert len(values["history"].moments) == 4
    assert [catalog.items[row].title for row in values["search"].rows] == titles(answer)
    assert list(answer.timings_s) == ["history", "prompt", "search", "rerank"]
    assert all(seconds > 0 for seconds in answer.timings_s.values())


# Reranking


def test_the_search_finds_enough_for_the_rerankers(store: Store, catalog: Catalog, prior: Popularity) -> None:
    recommender = Recommender(store=store, catalog=catalog, prior=prior, rerankers=[Diversity(per_category=1, pool=5)])
    # Without diversity ann's three would be milk, bread, then eggs or beer; eggs are dairy, as milk is.
    assert titles(recommender.recommend("ann", at=LATER, k=3)) == ["Milk", "Bread", "Beer"]
    assert titles(recommender.recommend("cat", at=LATER, k=3)) == ["Milk", "Bread", "Beer"]
    plain = Recommender(store=store, catalog=catalog, prior=prior)
    assert titles(plain.recommend("cat", at=LATER, k=3)) == ["Milk", "Bread", "Eggs"]


@dataclass(kw_only=True)
class Strict(Reranker):
    """Likes nothing."""

    def rerank(self, candidates: Sequence[Candidate], history: History, now: Context, k: int) -> list[Candidate]:
        return []


def test_rerankers_that_leave_nothing_are_named_as_the_reason(
    store: Store, catalog: Catalog, prior: Popularity
) -> None:
    recommender = Recommender(store=store, catalog=catalog, prior=prior, rerankers=[Strict()])
    with pytest.raises(EmptyCatalogError, match="rerankers left out all 3 candidates for zoe") as caught:
        recommender.recommend("zoe", at=LATER, k=3)
    assert caught.value.hint is None


@dataclass(kw_only=True)
class Certain(Prior):
    """Gives one item everything, or no item anything."""

    title: str

    def fit(self, catalog: Catalog, events: Iterable[pa.RecordBatch]) -> None:
        self.is_it = np.array([item.title == self.title for item in catalog.items])

    def log_mass(self, history: History, now: Context) -> np.ndarray:
        return np.where(self.is_it, 0.0, -np.inf)


@pytest.mark.parametrize("with_model", [False, True])
def test_an_item_without_probability_is_not_recommended(
    store: Store, catalog: Catalog, engine: TransformersEngine, *, with_model: bool
) -> None:
    prior = Certain(title="Beer")
    prior.fit(catalog, [])
    recommender = (
        by_model(store, catalog, engine, prior=prior)
        if with_model
        else Recommender(store=store, catalog=catalog, prior=prior)
    )
    queries = [Query(user_id=user, at=LATER, k=4, exclude_seen=True) for user in ("ann", "bob")]
    ann, bob = recommender.recommend_many(queries)
    assert titles(ann) == ["Beer"]
    assert ann.items[0].probability == pytest.approx(1.0)
    assert (bob.items, bob.notes) == ((), ("No item has any probability for bob.",))


# Shape


def test_the_answer_as_json(by_prior: Recommender, catalog: Catalog) -> None:
    answer = by_prior.recommend("ann", at=LATER, k=1, place="corner shop")
    shown = json.loads(json.dumps(answer.to_dict()))
    assert shown.pop("timings_s").keys() == {"history", "search", "rerank"}
    [item] = shown.pop("items")
    assert item.keys() == {"rank", "item_id", "title", "logprob", "probability", "score"}
    assert item["score"] == item["logprob"] == pytest.approx(np.log(item["probability"]))
    assert shown == {
        "user_id": "ann",
        "at": "2025-06-16T09:00:00-04:00",
        "context": {"time_zone": "America/New_York", "place": "corner shop"},
        "model": None,
        "prompt": None,
        "catalog": catalog.fingerprint,
        "engine": "none",
        "scoring": "prior",
        "usage": {},
        "exact": True,
        "needs_review": False,
        "notes": [],
    }


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(
    st.sampled_from(["ann", "bob", "cat", "zoe", "", "👻\n| ;"]),
    st.datetimes(datetime(2025, 5, 1), datetime(2025, 7, 1)),
    st.integers(1, 9),
    st.booleans(),
)
def test_a_list_is_ordered_real_and_without_repeats(
    by_prior: Recommender, user_id: str, at: datetime, k: int, exclude_seen: bool
) -> None:
    at = at.replace(tzinfo=UTC)
    [answer] = by_prior.recommend_many([Query(user_id=user_id, at=at, k=k, exclude_seen=exclude_seen)])
    ids = [item.item_id for item in answer.items]
    had = {event.item_id for event in corner_shop.events() if event.user_id == user_id and event.at < at}
    assert len(ids) == min(k, 5 - len(had) * exclude_seen)
    assert len(set(ids)) == len(ids)
    assert set(ids) <= {item.item_id for item in corner_shop.ITEMS}
    assert not (exclude_seen and had & set(ids))
    assert all(one.score >= other.score for one, other in itertools.pairwise(answer.items))


def test_a_list_without_places_is_refused(by_prior: Recommender) -> None:
    with pytest.raises(ConfigError, match="at least 1"):
        by_prior.recommend("ann", k=0)


@pytest.mark.parametrize(
    ("parts", "says"),
    [({}, "engine, a prior or both"), ({"engine": object()}, "prompt template")],
)
def test_parts_that_cannot_answer_are_refused(store: Store, catalog: Catalog, parts: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        Recommender(store=store, catalog=catalog, **parts)


def test_fused_scoring_asks_for_a_prior(store: Store, catalog: Catalog, engine: TransformersEngine) -> None:
    with pytest.raises(ConfigError, match="needs a prior"):
        by_model(store, catalog, engine, scoring=Scoring(name="fused"))


def test_the_position_of_now_is_told_from_where_the_person_has_been(
    catalog: Catalog, engine: TransformersEngine, tmp_path: Path
) -> None:
    office, start = Context(latitude=40.75, longitude=-73.99, time_zone="America/New_York"), corner_shop.events()[0].at
    worked = [
        Event(user_id="dan", item_id="i-milk", at=start + timedelta(days=day), context=office) for day in range(5)
    ]
    template = load_template("places", [bundled_prompts()])
    with Store.open(tmp_path / "genrec.db") as store:
        store.append([batch("events", worked)], source="work")
        recommender = Recommender(store=store, catalog=catalog, engine=engine, template=template)
        theirs = [Query(user_id="dan", at=LATER, position=there) for there in ((40.75, -73.99), (40.8, -73.99), None)]
        at_work, north, unknown = recommender.prompts(theirs)
    assert at_work.said["usual"] == "at work"
    assert north.lines[-1].endswith("elsewhere, 5 km north of work, 5 km away |")
    assert not {"usual", "bearing", "distance"} & {*unknown.said}


def test_what_somebody_corrects_is_what_the_model_reads_from_then_on(
    catalog: Catalog, engine: TransformersEngine, tmp_path: Path
) -> None:
    start = corner_shop.events()[0].at
    daily = [Event(user_id="ann", item_id="i-milk", at=start + timedelta(days=day)) for day in range(40)]
    query = Query(user_id="ann", at=start + timedelta(days=40))
    template = load_template("smart-home", [bundled_prompts()])
    with Store.open(tmp_path / "genrec.db") as store:
        store.put("users", [batch("users", corner_shop.USERS)])
        store.append([batch("events", daily)], source="till")
        recommender = Recommender(store=store, catalog=catalog, engine=engine, template=template, max_tokens=400)

        def profile() -> str:
            [prompt] = recommender.prompts([query])
            return prompt.turns[-1][1].splitlines()[0]

        assert profile() == "kids: 2, habits: Milk daily."
        store.correct("ann", {"kids": "3", "habit:Milk": None})
        store.put("users", [batch("users", corner_shop.USERS)])
        assert profile() == "kids: 3."
        store.correct("ann", {"habits": "tea at night"})
        assert profile() == "habits: tea at night, kids: 3."
        store.forget("ann")
        assert profile() == "Go on with the list."


def test_an_item_too_long_for_the_model_is_refused(store: Store, engine: TransformersEngine) -> None:
    long = Catalog.of([Item(item_id="long", title="🏪" * 40)])
    narrow = copy(engine)
    narrow.max_tokens = 100
    with pytest.raises(ConfigError, match="longest item takes 162 tokens, and tiny reads 100"):
        by_model(store, long, narrow)


def test_a_prompt_needs_an_engine(by_prior: Recommender) -> None:
    with pytest.raises(ConfigError, match="no prompt"):
        by_prior.prompts([Query(user_id="ann")])


def test_importing_genrec_and_answering_from_the_prior_loads_no_model_library(tmp_path: Path) -> None:
    shop = corner_shop.make_workspace(tmp_path / "shop", {"priors": {"popularity": {"strength": 1.0}}})
    script = f"""
import sys, genrec
assert not {{"numpy", "pyarrow", "sqlalchemy"}} & set(sys.modules)
with genrec.open({str(shop)!r}) as workspace:
    print(workspace.recommender().recommend("bob", at="2025-06-16T09:00", k=1).items[0].title)
assert not {{"torch", "transformers", "vllm"}} & set(sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "Beer\n"


def test_the_public_names_are_there() -> None:
    assert all(getattr(genrec, name) is not None for name in genrec.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = genrec.nonsense


# A catalogue that changes


@pytest.fixture
def growing(tmp_path: Path) -> Iterator[tuple[Store, Catalog]]:
    with Store.open(tmp_path / "genrec.db") as store:
        corner_shop.fill(store)
        yield store, Catalog.read(store.items(), store.texts(), retired=store.retired())


def test_an_item_is_recommended_as_soon_as_it_is_added_and_no_longer_when_it_is_retired(
    growing: tuple[Store, Catalog], engine: TransformersEngine
) -> None:
    store, catalog = growing
    prior = Popularity(strength=1.0)
    prior.fit(catalog, store.events())
    kefir = Item(item_id="i-kefir", title="Kefir", category="dairy", attributes={"tenant": "a"})
    recommenders = [
        Recommender(store=store, catalog=catalog, prior=prior),
        by_model(store, catalog, engine, prior=prior),
        by_model(store, catalog, engine, prior=prior, scoring=Scoring(name="masked")),
        by_model(store, catalog, engine),
    ]
    for number, recommender in enumerate(recommenders):
        assert len(recommender.recommend("bob", at=LATER, k=99).items) == 5
        if number:
            assert recommender.add_items([kefir]).rows == {}
        else:
            assert recommender.add_items([kefir]).rows == {"i-kefir": 5}
        answer = recommender.recommend("bob", at=LATER, k=99)
        assert set(titles(answer)) == {"Milk", "Bread", "Beer", "Eggs", "Tea", "Kefir"}
        if answer.items[0].probability is not None:
            assert sum(item.probability or 0 for item in answer.items) == pytest.approx(1)
        assert titles(recommender.recommend("bob", at=LATER, where={"tenant": "a"})) == ["Kefir"]
        assert recommender.retire_items(["i-kefir", "i-nothing"]) == {"i-kefir"}
        assert "Kefir" not in titles(recommender.recommend("bob", at=LATER, k=99))
        assert len(recommender.recommend("bob", at=LATER, k=99).items) == 5


def test_a_search_under_way_keeps_the_catalogue_it_began_with(
    growing: tuple[Store, Catalog], engine: TransformersEngine
) -> None:
    store, catalog = growing
    prior = Popularity(strength=1.0)
    prior.fit(catalog, store.events())
    recommender = by_model(store, catalog, engine, prior=prior)

    class Adding(type(recommender.prior)):  # type: ignore[misc]
        """Adds an item while the search is being set up."""

        def log_mass(self, history: History, now: Context) -> np.ndarray:
            recommender.add_items([Item(item_id=f"i-{len(catalog)}", title=f"Kefir {len(catalog)}")])
            mass: np.ndarray = super().log_mass(history, now)
            return mass

    recommender.prior = Adding(strength=1.0)
    recommender.prior.fit(catalog, store.events())
    assert len(recommender.recommend("bob", at=LATER, k=99).items) == 5
    assert len(recommender.recommend("bob", at=LATER, k=99).items) == 6


def test_people_are_answered_while_items_come_and_go(growing: tuple[Store, Catalog]) -> None:
    store, catalog = growing
    prior = Popularity(strength=1.0)
    prior.fit(catalog, store.events())
    recommender = Recommender(store=store, catalog=catalog, prior=prior)
    queries = [Query(user_id="ann", at=LATER, k=99), Query(user_id="bob", at=LATER, k=99, categories=("dairy",))]
    wrong: list[object] = []
    done = threading.Event()

    def ask() -> None:
        try:
            while not done.is_set():
                for answer in recommender.recommend_many(queries):
                    if not {"Milk", "Eggs"} <= set(titles(answer)):
                        wrong.append(answer)
        except Exception as error:
            wrong.append(error)

    askers = [threading.Thread(target=ask) for _ in range(3)]
    for asker in askers:
        asker.start()
    for n in range(40):
        recommender.add_items([Item(item_id=f"i{n}", title=f"Kefir {n}", category="dairy")])
        if n % 3 == 0:
            recommender.retire_items([f"i{n}"])
    done.set()
    for asker in askers:
        asker.join()
    assert not wrong
    assert len(recommender.recommend("ann", at=LATER, k=99).items) == 5 + 26


def test_a_prior_that_knows_nothing_of_newcomers_gives_them_its_least(growing: tuple[Store, Catalog]) -> None:
    class Fixed(Prior):
        def fit(self, catalog: Catalog, events: Iterable[pa.RecordBatch]) -> None:
            self.n = len(catalog)

        def log_mass(self, history: History, now: Context) -> np.ndarray:
            mass: np.ndarray = np.log(np.arange(self.n, 0, -1) / self.n)
            mass[2] = -np.inf
            return mass

    store, catalog = growing
    prior = Fixed()
    prior.fit(catalog, [])
    recommender = Recommender(store=store, catalog=catalog, prior=prior)
    recommender.add_items([Item(item_id="i-kefir", title="Kefir")])
    answer = recommender.recommend("bob", at=LATER, k=99)
    assert titles(answer) == ["Milk", "Bread", "Eggs", "Tea", "Kefir"]
    assert answer.items[3].logprob == answer.items[4].logprob


def test_nothing_left_says_why(growing: tuple[Store, Catalog]) -> None:
    store, catalog = growing
    prior = Popularity(strength=1.0)
    prior.fit(catalog, store.events())
    recommender = Recommender(store=store, catalog=catalog, prior=prior)
    with pytest.raises(
        EmptyCatalogError, match="none is on offer in the category bakery that ann does not have yet"
    ) as caught:
        recommender.recommend("ann", at=LATER, categories=["bakery"], exclude_seen=True)
    assert caught.value.hint == (
        "Ask for less: fewer conditions, or more kilometres. Allow what the person already has: --include-seen."
    )
    recommender.add_items([Item(item_id="i-kefir", title="Kefir", attributes={"tenant": "a", "available": "yes"})])
    where = {"tenant": "b", "available": "yes"}
    with pytest.raises(EmptyCatalogError, match="none is on offer with tenant b and available yes"):
        recommender.recommend("ann", at=LATER, where=where)
    recommender.retire_items(catalog.item_ids)
    with pytest.raises(EmptyCatalogError, match="all 6 of the catalogue are retired"):
        recommender.recommend("ann", at=LATER)


@given(st.lists(st.sampled_from([-np.inf, -3.0, -2.0, -1.0]) | st.floats(-9, 0), max_size=30), st.integers(1, 12))
def test_the_best_are_those_of_a_stable_sort(weights: list[float], k: int) -> None:
    few = np.array(weights, float)
    rng = np.random.default_rng(k)
    for some in (few, rng.permutation(np.append(few, np.full(3_000, -2.0))), rng.normal(size=4_000).round(1)):
        expected = [row for row in np.argsort(-some, kind="stable") if some[row] > -np.inf][:k]
        assert best_rows(some, k).tolist() == expected


# A shortlist, and a search that stops early


def test_a_shortlist_gets_the_numbers_that_the_whole_catalogue_gives(
    store: Store, catalog: Catalog, prior: Popularity, engine: TransformersEngine
) -> None:
    for options in ({"scoring": Scoring(name="joint")}, {"scoring": Scoring(name="masked")}, {"prior": prior}):
        recommender = by_model(store, catalog, engine, **options)
        whole = {item.item_id: item.logprob for item in recommender.recommend("ann", at=LATER).items}
        short = recommender.recommend("ann", at=LATER, candidates=["i-tea", "i-beer", "i-tea"])
        assert sorted(item.item_id for item in short.items) == ["i-beer", "i-tea"]
        assert {i.item_id: i.logprob for i in short.items} == pytest.approx(
            {item_id: whole[item_id] for item_id in ("i-beer", "i-tea")}, abs=1e-4
        )
        assert short.items[0].logprob > short.items[1].logprob


def test_the_prior_ranks_a_shortlist_too(by_prior: Recommender) -> None:
    whole = {item.item_id: item.logprob for item in by_prior.recommend("bob", at=LATER).items}
    short = by_prior.recommend("bob", at=LATER, candidates=["i-tea", "i-milk", "i-cocoa"])
    assert [(item.item_id, item.logprob) for item in short.items] == [(i, whole[i]) for i in ("i-milk", "i-tea")]
    assert "lacks 1 of the 3 candidates" in short.notes[0]
    with pytest.raises(EmptyCatalogError, match="none is on offer among the candidates"):
        by_prior.recommend("bob", at=LATER, candidates=["i-cocoa"])


def test_a_filtered_candidate_is_left_out(store: Store, catalog: Catalog, engine: TransformersEngine) -> None:
    recommender = by_model(store, catalog, engine)
    answer = recommender.recommend("bob", at=LATER, candidates=["i-beer", "i-eggs"], exclude_seen=True)
    assert titles(answer) == ["Eggs"]


def test_a_search_that_stops_early_says_so(store: Store, catalog: Catalog, engine: TransformersEngine) -> None:
    assert by_model(store, catalog, engine).recommend("ann", at=LATER).exact
    recommender = by_model(store, catalog, engine, scoring=Scoring(name="joint"), limits=Limits(max_expansions=1))
    [answer] = recommender.recommend_many([Query(user_id="ann", at=LATER)])
    assert not answer.exact
    assert answer.to_dict()["exact"] is False
    assert any("a limit of the search was reached" in note for note in answer.notes)
