"""Which clock is on the wall at a position. Knows nothing of files; the zones are those of tzfpy, offline."""

from __future__ import annotations

from functools import lru_cache
from importlib import metadata
from pathlib import Path
from zoneinfo import TZPATH

import pyarrow as pa
import pyarrow.compute as pc

from genrec.sources.times import is_zone


@lru_cache(maxsize=65_536)
def zone_at(latitude: float | None, longitude: float | None) -> str | None:
    """IANA name of the time zone of a position, true to about 100 m of its border; at sea it is such as ``Etc/GMT+3``.

    None where the position is unknown, not on earth, or (0, 0), which stands for unknown in many sources.
    """
    if latitude is None or longitude is None or not (latitude or longitude):
        return None
    if not (abs(latitude) <= 90 and abs(longitude) <= 180):  # nor NaN
        return None
    from tzfpy import get_tz  # reads its map at the first question: only where a position asks

    name = get_tz(longitude, latitude)
    return name if is_zone(name) else None


def clocks(events: pa.RecordBatch) -> pa.Array:
    """The clock on the wall of each event: the one it names, else its position's, else null. Shape ``(n,)``.

    As for a moment, see `genrec.history.moments`, a name that this machine does not know is none.
    """
    names, n = events.schema.names, len(events)
    zones = events["time_zone"] if "time_zone" in names else pa.nulls(n, pa.string())
    known = pa.array([name for name in pc.unique(zones).to_pylist() if name and is_zone(name)], pa.string())
    zones = pc.if_else(pc.is_in(zones, known), zones, None)
    if not {"latitude", "longitude"} <= set(names) or events["latitude"].null_count == n:
        return zones
    columns = (column.to_pylist() for column in (zones, events["latitude"], events["longitude"]))
    return pa.array([zone or zone_at(*where) for zone, *where in zip(*columns, strict=True)], pa.string())


def version() -> list[str]:
    """Changes with whatever decides by which clock an event went and what it showed: code, map, and rules of clocks."""
    rules = [Path(folder, "tzdata.zi") for folder in TZPATH]  # the system's come before those of the package
    system = [file.read_bytes().partition(b"\n")[0].decode(errors="replace") for file in rules if file.is_file()]
    return [Path(__file__).read_text(encoding="utf-8"), metadata.version("tzfpy"), metadata.version("tzdata"), *system]
