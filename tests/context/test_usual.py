"""Usual places: told from enough evidence, from the past alone, and not told below it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from math import cos, degrees, radians, sin
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from genrec.context import Words, line
from genrec.context.usual import LOOK_BACK_DAYS, MIN_DAYS, Whereabouts
from genrec.earth import Point
from genrec.events import Context, Event, batch
from genrec.history import Moment, moments, read_history
from genrec.store import Store

MONDAY = datetime(2026, 6, 1, tzinfo=UTC)
HOME: Point = (52.52, 13.405)
WORDS = Words(features=("place", "kind", "usual", "bearing"))


def away(km: float, bearing: float, start: Point = HOME) -> Point:
    """The point so far from another, in degrees clockwise from north; for short ways not at a pole."""
    north, east = km * cos(radians(bearing)), km * sin(radians(bearing))
    return start[0] + degrees(north / 6371), start[1] + degrees(east / 6371 / cos(radians(start[0])))


WORK, GYM = away(5, 0), away(2, 90)


def visit(day: int, hour: int, where: Point | str, *item_ids: str) -> Moment:
    context = Context(place=where) if isinstance(where, str) else Context(latitude=where[0], longitude=where[1])
    return Moment(at=MONDAY + timedelta(days=day, hours=hour), context=context, item_ids=item_ids)


def weeks(n: int, first_day: int = 0, home: Point = HOME) -> list[Moment]:
    """At home every night and morning, at work from Monday to Friday, in the gym on Tuesdays and Thursdays."""
    days = range(first_day, first_day + 7 * n)
    visits = [visit(day, hour, home) for day in days for hour in (7, 23)]
    visits += [visit(day, 11, WORK) for day in days if day % 7 < 5]
    visits += [visit(day, 18, GYM) for day in days if day % 7 in (1, 3)]
    return sorted(visits, key=lambda one: one.at)


def told(visits: Sequence[Moment], then: Moment, words: Words = WORDS) -> dict[str, str]:
    """The words of a moment after others."""
    return list(words.each([*visits, then]))[-1]


@pytest.mark.parametrize(
    ("where", "usual", "bearing"),
    [
        (HOME, "at home", ""),
        (WORK, "at work", "5 km north of home"),
        (GYM, "at a usual place", "2 km east of home"),
        (away(9.5, 222), "elsewhere", "10 km southwest of home"),
        (away(0.4, 180), "elsewhere", "near home"),
        (away(120, 315), "elsewhere", "100 km northwest of home"),
        ("a place without a position", "", ""),
    ],
)
def test_after_some_weeks_places_are_told_by_what_they_are_to_the_person(
    where: Point | str, usual: str, bearing: str
) -> None:
    words = told(weeks(3), visit(21, 12, where))
    assert (words["usual"], words["bearing"]) == (usual, bearing)


def test_lines_show_places_where_they_change() -> None:
    visits = [*weeks(3), visit(21, 8, HOME), visit(21, 10, WORK), visit(21, 13, away(1, 45, WORK)), visit(21, 22, HOME)]
    words = list(replace(WORDS, features=("weekday", "usual", "bearing")).each(visits))[-4:]
    assert [line(one, before) for one, before in zip(words, [None, *words], strict=False)] == [
        "Monday, at home",
        "at work, 5 km north of home",
        "elsewhere",
        "at home",
    ]
    [*_, alone] = Words(features=("bearing",)).each(visits)
    assert alone["bearing"] == "at home", "without `usual` nobody else says that it is no longer 5 km north"


def test_below_the_evidence_nothing_is_said() -> None:
    nights = [visit(day, 23, HOME) for day in range(MIN_DAYS)]
    weekends = [visit(day, 12, HOME) for week in range(3) for day in (7 * week + 5, 7 * week + 6)]
    then = visit(21, 12, HOME)
    assert told(nights[:-1], then)["usual"] == ""
    assert told(nights, then)["usual"] == "at a usual place", "nights alone may be a bar's"
    assert told([*nights, *weekends[: MIN_DAYS - 1]], then)["usual"] == "at a usual place"
    assert told([*nights, *weekends[:MIN_DAYS]], then)["usual"] == "at home"
    elsewhere = [visit(day, 23, GYM) for day in range(30, 30 + MIN_DAYS)]
    assert told([*nights, *weekends, *elsewhere], visit(40, 12, HOME))["usual"] == "at a usual place", "half of nights"
    assert told([visit(0, 23, HOME)] * 50, then)["usual"] == "", "one day is no habit however busy"
    assert told([visit(day, 11, WORK) for day in range(MIN_DAYS - 1)], then)["usual"] == ""
    assert told([visit(day, 11, WORK) for day in range(MIN_DAYS)], then)["bearing"] == "5 km south of work"


def test_who_works_at_night_or_at_home_is_not_told_to_be_at_work_at_home() -> None:
    days = [visit(day, 11, HOME) for day in range(14)]
    assert told(days, visit(14, 11, HOME))["usual"] == "at a usual place", "at weekends as well"
    at_work = [visit(day, 23, WORK) for day in range(14) if day % 7 < 5]
    asleep = sorted([*days, *at_work], key=lambda one: one.at)
    assert [told(asleep, visit(14, 11, where))["usual"] for where in (HOME, WORK)] == ["at a usual place"] * 2
    at_home = sorted([*days[:5], *(visit(day, 23, HOME) for day in range(5))], key=lambda one: one.at)
    assert told(at_home, visit(5, 11, HOME))["usual"] == "at a usual place", "at night as well"
    assert told(days[:5], visit(5, 11, HOME))["usual"] == "at work"
    assert told(days[:6], visit(6, 11, HOME))["usual"] == "at work", "one Saturday is no weekend"


def test_who_moves_has_a_new_home_and_the_old_one_is_forgotten() -> None:
    new = away(30, 180)
    moved = [*weeks(6), *weeks(20, 42, new)]
    assert told(moved[: len(moved) // 3], visit(60, 23, HOME))["usual"] == "at home"
    assert told(moved, visit(182, 23, new))["usual"] == "at home"
    assert told(moved, visit(182, 23, HOME))["usual"] == "elsewhere"
    assert told(weeks(3), visit(20 + LOOK_BACK_DAYS + 1, 12, HOME))["usual"] == ""


def test_hours_are_those_of_the_clock_there() -> None:
    nights_in_tokyo = [visit(day, 14, HOME) for day in range(21)]
    then = visit(21, 12, HOME)
    assert told(nights_in_tokyo, then)["usual"] == "at a usual place"
    assert told(nights_in_tokyo, then, replace(WORDS, time_zone="Asia/Tokyo"))["usual"] == "at home"


@given(st.floats(-70, 70), st.floats(-179, 179), st.floats(0, 360), st.floats(0, 0.05), st.floats(0.35, 3))
def test_a_place_is_the_same_within_fifty_metres_and_never_beyond_350(
    latitude: float, longitude: float, bearing: float, jitter_km: float, far_km: float
) -> None:
    home = latitude, longitude
    assume(home != (0, 0))
    evidence = [one for one in weeks(3, home=home) if one.context.latitude == latitude]
    assert told(evidence, visit(21, 12, away(jitter_km, bearing, home)))["usual"] == "at home"
    assert told(evidence, visit(21, 12, away(far_km, bearing, home)))["usual"] == "elsewhere"


# ---- names


def test_a_place_known_by_name_alone_is_usual_but_not_home() -> None:
    evenings = [visit(day, 23, "corner shop") for day in range(14)]
    assert told(evenings, visit(14, 23, "corner shop"))["usual"] == "at a usual place"
    assert told(evenings, visit(14, 23, "cinema"))["usual"] == "elsewhere"
    assert told(evenings, visit(14, 23, HOME))["usual"] == "", "it may be where the shop is"


def test_a_name_stands_for_the_place_where_it_was_seen_unless_it_was_seen_at_two() -> None:
    def named(visits: list[Moment], name: str) -> list[Moment]:
        return [replace(one, context=replace(one.context, place=name)) for one in visits]

    office = named([visit(21, 11, WORK)], "office")
    assert told([*weeks(3), *office], visit(22, 11, "office"))["bearing"] == "5 km north of home"
    branch = named([visit(21, 13, GYM)], "office")
    assert told([*weeks(3), *office, *branch, *office], visit(22, 11, "office"))["bearing"] == ""


# ---- what sort of place it is

SORTS = {"espresso": "coffee", "latte": "coffee", "book": "books", "pen": None}


def kinds(*visits: Moment) -> list[str]:
    return [words["kind"] for words in WORDS.each(visits, SORTS.get)]


def test_a_place_is_told_by_what_the_person_chose_there() -> None:
    cafe = [visit(0, 9, GYM, "espresso"), visit(1, 9, GYM, "book", "latte"), visit(2, 9, GYM, "pen")]
    assert kinds(*cafe, visit(3, 9, GYM)) == ["", "coffee", "coffee", "coffee"]
    assert kinds(*cafe, visit(3, 9, HOME))[-1] == "some place", "or it would be taken for coffee as before"
    half = [visit(0, 9, GYM, "espresso"), visit(1, 9, GYM, "book")]
    assert kinds(*half, visit(2, 9, GYM))[-1] == "some place", "half is not most"
    assert kinds(visit(0, 9, GYM, "pen"), visit(1, 9, HOME)) == ["", ""], "nobody knows a category"


# ---- from the past alone

SPOTS: list[Point | str] = [HOME, WORK, GYM, (0.0, 0.0), (-41.0, 170.0), away(0.1, 45), "office", "corner shop"]


@st.composite
def visits(draw: st.DrawFn) -> list[Moment]:
    """A person who is somewhere or other, names with positions, jumps and all."""
    found, hour = [], 0
    for _ in range(draw(st.integers(0, 60))):
        hour += draw(st.integers(1, 20))
        one = visit(0, hour, draw(st.sampled_from(SPOTS)), draw(st.sampled_from(sorted(SORTS))))
        name = draw(st.sampled_from([None, None, "office", "cinema"]))
        found.append(replace(one, context=replace(one.context, place=name)) if name else one)
    return found


@given(visits(), visits(), st.integers(0, 60))
def test_words_of_a_moment_do_not_change_when_later_ones_do(
    past: list[Moment], future: list[Moment], days: int
) -> None:
    words = Words()
    after = timedelta(days=60 + days)
    later = [replace(one, at=one.at + after) for one in future]
    before = list(words.each(past, SORTS.get))
    assert list(words.each([*past, *later], SORTS.get))[: len(past)] == before
    if past:  # nor with what was chosen at the moment itself, which is what is to be predicted
        other = [*past[:-1], replace(past[-1], item_ids=("book", "espresso"))]
        assert list(words.each(other, SORTS.get)) == before


def test_what_was_told_of_places_is_gone_with_the_events(tmp_path: Path) -> None:
    events = [Event(user_id="ann", item_id="tea", at=one.at, context=one.context) for one in weeks(3)]
    at, now = MONDAY + timedelta(days=21), visit(21, 12, WORK)
    with Store.open(tmp_path / "log.db") as store:
        store.append([batch("events", events)], source="test")

        def known() -> dict[str, str]:
            return told(read_history(store, "ann", at, max_events=200).moments, now)

        assert known() == told(moments(events), now)
        assert known()["usual"] == "at work"
        store.forget("ann")
        assert set(known().values()) == {""}


def test_usual_places_are_listed_with_their_names_and_days() -> None:
    been = Whereabouts()
    visits = [*weeks(3), visit(0, 20, "office"), *(visit(day, 20, "bar") for day in range(5))]
    for one in sorted(visits, key=lambda one: one.at):
        named = replace(one.context, place="flat") if one.context.latitude == HOME[0] and one.at.hour == 7 else None
        been.add(named or one.context, one.at)
    home, work, *others = been.usual_places(MONDAY + timedelta(days=21))
    assert (home.word, home.names, home.n_days) == ("at home", ("flat",), 21)
    assert (work.word, work.names, work.n_days) == ("at work", (), 15)
    assert work.position == pytest.approx(WORK, abs=0.002)
    assert [(one.names, one.position is None, one.n_days) for one in others] == [((), False, 6), (("bar",), True, 5)]
    assert been.usual_places(MONDAY + timedelta(days=21 + LOOK_BACK_DAYS)) == []
