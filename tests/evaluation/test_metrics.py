"""Figures that can be checked by hand, and against an independent library."""

from __future__ import annotations

import numpy as np
import pytest

from genrec.evaluation.metrics import bootstrap, difference, hit_rate, ndcg, summary


def test_figures_by_hand() -> None:
    ranks = np.array([0, 1, 9, 10, 99])
    assert hit_rate(ranks, 1).mean() == pytest.approx(1 / 5)
    assert hit_rate(ranks, 10).mean() == pytest.approx(3 / 5)
    assert ndcg(ranks, 10).tolist() == pytest.approx([1, 1 / np.log2(3), 1 / np.log2(11), 0, 0])


def test_ndcg_agrees_with_scikit_learn() -> None:
    sklearn = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(0)
    scores = rng.random((50, 30))
    targets = rng.integers(30, size=50)
    ranks = (scores > scores[np.arange(50), targets][:, None]).sum(1)
    relevance = np.eye(30)[targets]
    assert ndcg(ranks, 10).mean() == pytest.approx(sklearn.ndcg_score(relevance, scores, k=10))


def test_intervals_widen_where_cases_hang_together() -> None:
    rng = np.random.default_rng(0)
    values = np.repeat(rng.random(50) < 0.3, 8).astype(float)
    apart = bootstrap(values, [str(i) for i in range(400)])
    together = bootstrap(values, [str(i // 8) for i in range(400)])
    assert together[1] - together[0] > 2 * (apart[1] - apart[0])
    assert apart[0] < values.mean() < apart[1]


def test_a_clear_difference_is_told_from_none() -> None:
    people = [str(i) for i in range(300)]
    rng = np.random.default_rng(1)
    better, worse = rng.integers(0, 12, 300), rng.integers(0, 60, 300)
    found = difference(better, worse, people)
    assert not found["HR@10"]["tied"]  # type: ignore[index]
    assert difference(worse, worse, people)["NDCG@10"] == {"difference": 0.0, "interval": [0.0, 0.0], "tied": True}
    assert summary(better, people)["n"] == 300
