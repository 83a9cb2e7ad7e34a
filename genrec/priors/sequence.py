"""What follows what, what reads alike, what everybody takes and what this person takes again: one log-linear voice.

    log p(item | history) = w · features(item, history) + constant

The features look at the last few items of the history, the latest most: how often the item came next, near or not far
away in other people's sequences, how alike their titles and the words of their media are (TF-IDF), its popularity ever,
in the last year and in the last month, and whether the person has it already, more so where people take it again. What
goes on with a visit, a few hours after the last event, differs from what begins a new one, so each feature has a second
weight that counts there alone. The weights are fitted in `fit` by likelihood. A person's own events never count as
other people's, neither there nor in an answer. Knows counts, instants, and words of titles and media; no time of day,
no place.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import timedelta

import numpy as np

from genrec.errors import ConfigError
from genrec.priors.loglinear import LogLinear, Pairs, Past, Popular
from genrec.priors.text import Words

FEATURES = (
    "next",
    "near",
    "far",
    "alike",
    "alike_last",
    "popular",
    "had",
    "last",
    "log_next",
    "log_alike_last",
    "log_alike",
    "log_had",
    "again",
    "popular_year",
    "popular_month",
    "had_now",
)
"""Names of the features, in the order of the weights."""
START = np.array(
    [[0.5, 0.1, 0.1, 0.4, 0.1, 0.2, 0.0, -1.0, 0.6, 0.5, 0.4, 0.3, 0.0, 0.2, 0.1, 0.0], [0.0] * len(FEATURES)]
)
"""Where the weights begin and what they are pulled towards; about what several data sets come to."""
VISIT = timedelta(hours=12)
"""An event so soon after the one before goes on with its visit; less than from one day's stamp to the next's."""
_NUMBER = {name: number for number, name in enumerate(FEATURES)}
_WINDOWS = {"popular": None, "popular_year": 365, "popular_month": 30}  # days in which popularity is counted
_LEAST = 0.003  # share that every item has as the next one, beside what was counted
REACH = 5
"""Events apart that still tell something of each other."""


@dataclass(kw_only=True)
class Sequence(LogLinear):
    """Transitions, likeness of titles, popularity and repetition, weighted by likelihood."""

    n_last: int = 6
    """Items of the history that are looked at."""
    decay: float = 0.6
    """How much each of them counts beside the one after it."""
    shrink: float = 3.0
    """Events that are added to each item's before its transitions are shares, so that few say little."""

    START = START

    def __post_init__(self) -> None:
        if not (self.n_last >= 1 and 0 < self.decay <= 1 and self.shrink > 0 and self.n_fit >= 0):
            raise ConfigError("the prior 'sequence' needs n_last from 1, decay in (0, 1], shrink above 0, n_fit from 0")
        super().__post_init__()

    def _learn(self) -> None:
        """Remember which events came when, and which came close to which."""
        self._popular = Popular(self._log, self._n_items)
        self._pairs = self._part("pairs", Pairs, lambda: Pairs.of(self._log, self._n_items, reach=REACH))
        self._words = self._part("words", Words, lambda: Words.of(self._catalog.descriptions()))

    def _gates(self, past: Past) -> np.ndarray:
        """The weights that always count, and those that count within a visit."""
        return np.array([1.0, self._n_now(past) > 0])

    def _features(self, past: Past) -> np.ndarray:
        """Features of every item, `FEATURES`. Shape ``(n_features, n_items)``, float64.

        What others did later counts where the past says so, except for what is popular in a window before the instant.
        """
        rows, n_now, at, without, later = past.rows.tolist(), self._n_now(past), past.now, past.person, past.later
        n = self._n_items
        found = np.zeros((len(FEATURES), n))
        transitions, near, far, alike, alike_last = found[:5]
        for distance, row in enumerate(reversed(rows[-self.n_last :])):
            share = self.decay**distance
            likeness = self._words.like(row)
            alike += share * likeness
            if distance == 0:
                alike_last += likeness
            if row >= n:  # added since
                continue
            other, gap, weight = self._pairs.near(row, past)
            for feature, chosen in (
                (transitions, gap == 1),
                (near, (gap == -1) | (gap == 2)),
                (far, np.abs(gap) >= 3),
            ):
                if n_chosen := float(weight[chosen].sum(dtype=np.float64)):
                    counts = np.bincount(other[chosen], weight[chosen], minlength=n)
                    feature += counts * (share / (n_chosen + self.shrink))
        for name, days in _WINDOWS.items():
            popularity = self._popular.counts(None if later and days is None else at, days=days, without=without)
            found[_NUMBER[name]] = np.log(popularity + 0.5)
        log_next = np.log(_LEAST + transitions + 0.5 * near)
        found[_NUMBER["log_next"]] = log_next
        for row, n_own in Counter(rows).items():
            if row < n:
                found[_NUMBER["had"], row] = 1
                found[_NUMBER["log_had"], row] = np.log1p(n_own)
                found[_NUMBER["again"], row] = log_next[row] - np.log(_LEAST)
        found[_NUMBER["last"], [row for row in rows[-1:] if row < n]] = 1
        found[_NUMBER["had_now"], [row for row in rows[len(rows) - n_now :] if row < n]] = 1
        found[_NUMBER["log_alike_last"]] = np.log(0.02 + alike_last)
        found[_NUMBER["log_alike"]] = np.log(0.05 + alike)
        return found

    def _n_now(self, past: Past) -> int:
        """How many events, at the end, belong to the same visit."""
        return 0 if "since" in self.without else int((past.now - past.at < np.timedelta64(VISIT)).sum())
