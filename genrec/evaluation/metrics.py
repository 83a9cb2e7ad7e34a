"""From ranks to figures with intervals.

A rank is the number of items placed before the one that was chosen, counted from 0; one that is not on the list has a
rank of at least its length. Intervals are percentile bootstraps over people, because what one person does hangs
together (Field and Welsh 2007). Lists are judged by more than hits: how much of the catalogue they show, how rare and
how unlike each other their items are (Castells, Hurley and Vargas 2022), and whether their probabilities come true.
Knows numbers only.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

Interval = tuple[float, float]
"""Lower and upper end."""
FEW = 10
"""So many people at least can tell two rankings apart; of fewer, drawing them says nothing."""


def hit_rate(ranks: np.ndarray, k: int) -> np.ndarray:
    """Whether each target is among the first k; the mean is HR@k. Shape as `ranks`, float64."""
    hits: np.ndarray = (ranks < k).astype(np.float64)
    return hits


def ndcg(ranks: np.ndarray, k: int) -> np.ndarray:
    """Gain of each target by its place, 1 for the first; the mean is NDCG@k for one target. Shape as `ranks`."""
    gain: np.ndarray = np.where(ranks < k, 1 / np.log2(np.maximum(ranks, 0) + 2), 0.0)
    return gain


def reciprocal_rank(ranks: np.ndarray, k: int) -> np.ndarray:
    """One over each target's place, counted from 1; 0 beyond the first k. The mean is MRR@k. Shape as `ranks`."""
    found: np.ndarray = np.where(ranks < k, 1 / (np.maximum(ranks, 0) + 1.0), 0.0)
    return found


def figures(ranks: Sequence[int] | np.ndarray, within: int) -> dict[str, float]:
    """HR, NDCG and MRR at 1, 5, 10, 20 and so on, as far down as ranks are told apart."""
    ranks = np.asarray(ranks)
    found = {}
    for k in (1, 5, 10, 20, 50, 100):
        if k <= within:
            found[f"HR@{k}"] = float(hit_rate(ranks, k).mean())
            if k > 1:  # at 1 all three are the same
                found[f"NDCG@{k}"] = float(ndcg(ranks, k).mean())
                found[f"MRR@{k}"] = float(reciprocal_rank(ranks, k).mean())
    return found


def coverage(lists: Sequence[Sequence[int]], n_items: int) -> float:
    """Share of the catalogue that stands in any list.

    Args:
        lists: Catalogue rows of each list.
        n_items: Items of the catalogue.
    """
    return len({row for one in lists for row in one}) / n_items


def novelty(lists: Sequence[Sequence[int]], popularity: np.ndarray) -> float:
    """How surprising the items of lists are: mean self-information of their popularity, bits.

    Args:
        lists: Catalogue rows of each list.
        popularity: How often each item was taken, shape ``(n_items,)``; each counts once more, so none is impossible.
    """
    bits = -np.log2((popularity + 1) / (popularity + 1).sum())
    return float(np.mean([bits[row] for one in lists for row in one]))


def diversity(lists: Sequence[Sequence[int]], like: Callable[[int], np.ndarray]) -> float:
    """How unlike the items of one list are: one minus the mean likeness of its pairs, over lists of two and more.

    Args:
        lists: Catalogue rows of each list.
        like: Gives the likeness of a row to each, at most 1, shape ``(n_items,)``.
    """
    found = []
    for one in lists:
        if (n := len(one)) > 1:
            cosines = np.array([like(row)[list(one)] for row in one])
            found.append(1 - (cosines.sum() - np.trace(cosines)) / (n * (n - 1)))
    return float(np.mean(found)) if found else 0.0


def calibration(
    probabilities: Sequence[float] | np.ndarray, hits: Sequence[bool] | np.ndarray, *, n_bins: int = 10
) -> dict[str, Any]:
    """Whether what was given a probability comes true that often.

    Args:
        probabilities: Of each listed item, shape ``(n,)``.
        hits: Whether it was the one that was chosen.
        n_bins: Bins of equal size, the least probable first.

    Returns:
        ``ECE``, the mean distance of the bins' mean probability from their share of hits, weighted by their size
        (Naeini, Cooper and Hauskrecht 2015); ``bins``, of each its mean ``probability``, share of ``hits`` and ``n``.
    """
    order = np.argsort(probabilities, kind="stable")
    p, hit = np.asarray(probabilities, np.float64)[order], np.asarray(hits, np.float64)[order]
    bins = [
        {"probability": float(p[part].mean()), "hits": float(hit[part].mean()), "n": len(part)}
        for part in np.array_split(np.arange(len(p)), n_bins)
        if len(part)
    ]
    gap = sum(one["n"] * abs(one["probability"] - one["hits"]) for one in bins)
    return {"ECE": gap / max(len(p), 1), "bins": bins}


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
        found[name] = paired(values, people)
    return found


def paired(differences: np.ndarray, people: Sequence[str]) -> dict[str, object]:
    """The mean of paired differences with its interval, and whether they are tied.

    Args:
        differences: One for each case. Shape ``(n,)``.
        people: Whose case each is.
    """
    low, high = bootstrap(differences, people)
    return {
        "difference": round(float(differences.mean()), 4),
        "interval": [round(low, 4), round(high, 4)],
        "tied": low <= 0 <= high or len(set(people)) < FEW,
    }
