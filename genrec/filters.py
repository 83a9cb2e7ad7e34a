"""Which items may be recommended to somebody now: what is on offer, and by category, attribute and distance.

Items are looked at once, when they come or change; a question is then a few passes over arrays, a millisecond each at
a million items. Knows catalogues; knows nothing of people: what somebody has already is handed in as rows.
"""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Collection, Iterable, Mapping, Sequence

import numpy as np

from genrec.catalog import Catalog
from genrec.earth import EARTH_KM, on_sphere
from genrec.errors import ConfigError, meant_or_known
from genrec.events import from_json

LATITUDE, LONGITUDE = "latitude", "longitude"
"""Attributes that say where an item is, in degrees north and east."""
_PIECE = 65_536  # rows that a processor's cache holds


class Filters:
    """Masks over the rows of one catalogue; grows with it. For any number of threads."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog, self._lock = catalog, threading.Lock()
        self._categories = _Codes()
        self._attributes: dict[str, _Codes] = {}
        self._position = [_Column(np.float32, np.nan) for _ in range(3)]  # on the unit sphere; NaN where unknown
        self._retired = _Column(bool, False)
        self._read = {"retired": (0, 0), "categories": (0, 0), "attributes": (0, 0)}  # rows and changes taken in

    def prepare(self) -> None:
        """Look at every item now, which takes seconds at a million; otherwise the first question that needs it does."""
        self._read_retired()
        self._read_categories()
        self._read_attributes()

    def live(
        self,
        n: int,
        *,
        categories: Collection[str] = (),
        where: Mapping[str, str] | None = None,
        near: tuple[float, float] | None = None,
        within_km: float | None = None,
        without: Iterable[int] = (),
    ) -> np.ndarray | None:
        """Which of the first `n` rows may be recommended.

        Args:
            n: How many rows to answer for.
            categories: An item must be in one of them; in any when there is none.
            where: Attributes that an item must have, with these values.
            near: Latitude and longitude in degrees; with `within_km`.
            within_km: An item must be so near; one that is nowhere is not.
            without: Rows to leave out; those beyond `n` are passed over.

        Returns:
            Shape ``(n,)``, bool; None where every row may be.

        Raises:
            ConfigError: If no item has such a category, or none such an attribute.
        """
        live = np.ones(n, bool)
        left_out = np.fromiter(without, np.int64)
        live[left_out[left_out < n]] = False
        if self._catalog.changed or self._catalog.retired:
            self._read_retired()
            live &= ~self._retired.first(n)
        if categories:
            self._read_categories()
            known = self._categories.numbers
            for category in categories:
                if category not in known:
                    raise _unknown("category", category, known)
            live &= self._categories.among([known[category] for category in categories], n)
        if where or near is not None:
            self._read_attributes()
        for name, value in (where or {}).items():
            if name not in self._attributes:
                raise _unknown("attribute", name, self._attributes)
            number = self._attributes[name].numbers.get(value)
            live &= self._attributes[name].among([] if number is None else [number], n)
        if near is not None:
            assert within_km is not None
            live &= self._near(near, within_km, n)
        return None if live.all() else live

    def _near(self, near: tuple[float, float], within_km: float, n: int) -> np.ndarray:
        # By the straight line through the earth: it keeps its precision for items next door, which a cosine would not.
        chord = 2 * math.sin(min(within_km / (2 * EARTH_KM), math.pi / 2))
        limit, (x, y, z) = np.float32(chord * chord), (np.float32(part) for part in on_sphere(*np.array(near)))
        xs, ys, zs = (column.first(n) for column in self._position)
        is_near = np.empty(n, bool)
        for start in range(0, n, _PIECE):
            piece = slice(start, start + _PIECE)
            apart = np.square(xs[piece] - x) + np.square(ys[piece] - y) + np.square(zs[piece] - z)
            np.less_equal(apart, limit, out=is_near[piece])
        return is_near

    def _read_retired(self) -> None:
        with self._lock:
            rows, n = self._unread("retired")
            self._retired.put(rows, [row in self._catalog.retired for row in rows], n)

    def _read_categories(self) -> None:
        with self._lock:
            rows, n = self._unread("categories")
            self._categories.put(rows, [self._catalog.categories[row] for row in rows], n)

    def _read_attributes(self) -> None:
        with self._lock:
            rows, n = self._unread("attributes")
            if not len(rows):
                return
            for start in range(0, len(rows), _PIECE):
                self._take(rows[start : start + _PIECE], n)

    def _take(self, rows: Sequence[int], n: int) -> None:
        """Take in the attributes of some rows; there are `n` in all."""
        written = [self._catalog.attributes[row] for row in rows]
        parsed = json.loads("[" + ",".join(text or "null" for text in written) + "]")
        values: dict[str, list[str | None]] = {}
        for position, attributes in enumerate(parsed):
            for name, value in (attributes or {}).items():
                if name not in values:
                    values[name] = [None] * len(rows)
                values[name][position] = value if isinstance(value, str) else str(value)
        places = [values.pop(name, None) for name in (LATITUDE, LONGITUDE)]
        if any(places) or not isinstance(rows, range):  # a changed item may have lost its place
            degrees = (np.array([_degrees(w) for w in words or [None] * len(rows)]) for words in places)
            for column, numbers in zip(self._position, on_sphere(*degrees), strict=True):
                column.put(rows, numbers, n)
        for name in values:
            self._attributes.setdefault(name, _Codes())
        for name, codes in self._attributes.items():
            codes.put(rows, values.get(name, [None] * len(rows)), n)

    def _unread(self, what: str) -> tuple[Sequence[int], int]:
        """Rows that came or changed since `what` was read last, and how many there are now."""
        catalog = self._catalog
        (n_before, n_changes), n, n_now = self._read[what], len(catalog), len(catalog.changed)
        self._read[what] = n, n_now
        changed = {row for row in catalog.changed[n_changes:n_now] if row < n_before}
        return [*sorted(changed), *range(n_before, n)] if changed else range(n_before, n), n


class _Column:
    """A value for each row, with room to grow."""

    def __init__(self, dtype: type, empty: float) -> None:
        self._values: np.ndarray = np.full(0, empty, dtype)
        self._empty = empty

    def first(self, n: int) -> np.ndarray:
        """Of the first `n` rows; those that it has not got are empty."""
        values = self._values
        return values[:n] if n <= len(values) else np.pad(values, (0, n - len(values)), constant_values=self._empty)

    def put(self, rows: Sequence[int], values: np.ndarray | Sequence[int], n: int) -> None:
        """Set the values of some rows; there are `n` in all."""
        if n > len(self._values):
            grown = np.full(n + n // 4, self._empty, self._values.dtype)
            grown[: len(self._values)] = self._values
            self._values = grown
        if isinstance(rows, range):
            self._values[rows.start : rows.stop] = values
        else:
            self._values[rows] = values


class _Codes:
    """A word for each row, or none, as a number."""

    def __init__(self) -> None:
        self.numbers: dict[str, int] = {}
        self._column = _Column(np.int32, -1)

    def put(self, rows: Sequence[int], words: Iterable[str | None], n: int) -> None:
        """Set the words of some rows; there are `n` in all."""
        numbers = self.numbers
        self._column.put(rows, [-1 if w is None else numbers.setdefault(w, len(numbers)) for w in words], n)

    def among(self, numbers: Sequence[int], n: int) -> np.ndarray:
        """Which of the first `n` rows have one of these words. Bool."""
        codes = self._column.first(n)
        if len(numbers) > 3:
            wanted = np.zeros(len(self.numbers) + 1, bool)  # the last place is for rows without a word: code -1
            wanted[list(numbers)] = True
            return wanted.take(codes)
        among = np.zeros(n, bool)
        for number in numbers:
            among |= codes == number
        return among


def _degrees(word: str | None) -> float:
    try:
        return float(word or "nan")
    except ValueError:
        return math.nan


def positions(catalog: Catalog, n: int) -> np.ndarray:
    """Where the first `n` items are, on the unit sphere; NaN where that is unknown. Shape ``(n, 3)``, float64."""
    known = [from_json(text) for text in catalog.attributes[:n]]
    degrees = (np.array([_degrees(one.get(name)) for one in known], np.float64) for name in (LATITUDE, LONGITUDE))
    return on_sphere(*degrees).T


def _unknown(what: str, name: str, known: Collection[str]) -> ConfigError:
    return ConfigError(f"no item has the {what} {name!r}", hint=meant_or_known(name, known))
