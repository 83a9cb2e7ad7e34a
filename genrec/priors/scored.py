"""From a score to a distribution: what neighbours, EASE, baskets and text share.

    log p(item | past) = w · (score, log score, popularity, had, last) + constant

The classical recommenders rank by a score and say nothing of probabilities. Here the weights that make a distribution
of it are fitted by likelihood, with popularity beside the score and a say on what the person has already; so each can
be compared and mixed with any other voice. Knows nothing of where scores come from.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

import numpy as np

from genrec.priors.loglinear import LogLinear, Past, Popular

_LEAST = 0.01  # score that stands for next to nothing


@dataclass(kw_only=True)
class Scored(LogLinear):
    """A prior that is made of a score."""

    START = np.array([[1.0, 0.5, 0.5, 0.0, 0.0]])

    def _learn(self) -> None:
        self._popular = Popular(self._log, self._n_items)

    @abstractmethod
    def _scores(self, past: Past) -> np.ndarray:
        """How well each item fits, about 0 to 1 where that means something. Shape ``(n_items,)``, float64."""

    def _features(self, past: Past) -> np.ndarray:
        """The score and what stands beside it. Shape ``(5, n_items)``, float64."""
        n = self._n_items
        scores = self._scores(past)
        had, last = np.zeros(n), np.zeros(n)
        had[past.rows[past.rows < n]] = 1
        last[[row for row in past.rows[-1:] if row < n]] = 1
        log_score = np.log1p(np.maximum(scores, 0) / _LEAST)
        return np.stack([scores, log_score, self._popular.relative(past), had, last])
