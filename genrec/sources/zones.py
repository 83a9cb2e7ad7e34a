"""Which clock is on the wall at a position, and what it shows. Knows nothing of files; the map is tzfpy's, offline."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from zoneinfo import TZPATH, ZoneInfo

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from genrec.earth import point
from genrec.sources.times import is_zone

_QUARTER_US = 900_000_000
"""Microseconds within which no clock has changed in living memory: they do on a quarter of an hour UTC."""


def zone_at(latitude: float | None, longitude: float | None) -> str | None:
    """IANA name of the time zone of a position, true to about 100 m of its border.

    None where there is no position, and at sea, where nobody lives and many a wrong position lies.
    """
    there = point(latitude, longitude)
    return there and _zone_at(*(round(1000 * degrees) for degrees in there))


@lru_cache(maxsize=65_536)
def _zone_at(north: int, east: int) -> str | None:
    """The same of thousandths of degrees."""
    from tzfpy import get_tz  # reads its map at the first question: only where a position asks

    name = get_tz(east / 1000, north / 1000)
    return name if is_zone(name) and not name.startswith("Etc/") else None


def clocks(events: pa.RecordBatch) -> pa.Array:
    """The clock on the wall of each event: the one it names, else its position's, else null. Shape ``(n,)``.

    As for a moment, see `genrec.history.moments`, a name that this machine does not know is none.
    """
    names = events.schema.names
    zones = events["time_zone"] if "time_zone" in names else pa.nulls(len(events), pa.string())
    known = pa.array([name for name in pc.unique(zones).to_pylist() if name and is_zone(name)], pa.string())
    zones = pc.if_else(pc.is_in(zones, known), zones, None)
    if not {"latitude", "longitude"} <= set(names):
        return zones
    where = [events["latitude"], events["longitude"]]
    there = (pc.less_equal(pc.abs(degrees), most) for degrees, most in zip(where, (90, 180), strict=True))
    asks = pc.and_(pc.is_null(zones), pc.fill_null(pc.and_(*there), False))
    north, east = (degrees.filter(asks).to_numpy() for degrees in where)
    near = 1e6 * np.rint(1000 * north) + np.rint(1000 * east)  # the same number where `_zone_at` is asked the same
    _, first, which = np.unique(near, return_index=True, return_inverse=True)
    found = pa.array([zone_at(*there) for there in zip(north[first].tolist(), east[first].tolist(), strict=True)])
    return pc.replace_with_mask(zones, asks, found.cast(pa.string()).take(pa.array(which)))


def walls(at_us: np.ndarray, clock: np.ndarray, zones: Sequence[str | None]) -> np.ndarray:
    """What clocks on walls showed, microseconds since 1970 there, UTC where a clock is unknown. Shape ``(n,)``, int64.

    Args:
        at_us: Instants, microseconds since 1970 UTC. Shape ``(n,)``, int64.
        clock: By which of `zones` each is read. Shape ``(n,)``.
        zones: IANA names.
    """
    wall_us, epoch = at_us.copy(), datetime(1970, 1, 1, tzinfo=UTC)
    for number, name in enumerate(zones):
        if not name or name == "UTC" or not is_zone(name) or not len(here := np.flatnonzero(clock == number)):
            continue
        quarters, which = np.unique(at_us[here] // _QUARTER_US, return_inverse=True)
        instants = (epoch + timedelta(microseconds=quarter * _QUARTER_US) for quarter in quarters.tolist())
        offsets = [at.astimezone(ZoneInfo(name)).utcoffset() or timedelta() for at in instants]
        wall_us[here] += np.array(offsets, "timedelta64[us]").astype(np.int64)[which]
    return wall_us


def version() -> list[str]:
    """Changes with whatever decides by which clock an event went and what it showed: code, map, and rules of clocks."""
    rules = [Path(folder, "tzdata.zi") for folder in TZPATH]  # the system's come before those of the package
    system = [file.read_bytes().partition(b"\n")[0].decode(errors="replace") for file in rules if file.is_file()]
    return [Path(__file__).read_text(encoding="utf-8"), metadata.version("tzfpy"), metadata.version("tzdata"), *system]
