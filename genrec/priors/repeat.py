"""What the person does again at such an hour, after such a thing: own habits as one log-linear voice.

    log p(item | history, moment) = w · features(item, history, moment) + constant

Each of the person's moments speaks for its items, the more the more it is like the one to come. It is like it by being
recent; by its hour, on a clock that has no end; by being on a weekend or not; by its place, if that is to count; by
what came before it, and at which hour; and by the time since then. Products of these are features of their own, each
as a share of what the person did, on a logarithmic scale. What the person never had is told by popularity and by what
came next for others, who are never the person. The weights are fitted in `fit` by likelihood. Hours are those of the
clock on the wall, where the events say which; no titles, no distances.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from genrec.errors import ConfigError
from genrec.priors.loglinear import LogLinear, Pairs, Past, Popular

KERNELS = (
    "own",
    "recent",
    "hour",
    "hour_narrow",
    "hour_weekend",
    "after",
    "after_hour",
    "from_hour",
    "gap",
    "after_gap",
    "place",
)
"""Ways in which a moment of the past can be like the one to come; shares of what such moments hold are features."""
FEATURES = (*KERNELS, "had", "log_had", "repeats", "last", "last_gap", "popular", "popular_had", "next", "next_had")
"""Names of the features, in the order of the weights."""
_NUMBER = {name: number for number, name in enumerate(FEATURES)}
_LEAST = 0.003  # share that stands for next to nothing
_SHRINK = 1.0  # moments that are added, so that few say little
_WIDE, _NARROW = 2.0, 40.0  # how fast hours grow unlike: a third of the likeness is left after 4 h, and after 50 min


@dataclass(kw_only=True)
class Repeat(LogLinear):
    """What the person does again: by hour, weekend, recency and what came before, weighted by likelihood."""

    half_life: float = 40.0
    """Days after which a moment of the person's counts half."""
    clock: bool = True
    """Whether hour, weekend and the time since the last event tell something; not where only days are known, or where
    the moment to recommend for is not."""
    place: bool = False
    """Whether where the person is tells something, by name: not where it is known only with the choice, or is what is
    chosen. Where it is not told, all places are alike."""

    START = np.array(
        [[0.2, 0.8, 0.1, 0.2, 0.3, 0.1, 0.1, 0.1, 0.1, 0.1, 0.2, 0, -0.7, 0.5, -1, 0.3, 0.5, -0.5, 0.5, -0.4]]
    )

    def __post_init__(self) -> None:
        if not (self.half_life > 0 and self.n_fit >= 0):
            raise ConfigError("the prior 'repeat' needs a half_life above 0 and n_fit from 0")
        super().__post_init__()

    def _learn(self) -> None:
        self._popular = Popular(self._log, self._n_items)
        self._pairs = self._part("pairs", Pairs, lambda: Pairs.of(self._log, self._n_items, reach=1, together=False))

    def _features(self, past: Past) -> np.ndarray:
        """Features of every item, `FEATURES`. Shape ``(n_features, n_items)``, float64."""
        n = self._n_items
        found = np.zeros((len(FEATURES), n))
        found[_NUMBER["popular"]] = self._popular.relative(past)
        known = past.rows < n
        rows, at, local = past.rows[known], past.at[known], past.local[known]
        if not len(rows):
            return found
        begins = np.concatenate([[True], np.diff(at) != np.timedelta64(0)])
        start, moment = np.flatnonzero(begins), np.cumsum(begins) - 1
        last = rows[start[-1] :]
        had, place, n_own = np.unique(rows, return_inverse=True, return_counts=True)
        there = past.place[known][start]
        for feature, kernel in zip(found, self._kernels(past, rows, at, local, there, start, moment), strict=False):
            counts = np.bincount(place, kernel[moment])
            feature[had] = np.log1p(counts / ((counts.sum() + _SHRINK) * _LEAST))
        found[_NUMBER["had"], had] = 1
        found[_NUMBER["log_had"], had] = np.log1p(n_own)
        found[_NUMBER["repeats"], had] = np.log((len(rows) - len(had) + 1) / (len(had) + 1))
        found[_NUMBER["last"], last] = 1
        if self.clock and "since" not in self.without:
            found[_NUMBER["last_gap"], last] = np.log1p(_hours(past.now - at[-1]))
        found[_NUMBER["popular_had"], had] = found[_NUMBER["popular"], had]
        other, gap, weight = self._pairs.near(int(rows[-1]), past)
        after = np.bincount(other[gap == 1], weight[gap == 1], minlength=n)
        found[_NUMBER["next"]] = np.log1p(after / ((after.sum() + _SHRINK) * _LEAST))
        found[_NUMBER["next_had"], had] = found[_NUMBER["next"], had]
        return found

    def _kernels(
        self,
        past: Past,
        rows: np.ndarray,
        at: np.ndarray,
        local: np.ndarray,
        there: np.ndarray,
        start: np.ndarray,
        moment: np.ndarray,
    ) -> np.ndarray:
        """How much each moment is like the one to come, in each way. Shape ``(n_kernels, n_moments)``."""
        size, when, wall = np.diff(start, append=len(rows)), at[start], local[start]
        shared = np.bincount(moment, np.isin(rows, rows[start[-1] :]))
        after = _shifted(shared / np.sqrt(size * size[-1]))  # likeness of the moment before to the last one
        from_hour = _shifted(_alike(_hours(wall - wall[-1]), 4 * _WIDE))
        recent = 0.5 ** (_hours((past.now if self.clock else when[-1]) - when) / (24 * self.half_life))
        hour = narrow = weekend = gap = np.zeros(len(when))
        if self.clock:
            hour = _alike(_hours(wall - past.now_local), _WIDE)
            narrow = _alike(_hours(wall - past.now_local), _NARROW)
            weekend = _is_weekend(wall) == _is_weekend(past.now_local)
            gaps, this = np.log1p(_hours(np.diff(when))), np.log1p(_hours(past.now - when[-1]))
            gap = np.concatenate([[0.0], np.exp(-2 * (gaps - this) ** 2)])
        alike = np.ones(len(when))  # as all moments are in what nothing is told of
        if not {"part_of_day", "hour"}.isdisjoint(self.without):
            hour = narrow = from_hour = alike
        if not {"weekday", "weekend"}.isdisjoint(self.without):
            weekend = alike
        if "since" in self.without:
            gap = alike
        place = alike * self.place
        if self.place and past.now_place >= 0 and "place" not in self.without:
            place = there == past.now_place
        kernels = {
            "own": 1.0,
            "recent": recent,
            "hour": recent * hour,
            "hour_narrow": recent * narrow,
            "hour_weekend": recent * 0.5 * (hour + narrow) * weekend,
            "after": recent * after,
            "after_hour": recent * after * hour,
            "from_hour": recent * from_hour,
            "gap": recent * gap,
            "after_gap": recent * after * gap,
            "place": recent * place,
        }
        return np.stack([np.broadcast_to(kernels[name], len(when)) for name in KERNELS])


def _hours(duration: np.ndarray) -> np.ndarray:
    hours: np.ndarray = duration / np.timedelta64(1, "h")
    return hours


def _alike(hours: np.ndarray, sharpness: float) -> np.ndarray:
    """Likeness of two hours so far apart, 1 where they are the same time of day (von Mises)."""
    alike: np.ndarray = np.exp(sharpness * (np.cos(hours * (2 * np.pi / 24)) - 1))
    return alike


def _shifted(values: np.ndarray) -> np.ndarray:
    """The value of the moment before; 0 for the first."""
    return np.concatenate([[0.0], values[:-1]])


def _is_weekend(local: np.ndarray | np.datetime64) -> np.ndarray:
    days = np.asarray(local, "datetime64[D]").astype(np.int64)  # since a Thursday
    weekend: np.ndarray = (days + 3) % 7 >= 5
    return weekend
