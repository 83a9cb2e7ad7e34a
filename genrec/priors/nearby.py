"""What is near: distance decay, from where the person is and from where the person has been.

    log p(item | past) = w · (-log(1 + km from here), -log(1 + km from the nearest own place), popularity, …) + constant

A power law of the distance, as visits follow it (Ye, Yin, Lee and Lee 2011), whose exponents are fitted by likelihood.
Here is where the person says to be, else the last item that is somewhere. Knows where items are, by their attributes
latitude and longitude; nothing of hours, order or roads.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from genrec.earth import arc_km, on_sphere
from genrec.errors import ConfigError
from genrec.filters import positions
from genrec.priors.loglinear import LogLinear, Past, Popular

_BLOCK = 8  # own places whose distances are looked at together, so that a million items take little memory


@dataclass(kw_only=True)
class Nearby(LogLinear):
    """What is near to where the person is and has been, weighted by likelihood."""

    n_last: int = 50
    """Items of the history whose places are the person's own."""

    START = np.array([[1.0, 0.5, 0.5, 0.0, 0.0, 0.0, 0.0]])

    def __post_init__(self) -> None:
        if not (self.n_last >= 1 and self.n_fit >= 0):
            raise ConfigError("the prior 'nearby' needs n_last from 1 and n_fit from 0")
        super().__post_init__()

    def _learn(self) -> None:
        """Look where the items are."""
        self._popular = Popular(self._log, self._n_items)
        self._where = positions(self._catalog, self._n_items)
        self._somewhere = ~np.isnan(self._where[:, 0])

    def _features(self, past: Past) -> np.ndarray:
        """How near it is to here and to own places, popularity, had, last, being nowhere. Shape ``(7, n_items)``."""
        n = self._n_items
        rows = past.rows[past.rows < n]
        had, last = np.zeros(n), np.zeros(n)
        had[rows], last[rows[-1:]] = 1, 1
        own = rows[self._somewhere[rows]][-self.n_last :]
        here = self._where[own[-1:]] if past.here is None else on_sphere(*np.array(past.here))[None]
        if "distance" in self.without:
            own, here = own[:0], here[:0]
        near_here, near_own = self._nearness(here), self._nearness(self._where[np.unique(own)])
        return np.stack(
            [
                near_here,
                near_own,
                self._popular.relative(past),
                had,
                last,
                had * near_here,
                np.where(self._somewhere, 0.0, 1.0),
            ]
        )

    def _nearness(self, points: np.ndarray) -> np.ndarray:
        """Minus the logarithm of one and the kilometres to the nearest of some points of the sphere, ``(n_points, 3)``.

        0 where there is no point; for what is nowhere, as of what is farthest. Shape ``(n_items,)``, float64.
        """
        if not len(points):
            return np.zeros(self._n_items)
        nearest = np.full(self._n_items, -1.0)  # cosine of the angle
        for start in range(0, len(points), _BLOCK):
            np.maximum(nearest, (self._where @ points[start : start + _BLOCK].T).max(axis=1), out=nearest)
        km = arc_km(np.sqrt(np.maximum(2 - 2 * nearest, 0)))
        nearness: np.ndarray = -np.log1p(np.where(self._somewhere, km, np.nanmax(km, initial=0.0)))
        return nearness
