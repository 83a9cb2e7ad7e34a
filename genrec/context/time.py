"""When something happened, in words: weekday, part of day, season, public holiday, time since the moment before."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from functools import lru_cache

from genrec.text import clean

WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
"""In full: tokenizers write each as one token, the short forms often as two."""
PARTS_OF_DAY = ((5, "night"), (11, "morning"), (14, "noon"), (18, "afternoon"), (22, "evening"), (24, "night"))
"""Each part with the hour at which it ends."""
SEASONS = ("winter", "spring", "summer", "autumn")
SOUTHERN = frozenset("AO AR AU BO BR BW CL FJ LS MG MU MW MZ NA NC NZ PE PF PG PY SZ TZ UY VU ZA ZM ZW".split())
"""Countries whose summer is in January."""
_NUMBERS = ("two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven")
_HOUR_S = 3600


def weekday(at: datetime) -> str:
    """``Monday`` to ``Sunday``, on the clock of `at`."""
    return WEEKDAYS[at.weekday()]


def part_of_day(at: datetime) -> str:
    """``morning``, ``noon``, ``afternoon``, ``evening`` or ``night``, on the clock of `at`."""
    return next(word for end, word in PARTS_OF_DAY if at.hour < end)


def season(at: datetime, latitude: float | None, country: str) -> str:
    """Meteorological season, by the latitude; where that is unknown, by the country; else of the north."""
    is_south = country in SOUTHERN if latitude is None else latitude < 0
    return SEASONS[(at.month % 12 // 3 + 2 * is_south) % 4]


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
    """Time since the moment before, as a person would say it: ``two hours later``, ``next day``, ``a week later``.

    Args:
        at: On the clock of the place; days are counted by its midnights.
        before: The moment before; nothing is said where there was none.
    """
    if before is None:
        return ""
    elapsed_s = (at.astimezone(UTC) - before.astimezone(UTC)).total_seconds()
    days = (at.date() - before.astimezone(at.tzinfo).date()).days
    if elapsed_s < _HOUR_S:
        return "soon after"
    if days == 0 and elapsed_s > 11.5 * _HOUR_S:
        return "half a day later"
    if days == 0 or elapsed_s < 6 * _HOUR_S:
        return _later(round(elapsed_s / _HOUR_S), "hour")
    if days == 1:
        return "next day"
    if days < 7:
        return _later(days, "day")
    if days < 30:
        return _later(days // 7, "week")
    if days < 345:
        return _later(round(days / 30.4), "month")
    return _later(round(days / 365.2), "year")


def _later(n: int, unit: str) -> str:
    if n == 1:
        return f"{'an' if unit == 'hour' else 'a'} {unit} later"
    return f"{_NUMBERS[n - 2] if n < 12 else 'many'} {unit}s later"


@lru_cache(maxsize=64)
def _holidays(country: str, year: int) -> dict[date, str]:
    import holidays

    try:
        found = holidays.country_holidays(country, years=year, language="en_US")
    except (NotImplementedError, ValueError):
        found = holidays.country_holidays(country, years=year)
    return {day: clean(name.split(";")[0].removesuffix("(observed)"), max_chars=40) for day, name in found.items()}
