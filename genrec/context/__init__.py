"""A moment's context in words: what stands before the bar of a history line.

A word is written only where it differs from the line before; the first line of a window is written in full. A line says
what was known at its moment and never depends on "now". Knows nothing of items, tokens or templates.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, get_args
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from genrec.context import time
from genrec.errors import DataError
from genrec.events import Context
from genrec.text import clean

Feature = Literal["weekday", "part_of_day", "season", "holiday", "since", "place", "device", "extra"]
FEATURES: tuple[Feature, ...] = get_args(Feature)
"""All features, in the order in which their words are written."""


@dataclass(frozen=True, kw_only=True)
class Words:
    """How contexts are put into words."""

    features: tuple[Feature, ...] = FEATURES
    """Which features are written; the others are switched off."""
    time_zone: str = "UTC"
    """Clock of a moment whose own is unknown."""
    country: str = ""
    """Whose public holidays count, two letters; empty for none."""

    def of(self, at: datetime, context: Context, before: datetime | None) -> dict[str, str]:
        """Every feature's word for one moment, empty where there is nothing to say.

        Args:
            at: The moment, time-zone-aware.
            context: Where and on what it happened.
            before: The moment before; None at the beginning of a window.

        Raises:
            DataError: If the time zone is unknown.
        """
        zone = clock(context.time_zone or self.time_zone)
        local = at.astimezone(zone)
        words: Mapping[str, str] = {
            "weekday": time.weekday(local),
            "part_of_day": time.part_of_day(local),
            "season": time.season(local, context.latitude),
            "holiday": time.holiday(local, self.country),
            "since": time.since(local, before.astimezone(zone) if before else None),
            "place": clean(context.place or "", max_chars=40),
            "device": clean(context.device or "", max_chars=40),
            "extra": ", ".join(clean(f"{key} {value}", max_chars=40) for key, value in sorted(context.extra.items())),
        }
        return {feature: words[feature] for feature in FEATURES if feature in self.features}


def line(words: Mapping[str, str], previous: Mapping[str, str] | None) -> str:
    """The context part of a history line.

    Args:
        words: Of this moment.
        previous: Of the moment written on the line before; None for the first line, which is written in full.
    """
    new = {f: word for f, word in words.items() if word and (previous is None or previous.get(f) != word)}
    day = " ".join(new[f] for f in ("weekday", "part_of_day") if f in new)
    return ", ".join(filter(None, [day, *(word for f, word in new.items() if f not in ("weekday", "part_of_day"))]))


def clock(name: str) -> ZoneInfo:
    """The time zone of that IANA name.

    Raises:
        DataError: If there is none.
    """
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise DataError(f"there is no time zone {name!r}", hint="Write it like Europe/Berlin.") from None
