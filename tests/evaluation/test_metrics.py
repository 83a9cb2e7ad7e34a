"""Figures that can be checked by hand, and against an independent library."""

from __future__ import annotations

import numpy as np
import pytest

from genrec.evaluation.metrics import (
    bootstrap,
    calibration,
    coverage,
    difference,
    diversity,
    figures,
    hit_rate,
    ndcg,
    novelty,
    summary,
)


def test_figures_by_hand() -> None:
    ranks = np.array([0, 1, 9, 10, 99])
    assert hit_rate(ranks, 1).mean() == pytest.approx(1 / 5)
    assert hit_rate(ranks, 10).mean() == pytest.approx(3 / 5)
    assert ndcg(ranks, 10).tolist() == pytest.approx([1, 1 / np.log2(3), 1 / np.log2(11), 0, 0])


@pytest.mark.parametrize("seed", range(5))
def test_figures_agree_with_scikit_learn(seed: int) -> None:
    theirs = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(seed)
    scores = rng.random((50, 30))
    targets = rng.integers(30, size=50)
    ranks = (scores > scores[np.arange(50), targets][:, None]).sum(1)
    relevance = np.eye(30)[targets]
    ours = figures(ranks, 20)
    assert next(iter(ours)) == "HR@1", "the figure that counts most comes first"
    for k in (5, 10, 20):
        assert ours[f"NDCG@{k}"] == pytest.approx(theirs.ndcg_score(relevance, scores, k=k), abs=1e-9)
        hit = theirs.top_k_accuracy_score(targets, scores, k=k, labels=range(30))
        assert ours[f"HR@{k}"] == pytest.approx(hit, abs=1e-9)
        each = [theirs.label_ranking_average_precision_score(relevance[[i]], scores[[i]]) for i in range(50)]
        assert ours[f"MRR@{k}"] == pytest.approx(np.mean(np.where(ranks < k, each, 0)), abs=1e-9)


def test_calibration_agrees_with_scikit_learn_and_knows_true_probabilities() -> None:
    theirs = pytest.importorskip("sklearn.calibration")
    rng = np.random.default_rng(0)
    given = rng.random(4000)
    hits = rng.random(4000) < given
    found = calibration(given, hits)
    share, mean = theirs.calibration_curve(hits, given, n_bins=10, strategy="quantile")
    assert [one["hits"] for one in found["bins"]] == pytest.approx(share.tolist(), abs=1e-9)
    assert [one["probability"] for one in found["bins"]] == pytest.approx(mean.tolist(), abs=1e-9)
    assert found["ECE"] < 0.03 < 0.2 < calibration(given**3, hits)["ECE"]
    assert calibration([0.5, 0.5], [True, False], n_bins=1)["ECE"] == 0


def test_lists_are_judged_as_wholes() -> None:
    alike = np.array([[1.0, 1.0, 0.0], [1.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    assert coverage([[0, 1], [1, 0]], 4) == 0.5
    assert diversity([[0, 1]], alike.__getitem__) == pytest.approx(0)
    assert diversity([[0, 2], [0]], alike.__getitem__) == pytest.approx(1)
    taken = np.array([2, 0, 0])  # with one more for each: 3/5, 1/5, 1/5
    assert novelty([[0], [1]], taken) == pytest.approx((np.log2(5 / 3) + np.log2(5)) / 2)


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
