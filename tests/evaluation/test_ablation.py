"""Parts left out as values: what is told of a moment, and what another person lends."""

from __future__ import annotations

import itertools
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import get_args
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from genrec.catalog import Catalog
from genrec.context import FEATURES, Words
from genrec.decoding.scoring import Scoring
from genrec.decoding.search import place, score
from genrec.evaluation.ablation import CLOCK, REQUEST_H, Part, Speech, Told, otherwise, parts, placed, row
from genrec.evaluation.judge import WITHIN
from genrec.evaluation.split import Split
from genrec.events import Context, Item, User
from genrec.history import History, Moment
from genrec.prompt import Template, bundled_prompts, load_template
from tests.decoding.test_search import DiceModel, trie_of

START = datetime(2024, 3, 1, 9, tzinfo=UTC)
TEMPLATE = load_template("next-item", [bundled_prompts()])
CATALOG = Catalog.of([Item(item_id=name, title=name) for name in ("tea", "beer")])
SPEECH = Speech(TEMPLATE, Words(time_zone="Europe/Berlin"), CATALOG)


def case(*seconds: int, user_id: str = "ann", device: str = "phone", **attributes: str) -> History:
    """Somebody who takes tea so many seconds after the start, the last time to be judged by."""
    context = Context(device=device)
    moments = tuple(Moment(at=START + timedelta(seconds=s), context=context, item_ids=("tea",)) for s in seconds)
    return History(
        user_id=user_id, user=User(user_id=user_id, attributes=attributes), at=moments[-1].at, moments=moments
    )


@given(st.integers(0, 10**7), st.integers(1, 10**6), st.integers(1, 10**6), st.sampled_from(get_args(Told)))
def test_nothing_more_is_told_than_may_be_known(last: int, wait: int, other_wait: int, now: Told) -> None:
    one, other = (SPEECH.told(case(0, last, last + later), now) for later in (wait, other_wait))
    assert one.moments[:-1] == case(0, last, last + wait).moments[:-1]
    assert one.at == one.moments[-1].at
    assert START + timedelta(seconds=last) < one.at <= START + timedelta(seconds=last + wait)
    slots = [
        at.astimezone(ZoneInfo("Europe/Berlin"))
        for at in (START + timedelta(seconds=last + w) for w in (wait, other_wait))
    ]
    same = slots[0].date() == slots[1].date() and slots[0].hour // REQUEST_H == slots[1].hour // REQUEST_H
    if now == "none" or (now == "request" and same):
        assert one.at == other.at, "so it tells nothing of the choice's instant"
    if now == "exact":
        assert one == case(0, last, last + wait)


def test_the_words_of_the_clock_are_those_that_tell_when() -> None:
    context = Context(place="store 3", latitude=52.5, longitude=13.4, device="phone", extra={"mood": "calm"})
    instants = (START + timedelta(minutes=20) * n for n in range(9000))
    before, *then = (Moment(at=at, context=context, item_ids=()) for at in instants)
    words = Words(time_zone="Europe/Berlin", country="DE")
    told = [words.of(one, before) for one in then]
    assert {f for f in FEATURES if len({one[f] for one in told}) > 1} == set(CLOCK)


@pytest.mark.parametrize(
    ("name", "word"), [("city", "ahead"), ("health", "daylight"), ("news", "hour"), ("smart-home", "daylight")]
)
def test_a_word_that_a_template_names_can_be_left_out(name: str, word: str) -> None:
    template, there = load_template(name, [bundled_prompts()]), Context(latitude=52.5, longitude=13.4)
    eve = datetime(2024, 4, 29, 9, tzinfo=UTC)
    person = replace(case(0), moments=(Moment(at=eve, context=there, item_ids=("tea",)),))

    def said(template: Template) -> set[str]:
        return Speech(template, Words(country="DE"), CATALOG).features([person])

    [part] = [one for one in parts(template, said(template), [person], {}) if one.name == word]
    assert said(part.template(template)) == said(template) - {word}


