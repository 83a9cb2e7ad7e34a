"""What follows what, what reads alike, what everybody takes and what this person takes again: one log-linear voice.

    log p(item | history) = w · features(item, history) + constant

The features look at the last few items of the history, the latest most: how often the item came next, near or not far
away in other people's sequences, how alike the titles are (TF-IDF), its popularity, and whether the person has it
already. The weights are fitted in `fit` by likelihood, each sampled person's own events left out of the counts. Knows
counts, instants and words of titles; no time of day, no place.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from genrec.catalog import Catalog
from genrec.errors import ConfigError
from genrec.events import Context
from genrec.priors.base import Prior, instant, known_rows

if TYPE_CHECKING:
    from genrec.history import History

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
)
"""Names of the features, in the order of the weights."""
START = np.array([0.5, 0.1, 0.1, 0.4, 0.1, 0.4, 0.0, -1.0, 0.6, 0.5, 0.4, 0.3])
"""Where the weights begin and what they are pulled towards; about what several data sets come to."""
REACH = 5
"""Events apart that still tell something of each other."""
_SAMPLED = 40_000_000  # sampled people times items, so that fitting needs a few GiB at most


@dataclass(kw_only=True)
class Sequence(Prior):
    """Transitions, likeness of titles, popularity and repetition, weighted by likelihood."""

    n_last: int = 6
    """Items of the history that are looked at."""
    decay: float = 0.6
    """How much each of them counts beside the one after it."""
    shrink: float = 3.0
    """Events that are added to each item's before its transitions are shares, so that few say little."""
    n_fit: int = 1500
    """People whose latest choice the weights are fitted to."""

    def __post_init__(self) -> None:
        if not (self.n_last >= 1 and 0 < self.decay <= 1 and self.shrink > 0 and self.n_fit >= 0):
            raise ConfigError("the prior 'sequence' needs n_last from 1, decay in (0, 1], shrink above 0, n_fit from 0")
        self.weights = START.copy()
        """Weights of `FEATURES`."""
        self._learn(Catalog(), np.empty(0, np.int64), np.empty(0, "datetime64[us]"), np.empty(0, np.int32), {})

    def fit(self, catalog: Catalog, events: Iterable[pa.RecordBatch]) -> None:
        """Count, then weigh; see `Prior.fit`."""
        users: dict[str, int] = {}
        columns: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
        for batch in events:
            row = known_rows(catalog, batch)
            people = batch["user_id"].dictionary_encode()
            number = np.array([users.setdefault(name, len(users)) for name in people.dictionary.to_pylist()], np.int64)
            at = batch["at"].cast(pa.timestamp("us")).to_numpy()
            columns.append((number[people.indices.to_numpy()][row >= 0], at[row >= 0], row[row >= 0]))
        user = np.concatenate([np.empty(0, np.int64), *(c[0] for c in columns)])
        at = np.concatenate([np.empty(0, "datetime64[us]"), *(c[1] for c in columns)])
        row = np.concatenate([np.empty(0, np.int32), *(c[2] for c in columns)])
        order = np.lexsort((at, user))
        self._learn(catalog, user[order], at[order], row[order], users)
        self._weigh()

    def log_mass(self, history: History, now: Context) -> np.ndarray:
        """Log-probability of each item as the person's next one; see `Prior.log_mass`."""
        return self._log_mass(self._features(self._rows_of(history), before=instant(history.at)))

    def log_mass_held_out(self, history: History, now: Context) -> np.ndarray:
        """Log-probability of each item from everybody else's events; see `Prior.log_mass_held_out`."""
        without = self._users.get(history.user_id, -1)
        return self._log_mass(self._features(self._rows_of(history), without=without))

    def _rows_of(self, history: History) -> list[int]:
        """Catalogue rows of a history, oldest first; what the catalogue lacks is passed over."""
        row = self._catalog.row
        return [row[item] for moment in history.moments for item in moment.item_ids if item in row]

    def _learn(
        self, catalog: Catalog, user: np.ndarray, at: np.ndarray, row: np.ndarray, users: dict[str, int]
    ) -> None:
        """Remember everybody's events, sorted by person and instant, and which came close to which."""
        self._catalog, self._users, self._n_items = catalog, users, len(catalog)
        self._user, self._row = user, row
        self._first = np.searchsorted(user, np.arange(len(users) + 1))
        by_time = np.argsort(at, kind="stable")
        self._taken_at, self._taken = at[by_time], row[by_time]
        self._popular: tuple[int, np.ndarray] = (0, np.zeros(self._n_items, np.int64))
        source, other, gap, when, whose = [], [], [], [], []
        for n in range(1, REACH + 1):
            same = user[n:] == user[:-n]
            early, late = row[:-n][same], row[n:][same]
            for a, b, sign in ((early, late, 1), (late, early, -1)):
                source.append(a)
                other.append(b)
                gap.append(np.full(len(a), sign * n, np.int8))
                when.append(at[n:][same])
                whose.append(user[n:][same].astype(np.int32))
        sources = np.concatenate(source)
        order = np.argsort(sources, kind="stable")
        self._pairs = np.searchsorted(sources[order], np.arange(self._n_items + 1))
        self._other, self._gap = np.concatenate(other)[order], np.concatenate(gap)[order]
        self._when, self._whose = np.concatenate(when)[order], np.concatenate(whose)[order]
        self._words = _Words(catalog.titles)

    def _features(
        self, rows: list[int], *, before: np.datetime64 | None = None, without: int | None = None
    ) -> np.ndarray:
        """Features of every item after a sequence of rows. Shape ``(n_features, n_items)``, float64.

        Args:
            rows: The history, oldest first.
            before: Count only what happened before.
            without: Count everybody but this person, whenever it happened.
        """
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
            here = slice(int(self._pairs[row]), int(self._pairs[row + 1]))
            counts = self._when[here] < before if before is not None else self._whose[here] != without
            other, gap = self._other[here][counts], self._gap[here][counts]
            for feature, chosen in (
                (transitions, gap == 1),
                (near, (gap == -1) | (gap == 2)),
                (far, np.abs(gap) >= 3),
            ):
                if n_chosen := int(chosen.sum()):
                    feature += np.bincount(other[chosen], minlength=n) * (share / (n_chosen + self.shrink))
        found[5] = np.log(self._popularity(before, without) + 0.5)
        for row, n_own in Counter(rows).items():
            if row < n:
                found[6, row] = 1
                found[11, row] = np.log1p(n_own)
        if rows and rows[-1] < n:
            found[7, rows[-1]] = 1
        found[8] = np.log(0.003 + transitions + 0.5 * near)
        found[9] = np.log(0.02 + alike_last)
        found[10] = np.log(0.05 + alike)
        return found

    def _popularity(self, before: np.datetime64 | None, without: int | None) -> np.ndarray:
        """How often each item was taken. Shape ``(n_items,)``, int64."""
        n = len(self._taken) if before is None else int(np.searchsorted(self._taken_at, before))
        last, counts = self._popular
        if n != last:
            start, so_far = (last, counts) if n > last else (0, np.zeros_like(counts))
            counts = so_far + np.bincount(self._taken[start:n], minlength=self._n_items)
            self._popular = n, counts
        if without is not None and without >= 0:
            own = self._row[self._first[without] : self._first[without + 1]]
            counts = counts - np.bincount(own, minlength=self._n_items)
        return counts

    def _log_mass(self, features: np.ndarray) -> np.ndarray:
        log_mass = self.weights @ features
        log_mass -= log_mass.max()
        normalised: np.ndarray = log_mass - np.log(np.exp(log_mass).sum())
        return normalised

    def _weigh(self) -> None:
        """Fit the weights to the latest choice of a sample of people by Newton's method, ridge towards `START`."""
        self.weights = START.copy()
        n_events = np.diff(self._first)
        people = np.flatnonzero(n_events >= 2)
        keys = [hashlib.blake2b(str(p).encode(), digest_size=8).digest() for p in people.tolist()]
        people = people[np.argsort(np.array(keys), kind="stable")][: min(self.n_fit, _SAMPLED // max(self._n_items, 1))]
        if len(people) < 2 * len(FEATURES):
            return
        sampled = []
        for person in people.tolist():
            rows = self._row[self._first[person] : self._first[person + 1]].tolist()
            sampled.append((self._features(rows[:-1], without=person).astype(np.float32), rows[-1]))
        step, best = np.zeros(len(FEATURES)), np.inf
        for _ in range(25):
            trial = self.weights - step
            gradient, curvature = trial - START, np.eye(len(FEATURES))
            loss = 0.5 * float(gradient @ gradient)
            for features, target in sampled:
                logits = trial.astype(np.float32) @ features
                logits -= logits.max()
                p = np.exp(logits)
                loss += float(np.log(p.sum())) - float(logits[target])
                p /= p.sum()
                mean = features @ p
                gradient = gradient + mean - features[:, target]
                curvature = curvature + (features * p) @ features.T - np.outer(mean, mean)
            if loss > best:  # too far
                step = step / 2
                continue
            done = best - loss < 1e-3
            self.weights, best = trial, loss
            if done:
                break
            step = np.linalg.solve(curvature, gradient)


class _Words:
    """Which titles have which words, for their likeness: cosines of TF-IDF vectors."""

    def __init__(self, titles: list[str]) -> None:
        words = [set(re.findall(r"\w+", title.lower())) for title in titles]
        self._numbers: dict[str, int] = {}
        number = [[self._numbers.setdefault(word, len(self._numbers)) for word in sorted(some)] for some in words]
        self._of = [np.array(some, np.int64) for some in number]
        flat = np.concatenate([np.empty(0, np.int64), *self._of])
        row = np.repeat(np.arange(len(titles)), [len(some) for some in number])
        order = np.argsort(flat, kind="stable")
        self._rows = row[order]
        self._first = np.searchsorted(flat[order], np.arange(len(self._numbers) + 1))
        self._idf = np.log(max(len(titles), 1) / np.maximum(np.diff(self._first), 1))
        self._norm = np.sqrt(np.bincount(row, self._idf[flat] ** 2, minlength=len(titles))) + 1e-6

    def like(self, row: int) -> np.ndarray:
        """Cosine of one title with each. Shape ``(n_items,)``, float64."""
        likeness = np.zeros(len(self._norm))
        for word in self._of[row].tolist() if row < len(self._of) else ():
            likeness[self._rows[self._first[word] : self._first[word + 1]]] += self._idf[word] ** 2
        if row < len(self._of):
            likeness /= self._norm * self._norm[row]
        return likeness
