"""A cut in time that looks at everything that happened, however much of it is read back for one person."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from genrec.errors import TrainingError
from genrec.evaluation.split import split_by_person, split_by_time
from genrec.events import Event, batch
from genrec.store import Store, log

START, DAY = datetime(2024, 1, 1, tzinfo=UTC), timedelta(days=1)


def stored(folder: Path, *events: Event) -> Store:
    store = Store.open(folder / "genrec.db")
    store.append([batch("events", events)], source="test")
    return store


@pytest.mark.parametrize("n_at_once", [20_000, 30])
def test_what_was_known_at_the_cut_does_not_depend_on_how_much_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, n_at_once: int
) -> None:
    monkeypatch.setattr(log, "_BATCH", n_at_once)
    busy = [Event(user_id="later", item_id="x", at=START)]
    busy += [Event(user_id="later", item_id=f"n{i % 7}", at=START + (1 + i) * DAY) for i in range(99)]
    busy += [Event(user_id="later", item_id="x", at=START + 100 * DAY)]
    other = [Event(user_id="zoe", item_id=item, at=START + day * DAY) for item, day in (("n1", 5), ("new", 101))]
    with stored(tmp_path, *busy, *other) as store:
        split = split_by_time(store, lambda item: True, share=0.02, max_events=10, n_cases=5)
    assert split.cut == START + 100 * DAY, "two moments of a hundred and three"
    assert split.future == {"new"}, "x was there long ago, though nobody reads that far back"
    [case] = split.judge
    assert (case.user_id, case.at, case.moments[-1].item_ids) == ("later", split.cut, ("x",))
    assert 5 <= len(case.moments) <= 11
    assert {person.user_id: person.at for person in split.learn} == dict.fromkeys(("later", "zoe"), split.cut)
    assert all(moment.at < split.cut for person in split.learn for moment in person.moments)


def test_a_choice_is_of_what_the_catalogue_has(tmp_path: Path) -> None:
    basket = [Event(user_id=user, item_id=item, at=START + 9 * DAY) for user in ("later", "zoe") for item in "abc"]
    before = [Event(user_id=user, item_id="a", at=START + i * DAY) for user in ("later", "zoe") for i in range(9)]
    with stored(tmp_path, *before, *basket) as store:
        split = split_by_time(store, {"b"}.__contains__, share=0.05, max_events=50, n_cases=5)
        assert [case.moments[-1].item_ids for case in split.judge + split.fit] == [("b",), ("b",)]
        with pytest.raises(TrainingError, match="0 and 0 to judge by"):
            split_by_time(store, {"z"}.__contains__, share=0.05, max_events=50, n_cases=5)


def test_a_stretch_ends_where_the_next_one_begins(tmp_path: Path) -> None:
    events = [Event(user_id=f"u{u}", item_id="a", at=START + i * DAY) for u in range(20) for i in range(10)]
    with stored(tmp_path, *events) as store:
        last, before = (
            split_by_time(store, lambda item: True, share=share, until=until, max_events=50, n_cases=50)
            for share, until in ((0.1, 0.0), (0.2, 0.1))
        )
    assert before.cut < last.cut
    assert all(before.cut <= case.at < last.cut for case in before.judge + before.fit)


def test_of_everybody_the_last_two_moments_are_held_out_and_all_else_is_learned_from(tmp_path: Path) -> None:
    events = [
        Event(user_id=user, item_id=item, at=START + day * DAY)
        for user, days in {"ann": (0, 1, 2, 3), "bob": (50, 60, 60, 70), "cy": (80, 90)}.items()
        for item, day in zip("abcd", days, strict=False)
    ]
    unknown = [Event(user_id="ann", item_id="z", at=START + 9 * DAY)]  # no choice, but after what is held out
    with stored(tmp_path, *events, *unknown) as store:
        split = split_by_person(store, "abcd".__contains__, max_events=50, n_cases=5)
        left = [event for rows in split.learned(store.events()) for event in rows.to_pylist()]
    assert {(event["user_id"], event["item_id"]) for event in left} == {
        *(("ann", "a"), ("ann", "b"), ("bob", "a"), ("cy", "a"), ("cy", "b"))
    }
    told = {person.user_id: [moment.item_ids for moment in person.moments] for person in split.learn}
    assert told == {"ann": [("a",), ("b",)], "bob": [("a",)], "cy": [("a",), ("b",)]}
    assert split.cut == START + 2 * DAY, "the earliest that is held out"
    fit, judge = ({case.user_id: case for case in cases} for cases in (split.fit, split.judge))
    assert {user: case.at for user, case in fit.items()} == {"ann": START + 2 * DAY, "bob": START + 60 * DAY}
    assert {user: case.at for user, case in judge.items()} == {"ann": START + 3 * DAY, "bob": START + 70 * DAY}
    assert sorted(fit["bob"].moments[-1].item_ids) == ["b", "c"], "one moment, in the order of a hash"
    assert judge["bob"].moments[-1].item_ids == ("d",)
    assert judge["bob"].moments[-2] == fit["bob"].moments[-1]


def test_who_did_too_little_does_not_judge(tmp_path: Path) -> None:
    events = [Event(user_id=f"u{u}", item_id="a", at=START + i * DAY) for u in range(9) for i in range(2)]
    with (
        stored(tmp_path, *events) as store,
        pytest.raises(TrainingError, match="9 people are left to learn from and 0 and 0"),
    ):
        split_by_person(store, lambda item: True, max_events=50, n_cases=5)