def test_another_person_lends_words_or_profile() -> None:
    cases = [
        case(0, 60, user_id="ann", device="phone", age="9"),
        case(0, 86_400, user_id="bob", device="watch", age="5"),
    ]
    split = Split(target="first", cut=START, ends={}, learn=[], fit=[], judge=cases, future=frozenset())
    device, profile = Part(name="device", features=("device",)), Part(name="profile", profile=True)
    same, instead = otherwise(device, "shuffled", split, split, SPEECH)
    assert (same, [instead(one) for one in cases]) == (cases, [{"device": "watch"}, {"device": "phone"}])
    assert otherwise(device, "silenced", split, split, SPEECH)[1](cases[0]) == {"device": ""}
    split = replace(split, judge=[replace(one, friends_took=lambda at: []) for one in cases])
    lent, instead = otherwise(profile, "shuffled", split, split, SPEECH)
    assert [one.user.attributes for one in lent if one.user] == [{"age": "5"}, {"age": "9"}]
    assert [one.friends_took for one in lent] == [one.friends_took for one in split.judge[::-1]]
    assert ([one.moments for one in lent], instead(cases[0])) == ([one.moments for one in cases], {})


def test_what_there_is_one_of_is_no_part() -> None:
    known = case(0, age="9")
    names = {
        part.name for part in parts(TEMPLATE, {"since", "place"}, [known], {"action": ["buy"], "source": ["b", "a"]})
    }
    assert names == {"since", "place", "all", "profile", "source:a", "source:b"}
    nobody = replace(known, user=None)
    shop = load_template("shop", [bundled_prompts()])
    [profile] = [part for part in parts(shop, {}, [nobody], {}) if part.profile]
    assert (bool(shop.traits), profile.template(shop).traits) == (True, ()), "what is inferred is told there, too"
    assert [part.name for part in parts(TEMPLATE, {"since"}, [nobody], {"action": ["buy", "look"]})] == [
        "since",
        "action:buy",
        "action:look",
    ]


def test_differences_are_paired_by_person() -> None:
    people = [f"p{i}" for i in range(12)]
    whole = {"places": [[0]] * 11 + [None]}
    without = row({"places": [None, *[[3]] * 11], "gamma": 0.5}, whole, people)
    assert (without["n"], without["HR@1"], without["gamma"]) == (10, 0, 0.5)
    assert without["difference"]["HR@1"] == {"difference": -1, "interval": [-1, -1], "tied": False}
    assert row(whole, whole, people)["n"] == 11
    assert "difference" not in row(whole, whole, people)
    assert row({"places": [[0]] * 12}, whole, people)["difference"]["HR@1"]["difference"] == pytest.approx(0)


def test_every_item_of_a_basket_counts_and_intervals_are_over_people() -> None:
    people = [f"p{i}" for i in range(12)]
    whole = {"places": [[0, 1, 2, 3]] * 12, "nats": [[1.0] * 4] * 12}
    without = row({"places": [[0, 20, 20, 20]] * 12, "nats": [[1.0, 2.0, 2.0, 3.0]] * 12}, whole, people)
    assert (without["n"], without["people"]) == (48, 12)
    assert (without["HR@1"], without["HR@10"], without["nats"]) == (0.25, 0.25, 2.0)
    assert without["difference"]["HR@10"] == {"difference": -0.75, "interval": [-0.75, -0.75], "tied": False}
    assert without["difference"]["nats"] == {"difference": 1.0, "interval": [1.0, 1.0], "tied": False}
    baskets = [*[[0] * 9] * 6, *[[20] * 9] * 6]
    low, high = row({"places": baskets}, {"places": baskets}, people)["interval"]["HR@10"]
    assert high - low > 0.4, "twelve people say less than a hundred items would"


def test_places_and_nats_of_a_basket_are_those_of_the_list_and_of_the_model() -> None:
    model, sequences = DiceModel(seed=3), [(1, *ids, 0) for ids in itertools.product(range(1, 6), repeat=2)]
    trie, n = trie_of(sequences), len(sequences)
    log_mass = np.log(np.random.default_rng(0).dirichlet(np.ones(n)))
    scoring = Scoring(name="fused", gamma=0.7, beta=0.8)
    places, nats = model.run(placed(trie, range(n), scoring, log_mass))
    assert places == [
        model.run(place(trie, row, within=WITHIN, scoring=scoring, log_mass=log_mass)) for row in range(n)
    ]
    assert places.count(WITHIN) == n - WITHIN
    alone = model.run(score(trie, range(n), scoring=Scoring(name="masked")))
    assert nats == pytest.approx((-alone).tolist()), "whatever the prior says"
    assert np.exp(alone).sum() == pytest.approx(1), "among all items of the catalogue"
