"""Which positions of events cannot be: off the earth, nowhere, turned round, or too far from the last one.

Works on columns, a million events in seconds. What words do with such a position is decided in `genrec.context`: they
leave it out, but for one that is turned round, which only somebody who knows the source can tell for certain.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from genrec.context.place import is_jump
from genrec.earth import FARTHEST_KM, Point, arc_km, on_sphere
from genrec.evaluation.log import Log

FAR_KM = 1000.0
"""A position is turned round where it lies so much and three times farther from the main city of its time zone than it
would with latitude and longitude swapped."""


@dataclass(frozen=True, kw_only=True)
class Positions:
    """How many positions there are, and how many of them cannot be."""

    n: int
    """Events with latitude and longitude."""
    n_off_earth: int
    n_nowhere: int
    """At latitude 0 and longitude 0."""
    n_turned_round: int
    """Far from their time zone, and in it with latitude and longitude swapped."""
    n_jumps: int
    """Times that somebody got farther than an airliner flies in between."""
    n_jumpers: int
    """People who did."""


class Tally:
    """Takes positions down while events pass by."""

    def __init__(self) -> None:
        self._columns: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
        self._zones: list[str | None] = []

    def watch(self, events: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """The same events."""
        for batch in events:
            latitude, longitude, zone, names = _columns(batch)
            self._columns.append((latitude, longitude, zone + len(self._zones)))
            self._zones += names
            yield batch

    def count(self, log: Log, zones: Mapping[str, str], time_zone: str | None = None) -> Positions:
        """Count what cannot be.

        Args:
            log: The same events.
            zones: By which clock people live, by user id: where an event does not say.
            time_zone: By which clock everybody else does.
        """
        latitude, longitude, zone = (np.concatenate([[], *(column[i] for column in self._columns)]) for i in range(3))
        zone = zone.astype(np.int64)
        names = [*self._zones, *(zones.get(user, time_zone) for user in log.users)]
        unsaid = np.array([name is None for name in names], bool)
        zone = np.where(unsaid[zone], len(self._zones) + log.user, zone)
        there = ~np.isnan(latitude) & ~np.isnan(longitude)
        on_earth = (np.abs(latitude) <= 90) & (np.abs(longitude) <= 180)
        nowhere = (latitude == 0) & (longitude == 0)
        usable = log.by_moment[(on_earth & ~nowhere)[log.by_moment]]
        first, then = usable[:-1], usable[1:]
        km = _kilometres(latitude[first], longitude[first], latitude[then], longitude[then])
        seconds = (log.at_us[then] - log.at_us[first]) / 1e6
        jumps = (log.user[first] == log.user[then]) & is_jump(km, seconds)  # type: ignore[arg-type]  # columns do, too
        return Positions(
            n=int(there.sum()),
            n_off_earth=int((there & ~on_earth).sum()),
            n_nowhere=int(nowhere.sum()),
            n_turned_round=int(_turned_round(latitude, longitude, zone, names).sum()),
            n_jumps=int(jumps.sum()),
            n_jumpers=len(np.unique(log.user[then[jumps]])),
        )


def odd(batch: pa.RecordBatch, time_zone: str | None = None) -> tuple[int, int]:
    """How many events of a batch are nowhere, and how many are turned round, by the zones they name, else that one."""
    latitude, longitude, zone, names = _columns(batch)
    names = [name or time_zone for name in names]
    nowhere = (latitude == 0) & (longitude == 0)
    return int(nowhere.sum()), int(_turned_round(latitude, longitude, zone, names).sum())


def sentences(found: Positions) -> Iterator[str]:
    """What a person should know of them, in words."""
    if n := found.n_off_earth:
        yield f"{n:,} of {found.n:,} positions lie off the earth; they are not used."
    if n := found.n_nowhere:
        yield (
            f"{n:,} of {found.n:,} positions are latitude 0, longitude 0, which mostly stands for unknown; they are "
            "not used."
        )
    if n := found.n_turned_round:
        yield (
            f"{n:,} of {found.n:,} positions lie far from their time zone and would lie in it with latitude and "
            "longitude swapped: import them again with --column latitude=… --column longitude=…, or the right zone."
        )
    if n := found.n_jumps:
        yield (
            f"{n:,} times ({found.n_jumpers:,} people) somebody got farther than an airliner flies: positions or "
            "clocks are wrong, or several people share a name. One of the two positions is not used."
        )


def _columns(batch: pa.RecordBatch) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[str | None]]:
    """Latitude and longitude, NaN where unknown, and which time zone of a list each event has. Shape ``(n,)`` each."""
    latitude, longitude = (pc.fill_null(batch[name], np.nan).to_numpy() for name in ("latitude", "longitude"))
    zones = batch["time_zone"].dictionary_encode()
    names = [*zones.dictionary.to_pylist(), None]
    return latitude, longitude, zones.indices.fill_null(len(names) - 1).to_numpy().astype(np.int64), names


def _turned_round(
    latitude: np.ndarray, longitude: np.ndarray, zone: np.ndarray, names: Sequence[str | None]
) -> np.ndarray:
    """Which positions lie in their time zone only the other way round. Shape ``(n,)``, bool."""
    cities = _cities()
    city = np.array([cities.get(name or "", (np.nan, np.nan)) for name in names]).reshape(-1, 2)[zone]
    given = np.where(np.abs(latitude) <= 90, _kilometres(latitude, longitude, city[:, 0], city[:, 1]), FARTHEST_KM)
    swapped = np.where(np.abs(longitude) <= 90, _kilometres(longitude, latitude, city[:, 0], city[:, 1]), np.nan)
    turned: np.ndarray = given > FAR_KM + 3 * swapped  # never, where one is unknown
    return turned


@cache
def _cities() -> Mapping[str, Point]:
    """The main city of each time zone, as the time zone database has it."""
    found = {}
    for row in (files("tzdata") / "zoneinfo" / "zone.tab").read_text(encoding="utf-8").splitlines():
        if not row.startswith("#"):
            _, position, name, *_ = row.split("\t")
            north, east = map(_degrees, re.findall(r"[+-]\d+", position))
            found[name] = north, east
    return found


def _degrees(text: str) -> float:
    """``+4852``, ``-0740023``: degrees, minutes and perhaps seconds."""
    digits = text[1:]
    n = len(digits) % 2 + 2
    parts = [int(digits[:n]), *(int(digits[i : i + 2]) for i in range(n, len(digits), 2))]
    degrees = sum(part / float(60**i) for i, part in enumerate(parts))
    return -degrees if text[0] == "-" else degrees


def _kilometres(
    latitude: np.ndarray, longitude: np.ndarray, to_latitude: np.ndarray, to_longitude: np.ndarray
) -> np.ndarray:
    """As `genrec.earth.kilometres`, on columns."""
    here, there = on_sphere(latitude, longitude), on_sphere(to_latitude, to_longitude)
    return arc_km(np.sqrt(np.square(here - there).sum(axis=0)))
