"""Which clock is on the wall at a position. Knows nothing of files; the zones are those of tzfpy, offline."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc


@lru_cache(maxsize=65_536)
def zone_at(latitude: float | None, longitude: float | None) -> str | None:
    """IANA name of the time zone of a position, true to about 100 m of its border; at sea it is such as ``Etc/GMT+3``.

    Args:
        latitude: Degrees north.
        longitude: Degrees east.

    Returns:
        None where the position is unknown, not on earth, or (0, 0), which stands for unknown in many sources.
    """
    if latitude is None or longitude is None or not (latitude or longitude):
        return None
    if not (abs(latitude) <= 90 and abs(longitude) <= 180):  # nor NaN
        return None
    from tzfpy import get_tz  # reads its map at the first question: only where a position asks

    return get_tz(longitude, latitude) or None


def clocks(events: pa.RecordBatch) -> pa.Array:
    """The clock on the wall of each event: the one it names, else its position's, else null. Shape ``(n,)``."""
    names = events.schema.names
    zones = events["time_zone"] if "time_zone" in names else pa.nulls(len(events), pa.string())
    if not {"latitude", "longitude"} <= set(names):
        return zones
    latitude, longitude = events["latitude"], events["longitude"]
    asks = np.asarray(pc.and_(pc.is_null(zones), pc.and_(pc.is_valid(latitude), pc.is_valid(longitude))))
    if not asks.any():
        return zones
    found = np.full(len(events), None, object)
    pairs = zip(latitude.filter(pa.array(asks)).to_pylist(), longitude.filter(pa.array(asks)).to_pylist(), strict=True)
    found[asks] = [zone_at(*pair) for pair in pairs]
    return pc.coalesce(zones, pa.array(found, pa.string()))
