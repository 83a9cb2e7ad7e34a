"""What follows what, what reads alike, what everybody takes and what this person takes again: one log-linear voice.

    log p(item | history) = w · features(item, history) + constant

The features look at the last few items of the history, the latest most: how often the item came next, near or not far
away in other people's sequences, how alike the titles are (TF-IDF), its popularity ever, in the last year and in the
last month, and whether the person has it already, more so where people take it again. What goes on with a visit, a few
hours after the last event, differs from what begins a new one, so each feature has a second weight that counts there
alone. The weights are fitted in `fit` by likelihood. A person's own events never count as other people's, neither there
nor in an answer. Knows counts, instants and words of titles; no time of day, no place.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
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
_SAMPLED = 40_000_000  # sampled choices times items, so that fitting needs a few GiB at most


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
    """Choices that the weights are fitted to, the latest ones."""

    def __post_init__(self) -> None:
        if not (self.n_last >= 1 and 0 < self.decay <= 1 and self.shrink > 0 and self.n_fit >= 0):
            raise ConfigError("the prior 'sequence' needs n_last from 1, decay in (0, 1], shrink above 0, n_fit from 0")
        self.weights = START.copy()
        """Weights of `FEATURES`: always, and what is added to them within a visit. Shape ``(2, n_features)``."""
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
        return self._log_mass(history, later=False)

    def log_mass_held_out(self, history: History, now: Context) -> np.ndarray:
        """Log-probability of each item from everybody else's events; see `Prior.log_mass_held_out`."""
        return self._log_mass(history, later=True)

    def _log_mass(self, history: History, *, later: bool) -> np.ndarray:
        row = self._catalog.row
        rows = [[row[item] for item in moment.item_ids if item in row] for moment in history.moments]
        n_now = sum(
            len(some) for some, moment in zip(rows, history.moments, strict=True) if history.at - moment.at < VISIT
        )
        without = self._users.get(history.user_id, -1)
        features = self._features([r for some in rows for r in some], n_now, instant(history.at), without, later=later)
        weights = self.weights[0] + self.weights[1] * (n_now > 0)
        log_mass = weights @ features
        log_mass -= log_mass.max()
        normalised: np.ndarray = log_mass - np.log(np.exp(log_mass).sum())
        return normalised

    def _learn(
        self, catalog: Catalog, user: np.ndarray, at: np.ndarray, row: np.ndarray, users: dict[str, int]
    ) -> None:
        """Remember everybody's events, sorted by person and instant, and which came close to which."""
        self._catalog, self._users, self._n_items = catalog, users, len(catalog)
        self._row, self._at = row, at
        self._first = np.searchsorted(user, np.arange(len(users) + 1))
        by_time = np.argsort(at, kind="stable")
        self._taken_at, self._taken = at[by_time], row[by_time]
        self._popular: dict[int | None, tuple[int, int, np.ndarray]] = {}
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
        self._titles = Titles(catalog.titles)

    def _features(
        self, rows: list[int], n_now: int, at: np.datetime64, without: int, *, later: bool = True
    ) -> np.ndarray:
        """Features of every item after a sequence of rows. Shape ``(n_features, n_items)``, float64.

        Args:
            rows: The history, oldest first; what the catalogue lacks is passed over.
            n_now: How many of them, at the end, belong to the same visit.
            at: The instant.
            without: Whose events are left out; -1 for nobody's.
            later: Whether what others did later counts, except for what is popular in a window before the instant.
        """
        n = self._n_items
        found = np.zeros((len(FEATURES), n))
        transitions, near, far, alike, alike_last = found[:5]
        for distance, row in enumerate(reversed(rows[-self.n_last :])):
            share = self.decay**distance
            likeness = self._titles.like(row)
            alike += share * likeness
            if distance == 0:
                alike_last += likeness
            if row >= n:  # added since
                continue
            here = slice(int(self._pairs[row]), int(self._pairs[row + 1]))
            counts = self._whose[here] != without
            if not later:
                counts &= self._when[here] < at
            other, gap = self._other[here][counts], self._gap[here][counts]
            for feature, chosen in (
                (transitions, gap == 1),
                (near, (gap == -1) | (gap == 2)),
                (far, np.abs(gap) >= 3),
            ):
                if n_chosen := int(chosen.sum()):
                    feature += np.bincount(other[chosen], minlength=n) * (share / (n_chosen + self.shrink))
        for name, days in _WINDOWS.items():
            popularity = self._popularity(days, None if later and days is None else at, without)
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

    def _popularity(self, days: int | None, before: np.datetime64 | None, without: int) -> np.ndarray:
        """How often others took each item, in so many days before an instant or ever. Shape ``(n_items,)``, int64."""
        since = None if days is None or before is None else before - np.timedelta64(days, "D")
        end = len(self._taken) if before is None else int(np.searchsorted(self._taken_at, before))
        start = 0 if since is None else int(np.searchsorted(self._taken_at, since))
        last_start, last_end, counts = self._popular.get(days, (0, 0, np.zeros(self._n_items, np.int64)))
        if abs(start - last_start) + abs(end - last_end) > end - start:  # nothing near was counted before
            last_start, last_end, counts = start, start, np.zeros(self._n_items, np.int64)
        if (start, end) != (last_start, last_end):
            counts = counts + self._change(last_end, end) - self._change(last_start, start)
            self._popular[days] = start, end, counts
        if without >= 0:
            own = slice(int(self._first[without]), int(self._first[without + 1]))
            at, row = self._at[own], self._row[own]
            there = np.ones(len(at), bool) if before is None else at < before
            if since is not None:
                there &= at >= since
            counts = counts - np.bincount(row[there], minlength=self._n_items)
        return counts

    def _change(self, old: int, new: int) -> np.ndarray:
        """What counting up to another event changes. Shape ``(n_items,)``, int64."""
        between = np.bincount(self._taken[min(old, new) : max(old, new)], minlength=self._n_items)
        return between if new > old else -between

    def _weigh(self) -> None:
        """Fit the weights to the latest choices by Newton's method, ridge towards `START`."""
        self.weights = START.copy()
        number = np.repeat(np.arange(len(self._users)), np.diff(self._first))
        changes = (np.diff(number) != 0) | (np.diff(self._at) != np.timedelta64(0))
        start = np.flatnonzero(np.concatenate([np.ones(len(number[:1]), bool), changes]))  # of each moment
        n_items = np.diff(start, append=len(number))
        rng = np.random.default_rng(0)
        chosen = start + (rng.random(len(start)) * n_items).astype(np.int64)  # one of each, for they hang together
        latest_first = np.lexsort((rng.permutation(len(start)), -self._at[start].astype(np.int64)))
        latest_first = latest_first[(start > self._first[number[start]])[latest_first]]  # with something before them
        sampled = []
        for i in latest_first[: min(self.n_fit, _SAMPLED // max(self._n_items, 1))].tolist():
            person = int(number[start[i]])
            before = slice(int(self._first[person]), int(start[i]))
            n_now = int((self._at[start[i]] - self._at[before] < np.timedelta64(VISIT)).sum())
            features = self._features(self._row[before].tolist(), n_now, self._at[start[i]], person)
            counts = np.array([1.0, n_now > 0])  # which of the two weights
            sampled.append((features.astype(np.float32), counts, int(self._row[chosen[i]])))
        if len(sampled) < START.size:
            return
        step, best = np.zeros(START.size), np.inf
        for _ in range(25):
            trial = self.weights - step.reshape(START.shape)
            gradient, curvature = (trial - START).ravel(), np.eye(START.size)
            loss = 0.5 * float(gradient @ gradient)
            for features, counts, target in sampled:
                logits = (counts @ trial).astype(np.float32) @ features
                logits -= logits.max()
                p = np.exp(logits)
                loss += float(np.log(p.sum())) - float(logits[target])
                p /= p.sum()
                mean = features @ p
                gradient = gradient + np.kron(counts, mean - features[:, target])
                spread = (features * p) @ features.T - np.outer(mean, mean)
                curvature = curvature + np.kron(np.outer(counts, counts), spread)
            if loss > best:  # too far
                step = step / 2
                continue
            done = best - loss < 1e-3
            self.weights, best = trial, loss
            if done:
                break
            step = np.linalg.solve(curvature, gradient)


class Titles:
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
