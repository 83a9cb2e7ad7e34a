"""Columns of times in any usual spelling → UTC instants.

Reads ISO 8601 with or without a zone, epoch seconds, milliseconds, microseconds and nanoseconds (told apart by size)
and Arrow's own types. A time without a zone is read by the clock it is given, never by a guessed one; an hour that a
daylight-saving change skipped or repeated is a fault (Arrow knows those changes from 1902 to 2037). Knows nothing of
files or rows; faults carry positions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

INSTANT = pa.timestamp("us", tz="UTC")
WALL = pa.timestamp("us")
EARLIEST = datetime(1900, 1, 1, tzinfo=UTC)
LATEST = datetime(2200, 1, 1, tzinfo=UTC)
UTC_NAMES = frozenset({"UTC", "Etc/UTC", "GMT", "Etc/GMT", "Zulu", "Etc/Zulu", "Universal", "Etc/Universal"})
"""Clocks that nobody lives by: names that say how stamps were written, not where."""


@dataclass(frozen=True, kw_only=True)
class Instants:
    """What a column of times says."""

    at: pa.Array
    """UTC instants in microseconds; null where the value is missing or faulty."""
    faults: dict[int, str] = field(default_factory=dict)
    """Position → what is wrong with the value there."""
    zone_needed: int | None = None
    """Position of the first time that has no zone and was given no clock."""


def is_zone(name: str) -> bool:
    """Whether a name is an IANA time zone that this machine knows."""
    return _zone(name) is not None


@lru_cache(maxsize=1024)
def _zone(name: str) -> ZoneInfo | None:
    try:
        return ZoneInfo(name)  # kept here: Python itself keeps eight, and reads all others again each time
    except (KeyError, ValueError, OSError):
        return None


def spelling(value: object, time_format: str | None = None) -> str:
    """How a time is written, in words: what the file source shows before an import."""
    if time_format:
        return f"text like {time_format!r}"
    if isinstance(value, datetime):
        return "instants" if value.tzinfo else "timestamps without zone"
    if isinstance(value, date):
        return "dates without zone"
    number = _number(value) if isinstance(value, str) else value
    if isinstance(number, int | float):
        return "dates like 20240131, without zone" if _is_compact_date(number) else f"epoch {_unit(abs(number))[0]}"
    try:
        zoned = datetime.fromisoformat(str(value).strip()).tzinfo
    except ValueError:
        return "text"
    return "ISO 8601 with zone" if zoned else "ISO 8601 without zone"


def read_times(values: pa.Array, zones: pa.Array, *, time_format: str | None = None) -> Instants:
    """Turn a column of times into instants.

    Args:
        values: Strings, numbers, timestamps or dates; shape (n,).
        zones: For each of them the IANA name of the clock that reads it if it has no zone itself, or null; shape (n,).
        time_format: How strings are written, in `datetime.strptime` terms, where it is none of the usual spellings.

    Returns:
        The instants and what is wrong with the others.
    """
    faults: dict[int, str] = {}
    at, wall = _split(values, time_format, faults)
    if wall.null_count < len(wall):
        homeless = pc.and_(pc.is_valid(wall), pc.is_null(zones))
        first = pc.index(homeless, True).as_py()
        if first >= 0:
            return Instants(at=at, faults=faults, zone_needed=first)
        for zone in pc.unique(zones.filter(pc.is_valid(wall))).to_pylist():
            here = pc.if_else(pc.equal(zones, zone), wall, pa.scalar(None, WALL))
            at = pc.coalesce(at, _at_home(here, zone, faults))
    outside = pc.or_(pc.less(at, pa.scalar(EARLIEST, INSTANT)), pc.greater_equal(at, pa.scalar(LATEST, INSTANT)))
    for position in np.flatnonzero(pc.fill_null(outside, False)):
        faults.setdefault(int(position), f"{_shown(values, position)} lies outside the years 1900 to 2199")
    return Instants(at=pc.if_else(pc.fill_null(outside, False), pa.scalar(None, INSTANT), at), faults=faults)


def _split(values: pa.Array, time_format: str | None, faults: dict[int, str]) -> tuple[pa.Array, pa.Array]:
    """Values as (instants, wall-clock times): each row has at most one of the two."""
    none_at, none_wall = pa.nulls(len(values), INSTANT), pa.nulls(len(values), WALL)
    kind = values.type
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        values = _fitting(values, faults)
        if pa.types.is_timestamp(kind) and kind.tz:
            return pc.cast(values, INSTANT, safe=False), none_wall
        return none_at, pc.cast(values, WALL, safe=False)
    if pa.types.is_integer(kind) or pa.types.is_floating(kind):
        return _epochs(values, faults)
    if pa.types.is_null(kind):
        return none_at, none_wall
    texts = pc.utf8_trim_whitespace(pc.cast(values, pa.string()))
    if time_format:
        return _one_by_one(texts, lambda text: datetime.strptime(text, time_format), faults)
    for target in (INSTANT, WALL, pa.int64(), pa.float64()):
        # A column is almost always written in one spelling, and Arrow casts that at once.
        try:
            read = pc.cast(texts, target)
        except pa.ArrowInvalid:
            continue
        if target == INSTANT:
            return read, none_wall
        return (none_at, read) if target == WALL else _epochs(read, faults)
    return _one_by_one(texts, _any_spelling, faults)


def _fitting(values: pa.Array, faults: dict[int, str]) -> pa.Array:
    """Timestamps without those that a coarse unit can say and microseconds cannot: they would wrap around."""
    zone = UTC if pa.types.is_timestamp(values.type) and values.type.tz else None
    low, high = (pa.scalar(bound.replace(tzinfo=zone)).cast(values.type, safe=False) for bound in (EARLIEST, LATEST))
    outside = pc.fill_null(pc.or_(pc.less(values, low), pc.greater(values, high)), False)
    for position in np.flatnonzero(outside):
        faults[int(position)] = "lies outside the years 1900 to 2199"
    return pc.if_else(outside, pa.scalar(None, values.type), values)


def _at_home(wall: pa.Array, zone: str, faults: dict[int, str]) -> pa.Array:
    """Wall-clock times of one zone as instants; hours that did not exist or came twice are faults."""
    try:
        early = pc.assume_timezone(wall, zone, ambiguous="earliest", nonexistent="earliest")
        late = pc.assume_timezone(wall, zone, ambiguous="latest", nonexistent="latest")
        early, late = pc.cast(early, INSTANT), pc.cast(late, INSTANT)
    except pa.ArrowInvalid:  # Arrow knows the system's zones, which slim machines lack; Python brings its own
        early, late = (_one_by_zoneinfo(wall, ZoneInfo(zone), fold) for fold in (0, 1))
    unclear = pc.fill_null(pc.not_equal(early, late), False)
    for position in np.flatnonzero(unclear):
        apart_us = pc.subtract(late[position], early[position]).cast(pa.int64()).as_py()
        happened = "came twice" if apart_us > 1 else "was skipped"  # Arrow puts one tick across a skipped hour
        faults[int(position)] = (
            f"{wall[position].as_py().isoformat(' ')} {happened} in {zone} when the clocks changed; "
            "write it with its offset from UTC"
        )
    return pc.if_else(unclear, pa.scalar(None, INSTANT), early)


def _one_by_zoneinfo(wall: pa.Array, zone: ZoneInfo, fold: int) -> pa.Array:
    """The slow road to `_at_home`: each time by itself; those far outside the years that are kept stay as they are."""
    us = wall.cast(pa.int64()).to_pylist()
    day = timedelta(days=1)  # more than clocks differ by
    low, high = (int(bound.timestamp() * 1e6) for bound in (EARLIEST - day, LATEST + day))
    for position, stamp in enumerate(us):
        if stamp is not None and low <= stamp < high:
            offset = wall[position].as_py().replace(tzinfo=zone, fold=fold).utcoffset()
            us[position] = stamp - offset // timedelta(microseconds=1)
    return pa.array(us, pa.int64()).cast(INSTANT)


def _epochs(numbers: pa.Array, faults: dict[int, str]) -> tuple[pa.Array, pa.Array]:
    """Epoch numbers of any unit as instants; dates written like 20240131 as wall-clock times."""
    missing = np.asarray(pc.is_null(numbers, nan_is_null=True))
    if pa.types.is_integer(numbers.type):
        raw = np.asarray(pc.cast(pc.fill_null(numbers, 0), pa.int64(), safe=False))
    else:
        raw = np.where(missing, 0.0, np.asarray(pc.cast(pc.fill_null(numbers, 0.0), pa.float64())))
    size = np.abs(raw)
    compact = ~missing & (raw >= 19000101) & (raw <= 21991231)
    us = np.zeros(len(raw), np.int64)
    for low, high, per in ((0, 1e11, 1_000_000), (1e11, 1e14, 1_000), (1e14, 1e17, 1)):
        chosen = (size >= low) & (size < high)
        us[chosen] = np.round(raw[chosen] * per).astype(np.int64)
    nano = (size >= 1e17) & (size < 9.2e18)
    us[nano] = raw[nano] // 1_000
    for position in np.flatnonzero(~missing & ~(size < 9.2e18)):
        faults[int(position)] = f"{_shown(numbers, position)} is no instant"
        missing[position] = True
    walls: list[datetime | None] = [None] * len(raw)
    for position in np.flatnonzero(compact):
        try:
            walls[position] = datetime.strptime(str(int(raw[position])), "%Y%m%d")
        except ValueError:
            compact[position] = False  # a number of seconds after all
    at = pa.array(us, mask=missing | compact).cast(INSTANT)
    return at, pa.array(walls, WALL) if compact.any() else pa.nulls(len(raw), WALL)


def _one_by_one(texts: pa.Array, read: Callable[[str], datetime], faults: dict[int, str]) -> tuple[pa.Array, pa.Array]:
    """The slow road for mixed spellings: each text by itself."""
    ats: list[datetime | None] = [None] * len(texts)
    walls: list[datetime | None] = [None] * len(texts)
    for position, text in enumerate(texts.to_pylist()):
        if text is None:
            continue
        try:
            value = read(text)
            if value.tzinfo is None:
                walls[position] = value
            else:
                ats[position] = value.astimezone(UTC)
        except (ValueError, OverflowError):
            faults[position] = f"{_shown(texts, position)} is no time that can be read"
    return pa.array(ats, INSTANT), pa.array(walls, WALL)


def _any_spelling(text: str) -> datetime:
    number = _number(text)
    if number is None:
        return datetime.fromisoformat(text)
    if _is_compact_date(number):
        return datetime.strptime(text, "%Y%m%d")
    return datetime.fromtimestamp(number / _unit(abs(number))[1], UTC)


def _number(text: str) -> int | float | None:
    for parse in (int, float):
        try:
            return parse(text)
        except ValueError:
            continue
    return None


def _is_compact_date(number: float) -> bool:
    return 19000101 <= number <= 21991231 and number == int(number)


def _unit(size: float) -> tuple[str, int]:
    """Name of the epoch unit that a number of this size is in, and how many of them make a second."""
    if size < 1e11:
        return "seconds", 1
    if size < 1e14:
        return "milliseconds", 1_000
    return ("microseconds", 1_000_000) if size < 1e17 else ("nanoseconds", 1_000_000_000)


def _shown(values: pa.Array, position: int) -> str:
    text = str(values[int(position)].as_py())
    return repr(text if len(text) <= 40 else text[:39] + "…")
