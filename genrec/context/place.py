"""Where something happened, in words: the place's name, and how far it is from the place before."""

from __future__ import annotations

from math import asin, cos, isfinite, radians, sin, sqrt

from genrec.events import Context
from genrec.text import clean

DISTANCES_KM = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000)
"""Round distances; what is nearer than half the first is the same place."""
_EARTH_KM = 6371.0


def place(context: Context) -> str:
    """Name of the place, or nothing where it is unknown."""
    return clean(context.place or "", max_chars=40)


def distance(context: Context, before: Context | None) -> str:
    """How far it is from where the moment before was: ``nearby``, ``5 km away``; nothing where that is unknown."""
    here, there = _point(context), _point(before) if before else None
    if here is None or there is None:
        return ""
    km = kilometres(*here, *there)
    if km < DISTANCES_KM[0] / 2:
        return "nearby"
    return f"{min(DISTANCES_KM, key=lambda rounded: abs(rounded - km))} km away"


def kilometres(latitude: float, longitude: float, other_latitude: float, other_longitude: float) -> float:
    """Great-circle distance between two points given in degrees."""
    a, b = radians(latitude), radians(other_latitude)
    across = radians(other_longitude - longitude)
    half = sin((b - a) / 2) ** 2 + cos(a) * cos(b) * sin(across / 2) ** 2
    return 2 * _EARTH_KM * asin(min(1.0, sqrt(half)))


def _point(context: Context) -> tuple[float, float] | None:
    if context.latitude is None or context.longitude is None:
        return None
    point = context.latitude, context.longitude
    return point if all(map(isfinite, point)) else None
