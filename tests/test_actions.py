"""What an action counts, from its name to lists, priors, prompts and judges, on made-up people."""

from __future__ import annotations

import json
import math
import random
import tomllib
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import event as sql_event

from genrec.actions import STRONG, Actions, Rule, plain_name
from genrec.catalog import Catalog
from genrec.cli import main
from genrec.config import create_workspace
from genrec.errors import ConfigError, EmptyCatalogError, TrainingError
from genrec.evaluation.log import Log
from genrec.evaluation.split import split_by_person, split_by_time
from genrec.events import Context, Edge, Event, Item, batch
from genrec.finetune.packing import _shuffled
from genrec.history import Moment, read_history
from genrec.priors.basket import Basket
from genrec.priors.blend import Blend, _latest
from genrec.priors.friends import Friends
from genrec.priors.loglinear import Events, Pairs, Popular
from genrec.priors.popularity import Popularity
from genrec.priors.repeat import FEATURES as NAMES_OF_REPEAT
from genrec.priors.repeat import Repeat
from genrec.priors.sequence import Sequence
from genrec.prompt import bundled_prompts, load_template, render_rows
from genrec.store import Store
from genrec.tokenizer import ByteTokenizer
from genrec.workspace import open_workspace

START = datetime(2025, 6, 1, tzinfo=UTC)
ITEMS = [Item(item_id=f"i{n}", title=f"Song {n}") for n in range(5)]
KINDS = ("buy", "view", "impression", "dislike", "skip", "Rate", "hum")
QUICK = settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])

happenings = st.lists(
    st.tuples(st.integers(0, 4), st.sampled_from(KINDS), st.sampled_from([None, 1.0, 5.0]), st.integers(0, 9)),
    max_size=25,
)


def event(item: int, action: str, hours: float, value: float | None = None, user_id: str = "ann") -> Event:
    return Event(user_id=user_id, item_id=f"i{item}", at=START + timedelta(hours=hours), action=action, value=value)


def events_of(told: list[tuple[int, str, float | None, int]]) -> list[Event]:
    return [event(item, action, hours, value) for item, action, value, hours in told]


def filled(file: Path, events: list[Event], actions: Actions | None = None) -> Store:
    file.unlink(missing_ok=True)
    store = Store.open(file, actions=actions)
    store.put("items", [batch("items", ITEMS)])
    store.append([batch("events", events)], source="test")
    return store


def weight(actions: Actions, one: Event) -> float:
    """What the rules say, said another way than the database does."""
    rule = actions.of_action(one.action)
    if rule.positive is None:
        return rule.weight
    return -1.0 if one.value is not None and one.value < rule.positive else 1.0


@pytest.mark.parametrize(
    ("action", "counts"),
    [
        ("buy", 1),
        ("Add-to-Cart", 1),
        ("switchOn", 1),
        ("click", 0.5),
        ("VIEW", 0.3),
        ("impression", 0),
        ("skip", 0),
        ("Thumbs down", -1),
        ("something else", 1),
    ],
)
def test_usual_names_count_as_usual_however_they_are_spelt(action: str, counts: float) -> None:
    assert Actions.of().of_action(action) == Rule(weight=counts)


def test_what_a_workspace_says_comes_before_what_is_usual() -> None:
    actions = Actions.of({"View": 1, "hum": -1, "rate": {"positive": 4}})
    assert [actions.of_action(name).weight for name in ("view", "HUM", "dislike")] == [1, -1, -1]
    assert str(actions.of_action("rate")) == "1 from 4 on, below -1"


@pytest.mark.parametrize(
    "wrong", [2, -1.5, -0.5, "no", True, {"positive": "four"}, {"positive": math.nan}, {"least": 4}, math.nan]
)
def test_a_weight_that_is_none_is_refused_with_advice(tmp_path: Path, wrong: object) -> None:
    with pytest.raises(ValueError, match="hum takes a weight from 0 to 1"):
        Actions.of({"hum": wrong})


def test_a_name_that_is_told_twice_or_says_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="'Hide' is told twice, spelt otherwise"):
        Actions.of({"hide": 1, "Hide": -1})
    with pytest.raises(ValueError, match="'_ ' has no sign that counts"):
        Actions.of({"_ ": 1})
    apart = Actions.of({"Ärger": -1, "ärger": 0})
    assert [apart.of_action(name).weight for name in ("ÄRGER", "äRGER")] == [-1, 0], "beyond A to Z as they are"


