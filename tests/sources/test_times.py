"""Times: every spelling means one instant, or the value is named as wrong."""

from __future__ import annotations

from datetime import UTC, date, datetime
from unittest.mock import Mock
from zoneinfo import ZoneInfo

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from genrec.sources.times import is_zone, read_times, spelling

NEW_YEAR = datetime(2024, 1, 1, 12, 30, tzinfo=UTC)


def one(value: object, zone: str | None = "UTC", time_format: str | None = None) -> datetime | None:
    found = read_times(pa.array([value]), pa.array([zone], pa.string()), time_format=time_format)
    assert found.zone_needed is None
    return found.at[0].as_py()  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    "value",
    [
        "2024-01-01T12:30:00Z",
        "2024-01-01 12:30:00.000Z",
        " 2024-01-01T13:30:00+01:00 ",
        "2024-01-01T07:30-0500",
        "2024-01-01 12:30",
        "2024-01-01T12:30:00.000000000",
        "20240101T123000Z",
        "1704112200",
        "1704112200.0",
        "1704112200000",
        "1704112200000000",
        1704112200,
        1704112200.0,
        1704112200000,
        1704112200000000,
        1704112200000000000,
        datetime(2024, 1, 1, 12, 30),
        NEW_YEAR,
    ],
)
def test_one_instant_in_every_spelling(value: object) -> None:
    assert one(value) == NEW_YEAR


def test_dates_are_midnight_by_the_clock_they_are_given() -> None:
    midnight_in_tokyo = datetime(2023, 12, 31, 15, tzinfo=UTC)
    for value in ("2024-01-01", "20240101", 20240101, date(2024, 1, 1)):
        assert one(value, "Asia/Tokyo") == midnight_in_tokyo


def test_a_format_of_ones_own() -> None:
    assert one("1/12/2024 8:26", "UTC", "%d/%m/%Y %H:%M") == datetime(2024, 12, 1, 8, 26, tzinfo=UTC)


def test_spellings_can_be_mixed_and_each_row_has_its_clock() -> None:
    values = pa.array(["2024-01-01T12:30:00Z", "1704112200", "2024-01-01 21:30", "2024-01-01 12:30", "soon", None])
    zones = pa.array(["Asia/Tokyo", None, "Asia/Tokyo", "UTC", "UTC", None])
    found = read_times(values, zones)
    assert found.at.to_pylist() == [NEW_YEAR] * 4 + [None, None]
    assert list(found.faults) == [4]


def test_no_clock_no_guess() -> None:
    found = read_times(pa.array(["2024-01-01T12:30Z", "2024-01-01 12:30"]), pa.array([None, None], pa.string()))
    assert found.zone_needed == 1


@pytest.mark.parametrize(
    ("value", "what"),
    [
        ("2024-02-30", "no time"),
        ("0001-01-01T00:00:00Z", "outside"),
        (10**40 * 1.0, "no instant"),
        (-(10**11), None),
        ("2023-03-12 02:30", "was skipped"),
        ("2023-11-05 01:30", "came twice"),
    ],
)
def test_what_is_no_instant_is_a_fault(value: object, what: str | None) -> None:
    found = read_times(pa.array([value]), pa.array(["America/New_York"]))
    if what is None:
        assert not found.faults
    else:
        assert found.at.to_pylist() == [None]
        assert what in found.faults[0]


@given(
    st.lists(st.datetimes(datetime(1902, 1, 2), datetime(2037, 10, 1)), min_size=1),
    st.sampled_from(["Europe/Paris", "Asia/Kolkata", "America/New_York"]),
)
def test_wall_clocks_agree_with_pythons(walls: list[datetime], zone: str) -> None:
    found = read_times(pa.array([wall.isoformat() for wall in walls]), pa.array([zone] * len(walls)))
    for position, wall in enumerate(walls):
        early, late = (wall.replace(tzinfo=ZoneInfo(zone), fold=fold).astimezone(UTC) for fold in (0, 1))
        if position in found.faults:
            assert early != late
        else:
            assert found.at[position].as_py() == early == late


@given(st.lists(st.text(max_size=30) | st.from_regex(r"\d{1,25}(\.\d+)?", fullmatch=True), min_size=1))
def test_no_text_breaks_it(texts: list[str]) -> None:
    found = read_times(pa.array(texts), pa.array(["UTC"] * len(texts)))
    for position, at in enumerate(found.at.to_pylist()):
        assert (at is None) == (position in found.faults)


def test_spellings_are_named() -> None:
    assert spelling("2024-01-01T00:00Z") == "ISO 8601 with zone"
    assert spelling("2024-01-01 00:00") == "ISO 8601 without zone"
    assert spelling("20240101") == "dates like 20240131, without zone"
    assert spelling("1704112200") == "epoch seconds"
    assert spelling(1704112200000) == "epoch milliseconds"
    assert spelling(NEW_YEAR) == "instants"
    assert spelling(date(2024, 1, 1)) == "dates without zone"
    assert spelling("1/1/24", "%d/%m/%y") == "text like '%d/%m/%y'"
    assert spelling("Monday") == "text"


def test_zones() -> None:
    assert is_zone("Europe/Paris")
    for name in ("Paris", "", "../etc/passwd", "Europe"):
        assert not is_zone(name)


@given(
    st.lists(st.datetimes(datetime(1905, 1, 1), datetime(2036, 12, 31)), min_size=1, max_size=5),
    st.sampled_from(["Europe/Paris", "America/New_York", "Australia/Lord_Howe", "Asia/Tokyo"]),
)
@example(walls=[datetime(2017, 3, 26, 2, 30), datetime(2017, 10, 29, 2, 30)], zone="Europe/Paris")
@example(walls=[datetime(1899, 12, 31, 23), datetime(2200, 1, 1), datetime(1, 1, 1)], zone="Asia/Tokyo")
def test_a_machine_without_time_zones_of_its_own_reads_the_same(walls: list[datetime], zone: str) -> None:
    values, zones = pa.array([*walls, None]), pa.array([zone] * (len(walls) + 1))
    with_arrow = read_times(values, zones)
    with pytest.MonkeyPatch.context() as slim:  # what Arrow says where the system has no database of time zones
        slim.setattr(pc, "assume_timezone", Mock(side_effect=pa.ArrowInvalid("Cannot locate or parse timezone")))
        alone = read_times(values, zones)
    assert alone.at.equals(with_arrow.at)
    assert alone.faults == with_arrow.faults
