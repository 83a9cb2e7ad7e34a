"""The search against brute force: random tries, random models, every scoring and filter."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genrec.decoding.scoring import FLOOR, Scoring
from genrec.decoding.search import Limits, Ranking, place, score, search
from genrec.engines.base import Search, T, TokenTree
from genrec.errors import ConfigError, EngineError
from genrec.trie import Trie, build

N_VOCAB = 7
END = 0


class DiceModel:
    """A language model whose distribution after a path is drawn by a die seeded with that path."""

    def __init__(self, seed: int, sharpness: float = 2.0) -> None:  # above 6 or so, log-probabilities fall below FLOOR
        self.seed, self.sharpness = seed, sharpness
        self.n_rounds = 0

    def after(self, path: Sequence[int]) -> np.ndarray:
        logits = self.sharpness * np.random.default_rng([self.seed, *path]).normal(size=N_VOCAB)
        return logits - np.log(np.exp(logits).sum())

    def evaluate(self, tree: TokenTree) -> np.ndarray:
        """Log-probability of each wanted node; NaN elsewhere, so that nobody can lean on it."""
        paths: list[list[int]] = []
        values = np.full(len(tree), np.nan)
        siblings = set(zip(tree.parent.tolist(), tree.token.tolist(), strict=True))
        assert len(siblings) == len(tree), "siblings differ"
        for i, (parent, token) in enumerate(zip(tree.parent.tolist(), tree.token.tolist(), strict=True)):
            assert parent < i
            above = paths[parent] if parent >= 0 else []
            paths.append([*above, token])
            if tree.wanted[i]:
                values[i] = self.after(above)[token]
        return values

    def run(self, search: Search[T]) -> T:
        try:
            tree = next(search)
            while True:
                self.n_rounds += 1
                tree = search.send(self.evaluate(tree))
        except StopIteration as stop:
            result: T = stop.value
            return result


def trie_of(sequences: Sequence[Sequence[int]]) -> Trie:
    indptr = np.concatenate([[0], np.cumsum([len(s) for s in sequences])])
    return build(indptr, np.array([t for s in sequences for t in s]))


def brute_force(
    model: DiceModel,
    sequences: Sequence[Sequence[int]],
    scoring: Scoring,
    live: np.ndarray,
    log_mass: np.ndarray | None = None,
) -> np.ndarray:
    """Weight of every sequence, straight from the definitions, without a trie."""
    totals = np.full(len(sequences), -np.inf)
    for row, sequence in enumerate(sequences):
        if not live[row]:
            continue
        total = 0.0
        for depth, token in enumerate(sequence):
            prefix = tuple(sequence[:depth])
            logprob = model.after(prefix)
            siblings = {}
            for other, s in enumerate(sequences):
                if tuple(s[:depth]) == prefix:
                    mass = np.exp(log_mass[other]) if log_mass is not None and live[other] else 0.0
                    siblings[s[depth]] = siblings.get(s[depth], 0.0) + mass
            tokens = list(siblings)
            if scoring.name == "joint":
                total += logprob[token]
            else:
                logits = np.array([logprob[t] for t in tokens])
                if scoring.name == "fused":
                    masses = np.array([siblings[t] for t in tokens])
                    with np.errstate(divide="ignore", invalid="ignore"):
                        fused = scoring.gamma * np.maximum(logits, FLOOR) + scoring.beta * np.log(masses)
                    logits = np.where(masses > 0, fused, -np.inf)
                weights = logits - np.log(np.exp(logits).sum())
                total += weights[tokens.index(token)]
        totals[row] = total
    return totals


catalogues = st.lists(
    st.lists(st.integers(1, N_VOCAB - 1), max_size=5).map(lambda body: (*body, END)),
    min_size=1,
    max_size=40,
    unique=True,
)
scorings = st.sampled_from(
    [
        Scoring(name="joint"),
        Scoring(name="masked"),
        Scoring(name="fused", gamma=0.7, beta=1.2),
        Scoring(name="fused", gamma=0.05),
        Scoring(name="fused", gamma=0.0),
        Scoring(name="fused", beta=0.0),
    ]
)


@settings(max_examples=300)
@given(catalogues, scorings, st.integers(0, 2**16), st.integers(1, 12), st.integers(1, 20), st.data())
def test_search_and_score_equal_brute_force(
    sequences: list[tuple[int, ...]], scoring: Scoring, seed: int, k: int, width: int, data: st.DataObject
) -> None:
    n = len(sequences)
    live = np.array(data.draw(st.lists(st.booleans(), min_size=n, max_size=n)))
    log_mass = np.random.default_rng(seed).normal(size=n) * 3
    log_mass -= np.log(np.exp(log_mass).sum())
    model, trie = DiceModel(seed, sharpness=2.0 + 10.0 * (seed % 2)), trie_of(sequences)
    options = {"scoring": scoring, "live": live, "log_mass": log_mass if scoring.name == "fused" else None}
    truth = brute_force(model, sequences, scoring, live, options["log_mass"])

    ranking: Ranking = model.run(search(trie, k=k, width=width, **options))
    order = sorted(np.flatnonzero(live), key=lambda row: (-truth[row], row))[:k]
    np.testing.assert_allclose(ranking.logprobs, truth[order], atol=1e-9)
    assert set(ranking.rows.tolist()) <= set(np.flatnonzero(live).tolist())
    np.testing.assert_allclose(truth[ranking.rows], ranking.logprobs, atol=1e-9)
    assert len(set(ranking.rows.tolist())) == len(order)

    options["log_mass"] = log_mass if scoring.normalised else None  # `masked` guesses with it
    for row in range(n):
        found = ranking.rows.tolist().index(row) if row in ranking.rows else k
        assert model.run(place(trie, row, within=k, width=width, **options)) == found

    rows = data.draw(st.lists(st.integers(0, n - 1), min_size=1, max_size=8))
    np.testing.assert_allclose(model.run(score(trie, rows, **options)), truth[rows], atol=1e-9)


@pytest.mark.parametrize("name", ["masked", "fused"])
def test_normalised_weights_of_all_items_sum_to_one(name: str) -> None:
    sequences = [(1, 2, END), (1, 3, END), (1, 3, 4, END), (2, END), (5, 5, 5, END)]
    log_mass = np.log([0.1, 0.2, 0.3, 0.15, 0.25])
    ranking = DiceModel(3).run(
        search(trie_of(sequences), k=9, scoring=Scoring(name=name), log_mass=log_mass)  # type: ignore[arg-type]
    )
    assert len(ranking.rows) == 5
    assert np.exp(ranking.logprobs).sum() == pytest.approx(1.0)


def test_fused_without_the_language_model_is_the_prior() -> None:
    sequences = [(1, 2, END), (1, 3, END), (1, 3, 4, END), (2, END), (5, 5, 5, END)]
    log_mass = np.log([0.1, 0.2, 0.3, 0.15, 0.25])
    ranking = DiceModel(3).run(
        search(trie_of(sequences), k=5, scoring=Scoring(name="fused", gamma=0.0), log_mass=log_mass)
    )
    assert ranking.rows.tolist() == [2, 4, 1, 3, 0]
    np.testing.assert_allclose(np.exp(ranking.logprobs), [0.3, 0.25, 0.2, 0.15, 0.1])


def test_what_has_no_weight_is_not_found() -> None:
    sequences = [(1, 2, END), (1, 3, END), (1, 3, 4, END), (2, END), (5, 5, 5, END)]
    with np.errstate(divide="ignore"):
        log_mass = np.log([0.0, 0.0, 0.4, 0.0, 0.6])
    trie, scoring = trie_of(sequences), Scoring(name="fused", gamma=0.3)
    ranking = DiceModel(3).run(search(trie, k=5, scoring=scoring, log_mass=log_mass))
    assert sorted(ranking.rows.tolist()) == [2, 4]
    assert np.exp(ranking.logprobs).sum() == pytest.approx(1.0)
    weights = DiceModel(3).run(score(trie, range(5), scoring=scoring, log_mass=log_mass))
    assert np.isneginf(weights[[0, 1, 3]]).all()


def test_equal_weights_are_ordered_by_row() -> None:
    class Flat(DiceModel):
        def after(self, path: Sequence[int]) -> np.ndarray:
            return np.full(N_VOCAB, -np.log(N_VOCAB))

    sequences = [(i, END) for i in range(1, 7)]
    for width in (1, 3, 16):
        ranking = Flat(0).run(search(trie_of(sequences), k=3, scoring=Scoring(), width=width))
        assert ranking.rows.tolist() == [0, 1, 2]


def test_a_confident_model_is_asked_little() -> None:
    sequences = sorted({(a, b, c, END) for a in range(1, 7) for b in range(1, 7) for c in range(1, 7)})
    model = DiceModel(1, sharpness=8.0)
    ranking = model.run(search(trie_of(sequences), k=1, scoring=Scoring(), width=1))
    assert len(sequences) == 216
    assert ranking.n_opened < 40  # of 259 branches
    assert ranking.rows[0] == brute_force(model, sequences, Scoring(), np.ones(216, bool)).argmax()


def test_no_round_opens_more_than_the_most(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("genrec.decoding.search.MAX_WIDTH", 20)
    sequences = [(a, b, c, d, END) for a in range(1, 7) for b in range(1, 7) for c in range(1, 7) for d in range(1, 7)]
    n_opened: list[int] = []

    class Watching(DiceModel):
        def evaluate(self, tree: TokenTree) -> np.ndarray:
            n_opened.append(len(set(tree.parent[tree.wanted].tolist())))
            return super().evaluate(tree)

    scoring = Scoring(name="masked")
    ranking = Watching(0, sharpness=0.01).run(search(trie_of(sequences), k=len(sequences), scoring=scoring))
    assert len(ranking.rows) == len(sequences) == 6**4
    assert max(n_opened) == 20
    assert sum(n_opened) == ranking.n_opened == 1 + 6 + 36 + 216


def test_nothing_live_or_nothing_wanted_asks_nothing() -> None:
    trie = trie_of([(1, END), (2, END)])
    for k, live in ((3, np.zeros(2, bool)), (0, np.ones(2, bool))):
        model = DiceModel(0)
        assert model.run(search(trie, k=k, scoring=Scoring(), live=live)).rows.tolist() == []
        assert model.n_rounds == 0


def test_the_only_item_is_certain_under_a_normalised_scoring() -> None:
    trie = trie_of([(1, 2, END)])
    ranking = DiceModel(0).run(search(trie, k=3, scoring=Scoring(name="masked")))
    assert (ranking.rows.tolist(), ranking.logprobs.tolist(), ranking.n_rounds) == ([0], [0.0], 0)


def test_filters_do_not_renormalise_joint_and_masked() -> None:
    sequences = [(1, 2, END), (1, 3, END), (2, END)]
    live = np.array([True, False, True])
    for name in ("joint", "masked"):
        scoring = Scoring(name=name)  # type: ignore[arg-type]
        whole = DiceModel(5).run(search(trie_of(sequences), k=3, scoring=scoring))
        filtered = DiceModel(5).run(search(trie_of(sequences), k=3, scoring=scoring, live=live))
        before = dict(zip(whole.rows.tolist(), whole.logprobs.tolist(), strict=True))
        after = dict(zip(filtered.rows.tolist(), filtered.logprobs.tolist(), strict=True))
        assert after == pytest.approx({row: before[row] for row in (0, 2)})


def test_unknown_scoring_is_refused() -> None:
    with pytest.raises(ConfigError, match="no scoring 'best'"):
        Scoring(name="best")  # type: ignore[arg-type]


def test_trees_share_beginnings() -> None:
    sequences = [(1, 2, 3, 4, END), (1, 2, 3, 5, END), (1, 2, 6, END), (1, 2, 6, 6, END)]
    seen: list[TokenTree] = []

    class Watching(DiceModel):
        def evaluate(self, tree: TokenTree) -> np.ndarray:
            seen.append(tree)
            return super().evaluate(tree)

    Watching(0).run(search(trie_of(sequences), k=4, scoring=Scoring()))
    assert next(len(tree) for tree in seen) == 4  # 1, 2 and the choice between 3 and 6


@settings(max_examples=200)
@given(
    catalogues,
    scorings,
    st.integers(0, 2**16),
    st.integers(1, 6),
    st.one_of(st.none(), st.integers(1, 12)),
    st.one_of(st.none(), st.integers(1, 3)),
)
def test_a_limited_search_says_how_far_it_may_be_off(
    sequences: list[tuple[int, ...]],
    scoring: Scoring,
    seed: int,
    k: int,
    max_expansions: int | None,
    beam_width: int | None,
) -> None:
    model, trie = DiceModel(seed), trie_of(sequences)
    log_mass = np.log(np.random.default_rng(seed).dirichlet(np.ones(len(sequences))))
    prior = log_mass if scoring.normalised else None
    truth = brute_force(model, sequences, scoring, np.ones(len(sequences), bool), log_mass)
    best = np.sort(truth)[::-1][:k]
    limits = Limits(max_expansions=max_expansions, beam_width=beam_width)
    ranking = model.run(search(trie, k=k, scoring=scoring, log_mass=prior, limits=limits))
    np.testing.assert_allclose(truth[ranking.rows], ranking.logprobs, atol=1e-9)
    assert max_expansions is None or ranking.n_opened <= max_expansions
    if ranking.is_exact:
        np.testing.assert_allclose(ranking.logprobs, best, atol=1e-9)
    elif np.isfinite(ranking.gap):
        missed = [weight for row, weight in enumerate(truth) if row not in ranking.rows]
        assert max(missed) <= ranking.logprobs[-1] + ranking.gap + 1e-9
    else:
        assert len(ranking.rows) < k


def test_a_guess_that_is_right_needs_one_round() -> None:
    class Indifferent(DiceModel):
        """Prefers nothing, so that the prior alone decides."""

        def after(self, path: Sequence[int]) -> np.ndarray:
            return np.full(N_VOCAB, -np.log(N_VOCAB))

    rng = np.random.default_rng(0)
    sequences = sorted({(*rng.integers(1, N_VOCAB, 4).tolist(), END) for _ in range(300)})
    log_mass = np.log(rng.dirichlet(np.full(len(sequences), 0.1)) + 1e-9)
    model = Indifferent(0)
    ranking = model.run(search(trie_of(sequences), k=5, scoring=Scoring(name="fused"), log_mass=log_mass))
    assert model.n_rounds == ranking.n_rounds == 1
    assert ranking.rows.tolist() == np.argsort(-log_mass)[:5].tolist()


def test_placing_an_item_opens_less_than_a_list() -> None:
    class Counting(DiceModel):
        n_asked = 0

        def evaluate(self, tree: TokenTree) -> np.ndarray:
            self.n_asked += int(tree.wanted.sum())
            return super().evaluate(tree)

    rng = np.random.default_rng(1)
    sequences = sorted({(*rng.integers(1, N_VOCAB, 5).tolist(), END) for _ in range(2000)})
    options = {"scoring": Scoring(name="masked"), "log_mass": np.full(len(sequences), -np.log(len(sequences)))}
    listing, trie = Counting(0), trie_of(sequences)
    listing.run(search(trie, k=10, **options))
    for row in range(0, len(sequences), 100):
        placing = Counting(0)
        placing.run(place(trie, row, within=10, **options))
        assert placing.n_asked < listing.n_asked


def test_a_branch_whose_items_are_all_out_of_reach_stays_closed() -> None:
    popular = [(1, END), (2, END), (3, END)]
    crowd = [(4, a, b, END) for a in range(1, 7) for b in range(1, 7)]
    log_mass = np.log([0.2, 0.2, 0.1, *[0.5 / 36] * 36])  # together the crowd has half of everything
    model, trie = DiceModel(1), trie_of([*popular, *crowd])
    ranking = model.run(search(trie, k=3, scoring=Scoring(name="fused"), log_mass=log_mass, margin=1.0))
    assert sorted(ranking.rows.tolist()) == [0, 1, 2]
    assert ranking.n_opened == 1  # the root alone
    assert ranking.is_exact


def test_what_is_no_number_is_no_answer() -> None:
    class Broken(DiceModel):
        def after(self, path: Sequence[int]) -> np.ndarray:
            values = super().after(path)
            values[2] = np.nan
            return values

    trie = trie_of([(a, b, END) for a in range(1, 5) for b in range(1, 5)])
    for scoring in ("joint", "masked"):
        with pytest.raises(EngineError, match="no numbers"):
            Broken(1).run(search(trie, k=5, scoring=Scoring(name=scoring)))  # type: ignore[arg-type]
        with pytest.raises(EngineError, match="no numbers"):
            Broken(1).run(score(trie, range(16), scoring=Scoring(name=scoring)))  # type: ignore[arg-type]


def test_a_sharp_prior_loses_no_item() -> None:
    trie = trie_of([(a, b, END) for a in range(1, 5) for b in range(1, 6)])
    log_mass = np.full(20, -60.0)
    log_mass[7] = 0.0
    ranking = DiceModel(1).run(search(trie, k=20, scoring=Scoring(name="fused"), log_mass=log_mass))
    assert len(ranking.rows) == 20
    assert ranking.rows[0] == 7
