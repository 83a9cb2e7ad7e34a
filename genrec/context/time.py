"""When something happened, in words, from weekday to time since the moment before; and what others say of it."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from typing import TYPE_CHECKING

from genrec.text import clean

if TYPE_CHECKING:
    from holidays import HolidayBase

WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
"""In full: tokenizers write each as one token, the short forms often as two."""
PARTS_OF_DAY = ((5, "night"), (11, "morning"), (14, "noon"), (18, "afternoon"), (22, "evening"), (24, "night"))
"""Each part with the hour at which it ends."""
SEASONS = ("winter", "spring", "summer", "autumn")
SOUTHERN = frozenset("AO AR AU BO BR BW CL FJ LS MG MU MW MZ NA NC NZ PE PF PG PY SZ TZ UY VU ZA ZM ZW".split())
"""Countries whose summer is in January."""
AHEAD_DAYS = 14
"""So long before a public holiday it is told that it comes."""
SESSION = timedelta(minutes=30)
"""What comes so soon after the moment before, or sooner, goes on with its visit."""
SUNRISE, DUSK = -0.833, -6.0
"""Height of the sun when it is seen to rise and set, and when civil twilight begins and ends, in degrees."""
_NUMBERS = "two three four five six seven eight nine ten eleven twelve thirteen fourteen".split()
_ORDINALS = "second third fourth fifth sixth seventh eighth ninth tenth".split()
_HOUR_S = 3600


def weekday(at: datetime) -> str:
    """``Monday`` to ``Sunday``, on the clock of `at`."""
    return WEEKDAYS[at.weekday()]


def weekend(at: datetime, country: str) -> str:
    """``weekend`` or ``weekday``; Saturday and Sunday are the weekend where a country has no other that year."""
    is_weekend = _country(country).is_weekend(at.date()) if country else at.weekday() >= 5
    return "weekend" if is_weekend else "weekday"


def hour(at: datetime) -> str:
    """``seven pm`` from 19:00 on, on the clock of `at`.

    SmolLM2 writes it as two tokens, like ``around seven``, which could be either half of the day; ``7 pm`` is three.
    """
    return f"{('twelve', 'one', *_NUMBERS)[at.hour % 12]} {'am' if at.hour < 12 else 'pm'}"


def part_of_day(at: datetime) -> str:
    """``morning``, ``noon``, ``afternoon``, ``evening`` or ``night``, on the clock of `at`."""
    return next(word for end, word in PARTS_OF_DAY if at.hour < end)


def daylight(at: datetime, where: tuple[float, float] | None) -> str:
    """``before sunrise``, ``at dawn``, ``in daylight``, ``at dusk``, ``after sunset``; nothing where that is unknown.

    On days on which the sun stays up it is ``midnight sun``, on those on which it does not come up ``polar night``.
    `where` is degrees north and degrees east.
    """
    if where is None:
        return ""
    from astral import Observer  # takes a moment: only where it is asked for
    from astral.sun import elevation, noon

    sun = Observer(*where)
    highest = noon(sun, at.date())
    times = at, highest, highest + timedelta(hours=12)
    now, top, bottom = (elevation(sun, one, with_refraction=False) for one in times)
    if bottom > SUNRISE:
        return "midnight sun"
    if top < SUNRISE:
        return "polar night"
    rises = (highest - at) % timedelta(days=1) < timedelta(hours=12)
    if now > SUNRISE:
        return "in daylight"
    if now > DUSK:
        return "at dawn" if rises else "at dusk"
    return "before sunrise" if rises else "after sunset"


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


def ahead(at: datetime, country: str) -> str:
    """``five days before Christmas Day``: the next public holiday within `AHEAD_DAYS`, or nothing; as for `holiday`.

    A holiday that is on today or was within a week is not ahead: one observed on another day has two days of its name.
    """
    lately = [at.date() - timedelta(days=n) for n in range(8)] if country else ()
    been = {_holidays(country, day.year).get(day) for day in lately}
    for n in range(1, AHEAD_DAYS + 1) if country else ():
        day = at.date() + timedelta(days=n)
        if (name := _holidays(country, day.year).get(day)) and name not in been:
            return f"day before {name}" if n == 1 else f"{_NUMBERS[n - 2]} days before {name}"
    return ""


def goes_on(at: datetime, before: datetime | None) -> bool:
    """Whether what happens goes on with the visit of the moment before."""
    return before is not None and at.timestamp() - before.timestamp() <= SESSION.total_seconds()


def session(nth: int) -> str:
    """``new visit`` for the first moment of a visit, ``third of this visit`` for its third."""
    return "new visit" if nth == 1 else f"{_ORDINALS[nth - 2]} of this visit" if nth <= 10 else "late in this visit"


def hour_of_week(at: datetime) -> int:
    """Hours since Monday began, on the clock of `at`: 0 to 167."""
    return 24 * at.weekday() + at.hour


@lru_cache(maxsize=4096)
def claim(name: str, value: str) -> frozenset[int] | None:
    """The hours of the week at which further context such as ``weekday Fri`` or ``time_of_day evening`` can be true.

    A weekday is what begins with an English one, or with three letters of it or more, and names no other: ``Tues.``,
    ``Mon, 3 May``. A part of day is one of `PARTS_OF_DAY`; people draw the lines between them differently, so
    two hours before and after are let pass. None for what names neither.
    """
    name, value = "".join(filter(str.isalpha, name.casefold())), value.strip().casefold()
    found: list[int] = []
    if name in ("weekday", "dayofweek", "day"):
        words = re.findall(r"[^\W\d_]{3,}", value)
        named = [{n for n, day in enumerate(WEEKDAYS) if day.casefold().startswith(word)} for word in words]
        if named and len(named[0]) == 1 == len(set().union(*named)):
            found = [h for h in range(168) if h // 24 in named[0]]
    elif name in ("partofday", "timeofday", "daypart"):
        parts = [next(word for end, word in PARTS_OF_DAY if h < end) for h in range(24)]
        found = [h for h in range(168) if value in {parts[(h + late) % 24] for late in range(-2, 3)}]
    return frozenset(found) or None


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
def _country(country: str) -> HolidayBase:
    import holidays

    return holidays.country_holidays(country, expand=False)  # weekends need no list of holidays


@lru_cache(maxsize=64)
def _holidays(country: str, year: int) -> dict[date, str]:
    import holidays

    try:
        found = holidays.country_holidays(country, years=year, language="en_US")
    except (NotImplementedError, ValueError):
        found = holidays.country_holidays(country, years=year)
    return {day: clean(name.split(";")[0].removesuffix("(observed)"), max_chars=40) for day, name in found.items()}
