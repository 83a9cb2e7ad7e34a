"""What goes into the next basket, and what goes together in one: co-occurrence in other people's moments.

    score(i) = sum over the last moments d = 0, 1, ... and their items j of
               decay^d · (how often i came in the moment after one with j) / (how often j came + shrink)

What came counts by its weight as a choice. The latest moments with an item speak for it; while a visit goes on, what
shared a moment with its items counts as well. Knows moments and their items; no titles, no clock.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from genrec.errors import ConfigError
from genrec.priors.loglinear import Past
from genrec.priors.scored import Scored
from genrec.priors.sequence import VISIT

_MOST = 50  # items of a moment that are looked at, for some hold hundreds


@dataclass(kw_only=True)
class Basket(Scored):
    """What others took in the moment after, and in the same one, weighted by likelihood."""

    n_last: int = 3
    """Moments of the history that are looked at."""
    decay: float = 0.6
    """How much each of them counts beside the one after it."""
    shrink: float = 3.0
    """Moments that are added to those with an item, so that few say little."""
    n_moments: int = 200
    """Moments with an item that speak for it at most, the latest ones."""

    def __post_init__(self) -> None:
        if not (min(self.n_last, self.n_moments) >= 1 and 0 < self.decay <= 1 and self.shrink > 0 <= self.n_fit):
            raise ConfigError(
                "the prior 'basket' needs n_last and n_moments from 1, decay in (0, 1], shrink above 0, n_fit from 0"
            )
        super().__post_init__()

    def _learn(self) -> None:
        """Remember which moments hold which items, by moment and by item."""
        super()._learn()
        log = self._log
        self._start = np.append(log.start, len(log.at))
        """First event of each moment, and the end of all."""
        self._when, self._whose = log.at[log.start], np.append(log.user[log.start], -1)
        order = np.lexsort((log.at, log.row))
        self._moment = np.repeat(np.arange(len(log.start)), np.diff(self._start))[order]
        """Moments with an item, by item and instant."""
        self._first = np.searchsorted(log.row[order], np.arange(self._n_items + 1))

    def _scores(self, past: Past) -> np.ndarray:
        """Decayed share of the moments after, and of the same moments where a visit goes on. Shape ``(n_items,)``."""
        known = past.rows < self._n_items
        rows, at = past.rows[known], past.at[known]
        instants = np.unique(at)[::-1][: self.n_last]
        found, weights = [np.empty(0, np.int32)], [np.empty(0)]
        for distance, instant in enumerate(instants):
            is_visit = past.now - instant < np.timedelta64(VISIT) and "since" not in self.without
            for row in rows[at == instant][:_MOST].tolist():
                steps = (0, 1) if is_visit else (1,)
                for step in steps:
                    taken, weight, n_moments = self._near(row, step, past)
                    found.append(taken)
                    weights.append(weight * (self.decay**distance / (n_moments + self.shrink)))
        scores: np.ndarray = np.bincount(np.concatenate(found), np.concatenate(weights), minlength=self._n_items)
        return scores / max(len(rows[np.isin(at, instants)]), 1)

    def _near(self, row: int, step: int, past: Past) -> tuple[np.ndarray, np.ndarray, int]:
        """What others took so many moments after one with an item, itself left out for 0; weights; how many did."""
        moments = self._moment[self._first[row] : self._first[row + 1]]
        moments = moments[self._whose[moments] != past.person]
        moments = moments[self._whose[moments] == self._whose[moments + step]] + step
        if not past.later:
            moments = moments[self._when[moments] < past.now]
        moments = moments[-self.n_moments :]
        start, size = self._start[moments], self._start[moments + 1] - self._start[moments]
        events = np.arange(size.sum()) + np.repeat(start - np.concatenate([[0], np.cumsum(size)[:-1]]), size)
        if step == 0:
            events = events[self._log.row[events] != row]
        return self._log.row[events], self._log.weight[events].astype(np.float64), len(moments)