@pytest.mark.parametrize(
    "name", ["hate_it", "HATE", "thumbs-down-2", "UserNotInterested", "user_skipped", "\N{BROKEN HEART}hate"]
)
def test_what_is_called_like_a_refusal_is_suspect(name: str) -> None:
    assert Actions.of().suspects(name)


@pytest.mark.parametrize("name", ["commute", "unblock", "un-hide", "UnMute", "whatever", "dislike", "skip", "play"])
def test_what_is_named_or_takes_a_refusal_back_is_not(name: str) -> None:
    assert not Actions.of().suspects(name)


def test_the_settings_refuse_it_too_and_a_new_workspace_keeps_what_it_is_given(tmp_path: Path) -> None:
    create_workspace(tmp_path / "good", {"actions": {"hum": -1, "rate": {"positive": 4}}})
    with open_workspace(tmp_path / "good", engine="none") as opened:
        assert opened.actions.of_action("Rate") == Rule(positive=4)
        assert opened.actions.of_action("hum") == Rule(weight=-1)
    with pytest.raises(ConfigError, match="hum takes a weight"):
        create_workspace(tmp_path / "bad", {"actions": {"hum": 3}})


@QUICK
@given(st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=8), st.booleans())
def test_the_database_spells_names_as_we_do(tmp_path: Path, name: str, turned: bool) -> None:
    actions = Actions.of({name: -1})
    spelt = "-".join(sign.swapcase() if turned and sign.isascii() else sign for sign in name)
    with filled(tmp_path / "names.db", [event(0, spelt, 0)], actions) as store:
        assert plain_name(spelt) == plain_name(name)
        assert store.refused("ann", START + timedelta(days=1)) == {"i0"}


