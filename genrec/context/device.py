"""What something happened on, and whatever else a source said about the moment, in words."""

from __future__ import annotations

from datetime import datetime

from genrec.context.time import claim, hour_of_week
from genrec.events import Context
from genrec.text import clean


def device(context: Context) -> str:
    """Name of the device, or nothing where it is unknown."""
    return clean(context.device or "", max_chars=40)


def extra(context: Context, at: datetime) -> str:
    """Further context in the order of its names: ``mood calm, weather rain``.

    A weekday or a part of day that `at`, on the clock of the place, contradicts is left out.
    """
    now = hour_of_week(at)
    true = (pair for pair in sorted(context.extra.items()) if now in (claim(*pair) or (now,)))
    said = (clean(f"{key} {value}", max_chars=40) for key, value in true)
    return clean(", ".join(filter(None, said)), max_chars=120)
