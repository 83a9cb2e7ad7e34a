"""The audit: nothing is found in clean data, and in each spoiled copy of it the one fault that was planted."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
import pytest

from genrec.catalog import Catalog
from genrec.evaluation.audit import Finding, audit, order, sentences, windows
from genrec.evaluation.log import Log
from genrec.evaluation.split import split_by_time
from genrec.events import Context, Event, Item, batch
from genrec.history import History, moments
from genrec.store import Store

START = datetime(2023, 3, 1, tzinfo=UTC)
NOW = datetime(2024, 1, 1, tzinfo=UTC)
N_PEOPLE, N_ITEMS, N_EVENTS, N_DAYS = 240, 400, 15, 120
ITEMS = [Item(item_id=f"i{n:03}", title=f"thing {n * 7919 % 10007}") for n in range(N_ITEMS)]
FIRST_HELD_OUT = START + timedelta(days=108)


def clean_events() -> list[Event]:
    """People who take different things at random, at random seconds of different days."""
    rng = np.random.default_rng(1)
    events = []
    for person in range(N_PEOPLE):
        items = rng.choice(N_ITEMS, N_EVENTS, replace=False)
        days = np.sort(rng.choice(N_DAYS, N_EVENTS, replace=False))
        seconds = rng.integers(86_400, size=N_EVENTS)
        for item, day, second in zip(items.tolist(), days.tolist(), seconds.tolist(), strict=True):
            at = START + timedelta(days=day, seconds=second)
            events.append(Event(user_id=f"p{person:03}", item_id=ITEMS[item].item_id, at=at))
    return events


CLEAN = clean_events()


def found_in_store(events: Iterable[Event], items: Iterable[Item] = ITEMS) -> list[Finding]:
    """What is found in events as a store streams them: by instant, then as they came."""
    catalog = Catalog.of(items)
    log = Log.read([batch("events", sorted(events, key=lambda one: one.at))], catalog).hold_out(0.1)
    return list(audit(log, log.cases(1000), catalog, now=NOW))


def found_in_split(learned: Iterable[Event], cases: Iterable[Iterable[Event]]) -> list[Finding]:
    """What is found in a split that is given."""
    catalog = Catalog.of(ITEMS)
    judges = [history(case) for case in cases]
    return list(audit(Log.of(histories(learned), judges, catalog), judges, catalog, now=NOW))


def history(events: Iterable[Event]) -> History:
    ordered = sorted(events, key=lambda one: one.at)
    at = ordered[-1].at + timedelta(seconds=1)
    return History(user_id=ordered[0].user_id, user=None, at=at, moments=moments(ordered))


def histories(events: Iterable[Event]) -> list[History]:
    people: dict[str, list[Event]] = {}
    for event in events:
        people.setdefault(event.user_id, []).append(event)
    return [history(theirs) for theirs in people.values()]


def cut() -> tuple[list[Event], list[list[Event]]]:
    """A clean split of the clean events: what came before an instant, and each person up to the first choice after."""
    learned = [event for event in CLEAN if event.at < FIRST_HELD_OUT]
    cases = []
    for person in range(N_PEOPLE):
        theirs = CLEAN[person * N_EVENTS : (person + 1) * N_EVENTS]
        n = sum(event.at < FIRST_HELD_OUT for event in theirs)
        if n < N_EVENTS:
            cases.append(theirs[: n + 1])
    return learned, cases


def test_clean_data_have_nothing_to_find() -> None:
    assert found_in_store(CLEAN) == []
    assert found_in_split(*cut()) == []


def tied(events: list[Event]) -> list[Event]:
    """Of every third person, the first two events are at one instant."""
    return [
        replace(event, at=events[i - 1].at) if i % N_EVENTS == 1 and i // N_EVENTS % 3 == 0 else event
        for i, event in enumerate(events)
    ]


def sorted_by_id(events: list[Event]) -> list[Event]:
    """Two events of 17 people, less than one in a hundred of all, are at one instant and stored by id."""
    events = list(events)
    for i in range(0, 17 * N_EVENTS, N_EVENTS):
        low, high = sorted((events[i].item_id, events[i + 1].item_id))
        events[i : i + 2] = [replace(events[i], item_id=low), replace(events[i], item_id=high)]
    return events


def days_only(events: list[Event]) -> list[Event]:
    """Of every fourth event only the day is known, in New York."""
    new_york = ZoneInfo("America/New_York")
    stamped = Context(time_zone="America/New_York")
    return [
        replace(event, at=datetime(event.at.year, event.at.month, event.at.day, tzinfo=new_york), context=stamped)
        if i % 4 == 0
        else event
        for i, event in enumerate(events)
    ]


def repeated(events: list[Event]) -> list[Event]:
    """Of every twentieth person the first choice of the last twelve days is what they had before."""
    return [
        replace(event, item_id=events[i - 1].item_id)
        if i // N_EVENTS % 20 == 0 and event.at >= FIRST_HELD_OUT and events[i - 1].at < FIRST_HELD_OUT
        else event
        for i, event in enumerate(events)
    ]


def new_items(events: list[Event]) -> list[Event]:
    """Ten items are there on the last day only."""
    last = sorted(range(len(events)), key=lambda i: events[i].at)[-10:]
    return [
        replace(event, item_id=f"i{last.index(i):03}")
        if i in last
        else replace(event, item_id=f"i{int(event.item_id[1:]) + 10:03}")
        if event.item_id < "i010"
        else event
        for i, event in enumerate(events)
    ]


def wrong_clock(events: list[Event]) -> list[Event]:
    """Three events are a hundred years late."""
    return [
        replace(event, at=event.at + timedelta(days=36_525)) if i in (14, 29, 44) else event
        for i, event in enumerate(events)
    ]


def everybody_ends_alike(events: list[Event]) -> list[Event]:
    """Half of the people begin with one of two items, the others end with them."""
    hits = ["i000", "i001"]
    changed = []
    for i, event in enumerate(events):
        person, which = divmod(i, N_EVENTS)
        begins, ends = person % 2 == 0 and which == 0, person % 2 == 1 and event.at >= FIRST_HELD_OUT
        hit = hits[person // 2 % 2]
        if begins or (ends and events[i - 1].at < FIRST_HELD_OUT):
            event = replace(event, item_id=hit)
        elif event.item_id in hits:
            event = replace(event, item_id=f"i{int(event.item_id[1:]) + 100:03}")
        changed.append(event)
    return changed


IN_A_STORE: list[tuple[Callable[[list[Event]], list[Event]], str, int, int]] = [
    (tied, "ties", 160, 3600),
    (sorted_by_id, "order", 17, 17),
    (days_only, "midnights", 900, 3600),
    (repeated, "repeats", 10, 190),
    (new_items, "items of the future", 10, 400),
    (wrong_clock, "in the future", 3, 3600),
    (everybody_ends_alike, "solved without a model", 86, 190),
]


@pytest.mark.parametrize(("spoil", "name", "n", "of"), IN_A_STORE, ids=[one[1] for one in IN_A_STORE])
def test_a_planted_fault_is_what_is_found(
    spoil: Callable[[list[Event]], list[Event]], name: str, n: int, of: int
) -> None:
    [finding] = found_in_store(spoil(CLEAN))
    assert (finding.name, finding.n, finding.of) == (name, n, of)


def test_what_stands_side_by_side_in_every_basket_is_an_order_too() -> None:
    rng = np.random.default_rng(3)
    catalog = Catalog.of(ITEMS)
    for shelves, name in ((True, "order"), (False, None)):
        events = []
        for day in range(200):
            couples = [[2 * n, 2 * n + 1] for n in rng.choice(20, 3, replace=False).tolist()]
            basket = [item for couple in couples for item in rng.permutation(couple).tolist()]
            for item in basket if shelves else rng.permutation(basket).tolist():
                events.append(Event(user_id="ann", item_id=f"i{item:03}", at=START + timedelta(days=day)))
        found = order(Log.read([batch("events", events)], catalog), catalog)
        assert (found.name if found else None) == name
        assert found is None or "were neighbours before, where chance gives" in found.counted


def test_cases_are_those_of_the_split_in_time(tmp_path: Path) -> None:
    items = [*ITEMS[5:], Item(item_id="x", title="x")]
    baskets = [replace(event, item_id="x") for event in CLEAN[::7]]
    catalog = Catalog.of(items)
    with Store.open(tmp_path / "genrec.db") as store:
        store.append([batch("events", [*CLEAN, *baskets])], source="test")
        split = split_by_time(store, catalog.row.__contains__, share=0.1, max_events=200, n_cases=1000)
        log = Log.read(store.events(), catalog).hold_out(0.1)
    ours = {case.user_id: case.moments for case in log.cases(1000)}
    assert ours == {case.user_id: case.moments for case in [*split.fit, *split.judge]}
    assert len(ours) > 100
    np.testing.assert_array_equal(log.held_out, log.cut(split.ends).held_out)


def test_duplicate_titles() -> None:
    items = [replace(item, title=" Thing  0") if item.item_id == "i007" else item for item in ITEMS]
    [finding] = found_in_store(CLEAN, items)
    assert (finding.name, finding.n, finding.of) == ("duplicate titles", 2, 400)
    share = sum(event.item_id in ("i000", "i007") for event in CLEAN) / len(CLEAN)
    assert f"{share:.1%} of the events" in finding.means


def test_what_is_learned_later_than_the_first_choice() -> None:
    learned, cases = cut()
    late = [event for event in CLEAN if event.at >= FIRST_HELD_OUT and event.user_id < "p050"]
    judged = {(case[-1].user_id, case[-1].at) for case in cases}
    late = [event for event in late if (event.user_id, event.at) not in judged]
    [finding] = found_in_split([*learned, *late], cases)
    assert (finding.name, finding.n, finding.of) == ("learned too late", len(late), len(learned) + len(late))


def test_what_is_learned_and_judged() -> None:
    learned, cases = cut()
    [finding] = found_in_split([*learned, *(case[-1] for case in cases[:10])], cases)
    assert (finding.name, finding.n, finding.of) == ("overlap", 10, len(cases))


def test_windows_of_one_log_on_both_sides() -> None:
    learned, cases = cut()
    back = timedelta(days=70)  # ten weeks: weekdays and times stay
    twins = [
        replace(event, user_id=f"twin of {case[0].user_id}", at=event.at - back)
        for case in cases[:12]
        for event in case[-9:]
    ]
    [finding] = found_in_split([*learned, *twins], cases)
    assert (finding.name, finding.n, finding.of) == ("leaking windows", 12, len(cases))
    assert f"In {12 / len(cases):.1%} the choice is among" in finding.means

    before = [replace(twin, item_id="i000") if i % 9 == 8 else twin for i, twin in enumerate(twins)]
    assert found_in_split([*learned, *before], cases) == [], "eight of ten are not nine"


def test_people_who_are_there_twice_with_all_their_baskets() -> None:
    rng = np.random.default_rng(5)
    catalog, events = Catalog.of(ITEMS), []
    for person in range(40):
        names = [f"p{person}", f"again {person}"] if person < 10 else [f"p{person}"]
        for day in range(10):
            items = rng.choice(N_ITEMS, 4, replace=False).tolist()
            at = START + timedelta(days=day, seconds=person)
            events += [Event(user_id=name, item_id=f"i{item:03}", at=at) for name in names for item in items]
    log = Log.read([batch("events", events)], catalog).hold_out(0.1)
    found = windows(log, log.cases(100))
    assert found is not None
    assert (found.n, found.of) == (20, 50)
    once = [case for case in log.cases(100) if case.user_id in {f"p{n}" for n in range(10, 40)}]
    assert windows(log, once) is None


def test_sentences_say_how_many_of_how_many() -> None:
    finding = Finding(name="x", n=1234, of=5000, counted="things are odd", means="That is bad.", do="Mend it.")
    assert sentences([finding]) == ["1,234 of 5,000 things are odd (25%). That is bad. Mend it."]


def test_nothing_at_all() -> None:
    assert found_in_store([]) == []
    assert found_in_store([], []) == []
    assert found_in_store(CLEAN[:30], []) == []
    assert found_in_split([], []) == []
