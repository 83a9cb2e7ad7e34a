"""When something happened, in words: weekday, part of day, season, public holiday, time since the moment before."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from functools import lru_cache

WEEKDAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
PARTS_OF_DAY = ((5, "night"), (11, "morning"), (14, "noon"), (18, "afternoon"), (22, "evening"), (24, "night"))
"""Each part with the hour at which it ends."""
SEASONS = ("winter", "spring", "summer", "autumn")
_NUMBERS = ("two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven")


def weekday(at: datetime) -> str:
    """``Mon`` to ``Sun``, on the clock of `at`."""
    return WEEKDAYS[at.weekday()]


def part_of_day(at: datetime) -> str:
    """``morning``, ``noon``, ``afternoon``, ``evening`` or ``night``, on the clock of `at`."""
    return next(word for end, word in PARTS_OF_DAY if at.hour < end)


def season(at: datetime, latitude: float | None) -> str:
    """Meteorological season; of the northern hemisphere where the latitude is unknown."""
    index = at.month % 12 // 3
    return SEASONS[(index + 2) % 4 if latitude is not None and latitude < 0 else index]


def holiday(at: datetime, country: str) -> str:
    """Name of a country's public holiday, ``day before …`` on its eve, or nothing.

    Args:
        at: On the clock of the place.
        country: Two letters; empty for no holidays.
    """
    if not country:
        return ""
    if today := _holidays(country, at.year).get(at.date()):
        return today
    tomorrow = at.date() + timedelta(days=1)
    eve_of = _holidays(country, tomorrow.year).get(tomorrow)
    return f"day before {eve_of}" if eve_of else ""


def since(at: datetime, before: datetime | None) -> str:
    """Time since the moment before, as a person would say it: ``same day``, ``next day``, ``three weeks later``.

    Args:
        at: On the person's clock.
        before: The moment before, on the person's clock; nothing is said of the first one.
    """
    if before is None:
        return ""
    days = (at.date() - before.date()).days
    if days <= 0:
        return "same day"
    if days == 1:
        return "next day"
    for length, unit in ((365, "year"), (30, "month"), (7, "week"), (1, "day")):
        if (n := days // length) >= 1:
            return f"a {unit} later" if n == 1 else f"{_NUMBERS[n - 2] if n < 12 else 'many'} {unit}s later"
    raise AssertionError("days is at least 2")


@lru_cache(maxsize=64)
def _holidays(country: str, year: int) -> dict[date, str]:
    import holidays

    try:
        found = holidays.country_holidays(country, years=year, language="en_US")
    except (NotImplementedError, ValueError):
        found = holidays.country_holidays(country, years=year)
    return {day: name.split(";")[0].removesuffix("(observed)").strip() for day, name in found.items()}
