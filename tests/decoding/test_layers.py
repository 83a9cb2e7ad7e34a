"""The search over a trie with a layer of newcomers, against the search over one trie of everything."""

from __future__ import annotations

from typing import cast

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from genrec.decoding.scoring import Scoring
from genrec.decoding.search import score, search
from genrec.trie import LayeredTrie, Trie
from tests.decoding.test_search import DiceModel, catalogues, scorings, trie_of


@settings(max_examples=200)
@given(
    catalogues.filter(lambda sequences: len(sequences) > 1),
    scorings,
    st.integers(0, 2**16),
    st.integers(1, 12),
    st.data(),
)
def test_newcomers_in_a_layer_rank_as_if_they_had_always_been_there(
    sequences: list[tuple[int, ...]], scoring: Scoring, seed: int, k: int, data: st.DataObject
) -> None:
    n = len(sequences)
    n_base = data.draw(st.integers(1, n - 1))
    live = np.array(data.draw(st.lists(st.booleans(), min_size=n, max_size=n))) if data.draw(st.booleans()) else None
    log_mass = np.random.default_rng(seed).normal(size=n) * 3
    log_mass -= np.log(np.exp(log_mass).sum())
    options = {"scoring": scoring, "live": live, "log_mass": None if scoring.name == "joint" else log_mass}
    whole = trie_of(sequences)
    layered = cast(Trie, LayeredTrie(trie_of(sequences[:n_base]), trie_of(sequences[n_base:])))
    model = DiceModel(seed)
    expected = model.run(search(whole, k=k, **options))  # type: ignore[arg-type]
    ranking = model.run(search(layered, k=k, **options))  # type: ignore[arg-type]
    np.testing.assert_allclose(ranking.logprobs, expected.logprobs, atol=1e-9)
    truth = model.run(score(whole, range(n), **options))  # type: ignore[arg-type]
    np.testing.assert_allclose(truth[ranking.rows], ranking.logprobs, atol=1e-9)
    np.testing.assert_allclose(model.run(score(layered, range(n), **options)), truth, atol=1e-9)  # type: ignore[arg-type]
