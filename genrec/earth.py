"""Positions on the earth and how far apart they are. Knows degrees and kilometres, nothing of people or items."""

from __future__ import annotations

from math import asin, cos, radians, sin, sqrt

import numpy as np

EARTH_KM = 6371.0088
"""Mean radius of the earth."""
FARTHEST_KM = np.pi * EARTH_KM
"""To the other side of it."""
Point = tuple[float, float]
"""Degrees north and east."""


def point(latitude: float | None, longitude: float | None) -> Point | None:
    """A position; None where it is unknown, not on earth, or (0, 0), which stands for unknown in many sources."""
    if latitude is None or longitude is None or not (latitude or longitude):
        return None
    return (latitude, longitude) if abs(latitude) <= 90 and abs(longitude) <= 180 else None  # nor NaN


def kilometres(latitude: float, longitude: float, other_latitude: float, other_longitude: float) -> float:
    """Great-circle distance between two points given in degrees (haversine)."""
    a, b = radians(latitude), radians(other_latitude)
    across = radians(other_longitude - longitude)
    half = sin((b - a) / 2) ** 2 + cos(a) * cos(b) * sin(across / 2) ** 2
    return 2 * EARTH_KM * asin(min(1.0, sqrt(half)))


def on_sphere(latitude: np.ndarray, longitude: np.ndarray) -> np.ndarray:
    """Points of the unit sphere at some degrees north and east; NaN if they are not on earth. Shape ``(3, …)``."""
    there = (np.abs(latitude) <= 90) & (np.abs(longitude) <= 180)
    north, east = (np.radians(np.where(there, degrees, np.nan)) for degrees in (latitude, longitude))
    return np.stack([np.cos(north) * np.cos(east), np.cos(north) * np.sin(east), np.sin(north)])


def arc_km(chord: np.ndarray) -> np.ndarray:
    """Great-circle distance of points of the unit sphere whose straight line is so long; km, shape as `chord`."""
    km: np.ndarray = 2 * EARTH_KM * np.arcsin(np.minimum(chord / 2, 1))
    return km
