"""The trie in arrays against a trie in dictionaries."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from genrec.trie import PrefixClashError, Trie, build

END = 0


def flat(sequences: Sequence[Sequence[int]]) -> tuple[np.ndarray, np.ndarray]:
    indptr = np.concatenate([[0], np.cumsum([len(s) for s in sequences])])
    return indptr, np.array([t for s in sequences for t in s])


prefix_free = st.lists(
    st.lists(st.integers(1, 5), max_size=6).map(lambda body: (*body, END)), min_size=1, max_size=60, unique=True
)


@given(prefix_free)
def test_paths_spell_the_sequences(sequences: list[tuple[int, ...]]) -> None:
    trie = build(*flat(sequences))
    assert trie.n_leaves == len(sequences)
    assert trie.n_nodes == 1 + len({s[:depth] for s in sequences for depth in range(1, len(s) + 1)})
    for row, sequence in enumerate(sequences):
        path = trie.path(row)
        assert tuple(trie.token[path].tolist()) == sequence
        assert [int(trie.parent[node]) for node in path] == [0, *path[:-1]]


@given(prefix_free)
def test_children_follow_in_order_and_leaves_below_are_neighbours(sequences: list[tuple[int, ...]]) -> None:
    trie = build(*flat(sequences))
    prefix = {0: ()}
    for node in range(trie.n_nodes):
        below = {s for s in sequences if s[: len(prefix[node])] == prefix[node]}
        assert {sequences[row] for row in trie.row[trie.low[node] : trie.high[node]]} == below
        children = trie.children(node)
        tokens = trie.tokens(children).tolist()
        assert all(trie.parent_of(child) == node for child in children.tolist())
        assert trie.n_below(node) == len(below)
        assert sequences[trie.row_of(node)] in below
        assert trie.is_leaf(node) == (len(children) == 0)
        assert trie.only_child(node) == (children[0] if len(children) == 1 else -1)
        assert tokens == sorted({s[len(prefix[node])] for s in below if len(s) > len(prefix[node])})
        prefix |= {child: (*prefix[node], token) for child, token in zip(children.tolist(), tokens, strict=True)}


@given(prefix_free, st.integers(0, 2**16))
def test_mass_below_a_node_is_a_difference_of_prefix_sums(sequences: list[tuple[int, ...]], seed: int) -> None:
    trie = build(*flat(sequences))
    weights = np.random.default_rng(seed).random(len(sequences))
    for values in (weights, weights > 0.5):
        sums = trie.below(values)(np.arange(trie.n_nodes))
        for node in range(trie.n_nodes):
            below = trie.row[trie.low[node] : trie.high[node]]
            assert sums[node] == pytest.approx(values[below].sum(), abs=1e-12)


@pytest.mark.parametrize(
    ("sequences", "rows"),
    [
        ([(1, 2), (3,), (1, 2)], [2]),  # equal
        ([(1, 2, 3), (1, 2)], [1]),  # one begins with the other
        ([(1,), (1, 2), (4,)], [1]),
    ],
)
def test_sequences_that_cannot_be_told_apart_are_refused(sequences: list[tuple[int, ...]], rows: list[int]) -> None:
    with pytest.raises(PrefixClashError) as caught:
        build(*flat(sequences))
    assert caught.value.rows.tolist() == rows


@pytest.mark.parametrize("sequences", [[], [(1,), ()]])
def test_nothing_to_build_from_is_refused(sequences: list[tuple[int, ...]]) -> None:
    with pytest.raises(ValueError, match="at least one sequence"):
        build(*flat(sequences))


def test_saved_and_mapped_it_is_the_same(tmp_path: Path) -> None:
    trie = build(*flat([(1, 2, END), (1, 3, END), (4, END)]))
    trie.save(tmp_path / "trie")
    loaded = Trie.load(tmp_path / "trie")
    assert isinstance(loaded.token, np.memmap)
    for name, array in vars(trie).items():
        np.testing.assert_array_equal(getattr(loaded, name), array)
        assert getattr(loaded, name).dtype == np.int32
