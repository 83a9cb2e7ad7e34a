"""Who has this has that as well: item neighbours by cosine, shrunk where few people tell.

    score(i) = sum over the person's items j of  n(i, j) / sqrt((n(i) + shrink) (n(j) + shrink))  / number of them

n(i, j) is how many others have both (Sarwar et al. 2001; the shrinkage is that of Bell and Koren 2007, put so that all
neighbours can be summed over the people who have them, without a matrix of items). Nobody's later events count, but
in an answer held out. Knows who has what; no order, no counts.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from genrec.errors import ConfigError
from genrec.priors.loglinear import Past
from genrec.priors.scored import Scored


@dataclass(kw_only=True)
class Neighbours(Scored):
    """What others have who have the same things: item neighbours, weighted by likelihood."""

    shrink: float = 10.0
    """People that are added to each item's, so that a rare item's few do not say much."""

    def __post_init__(self) -> None:
        if not (self.shrink >= 0 and self.n_fit >= 0):
            raise ConfigError("the prior 'neighbours' needs shrink and n_fit from 0")
        super().__post_init__()

    def _learn(self) -> None:
        """Remember when each person first had each item."""
        super()._learn()
        log = self._log
        self._user, self._row, self._since = log.user[log.new], log.row[log.new], log.at[log.new]

    def _scores(self, past: Past) -> np.ndarray:
        """Mean cosine with the person's items. Shape ``(n_items,)``, float64."""
        n = self._n_items
        user, row = self._user, self._row
        counts = user != past.person
        if not past.later:
            counts &= self._since < past.now
        user, row = user[counts], row[counts]
        n_people = np.bincount(row, minlength=n)
        norm = np.sqrt(np.maximum(n_people + self.shrink, 1e-9))
        had = np.zeros(n, bool)
        had[past.rows[past.rows < n]] = True
        alike = np.bincount(user, np.where(had, 1 / norm, 0.0)[row], minlength=1)  # how much of it the others share
        scores = np.bincount(row, alike[user], minlength=n) / norm
        scores[had] -= n_people[had] / norm[had] ** 2  # an item is no neighbour of its own
        mean: np.ndarray = scores / max(int(had.sum()), 1)
        return mean
