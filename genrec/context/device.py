"""What something happened on, and whatever else a source said about the moment, in words."""

from __future__ import annotations

from genrec.events import Context
from genrec.text import clean


def device(context: Context) -> str:
    """Name of the device, or nothing where it is unknown."""
    return clean(context.device or "", max_chars=40)


def extra(context: Context) -> str:
    """Further context in the order of its names: ``mood calm, weather rain``."""
    said = (clean(f"{key} {value}", max_chars=40) for key, value in sorted(context.extra.items()))
    return clean(", ".join(filter(None, said)), max_chars=120)
