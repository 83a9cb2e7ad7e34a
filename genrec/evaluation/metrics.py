"""From ranks to figures with intervals.

A rank is the number of items placed before the one that was chosen, counted from 0; one that is not on the list has a
rank of at least its length. Intervals are percentile bootstraps over people, because what one person does hangs
together (Field and Welsh 2007). Knows numbers only.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

Interval = tuple[float, float]
"""Lower and upper end."""


def hit_rate(ranks: np.ndarray, k: int) -> np.ndarray:
    """Whether each target is among the first k; the mean is HR@k. Shape as `ranks`, float64."""
    hits: np.ndarray = (ranks < k).astype(np.float64)
    return hits


def ndcg(ranks: np.ndarray, k: int) -> np.ndarray:
    """Gain of each target by its place, 1 for the first; the mean is NDCG@k for one target. Shape as `ranks`."""
    gain: np.ndarray = np.where(ranks < k, 1 / np.log2(np.maximum(ranks, 0) + 2), 0.0)
    return gain


def bootstrap(values: np.ndarray, people: Sequence[str], *, n_samples: int = 2000, seed: int = 0) -> Interval:
    """A 95 % interval of a mean, by drawing people.

    Args:
        values: One figure for each case. Shape ``(n,)``.
        people: Whose case each is.
        n_samples: Draws.
        seed: Decides the draws.
    """
    _, whose = np.unique(np.array(people, dtype=object).astype(str), return_inverse=True)
    n_people = int(whose.max()) + 1
    total, count = np.bincount(whose, values, n_people), np.bincount(whose, minlength=n_people)
    rng = np.random.default_rng(seed)
    means = np.empty(n_samples)
    for i in range(n_samples):
        drawn = rng.integers(n_people, size=n_people)
        means[i] = total[drawn].sum() / count[drawn].sum()
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


def summary(ranks: Sequence[int] | np.ndarray, people: Sequence[str]) -> dict[str, object]:
    """HR@1, HR@10 and NDCG@10 with their intervals."""
    ranks = np.asarray(ranks)
    figures = {"HR@1": hit_rate(ranks, 1), "HR@10": hit_rate(ranks, 10), "NDCG@10": ndcg(ranks, 10)}
    means: dict[str, object] = {name: round(float(values.mean()), 4) for name, values in figures.items()}
    return means | {
        "interval": {name: [round(x, 4) for x in bootstrap(v, people)] for name, v in figures.items()},
        "n": len(ranks),
    }


def difference(
    ranks: Sequence[int] | np.ndarray, than: Sequence[int] | np.ndarray, people: Sequence[str]
) -> dict[str, object]:
    """How much better a ranking is than another of the same cases, with paired intervals; and whether they are tied."""
    found: dict[str, object] = {}
    ours, theirs = np.asarray(ranks), np.asarray(than)
    for name, values in (
        ("HR@1", hit_rate(ours, 1) - hit_rate(theirs, 1)),
        ("HR@10", hit_rate(ours, 10) - hit_rate(theirs, 10)),
        ("NDCG@10", ndcg(ours, 10) - ndcg(theirs, 10)),
    ):
        low, high = bootstrap(values, people)
        found[name] = {
            "difference": round(float(values.mean()), 4),
            "interval": [round(low, 4), round(high, 4)],
            "tied": low <= 0 <= high,
        }
    return found
