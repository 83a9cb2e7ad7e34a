"""The words for time that a template asks for, and whose clock counts."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genrec.catalog import Catalog
from genrec.context import OPTIONAL, Words, line
from genrec.context.device import extra
from genrec.context.time import ahead, claim, daylight, holiday, hour, hour_of_week, since, weekend
from genrec.evaluation.claims import contradicted
from genrec.evaluation.log import Log
from genrec.events import Context, Event, Item, batch
from genrec.history import Moment, moments
from genrec.priors.loglinear import Events
from genrec.recommender import instant
from genrec.sources.zones import _zone_at, clocks, walls, zone_at

PARIS, NEW_YORK, TROMSO = (48.85, 2.35), (40.71, -74.0), (69.65, 18.96)
FRIDAY = datetime(2026, 5, 22, 19, 10, tzinfo=UTC)


def at_place(at: datetime, place: tuple[float, float] | None = None, **more: object) -> Moment:
    latitude, longitude = place or (None, None)
    context = Context(latitude=latitude, longitude=longitude, **more)  # type: ignore[arg-type]
    [moment] = moments([Event(user_id="ann", item_id="tea", at=at, context=context)])
    return moment


# ---- words


def test_the_hour_is_the_one_on_the_clock() -> None:
    said = [hour(datetime(2026, 5, 22, h, 59)) for h in range(24)]
    assert said[0] == "twelve am"
    assert said[1] == "one am"
    assert said[12] == "twelve pm"
    assert said[19] == "seven pm"
    assert len(set(said)) == 24


def test_the_weekend_is_the_countrys() -> None:
    days = {name: FRIDAY + timedelta(days=n) for n, name in enumerate(("Friday", "Saturday", "Sunday"))}
    for country in ("", "FR"):
        assert [weekend(at, country) for at in days.values()] == ["weekday", "weekend", "weekend"]
    assert [weekend(at, "EG") for at in days.values()] == ["weekend", "weekend", "weekday"]


def test_the_weekend_is_that_of_its_year() -> None:
    for year, fri_sat_sun in ((2021, ["weekend", "weekend", "weekday"]), (2024, ["weekday", "weekend", "weekend"])):
        friday = date.fromisocalendar(year, 20, 5)
        said = [weekend(datetime.combine(friday + timedelta(days=n), datetime.min.time()), "AE") for n in range(3)]
        assert said == fri_sat_sun, year


def test_a_holiday_is_told_a_fortnight_ahead() -> None:
    christmas = date(2026, 12, 25)
    said = {n: ahead(datetime.combine(christmas - timedelta(days=n), datetime.min.time()), "FR") for n in range(16)}
    assert said[1] == "day before Christmas Day"
    assert (said[5], said[14]) == ("five days before Christmas Day", "fourteen days before Christmas Day")
    assert (said[15], said[0]) == ("", "seven days before New Year's Day")
    assert ahead(datetime(2026, 12, 20), "") == ""


def test_what_is_observed_today_is_not_ahead() -> None:
    friday = datetime(2026, 7, 3)  # the fourth is a Saturday
    assert holiday(friday, "US") == "Independence Day"
    assert ahead(friday, "US") == ""
    assert ahead(friday - timedelta(days=1), "US") == "day before Independence Day"
    said = [ahead(datetime(2021, 12, day, 12), "GB") for day in (24, 25, 26, 27)]
    assert said[:2] == ["day before Christmas Day", "day before Boxing Day"]
    assert all("New Year" in one for one in said[2:]), "what is observed afterwards is over"


@given(st.datetimes(datetime(2002, 1, 1), datetime(2030, 1, 1)), st.sampled_from(["DE", "US", "IN"]))
def test_what_is_ahead_is_the_holiday_of_that_day(at: datetime, country: str) -> None:
    numbers = "two three four five six seven eight nine ten eleven twelve thirteen fourteen".split()
    coming = [holiday(at + timedelta(days=n), country) for n in range(1, 15)]
    names = ["" if name.startswith("day before ") or name == holiday(at, country) else name for name in coming]
    first = next((n for n, name in enumerate(names, 1) if name), None)
    expected = (
        "" if first is None else f"{'day' if first == 1 else numbers[first - 2] + ' days'} before {names[first - 1]}"
    )
    assert ahead(at, country) == expected


def test_an_eve_is_told_once() -> None:
    eve = Moment(at=datetime(2026, 12, 24, 12, tzinfo=UTC), context=Context(), item_ids=())
    both = Words(country="FR", features=("holiday", "ahead")).of(eve, None)
    assert both == {"holiday": "day before Christmas Day", "ahead": ""}
    assert Words(country="FR", features=("ahead",)).of(eve, None) == {"ahead": "day before Christmas Day"}


@pytest.mark.parametrize(
    ("clock", "said"),
    [
        ("03:00", "before sunrise"),  # civil dawn 5:22, sunrise 5:58, sunset 21:36, dusk ends 22:13
        ("05:30", "at dawn"),
        ("06:10", "in daylight"),
        ("21:25", "in daylight"),
        ("21:50", "at dusk"),
        ("22:30", "after sunset"),
        ("00:30", "after sunset"),  # midnight of the sun is 1:47 in summer
    ],
)
def test_daylight_goes_by_the_sun_there(clock: str, said: str) -> None:
    at = datetime.fromisoformat(f"2026-05-22T{clock}").replace(tzinfo=ZoneInfo("Europe/Paris"))
    assert daylight(at, PARIS) == said
    assert daylight(at.astimezone(ZoneInfo("Asia/Tokyo")), PARIS) == said, "whatever the clock shows"


def test_there_are_days_without_sunrise_and_days_without_sunset() -> None:
    oslo = ZoneInfo("Europe/Oslo")
    for h in range(24):
        assert daylight(datetime(2026, 6, 21, h, tzinfo=oslo), TROMSO) == "midnight sun"
        assert daylight(datetime(2026, 12, 21, h, tzinfo=oslo), TROMSO) == "polar night"
    assert daylight(datetime(2026, 3, 21, 12, tzinfo=oslo), TROMSO) == "in daylight"
    assert daylight(FRIDAY, None) == ""


LIGHT = ("before sunrise", "at dawn", "in daylight", "at dusk", "after sunset")


@settings(max_examples=50)
@given(
    st.floats(-90, 90),
    st.floats(-180, 180),
    st.datetimes(datetime(1950, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC)),
)
def test_a_day_begins_dark_and_grows_light_and_dark_again(latitude: float, longitude: float, at: datetime) -> None:
    said = [daylight(at + timedelta(minutes=10 * n), (latitude, longitude)) for n in range(144)]
    assert set(said) <= {*LIGHT, "midnight sun", "polar night"}
    if set(said) <= set(LIGHT) and abs(latitude) < 60:
        start = LIGHT.index(said[0])
        order = [word for n, word in enumerate(said) if n == 0 or said[n - 1] != word]
        assert order == [LIGHT[(start + n) % 5] for n in range(len(order))]


def test_it_grows_dark_without_a_position() -> None:
    noon = datetime(2026, 5, 22, 10, tzinfo=UTC)
    visits = [(0, None), (1, PARIS), (12, None), (13, (0.0, 0.0)), (25, None)]
    told = Words(features=("daylight",)).each(at_place(noon + timedelta(hours=h), there) for h, there in visits)
    assert [words["daylight"] for words in told] == ["", "in daylight", "after sunset", "after sunset", "in daylight"]


def test_what_is_ahead_is_written_until_nothing_is() -> None:
    days = (datetime(2026, 12, 21, 9), datetime(2026, 12, 21, 10), datetime(2027, 1, 19), datetime(2027, 1, 19, 1))
    visits = [Moment(at=at.replace(tzinfo=UTC), context=Context(), item_ids=()) for at in days]
    told = list(Words(country="FR", features=("season", "ahead")).each(visits))
    lines = [line(words, before) for before, words in zip([None, *told], told, strict=False)]
    assert lines == ["winter, four days before Christmas Day", "four days before Christmas Day", "", ""]


def test_a_visit_goes_on_for_half_an_hour_after_each_moment() -> None:
    minutes = [0, 30, 59, 90, 90 + 29, 200, 231]
    words = Words(features=("session",)).each(at_place(FRIDAY + timedelta(minutes=m)) for m in minutes)
    assert [one["session"] for one in words] == [
        "new visit",
        "second of this visit",
        "third of this visit",
        "new visit",  # 31 minutes later
        "second of this visit",
        "new visit",
        "new visit",
    ]
    long = [at_place(FRIDAY + timedelta(minutes=m)) for m in range(13)]
    last = [one["session"] for one in Words(features=("session",)).each(long)][9:]
    assert last == ["tenth of this visit", *["late in this visit"] * 3]
    assert Words(features=("session",)).of(long[1], long[0]) == {"session": "second of this visit"}


def test_all_of_the_day_is_one_phrase() -> None:
    words = Words(features=("weekday", "part_of_day", "hour", "session")).of(at_place(FRIDAY), None)
    assert line(words, None) == "Friday evening seven pm, new visit"
    words = Words(features=("weekend", "part_of_day")).of(at_place(FRIDAY), None)
    assert line(words, None) == "weekday evening"


steps = st.lists(
    st.tuples(st.integers(1, 5000), st.sampled_from([None, PARIS, NEW_YORK, TROMSO, (-33.9, 151.2), (89.9, 10.0)])),
    max_size=20,
)


@given(steps, steps, st.datetimes(datetime(1990, 1, 1), datetime(2035, 1, 1), timezones=st.just(UTC)))
def test_no_word_knows_the_future(past: list, future: list, at: datetime) -> None:  # type: ignore[type-arg]
    visits = []
    for minutes, place in [*past, *future]:
        at += timedelta(minutes=minutes)
        visits.append(at_place(at, place))
    words = Words(country="US", features=tuple(OPTIONAL))
    told = list(words.each(visits))
    assert told[: len(past)] == list(words.each(visits[: len(past)]))
    for one in told:
        assert len(text := line(one, None)) < 200
        assert "\n" not in text


# ---- whose clock


def test_a_position_knows_its_clock() -> None:
    assert [zone_at(*place) for place in (PARIS, NEW_YORK, TROMSO)] == [
        "Europe/Paris",
        "America/New_York",
        "Europe/Oslo",
    ]
    assert zone_at(0.0, -30.0) is None, "at sea"
    for nowhere in ((None, 2.0), (0.0, 0.0), (91.0, 2.0), (2.0, 181.0), (float("nan"), 2.0)):
        assert zone_at(*nowhere) is None


def test_where_an_event_names_no_clock_its_positions_counts() -> None:
    at = datetime(2026, 1, 2, 3, tzinfo=UTC)
    assert Words(features=("weekday", "hour")).of(at_place(at, NEW_YORK), None) == {
        "weekday": "Thursday",
        "hour": "ten pm",
    }
    named = at_place(at, NEW_YORK, time_zone="Asia/Tokyo").context
    assert named.time_zone == "Asia/Tokyo"
    assert at_place(at, NEW_YORK, time_zone="Mars/Olympus").context.time_zone == "America/New_York"
    assert at_place(at, (0.0, 0.0)).context.time_zone is None


def test_one_position_with_latitude_and_longitude_swapped_does_not_set_the_clock() -> None:
    swapped = PARIS[::-1]
    visits = [at_place(FRIDAY + timedelta(hours=n), there) for n, there in enumerate((PARIS, PARIS, swapped, PARIS))]
    said = [words["hour"] for words in Words(features=("hour",), time_zone="Europe/Paris").each(visits)]
    assert said == ["nine pm", "ten pm", "eleven pm", "twelve am"]


def test_columns_and_moments_have_the_same_clocks() -> None:
    places = [PARIS, NEW_YORK, None, (0.0, 0.0), TROMSO]
    events = [
        Event(
            user_id="ann",
            item_id="tea",
            at=FRIDAY + timedelta(days=n),
            context=Context(
                time_zone=zone, latitude=place[0] if place else None, longitude=place[1] if place else None
            ),
        )
        for n, (place, zone) in enumerate(
            (place, zone) for place in places for zone in (None, "Asia/Tokyo", "Mars/Olympus")
        )
    ]
    assert clocks(batch("events", events)).to_pylist() == [one.context.time_zone for one in moments(events)]
    assert clocks(pa.record_batch({"user_id": ["ann"]})).to_pylist() == [None]
    catalog = Catalog.of([Item(item_id="tea", title="Tea")])
    walls = [Words().local(moment).replace(tzinfo=None) for moment in moments(events)]
    assert Events.read(catalog, [batch("events", events)]).local.tolist() == walls, "what priors learn from"
    log = Log.read([batch("events", events)], catalog)
    assert log.wall_us.astype("datetime64[us]").tolist() == walls, "what an audit looks at"


@given(st.lists(st.tuples(st.none() | st.floats(-91, 91), st.none() | st.floats(-181, 1000))))
def test_columns_find_the_clocks_of_single_positions(places: list[tuple[float | None, float | None]]) -> None:
    latitude, longitude = (pa.array([place[i] for place in places], pa.float64()) for i in (0, 1))
    found = clocks(pa.record_batch({"latitude": latitude, "longitude": longitude}))
    assert found.to_pylist() == [zone_at(*place) for place in places]


def test_the_map_is_asked_once_about_a_place_and_not_where_events_name_their_clock(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[tuple[float, float]] = []
    monkeypatch.setattr("tzfpy.get_tz", lambda east, north: asked.append((north, east)) or "Europe/Paris")
    _zone_at.cache_clear()

    def events(time_zone: str | None) -> pa.RecordBatch:
        near = [Context(latitude=48.85 + n / 1e6, longitude=2.35, time_zone=time_zone) for n in range(100)]
        return batch("events", [Event(user_id="ann", item_id="tea", at=FRIDAY, context=context) for context in near])

    assert set(clocks(events("Asia/Tokyo")).to_pylist()) == {"Asia/Tokyo"}
    assert asked == []
    assert set(clocks(events(None)).to_pylist()) == {"Europe/Paris"}
    assert asked == [PARIS]
    _zone_at.cache_clear()


CHANGES = {  # the hour, UTC, at which clocks changed
    "Europe/Paris": (datetime(2025, 3, 30, 1), datetime(2025, 10, 26, 1)),
    "America/New_York": (datetime(2025, 3, 9, 7), datetime(2025, 11, 2, 6)),
    "Australia/Lord_Howe": (datetime(2025, 10, 4, 15, 30), datetime(2025, 4, 5, 15)),  # by half an hour
}


@given(st.sampled_from(sorted(CHANGES)), st.sampled_from((0, 1)), st.integers(-180, 180), st.integers(1, 180))
def test_columns_show_what_clocks_on_walls_do_where_they_jump(name: str, which: int, minutes: int, more: int) -> None:
    instants = [CHANGES[name][which].replace(tzinfo=UTC) + timedelta(minutes=m) for m in (minutes, minutes + more)]
    at_us = np.array([at.replace(tzinfo=None) for at in instants], "datetime64[us]").astype(np.int64)
    shown = walls(at_us, np.array([1, 0]), [None, name]).astype("datetime64[us]").tolist()
    assert shown == [instants[0].astimezone(ZoneInfo(name)).replace(tzinfo=None), instants[1].replace(tzinfo=None)]


@given(st.sampled_from(sorted(CHANGES)), st.sampled_from((0, 1)), st.integers(-180, 180), st.integers(1, 180))
def test_instants_keep_their_order_where_the_clock_jumps(name: str, which: int, minutes: int, more: int) -> None:
    zone = ZoneInfo(name)
    utc = CHANGES[name][which].replace(tzinfo=UTC) + timedelta(minutes=minutes)
    local, later = utc.astimezone(zone), (utc + timedelta(minutes=more)).astimezone(zone)
    words = Words(features=("hour", "since", "session"), time_zone=name)
    first, then = (Moment(at=at, context=Context(), item_ids=()) for at in (local, later))
    same, plain = (Moment(at=at.astimezone(UTC), context=Context(), item_ids=()) for at in (local, later))
    told = words.of(then, first)
    assert told == words.of(plain, same), "however the instants are written"
    assert told["session"] == ("second of this visit" if more <= 30 else "new visit"), "by true minutes"
    assert (since(later, local) == "soon after") == (more < 60)
    assert hour(words.local(plain)) == hour(later)
    again, _ = instant(later.isoformat(), zone)
    assert again == later, "with its offset a time is read as it was written"


# ---- what others say of the time


@pytest.mark.parametrize(
    ("name", "value", "can_be"),
    [
        ("weekday", "Friday", True),
        ("Day of week", "fri", True),
        ("weekday", "Monday", False),
        ("weekday", "Tues.", False),
        ("day", "Mon, 3 May", False),
        ("day", "Fri, 22 May", True),
        ("day", "Mon-Fri", True),  # names more than one
        ("day", "not Monday", True),
        ("day", "Mo", True),
        ("weekday", "weekend", True),  # as little does this name one
        ("part_of_day", "late morning", True),
        ("day", "3", True),  # who knows where they begin
        ("weekday", "vendredi", True),
        ("time_of_day", "evening", True),
        ("time_of_day", "night", False),  # it is 19:10, and night begins at 22
        ("daypart", "afternoon", True),  # ends at 18: people differ
        ("part_of_day", "Morning", False),
        ("weather", "monday", True),
    ],
)
def test_what_can_be_said_of_friday_at_seven(name: str, value: str, can_be: bool) -> None:
    hours = claim(name, value)
    assert (hours is None or hour_of_week(FRIDAY) in hours) == can_be
    said = extra(Context(extra={name: value, "x": "y"}), FRIDAY)
    assert (value in said) == can_be
    assert "x y" in said


@given(st.dictionaries(st.sampled_from(["weekday", "daypart", "mood"]), st.sampled_from(["Monday", "noon", "calm"])))
def test_columns_and_words_agree_on_what_is_contradicted(said: dict[str, str]) -> None:
    places = (PARIS, NEW_YORK, None)
    events = [
        Event(
            user_id="ann",
            item_id="tea",
            at=FRIDAY + timedelta(hours=n),
            context=Context(latitude=(p := places[n % 3] or (None, None))[0], longitude=p[1], extra=said),
        )
        for n in range(0, 168, 5)
    ]
    left_out = [
        len(extra(Context(extra={key: value}), Words().local(moment))) == 0
        for event, moment in zip(events, moments(events), strict=True)
        for key, value in [*event.context.extra.items()]
        if moment.context.time_zone
    ]
    by_event = [any(left_out[i : i + len(said)]) for i in range(0, len(left_out), max(1, len(said)))]
    assert contradicted(batch("events", events)) == sum(by_event)
