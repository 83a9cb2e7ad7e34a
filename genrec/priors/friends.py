"""What people take whom somebody knows: recent events at the other ends of their relations.

    score(i) = sum over friends f of  w(f) · sum over f's events e with i of  2^(-age(e) / half life)  / sum of w(f)

A relation counts in both directions. Nothing that happened after the moment counts, for nobody; but relations have no
date, so one that was made later does. It knows something of people who have done nothing yet, if they know somebody.
Knows relations and events; no communities, no influence.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from genrec.errors import ConfigError
from genrec.priors.loglinear import Past
from genrec.priors.scored import Scored

_DAY_US = 86_400_000_000


@dataclass(kw_only=True)
class Friends(Scored):
    """What people take whom somebody knows, the recent most, weighted by likelihood."""

    half_life_days: float = 60.0
    """Days after which an event of a friend counts half."""
    kinds: tuple[str, ...] = ()
    """Kinds of relations that count; all when there is none."""

    def __post_init__(self) -> None:
        if not (self.half_life_days > 0 and self.n_fit >= 0):
            raise ConfigError("the prior 'friends' needs half_life_days above 0, n_fit from 0")
        self._edges: list[tuple[str, str, float]] = []
        super().__post_init__()

    def relate(self, edges: Iterable[pa.RecordBatch]) -> None:
        """Remember who knows whom; see `Prior.relate`."""
        self._edges = [
            (row["from_id"], row["to_id"], row["weight"])
            for rows in edges
            for row in rows.to_pylist()
            if row["weight"] > 0 and row["from_id"] != row["to_id"] and (not self.kinds or row["kind"] in self.kinds)
        ]

    def _learn(self) -> None:
        """Give everybody their friends by number, those without events, too."""
        super()._learn()
        numbers = self._log.users
        # Those without events come last, before anybody asks the log where each person's events begin.
        self._friends: dict[int, dict[int, float]] = {}
        for one, other, weight in self._edges:
            a, b = (numbers.setdefault(name, len(numbers)) for name in (one, other))
            for person, friend in ((a, b), (b, a)):
                known = self._friends.setdefault(person, {})
                known[friend] = known.get(friend, 0.0) + weight

    def _scores(self, past: Past) -> np.ndarray:
        """What each friend took of late, on average. Shape ``(n_items,)``, float64."""
        log, friends = self._log, self._friends.get(past.person, {})
        rows, counts = [np.empty(0, np.int32)], [np.empty(0)]
        for friend, weight in friends.items():
            theirs = slice(int(log.first[friend]), int(log.first[friend + 1]))
            age = (past.now - log.at[theirs]).astype(np.int64) / _DAY_US
            rows.append(log.row[theirs])
            each = weight * 0.5 ** (np.maximum(age, 0) / self.half_life_days) * log.weight[theirs]
            counts.append(np.where(age > 0, each, 0.0))
        scores = np.bincount(np.concatenate(rows), np.concatenate(counts), minlength=self._n_items)
        return scores / (sum(friends.values()) or 1.0)