@QUICK
@given(happenings, st.integers(0, 10))
def test_histories_and_refusals_are_what_the_rules_say(
    tmp_path: Path, told: list[tuple[int, str, float | None, int]], hours: int
) -> None:
    actions, events, at = Actions.of({"rate": {"positive": 4}}), events_of(told), START + timedelta(hours=hours)
    weights = [weight(actions, one) for one in events]
    refused = set()
    for one in {one.item_id for one in events}:
        no = [e.at for e, w in zip(events, weights, strict=True) if e.item_id == one and e.at < at and w < 0]
        yes = [e.at for e, w in zip(events, weights, strict=True) if e.item_id == one and e.at < at and w >= STRONG]
        if no and (not yes or max(no) >= max(yes)):
            refused.add(one)
    chosen = [(e, w) for e, w in zip(events, weights, strict=True) if w > 0]
    with filled(tmp_path / "rules.db", events, actions) as store:
        assert store.refused("ann", at) == refused
        past = store.history("ann", at, max_events=100)
        assert sorted((e.at, e.item_id, e.weight) for e in past) == sorted(
            (e.at, e.item_id, w) for e, w in chosen if e.at < at
        )
        for most in (1, 4, 8):
            n_dropped = max(0, -(-(len(past) - most) // max(1, most // 4)) * max(1, most // 4))
            assert store.history("ann", at, max_events=most) == past[n_dropped:]
        assert store.item_ids("ann", at) == {e.item_id for e, _ in chosen if e.at < at}
        streamed = [row for rows in store.choices() for row in rows.to_pylist()]
        assert sorted((r["at"], r["weight"]) for r in streamed) == sorted((e.at, w) for e, w in chosen)
        assert sum(map(len, store.weighed())) == sum(map(len, store.events())) == len(events)
        for moment in read_history(store, "ann", at, max_events=100).moments:
            strong = {e.item_id for e, w in chosen if e.at == moment.at and w >= STRONG}
            assert set(moment.item_ids) - moment.weak == strong
            assert set(moment.item_ids[: len(strong)]) == strong


def test_where_nothing_was_refused_actions_are_all_that_is_read(tmp_path: Path) -> None:
    events = [event(n % 5, ("buy", "VIEW", "impression")[n % 3], n) for n in range(9)]
    at, asked = START + timedelta(days=1), list[str]()
    with filled(tmp_path / "index.db", events, Actions.of()) as store:
        sql_event.listen(store._engine, "before_cursor_execute", lambda *told: asked.append(told[2]))
        assert not store.refused("ann", at)
        [names] = [one for one in asked if "FROM events" in one]
        assert names.startswith("SELECT DISTINCT events.action \nFROM")
        asked.clear()
        assert len(store.history("ann", at, max_events=4)) == 4
        [count] = [one for one in asked if "count(" in one]
        assert "lower(" not in count, "a name is spelt plainly once, not for each event"
        with Store.open(tmp_path / "index.db") as other:
            other.append([batch("events", [event(1, "dislike", 10)])], source="another process")
        assert store.refused("ann", at) == {"i1"}


@settings(QUICK, max_examples=10)
@given(happenings, happenings)
def test_what_is_refused_is_on_no_list_and_later_refusals_change_none(
    tmp_path: Path, told: list[tuple[int, str, float | None, int]], later: list[tuple[int, str, float | None, int]]
) -> None:
    at = START + timedelta(hours=10)
    base = [event(n, "buy", 1, user_id="bob") for n in range(5)]
    after = [event(item, "dislike", 10 + hours) for item, _, _, hours in later]
    answers = []
    for more in ([], after):
        folder = tmp_path / uuid4().hex
        create_workspace(folder, {"engine": "none"})
        filled(folder / "genrec.db", base + events_of(told) + more).close()
        with open_workspace(folder) as opened:
            recommender = opened.recommender()
            refused = opened.store.refused("ann", at)
            if len(refused) == len(ITEMS):
                return
            answer = recommender.recommend("ann", at=at)
            assert {item.item_id for item in answer.items} == {item.item_id for item in ITEMS} - refused
            assert any("refused" in note for note in answer.notes) == bool(refused)
            everything = recommender.recommend("ann", at=at, exclude_refused=False)
            assert len(everything.items) == len(ITEMS)
            answers.append([(item.item_id, item.logprob) for item in answer.items])
    assert answers[0] == answers[1]


def test_an_empty_list_says_what_emptied_it(tmp_path: Path) -> None:
    events = [event(0, "buy", 1), *(event(n, "dislike", 2) for n in range(1, 5)), event(0, "dislike", 3, user_id="bob")]
    create_workspace(tmp_path / "shop", {"engine": "none"})
    filled(tmp_path / "shop" / "genrec.db", events).close()
    with open_workspace(tmp_path / "shop") as opened:
        recommender, at = opened.recommender(), START + timedelta(days=1)

        def told(**how: Any) -> tuple[str, str]:
            with pytest.raises(EmptyCatalogError) as caught:
                recommender.recommend("ann", at=at, **how)
            return str(caught.value), caught.value.hint or ""

        why, hint = told(exclude_seen=True)
        assert "all 5 of the catalogue are theirs already or refused." in why
        assert "--include-seen" in hint
        assert "--include-refused" in hint
        why, hint = told(candidates=("i1", "i2"))
        assert "none is on offer among the candidates that ann did not refuse." in why
        assert "--include-refused" in hint
        notes = recommender.recommend("bob", at=at).notes
        assert any(note.startswith("Nothing that bob chose before") for note in notes)
        opened.store.append([batch("events", [event(n, "buy", 4) for n in range(1, 5)])], source="later")
        recommender.retire_items(["i0"])
        assert told(exclude_seen=True)[0].startswith("No item is left for ann, who already has all 5")
        recommender.retire_items([f"i{n}" for n in range(5)])
        why, hint = told()
        assert "all 5 of the catalogue are retired." in why
        assert not hint


def test_where_all_is_chosen_nothing_changes(tmp_path: Path) -> None:
    events = [event(n % 5, ("buy", "play", "rate", "whatever")[n % 4], n // 2, float(n)) for n in range(40)]
    at = START + timedelta(days=9)
    with filled(tmp_path / "plain.db", events) as plain, filled(tmp_path / "told.db", events, Actions.of()) as told:
        assert plain.history("ann", at, max_events=9) == told.history("ann", at, max_events=9)
        assert plain.mark() == told.mark()
        assert list(plain.choices()) == list(told.choices())
        assert [rows.drop_columns(["weight"]) for rows in told.choices()] == list(plain.events())
        assert read_history(plain, "ann", at, max_events=9) == read_history(told, "ann", at, max_events=9)
        catalog = Catalog.of(ITEMS)
        masses = []
        for stream in (plain.events(), told.choices()):
            prior = Popularity()
            prior.fit(catalog, stream)
            masses.append(prior.log_mass(read_history(plain, "ann", at, max_events=9), Context()))
        assert np.array_equal(*masses)


def test_what_others_took_counts_by_its_weight_and_weak_choices_fit_nothing(tmp_path: Path) -> None:
    often = [event(0, "view", n, user_id="bob") for n in range(10)]
    seldom = [event(1, "buy", 20 + n, user_id="bob") for n in range(4)]
    refused = [event(2, "dislike", 30 + n, user_id="bob") for n in range(20)]
    at, catalog = START + timedelta(days=9), Catalog.of(ITEMS)
    with filled(tmp_path / "weights.db", often + seldom + refused, Actions.of()) as store:
        log = Events.read(catalog, store.choices())
        stranger = read_history(store, "cat", at, max_events=9)
        for prior in (Popularity(), Sequence()):
            prior.fit(catalog, store.choices())
            mass = np.exp(prior.log_mass(stranger, Context()))
            assert mass[1] > mass[0] > mass[2]
        counts = Popular(log, len(ITEMS)).counts(None)
        assert np.allclose(counts, [3, 4, 0, 0, 0], atol=1e-5)
        pairs = Pairs.of(log, len(ITEMS), reach=1)
        assert all(np.isclose(pairs.weight, np.where(pairs.other == 0, 0.3, 1.0)))
        assert log.n_targets.tolist() == [0] * 10 + [1] * 4


def test_weights_are_fitted_to_what_was_chosen_last_however_much_was_looked_at_since(tmp_path: Path) -> None:
    people = [f"u{n}" for n in range(20)]
    bought = [event((n + k) % 3, "buy", n, user_id=u) for k, u in enumerate(people) for n in range(9)]
    seen = [event(3 + n % 2, "view", 100 + n, user_id=u) for u in people for n in range(40)]
    first = [event(4, "view", -1, user_id=u) for u in people]
    catalog = Catalog.of(ITEMS)
    with filled(tmp_path / "a.db", bought) as plain, filled(tmp_path / "b.db", bought + seen, Actions.of()) as more:
        logs = [Events.read(catalog, store.choices()) for store in (plain, more)]
        cases = [_latest(catalog, log, 1000) for log in logs]
        assert cases[0] == cases[1], "what was looked at later is not in the way"
        assert len(cases[0]) == 36
        blend = Blend.of({"popularity": Popularity(), "sequence": Sequence()})
        blend.fit(catalog, more.choices())
        assert blend.weights.tolist() != [0.5, 0.5]
    with filled(tmp_path / "c.db", first + bought + seen, Actions.of()) as mixed:
        prior = Sequence()
        prior.fit(catalog, mixed.choices())
        assert len(prior._choices()) == len(bought), "one of each moment with a target"
        assert {row for *_, row in prior._choices()} == {0, 1, 2}
        assert {row for *_, row in _latest(catalog, prior._log, 1000)} == {0, 1, 2}


def test_what_came_next_for_others_and_what_friends_took_counts_by_its_weight(tmp_path: Path) -> None:
    others = [("bob", 1, "buy"), ("cat", 2, "view")]
    events = [one for u, item, what in others for one in (event(0, "buy", 1, None, u), event(item, what, 2, None, u))]
    at, catalog = START + timedelta(days=1), Catalog.of(ITEMS)
    friends = Friends()
    friends.relate([batch("edges", [Edge(from_id="ann", to_id=user) for user, *_ in others])])
    with filled(tmp_path / "next.db", [event(0, "buy", 3), *events], Actions.of()) as store:
        ann = read_history(store, "ann", at, max_events=9)
        repeat = Repeat(), NAMES_OF_REPEAT.index("next")
        for prior, feature in ((Sequence(), 0), repeat, (friends, 0), (Basket(), 0)):
            bought, seen = [], []
            for stream in (store.choices(), store.events()):
                prior.fit(catalog, stream)
                said = prior._features(prior._past(ann, Context(), later=False))[feature]
                bought.append(said[1])
                seen.append(said[2])
            assert 0 < seen[0] < bought[0], "a look counts less"
            assert seen[1] == pytest.approx(bought[1], rel=1e-3), "untold, as much"


def test_a_split_shows_and_judges_by_what_was_chosen_of_a_moment_alone(tmp_path: Path) -> None:
    """A look at one item and a purchase of another at one instant, in every moment."""
    people = [f"u{n}" for n in range(8)]
    pairs = [
        (event(n % 2, "buy", n, user_id=u), event(2 + n % 2, "view", n, user_id=u)) for u in people for n in range(6)
    ]
    catalog = Catalog.of(ITEMS)
    with filled(tmp_path / "pairs.db", [one for pair in pairs for one in pair], Actions.of()) as store:
        known = catalog.row.__contains__
        for split in (
            split_by_person(store, known, max_events=100, n_cases=10),
            split_by_time(store, known, share=0.4, max_events=100, n_cases=10),
        ):
            assert split.judge
            for case in [*split.judge, *split.fit]:
                assert set(case.moments[-1].item_ids) <= {"i0", "i1"}
                assert all(len(moment.item_ids) == 2 for moment in case.moments[:-1])


def test_what_was_shown_or_refused_before_the_cut_was_there(tmp_path: Path) -> None:
    bought = [event(n % 2, "buy", n, user_id=f"u{k}") for k in range(9) for n in range(9)]
    before = [event(2, "impression", 1), event(3, "dislike", 2)]
    after = [event(n, "buy", 20, user_id=f"u{k}") for k in range(9) for n in (2, 3, 4)]
    with filled(tmp_path / "future.db", bought + before + after, Actions.of()) as store:
        split = split_by_time(store, Catalog.of(ITEMS).row.__contains__, share=0.1, max_events=100, n_cases=10)
        assert split.cut == START + timedelta(hours=20)
        assert split.future == {"i4"}
        assert "ann" not in split.ends, "who chose nothing is not learned from"


def test_rows_shuffle_what_was_chosen_before_what_was_looked_at() -> None:
    moment = Moment(at=START, context=Context(), item_ids=("a", "b", "c", "x", "y", "z"), weak=frozenset("xyz"))
    orders = {_shuffled(moment, random.Random(seed)).item_ids for seed in range(50)}
    assert len(orders) > 20
    assert all(set(order[:3]) == set("abc") for order in orders)
    assert all(len({order[place] for order in orders}) == 3 for place in range(6))


def test_a_prior_is_fitted_anew_where_actions_count_otherwise_and_only_to_choices(tmp_path: Path) -> None:
    create_workspace(tmp_path / "shop", {"engine": "none", "prior": "popularity"})
    people = [f"u{n}" for n in range(6)]
    bought = [event(n % 2, "buy", n, user_id=u) for u in people for n in range(4)]
    refused = [event(2, "dislike", n, user_id=u) for u in people for n in range(9)]
    seen = [event(3, "view", n, user_id=u) for u in people for n in range(4)]
    filled(tmp_path / "shop" / "genrec.db", bought + refused + seen).close()

    def mass(told: str, held_out: bool) -> np.ndarray:
        (tmp_path / "shop" / "genrec.toml").write_text(f'engine = "none"\nprior = "popularity"\n[actions]\n{told}\n')
        with open_workspace(tmp_path / "shop") as opened:
            split = opened.split(held_out="last", n_cases=9) if held_out else None
            prior = opened.fitted_prior("popularity", split=split)
            nobody = read_history(opened.store, "nobody", START + timedelta(days=1), max_events=9)
            return np.exp(prior.log_mass(nobody, Context()))

    for held_out in (False, True):
        usual = mass("", held_out)
        assert usual[2] == pytest.approx(usual[4]), "a refusal makes nothing popular"
        assert usual[0] > usual[3] > usual[4]
        told = mass("view = 0", held_out)
        assert told[3] == pytest.approx(told[4])


def test_advice_is_told_from_choices_alone(tmp_path: Path) -> None:
    refused = [event(n % 2, "hide", n, user_id=u) for u in ("ann", "bob") for n in range(20)]
    named = [event(2, f"kind {n:02}", 30, user_id="cat") for n in range(60)]
    bought = [event(n, "buy", 50 + n) for n in range(5)]
    for events, said in ((refused, []), (refused + bought, ["recommend with seen items excluded."])):
        create_workspace(folder := tmp_path / uuid4().hex, {"engine": "none"})
        filled(folder / "genrec.db", events).close()
        found = json.loads(run("describe", "--json", "-w", str(folder)))
        assert found["repeated"] == 0
        assert [one.partition(": ")[2] for one in found["findings"] if "seen items" in one] == said
    create_workspace(folder := tmp_path / "many", {"engine": "none"})
    filled(folder / "genrec.db", named).close()
    found = json.loads(run("describe", "--json", "-w", str(folder)))
    assert found["n_unnamed_actions"] == 60
    assert len(found["unnamed_actions"]) < 60


def test_weak_choices_are_written_and_are_no_targets(tmp_path: Path) -> None:
    events = [event(0, "buy", 1), event(1, "view", 2), event(2, "view", 3), event(3, "buy", 3), event(4, "hide", 4)]
    with filled(tmp_path / "rows.db", events, Actions.of()) as store:
        history = read_history(store, "ann", START + timedelta(days=1), max_events=100)
    assert [moment.item_ids for moment in history.moments] == [("i0",), ("i1",), ("i3", "i2")]
    encoded = Catalog.of(ITEMS).encode(ByteTokenizer())
    template = load_template("next-item", [bundled_prompts()])
    [row] = render_rows(template, history, encoded, ByteTokenizer(), max_tokens=2000)
    assert row.target.tolist() == [0, 3]
    text = bytes(i for i in row.token_ids.tolist() if i < 256).decode()
    assert "Song 1" in text
    assert "Song 4" not in text


def test_only_strong_choices_judge(tmp_path: Path) -> None:
    told = [(0, "buy"), (1, "click"), (2, "buy"), (3, "view"), (4, "dislike")]
    events = [event(item, action, n, user_id=u) for u in ("ann", "bob") for n, (item, action) in enumerate(told)]
    with filled(tmp_path / "split.db", events, Actions.of()) as store:
        catalog = Catalog.of(ITEMS)
        split = split_by_person(store, catalog.row.__contains__, max_events=100, n_cases=10)
        assert {case.moments[-1].item_ids for case in split.judge} == {("i2",)}
        assert {case.moments[-1].item_ids for case in split.fit} == {("i1",)}
        log = Log.read(store.weighed(), catalog).choices()
        assert len(log) == 8
        late = log.cut(dict.fromkeys(log.users, START + timedelta(hours=2)))
        assert {case.moments[-1].item_ids for case in late.cases(10)} == {("i2",)}
    seen = [event(n % 5, "view", n, user_id=u) for u in ("ann", "bob") for n in range(8)]
    with filled(tmp_path / "views.db", seen, Actions.of()) as store, pytest.raises(TrainingError, match="0 and 0"):
        split_by_person(store, catalog.row.__contains__, max_events=100, n_cases=10)


def run(*arguments: str) -> str:
    done = CliRunner().invoke(main, arguments, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def test_from_a_file_of_likes_and_dislikes_to_a_list_and_its_judges(tmp_path: Path) -> None:
    lines = ["user_id,item_id,at,action,value"]
    for n in range(12):
        for hour, (item, action) in enumerate([(0, "like"), (1, "like"), (2, "Dislike"), (3, "view"), (n % 2, "like")]):
            lines.append(f"u{n},i{item},2025-06-{n + 1:02}T{hour + 8:02}:00Z,{action},")
    lines.append("u0,i4,2025-06-20T09:00Z,hate_it,")
    lines.append("u9,i4,2025-06-20T09:00Z,\N{BROKEN HEART} hate,")
    (tmp_path / "events.csv").write_text("\n".join(lines) + "\n")
    (tmp_path / "items.csv").write_text("item_id,title\n" + "".join(f"i{n},Song {n}\n" for n in range(5)))
    shop = str(tmp_path / "shop")
    run("init", shop)
    said = run("import", "file", str(tmp_path / "items.csv"), str(tmp_path / "events.csv"), "-w", shop)
    advice = [line.rpartition(": ")[2] for line in said.splitlines() if "counts as a choice" in line]
    assert tomllib.loads("\n".join(advice)) == {"hate_it": -1, "\N{BROKEN HEART} hate": -1}
    described = run("describe", "-w", shop)
    assert "like 36 (counts 1), Dislike 12 (counts -1), view 12 (counts 0.3), hate_it 1 (counts 1)" in described
    assert "for want of an entry under [actions] in genrec.toml: hate_it, \N{BROKEN HEART} hate." in described
    listed = json.loads(run("recommend", "u0", "--at", "2025-07-01T09:00Z", "--engine", "none", "--json", "-w", shop))
    assert "i2" not in [item["item_id"] for item in listed["items"]]
    assert "1 item that u0 refused is left out." in listed["notes"]
    asked = ("recommend", "u0", "--at", "2025-07-01T09:00Z", "--engine", "none", "--json", "-w", shop)
    assert "i2" in [item["item_id"] for item in json.loads(run(*asked, "--include-refused"))["items"]]
    found = json.loads(run("evaluate", "--held-out", "last", "--engine", "none", "--json", "-w", shop))
    assert found["n"] == 12
    with open_workspace(tmp_path / "shop") as opened:
        split = opened.split(held_out="last", n_cases=50)
        judged = {case.moments[-1].item_ids for case in split.judge}
    assert judged <= {("i0",), ("i1",), ("i4",)}
    (tmp_path / "shop" / "genrec.toml").write_text('engine = "none"\n[actions]\n"hate it" = -1\n')
    listed = json.loads(run(*asked))
    assert "2 items that u0 refused are left out." in listed["notes"]
