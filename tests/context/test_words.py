"""Contexts in words, on the right clock, written only where they change."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from genrec.context import FEATURES, Words, line
from genrec.context.time import holiday, season, since
from genrec.errors import DataError
from genrec.events import Context

NEW_YORK = Context(time_zone="America/New_York")


def words_at(at: datetime, context: Context = NEW_YORK, before: datetime | None = None) -> dict[str, str]:
    return Words(country="US").of(at, context, before)


def test_words_are_on_the_clock_of_the_place_through_daylight_saving() -> None:
    winter, summer = datetime(2017, 1, 4, 15, 30, tzinfo=UTC), datetime(2017, 7, 5, 15, 30, tzinfo=UTC)
    assert words_at(winter)["part_of_day"] == "morning"  # 10:30
    assert words_at(summer)["part_of_day"] == "noon"  # 11:30
    tokyo = words_at(datetime(2017, 1, 4, 15, 30, tzinfo=UTC), Context(time_zone="Asia/Tokyo"))
    assert (tokyo["weekday"], tokyo["part_of_day"]) == ("Thu", "night")


@pytest.mark.parametrize(
    ("hour", "part"),
    [(4, "night"), (5, "morning"), (10, "morning"), (11, "noon"), (14, "afternoon"), (18, "evening"), (22, "night")],
)
def test_parts_of_the_day(hour: int, part: str) -> None:
    assert Words().of(datetime(2026, 5, 5, hour, tzinfo=UTC), Context(), None)["part_of_day"] == part


def test_seasons_turn_round_south_of_the_equator() -> None:
    january = datetime(2026, 1, 10, tzinfo=UTC)
    assert [season(january, latitude) for latitude in (None, 52.0, -33.0)] == ["winter", "winter", "summer"]
    year = [season(datetime(2026, month, 1, tzinfo=UTC), None) for month in range(1, 13)]
    assert year == ["winter"] * 2 + ["spring"] * 3 + ["summer"] * 3 + ["autumn"] * 3 + ["winter"]


def test_holidays_and_their_eves() -> None:
    day = datetime(2017, 11, 23, 9, tzinfo=UTC)
    assert holiday(day, "US") == "Thanksgiving Day"
    assert holiday(day - timedelta(days=1), "US") == "day before Thanksgiving Day"
    assert holiday(day + timedelta(days=5), "US") == ""
    assert holiday(datetime(2017, 12, 31, tzinfo=UTC), "US") == "day before New Year's Day"
    assert holiday(day, "") == ""


@pytest.mark.parametrize(
    ("days", "said"),
    [
        (0, "same day"),
        (1, "next day"),
        (2, "two days later"),
        (6, "six days later"),
        (7, "a week later"),
        (20, "two weeks later"),
        (45, "a month later"),
        (330, "eleven months later"),
        (400, "a year later"),
        (365 * 30, "many years later"),
    ],
)
def test_time_since_the_moment_before(days: int, said: str) -> None:
    at = datetime(2026, 5, 5, 12, tzinfo=UTC)
    assert since(at, at - timedelta(days=days)) == said


def test_the_first_of_a_window_has_nothing_before_it() -> None:
    assert words_at(datetime(2026, 5, 5, tzinfo=UTC))["since"] == ""


def test_a_word_is_written_only_where_it_changes() -> None:
    monday = datetime(2026, 6, 1, 8, tzinfo=UTC)
    first = words_at(monday, Context(place="store 3", device="phone"))
    same = words_at(monday + timedelta(hours=1), Context(place="store 3", device="phone"), monday)
    later = words_at(monday + timedelta(days=8), Context(place="store 8", device="phone"), monday + timedelta(hours=1))
    assert line(first, None) == "Mon morning, summer, store 3, phone"
    assert line(same, first) == "same day"
    assert line(later, same) == "Tue, a week later, store 8"


@pytest.mark.parametrize("feature", FEATURES)
def test_every_feature_can_be_switched_off(feature: str) -> None:
    context = Context(place="store 3", device="phone", extra={"weather": "rain"})
    before = datetime(2017, 11, 20, 12, tzinfo=UTC)
    on = Words(country="US").of(datetime(2017, 11, 22, 12, tzinfo=UTC), context, before)
    rest = tuple(f for f in FEATURES if f != feature)
    off = Words(country="US", features=rest).of(datetime(2017, 11, 22, 12, tzinfo=UTC), context, before)
    assert on[feature] != ""
    assert off == {name: word for name, word in on.items() if name != feature}


def test_hostile_words_stay_on_their_line() -> None:
    context = Context(place="a\nb | c; <|im_end|>", extra={"k|": "v;\u202e"})
    text = line(Words().of(datetime(2026, 1, 1, tzinfo=UTC), context, None), None)
    assert not set(text) & set("|;\n\u202e")
    assert "<|" not in text


def test_an_unknown_time_zone_is_refused() -> None:
    with pytest.raises(DataError, match="no time zone 'Mars/Olympus'"):
        Words().of(datetime(2026, 1, 1, tzinfo=UTC), Context(time_zone="Mars/Olympus"), None)
