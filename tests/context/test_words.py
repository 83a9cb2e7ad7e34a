"""Contexts in words, on the right clock, written only where they change."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest

from genrec.context import FEATURES, OPTIONAL, Words, line
from genrec.context.device import device, extra
from genrec.context.place import distance
from genrec.context.time import WEEKDAYS, holiday, season, since
from genrec.earth import point
from genrec.errors import DataError, ModelError
from genrec.events import Context, Event, event_of
from genrec.history import Moment, moments
from genrec.models import model_folder
from genrec.tokenizer import HfTokenizer

PLAIN = tuple(f for f in FEATURES if f not in OPTIONAL)
NEW_YORK = Context(time_zone="America/New_York")


def moment(at: datetime, context: Context = NEW_YORK) -> Moment:
    return Moment(at=at, context=context, item_ids=())


def words_at(at: datetime, context: Context = NEW_YORK, before: Moment | None = None) -> dict[str, str]:
    return Words(country="US").of(moment(at, context), before)


def test_words_are_on_the_clock_of_the_place_through_daylight_saving() -> None:
    winter, summer = datetime(2017, 1, 4, 15, 30, tzinfo=UTC), datetime(2017, 7, 5, 15, 30, tzinfo=UTC)
    assert words_at(winter)["part_of_day"] == "morning"  # 10:30
    assert words_at(summer)["part_of_day"] == "noon"  # 11:30
    tokyo = words_at(datetime(2017, 1, 4, 15, 30, tzinfo=UTC), Context(time_zone="Asia/Tokyo"))
    assert (tokyo["weekday"], tokyo["part_of_day"]) == ("Thursday", "night")


@pytest.mark.parametrize(
    ("hour", "part"),
    [(4, "night"), (5, "morning"), (10, "morning"), (11, "noon"), (14, "afternoon"), (18, "evening"), (22, "night")],
)
def test_parts_of_the_day(hour: int, part: str) -> None:
    assert Words().of(moment(datetime(2026, 5, 5, hour, tzinfo=UTC), Context()), None)["part_of_day"] == part


def test_seasons_turn_round_south_of_the_equator() -> None:
    january = datetime(2026, 1, 10, tzinfo=UTC)
    assert [season(january, latitude, "") for latitude in (None, 52.0, -33.0)] == ["winter", "winter", "summer"]
    assert [season(january, latitude, "AU") for latitude in (None, 52.0, -33.0)] == ["summer", "winter", "summer"]
    year = [season(datetime(2026, month, 1, tzinfo=UTC), None, "") for month in range(1, 13)]
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
        (0, "soon after"),
        (1 / 24, "an hour later"),
        (0.4, "ten hours later"),
        (0.5, "half a day later"),
        (0.51, "next day"),
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


def test_hours_are_real_ones_where_the_clock_jumps() -> None:
    new_york = ZoneInfo("America/New_York")
    before, at = datetime(2017, 11, 5, 0, 30, tzinfo=new_york), datetime(2017, 11, 5, 3, 30, tzinfo=new_york)
    assert since(at, before) == "four hours later"
    assert since(datetime(2017, 3, 13, 0, 10, tzinfo=new_york), datetime(2017, 3, 12, 23, 50, tzinfo=new_york)) == (
        "soon after"
    )


def test_the_first_of_a_window_has_nothing_before_it() -> None:
    assert words_at(datetime(2026, 5, 5, tzinfo=UTC))["since"] == ""


def test_a_word_is_written_only_where_it_changes() -> None:
    there, elsewhere = Context(place="store 3", device="phone"), Context(place="store 8", device="phone")
    visits = [
        moment(datetime(2026, 6, day, hour, tzinfo=UTC), context)
        for day, hour, context in [(1, 8, there), (1, 9, there), (9, 9, elsewhere), (16, 9, elsewhere)]
    ]
    words = [Words(features=PLAIN).of(one, before) for before, one in pairwise([None, *visits]) if one]
    assert line(words[0], None) == "Monday morning, summer, store 3, phone"
    assert line(words[1], words[0]) == "an hour later"
    assert line(words[2], words[1]) == "Tuesday, a week later, store 8"
    assert line(words[3], words[2]) == ""
    assert line(words[3], None) == "Tuesday morning, summer, a week later, store 8, phone"


@pytest.mark.parametrize("feature", PLAIN)
def test_every_feature_can_be_switched_off(feature: str) -> None:
    here = Context(place="store 3", latitude=52.5, longitude=13.4, device="phone", extra={"weather": "rain"})
    there = Context(latitude=52.5, longitude=13.0)
    before = moment(datetime(2017, 11, 20, 12, tzinfo=UTC), there)
    now = moment(datetime(2017, 11, 22, 12, tzinfo=UTC), here)
    on = Words(country="US", features=PLAIN).of(now, before)
    rest = tuple(f for f in PLAIN if f != feature)
    assert on[feature] != ""
    assert Words(country="US", features=rest).of(now, before) == {f: word for f, word in on.items() if f != feature}


def test_hostile_words_stay_on_their_line() -> None:
    context = Context(place="a\nb | c; <|im_end|>", extra={"k|": "v;\u202e"} | {str(n): "x" * 40 for n in range(50)})
    text = line(Words().of(moment(datetime(2026, 1, 1, tzinfo=UTC), context), None), None)
    assert not set(text) & set("|;\n\u202e")
    assert "<|" not in text
    assert len(text) < 250


def test_an_unknown_time_zone_is_refused() -> None:
    with pytest.raises(DataError, match="no time zone 'Mars/Olympus'"):
        Words().of(moment(datetime(2026, 1, 1, tzinfo=UTC), Context(time_zone="Mars/Olympus")), None)


# ---- place and device


@pytest.mark.parametrize(
    ("latitude", "longitude", "said"),
    [
        (52.52, 13.405, "nearby"),
        (52.53, 13.405, "1 km away"),
        (52.5, 13.0, "20 km away"),  # 27.5 km
        (48.857, 2.352, "1000 km away"),  # Paris: 878 km
        (-36.85, 174.76, "10000 km away"),
    ],
)
def test_distance_is_told_in_round_kilometres(latitude: float, longitude: float, said: str) -> None:
    berlin = 52.52, 13.405
    assert distance(berlin, (latitude, longitude)) == distance((latitude, longitude), berlin) == said


def test_nobody_is_away_from_nowhere() -> None:
    assert distance((52.52, 13.405), None) == distance(None, (52.52, 13.405)) == ""


@pytest.mark.parametrize(
    ("latitude", "longitude"),
    [(None, 13.0), (52.5, None), (float("nan"), 13.0), (91.0, 13.0), (13.0, -181.0), (0.0, 0.0), (0.0, float("inf"))],
)
def test_what_is_no_position_is_not_used(latitude: float | None, longitude: float | None) -> None:
    assert point(latitude, longitude) is None
    assert point(0.0, 13.4) == (0.0, 13.4)


def test_of_two_moments_that_nobody_gets_between_no_distance_is_told() -> None:
    at = datetime(2026, 5, 5, 12, tzinfo=UTC)
    berlin, paris = Context(latitude=52.52, longitude=13.405), Context(latitude=48.857, longitude=2.352)

    def told(hours: float) -> str:
        return Words().of(moment(at + timedelta(hours=hours), paris), moment(at, berlin))["distance"]

    assert (told(0.5), told(1.5)) == ("", "1000 km away"), "878 km in half an hour or in one and a half"


def test_one_wrong_position_is_passed_over_and_the_next_right_one_is_not() -> None:
    at = datetime(2026, 1, 5, 12, tzinfo=UTC)
    rome, moon = Context(latitude=41.9, longitude=12.5), Context(latitude=-41.9, longitude=-167.5)
    visits = [moment(at + timedelta(hours=h), c) for h, c in enumerate([rome, rome, moon, rome, rome])]
    words = list(Words(features=("season", "distance")).each(visits))
    assert [one["distance"] for one in words] == ["", "nearby", "", "", "nearby"]
    assert [one["season"] for one in words] == ["winter"] * 5, "south of the equator it is summer"


def test_what_else_is_known_is_said_in_the_order_of_its_names() -> None:
    context = Context(device=" my\nphone ", extra={"weather": "rain", "mood": "calm", "\u200b": ""})
    assert (device(context), extra(context, datetime(2026, 1, 1, tzinfo=UTC))) == (
        "my phone",
        "mood calm, weather rain",
    )


# ---- what it costs


@pytest.mark.llm
def test_the_words_for_time_cost_a_handful_of_tokens_a_line() -> None:
    """On real shopping histories and with a real model's tokenizer, six tokens a line on average at most."""
    journey = pytest.importorskip("genrec_completejourney", reason="genrec-completejourney is not installed")
    try:
        tokenizer = HfTokenizer(model_folder("smollm2-135m"))
    except ModelError as error:
        pytest.skip(f"{error}; {error.hint}")
    source = journey.CompleteJourney(households=20)
    baskets: dict[str, list[Event]] = {}
    for rows in source.read("events", lambda problem: pytest.fail(str(problem))):
        for row in rows.to_pylist():
            baskets.setdefault(row["user_id"], []).append(event_of(row))
    features = tuple(f for f in FEATURES if f in ("weekday", "part_of_day", "season", "holiday", "since"))
    to_words = Words(features=features, country="US")
    texts = []
    for events in baskets.values():
        visits = moments(events)
        words = [to_words.of(visit, before) for before, visit in pairwise([None, *visits]) if visit]
        texts += [line(now, before) for before, now in pairwise([None, *words]) if now is not None]
    n_tokens = [len(ids) for ids in tokenizer.encode(texts, after="\n")]
    assert len(texts) > 1_000
    assert sum(n_tokens) / len(n_tokens) <= 6.0
    assert len({text.split(" ")[0].strip(",") for text in texts} & set(WEEKDAYS)) == 7
