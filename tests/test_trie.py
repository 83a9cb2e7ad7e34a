"""The trie in arrays against a trie in dictionaries."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from genrec.trie import AnyTrie, LayeredTrie, PrefixClashError, Trie, build

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
    rng = np.random.default_rng(seed)
    weights = rng.random(len(sequences))
    one = np.arange(len(sequences)) == rng.integers(len(sequences))
    for values in (weights, weights > 0.5, weights > 2, weights < 2, one, ~one, weights * one):
        sums = trie.below(values)(np.arange(trie.n_nodes))
        for node in range(trie.n_nodes):
            below = trie.row[trie.low[node] : trie.high[node]]
            assert sums[node] == pytest.approx(values[below].sum(), abs=1e-12)


def test_few_weights_among_many_are_added_up_by_themselves() -> None:
    sequences = [(a, b, c, END) for a in range(1, 9) for b in range(1, 9) for c in range(1, 9)]
    trie = build(*flat(sequences))
    rng = np.random.default_rng(0)
    some = np.zeros(len(sequences), bool)
    some[rng.integers(0, len(sequences), 9)] = True
    nodes = np.arange(trie.n_nodes)
    for values in (some, ~some, np.where(some, rng.random(len(sequences)), 0.0)):
        truth = [values[trie.row[trie.low[node] : trie.high[node]]].sum() for node in nodes]
        sums = trie.below(values)(nodes)
        np.testing.assert_allclose(sums, truth, atol=1e-12)
        assert sums.dtype == (np.int64 if values.dtype == bool else np.float64)


def walk(trie: AnyTrie, node: int = 0, path: tuple[int, ...] = ()) -> dict[tuple[int, ...], int]:
    """Every node by its path."""
    found = {path: node}
    children = trie.children(node)
    assert (np.diff(children) > 0).all()
    for child, token in zip(children.tolist(), trie.tokens(children).tolist(), strict=True):
        assert trie.parent_of(child) == node
        found |= walk(trie, child, (*path, token))
    return found


@given(prefix_free.filter(lambda sequences: len(sequences) > 1), st.data())
def test_two_layers_are_one_trie_of_everything(sequences: list[tuple[int, ...]], data: st.DataObject) -> None:
    n_base = data.draw(st.integers(1, len(sequences) - 1))
    whole = build(*flat(sequences))
    layered = LayeredTrie(build(*flat(sequences[:n_base])), build(*flat(sequences[n_base:])))
    assert (layered.n_leaves, layered.n_nodes) == (whole.n_leaves, whole.n_nodes)
    nodes, truth = walk(layered), walk(whole)
    assert nodes.keys() == truth.keys()
    assert len(set(nodes.values())) == len(nodes)
    weights = np.random.default_rng(n_base).random(len(sequences))
    for values in (weights, weights > 0.5):
        theirs = layered.below(values)(np.array(list(nodes.values())))
        np.testing.assert_allclose(theirs, whole.below(values)(np.array([truth[path] for path in nodes])), atol=1e-12)
    for path, node in nodes.items():
        there = truth[path]
        assert layered.is_leaf(node) == whole.is_leaf(there)
        assert layered.n_below(node) == whole.n_below(there)
        assert sequences[layered.row_of(node)][: len(path)] == path
        assert (layered.only_child(node) < 0) == (whole.only_child(there) < 0)
        if layered.only_child(node) >= 0:
            assert layered.children(node).tolist() == [layered.only_child(node)]
    for row, sequence in enumerate(sequences):
        assert layered.path(row) == [nodes[sequence[: depth + 1]] for depth in range(len(sequence))]


@pytest.mark.parametrize(
    ("base", "over", "rows"),
    [
        ([(1, 2), (3,)], [(4,), (1, 2)], [1]),  # equal
        ([(1, 2, 3)], [(1, 2), (5,)], [0]),  # a beginning of one in the base
        ([(1,), (4,)], [(1, 2), (1, 3, 4), (5,)], [0, 1]),  # the base has a beginning of two
    ],
)
def test_what_clashes_with_the_base_is_the_newcomer(
    base: list[tuple[int, ...]], over: list[tuple[int, ...]], rows: list[int]
) -> None:
    with pytest.raises(PrefixClashError) as caught:
        LayeredTrie(build(*flat(base)), build(*flat(over)))
    assert caught.value.rows.tolist() == rows


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
    assert isinstance(loaded.token.base, np.memmap)
    for name, array in vars(trie).items():
        np.testing.assert_array_equal(getattr(loaded, name), array)
        assert getattr(loaded, name).dtype == np.int32
