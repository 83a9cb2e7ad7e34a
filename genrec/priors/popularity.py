"""What everybody takes, pulled towards what this person takes: popularity × own frequency as one distribution.

    p(item | person) = (own count + strength · popularity) / (own events + strength)

A stranger gets plain popularity; the more a person has done, the more the own counts speak. Knows counts and instants
only: no text, no order, no time of day.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from genrec.catalog import Catalog
from genrec.errors import ConfigError
from genrec.events import Context, weights_of
from genrec.priors.base import Prior, State, instant, known_rows

if TYPE_CHECKING:
    from genrec.history import History


@dataclass(kw_only=True)
class Popularity(Prior):
    """Popularity so far, smoothed by the person's own counts."""

    # On 1,149 next baskets of 300 households of groceries, 100 beats 10 and 30 clearly in likelihood and slightly in
    # hit rate, and 200 is the same; fading old purchases (half-lives of 15 to 240 days) gains nothing beyond the noise.
    strength: float = 100.0
    """Events of the person's own that weigh as much as everybody's popularity."""
    floor: float = 0.5
    """Events that every item is credited with, so that one nobody took yet has a chance."""

    def __post_init__(self) -> None:
        if not (self.strength > 0 and self.floor > 0):
            raise ConfigError("the prior 'popularity' needs a strength and a floor above 0")
        self._catalog = Catalog()
        self._at = np.empty(0, "datetime64[us]")
        """Instants of all events, ascending."""
        self._rows = np.empty(0, np.int32)
        """Catalogue row of each of them."""
        self._weights = np.empty(0, np.float32)
        """How much each counts as a choice."""
        self._counted = _Counted(n_events=0, counts=np.empty(0), log=np.empty(0))

    def fit(self, catalog: Catalog, events: Iterable[pa.RecordBatch]) -> None:
        """Remember when each item was taken; see `Prior.fit`."""
        nothing = {"at": np.empty(0, "datetime64[us]"), "rows": np.empty(0, np.int32)}
        self.restore(catalog, nothing | {"weights": np.empty(0, np.float32)})
        self.grow(events)

    def state(self) -> State:
        """The events; see `Prior.state`."""
        return {"at": self._at, "rows": self._rows, "weights": self._weights}

    def restore(self, catalog: Catalog, state: State) -> None:
        """Take the events back; see `Prior.restore`."""
        self._catalog, self._at, self._rows, self._weights = catalog, state["at"], state["rows"], state["weights"]
        self._counted = _Counted(n_events=0, counts=np.empty(0), log=np.empty(0))

    def grow(self, events: Iterable[pa.RecordBatch]) -> bool:
        """Put more events among those there are; see `Prior.grow`."""
        instants, rows, weights = [self._at], [self._rows], [self._weights]
        for batch in events:
            row = known_rows(self._catalog, batch)
            rows.append(row[row >= 0])
            weights.append(weights_of(batch).astype(np.float32)[row >= 0])
            instants.append(batch["at"].cast(pa.timestamp("us")).to_numpy()[row >= 0])
        at = np.concatenate(instants)
        order = np.argsort(at, kind="stable")
        self._at, self._rows, self._weights = at[order], np.concatenate(rows)[order], np.concatenate(weights)[order]
        return True

    def log_mass(self, history: History, now: Context) -> np.ndarray:
        """Log-probability of each item as the person's next one; see `Prior.log_mass`."""
        counted = self._counted_before(history.at)
        counts, row = counted.counts, self._catalog.row
        own = Counter(row.get(item_id, -1) for moment in history.moments for item_id in moment.item_ids)
        rows = np.array([r for r in own if 0 <= r < len(counts)], np.int64)
        n_own = np.array([own[r] for r in rows.tolist()], np.float64)
        share = self.strength / (counts.sum() + self.floor * len(counts))
        log_mass: np.ndarray = counted.log + (np.log(share) - np.log(self.strength + n_own.sum()))
        log_mass[rows] = np.log((counts[rows] + self.floor) * share + n_own) - np.log(self.strength + n_own.sum())
        return log_mass

    def _counted_before(self, at: datetime) -> _Counted:
        """How often each item was taken strictly before `at`; goes on from the last count where that is less work."""
        n = int(np.searchsorted(self._at, instant(at), side="left"))
        last, n_items = self._counted, len(self._catalog)
        if (last.n_events, len(last.counts)) == (n, n_items):
            return last
        n_before, counts = last.n_events, last.counts
        if n_before > n:
            n_before, counts = 0, np.zeros_like(counts)
        counts = np.pad(counts, (0, n_items - len(counts)))  # items that were added since
        counts += np.bincount(self._rows[n_before:n], self._weights[n_before:n], minlength=n_items)
        self._counted = counted = _Counted(n_events=n, counts=counts, log=np.log(counts + self.floor))
        return counted


@dataclass(frozen=True, kw_only=True)
class _Counted:
    """Events up to an instant, by item."""

    n_events: int
    counts: np.ndarray
    """How often each item was taken, each time by its weight, shape ``(n_items,)``, float64."""
    log: np.ndarray
    """Logarithm of that and the floor, same shape."""
