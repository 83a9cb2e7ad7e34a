"""EASE: each item is told from the person's others by a linear model in closed form (Steck 2019, arXiv:1905.03375).

    B = I - P / diag(P),  P = (X'X + lambda I)^-1,  score = x B

X says who has what. Without one person's row, P is what a rank-one update makes of it, so nobody is ever told from
their own later events, exactly and at the cost of two sums over rows of P. Knows who has what; no order, no counts.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from genrec.catalog import Catalog
from genrec.errors import ConfigError
from genrec.priors.base import State
from genrec.priors.loglinear import Past, packed, unpacked
from genrec.priors.scored import Scored


@dataclass(kw_only=True)
class Ease(Scored):
    """EASE, a linear item-to-item model in closed form, weighted by likelihood."""

    ridge: float = 100.0
    """The lambda of the paper: the larger, the less a few people say."""
    max_items: int = 4000
    """Items that it speaks of, those that most people have; time grows with the cube, memory with the square. Others
    are told by popularity alone."""

    def __post_init__(self) -> None:
        if not (self.ridge >= 1 and self.max_items >= 1 and self.n_fit >= 0):
            raise ConfigError("the prior 'ease' needs a ridge from 1, max_items from 1 and n_fit from 0")
        super().__post_init__()

    def _learn(self) -> None:
        """Remember when each person first had each item; P is made when it is asked for."""
        super()._learn()
        log = self._log
        first = log.new[np.argsort(log.at[log.new], kind="stable")]
        self._user, self._row, self._since = log.user[first], log.row[first], log.at[first]
        self._solved = Solved(n_events=-1, place=np.empty(0, np.int64), inverse=np.empty((0, 0)))

    def state(self) -> State | None:
        """As for the others, and P; see `Prior.state`."""
        found = super().state()
        return found and {**found, **packed("solved", self._solved)}

    def restore(self, catalog: Catalog, state: State) -> None:
        """Take all of it back; see `Prior.restore`."""
        super().restore(catalog, state)
        self._solved = unpacked("solved", Solved, state)

    def _solve(self, n_events: int) -> Solved:
        """P from so many first events.

        What was solved last is kept: asking as of many different instants of the past solves each anew.
        """
        solved = self._solved
        if solved.n_events != n_events:
            user, row = self._user[:n_events], self._row[:n_events]
            n_people = np.bincount(row, minlength=self._n_items)
            most = np.sort(np.argsort(-n_people, kind="stable")[: self.max_items])
            place = np.full(self._n_items, -1, np.int64)
            place[most] = np.arange(len(most))
            gram = np.diag(np.full(len(most), self.ridge, np.float32))
            order = np.argsort(user, kind="stable")
            ends = np.flatnonzero(np.diff(user[order], append=-1)) + 1
            for rows in np.split(place[row[order]], ends[:-1]) if len(ends) else ():
                rows = rows[rows >= 0]
                gram[np.ix_(rows, rows)] += 1
            self._solved = solved = Solved(n_events=n_events, place=place, inverse=np.linalg.inv(gram))
        return solved

    def _scores(self, past: Past) -> np.ndarray:
        """What the person's items say of each; see the head of the module. Shape ``(n_items,)``, float64."""
        n_events = len(self._since) if past.later else int(np.searchsorted(self._since, past.now))
        solved = self._solve(n_events)
        place, inverse = solved.place, solved.inverse
        had = _places(place, past.rows[past.rows < self._n_items])
        sums, diagonal = inverse[had].sum(0, dtype=np.float64), inverse.diagonal().astype(np.float64)
        if past.person >= 0:
            own = _places(place, self._row[:n_events][self._user[:n_events] == past.person])
            other = inverse[own].sum(0, dtype=np.float64)  # P x
            left = 1 - other[own].sum()
            sums, diagonal = sums + other * (other[had].sum() / left), diagonal + other**2 / left
        scores = -sums / diagonal
        scores[had] += 1
        found = np.zeros(self._n_items)
        found[place >= 0] = scores
        return found


@dataclass(frozen=True, kw_only=True)
class Solved:
    """EASE as of an instant."""

    n_events: int
    """How many first events it is made of; -1 for nothing that was solved."""
    place: np.ndarray
    """Place of each item among those it speaks of, -1 for others. Shape ``(n_items,)``."""
    inverse: np.ndarray
    """P. Shape ``(n_places, n_places)``, float32."""


def _places(place: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Places of the rows that have one, each once."""
    places = np.unique(place[rows])
    found: np.ndarray = places[places >= 0]
    return found
