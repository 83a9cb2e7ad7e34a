"""A token trie in flat arrays: what may follow what, and how much weight lies below each branch.

Works on token ids and row numbers; knows nothing of items or text. Nodes are numbered breadth first, so the children of
a node are neighbours; leaves are numbered in sorted order, so the leaves below a node are neighbours too and any sum
over them is a difference of two prefix sums. Nothing in such a trie can move, so what is added later goes into a small
trie of its own, and a `LayeredTrie` is both as one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path

import numpy as np

_FEW = 16
"""Weights of one row in so many, or fewer, are added up by themselves; more are added up with all the zeros."""


@dataclass(frozen=True, kw_only=True)
class Trie:
    """A prefix-free set of token sequences. Node 0 is the root; each leaf is one sequence."""

    token: np.ndarray
    """Token on the edge into each node, -1 for the root. Shape ``(n_nodes,)``, int32."""
    parent: np.ndarray
    """Parent of each node, -1 for the root. Shape ``(n_nodes,)``, int32."""
    first: np.ndarray
    """Children of node v are the nodes ``first[v]`` to ``first[v + 1]``. Shape ``(n_nodes + 1,)``, int32."""
    low: np.ndarray
    """Leaves below node v are the leaves ``low[v]`` to ``high[v]``. Shape ``(n_nodes,)``, int32."""
    high: np.ndarray
    """See `low`."""
    row: np.ndarray
    """Which of the sequences given to `build` each leaf is. Shape ``(n_leaves,)``, int32."""

    @property
    def n_leaves(self) -> int:
        """Number of sequences."""
        return len(self.row)

    @property
    def n_nodes(self) -> int:
        """Number of nodes, the root included."""
        return len(self.token)

    def children(self, node: int) -> np.ndarray:
        """A node's children, ascending; none for a leaf. Integers."""
        return np.arange(self.first[node], self.first[node + 1])

    def only_child(self, node: int) -> int:
        """A node's child where it has just one, else -1."""
        first = int(self.first[node])
        return first if int(self.first[node + 1]) - first == 1 else -1

    def is_leaf(self, node: int) -> bool:
        """Whether a sequence ends at a node."""
        return bool(self.first[node] == self.first[node + 1])

    def parent_of(self, node: int) -> int:
        """The node above; -1 for the root."""
        return int(self.parent[node])

    def tokens(self, nodes: np.ndarray) -> np.ndarray:
        """Tokens on the edges into nodes, same shape, int32."""
        tokens: np.ndarray = self.token[nodes]
        return tokens

    def n_below(self, node: int) -> int:
        """How many leaves lie below a node; 1 for a leaf."""
        return int(self.high[node]) - int(self.low[node])

    def row_of(self, node: int) -> int:
        """The row of a leaf, or of one leaf below a node."""
        return int(self.row[self.low[node]])

    @cached_property
    def leaf(self) -> np.ndarray:
        """Which leaf each row is, the inverse of `row`. Shape ``(n_leaves,)``, int32."""
        leaf = np.empty(self.n_leaves, np.int32)
        leaf[self.row] = np.arange(self.n_leaves, dtype=np.int32)
        return leaf

    @cached_property
    def _order(self) -> np.ndarray:
        """`row` in the type that numpy gathers by: without it, every gather would convert a million numbers."""
        return np.asarray(self.row, np.intp)

    def path(self, row: int) -> list[int]:
        """Nodes from below the root down to a row's leaf."""
        nodes, node, leaf = [], 0, self.leaf[row]
        while (first := int(self.first[node])) < (last := int(self.first[node + 1])):
            node = first - 1 + int(np.searchsorted(self.low[first:last], leaf, side="right"))
            nodes.append(node)
        return nodes

    def below(self, weights: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
        """Add up per-row weights below nodes; one pass over the rows, then any node costs the same.

        Args:
            weights: A weight for each row, shape ``(n_leaves,)``; bool counts.

        Returns:
            A function from nodes to the sum over the leaves below each, same shape; int64 for bool weights, float64
            otherwise.
        """
        n = self.n_leaves
        n_with = int(np.count_nonzero(weights))
        if weights.dtype == np.bool_ and n - n_with <= n // _FEW:  # all but a few: count the few
            dead = np.sort(self.leaf[np.flatnonzero(~weights)])
            return lambda nodes: self._size(nodes) - self._between(dead, nodes)
        if n_with <= n // _FEW:
            rows = np.flatnonzero(weights)
            leaves = self.leaf[rows]
            if weights.dtype == np.bool_:
                live = np.sort(leaves)
                return lambda nodes: self._between(live, nodes)
            order = np.argsort(leaves)
            return self._sums(weights[rows[order]], leaves[order])
        return self._sums(weights.take(self._order))

    def _size(self, nodes: np.ndarray) -> np.ndarray:
        size: np.ndarray = self.high[nodes].astype(np.int64) - self.low[nodes]
        return size

    def _between(self, leaves: np.ndarray, nodes: np.ndarray) -> np.ndarray:
        """How many of some leaves, ascending, lie below each node."""
        n: np.ndarray = np.searchsorted(leaves, self.high[nodes]) - np.searchsorted(leaves, self.low[nodes])
        return n

    def _sums(self, weights: np.ndarray, leaves: np.ndarray | None = None) -> Callable[[np.ndarray], np.ndarray]:
        """Sums below nodes from the weights of some leaves, ascending; of all leaves when omitted."""
        dtype = np.int64 if weights.dtype == np.bool_ else np.float64
        sums = np.zeros(len(weights) + 1, dtype)
        np.cumsum(weights, out=sums[1:], dtype=dtype)
        if leaves is None:
            return lambda nodes: sums[self.high[nodes]] - sums[self.low[nodes]]
        return lambda nodes: (
            sums[np.searchsorted(leaves, self.high[nodes])] - sums[np.searchsorted(leaves, self.low[nodes])]
        )

    def save(self, folder: Path) -> None:
        """Write the arrays to `folder`, one ``.npy`` file each."""
        folder.mkdir(parents=True, exist_ok=True)
        for field in fields(self):
            np.save(folder / f"{field.name}.npy", getattr(self, field.name))

    @classmethod
    def load(cls, folder: Path) -> Trie:
        """Memory-map the arrays that `save` wrote; as plain arrays, of which a number is had ten times as fast."""
        return cls(**{f.name: np.asarray(np.load(folder / f"{f.name}.npy", mmap_mode="r")) for f in fields(cls)})


class PrefixClashError(ValueError):
    """Two sequences are equal, or one begins with the other.

    Args:
        rows: Rows that clash with an earlier one and would have to change.
    """

    def __init__(self, rows: np.ndarray) -> None:
        super().__init__(f"{len(rows)} token sequences are equal to another or a beginning of it")
        self.rows = rows


class LayeredTrie:
    """A trie with a small one laid over it, as one: what was added since, without building the whole again.

    Asked as a `Trie` is. The nodes of `base` keep their ids; those that only `over` has follow behind them. A node that
    both have stands under its id in `base` and has the children of both. Rows of `base` come first, then those of
    `over`. Making one costs what `over` has, whatever the size of `base`; neither is changed.

    Args:
        base: The large one.
        over: What was added.

    Raises:
        PrefixClashError: If a sequence of one is equal to one of the other, or a beginning of it; its rows are those of
            `over`.
    """

    def __init__(self, base: Trie, over: Trie) -> None:
        self.base, self.over = base, over
        self._n, self._n_rows = base.n_nodes, base.n_leaves
        twin = _twins(base, over)
        shared = np.flatnonzero(twin >= 0)
        ends = (base.first[twin[shared]] == base.first[twin[shared] + 1]) | (
            over.first[shared] == over.first[shared + 1]
        )
        if ends.any():
            leaves = [np.arange(over.low[node], over.high[node]) for node in shared[ends]]
            raise PrefixClashError(np.unique(over.row[np.concatenate(leaves)]))
        self._ids = np.where(twin >= 0, twin, np.arange(over.n_nodes) + self._n)  # of each node of `over`
        order = np.argsort(twin[shared])
        self._shared, self._shared_over = twin[shared][order], shared[order]  # ids in `base`, ascending, and in `over`
        self._over_of = dict(zip(self._shared.tolist(), self._shared_over.tolist(), strict=True))

    @property
    def n_leaves(self) -> int:
        """Number of sequences."""
        return self._n_rows + self.over.n_leaves

    @property
    def n_nodes(self) -> int:
        """Number of nodes, the root included; ids go beyond it."""
        return self._n + self.over.n_nodes - len(self._shared)

    def _in_over(self, node: int) -> int:
        """A node's id in `over`, -1 where it has none."""
        return self._over_of.get(node, -1) if node < self._n else node - self._n

    def children(self, node: int) -> np.ndarray:
        """A node's children, ascending; none for a leaf. Integers."""
        over = self._in_over(node)
        if over < 0:
            return self.base.children(node)
        added: np.ndarray = self._ids[self.over.first[over] : self.over.first[over + 1]]
        if node >= self._n:
            return added
        return np.concatenate([self.base.children(node), added[added >= self._n]])

    def only_child(self, node: int) -> int:
        """A node's child where it has just one, else -1."""
        if self._in_over(node) < 0:
            return self.base.only_child(node)
        children = self.children(node)
        return int(children[0]) if len(children) == 1 else -1

    def is_leaf(self, node: int) -> bool:
        """Whether a sequence ends at a node."""
        return self.base.is_leaf(node) if node < self._n else self.over.is_leaf(node - self._n)

    def parent_of(self, node: int) -> int:
        """The node above; -1 for the root."""
        return self.base.parent_of(node) if node < self._n else int(self._ids[self.over.parent[node - self._n]])

    def tokens(self, nodes: np.ndarray) -> np.ndarray:
        """Tokens on the edges into nodes, same shape, int32."""
        in_base = nodes < self._n
        return np.where(
            in_base,
            self.base.token[np.where(in_base, nodes, 0)],
            self.over.token[np.where(in_base, 0, nodes - self._n)],
        )

    def n_below(self, node: int) -> int:
        """How many leaves lie below a node; 1 for a leaf."""
        over = self._in_over(node)
        return (self.base.n_below(node) if node < self._n else 0) + (self.over.n_below(over) if over >= 0 else 0)

    def row_of(self, node: int) -> int:
        """The row of a leaf, or of one leaf below a node."""
        return self.base.row_of(node) if node < self._n else self._n_rows + self.over.row_of(node - self._n)

    def path(self, row: int) -> list[int]:
        """Nodes from below the root down to a row's leaf."""
        if row < self._n_rows:
            return self.base.path(row)
        path: list[int] = self._ids[self.over.path(row - self._n_rows)].tolist()
        return path

    def below(self, weights: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
        """Add up per-row weights below nodes; see `Trie.below`."""
        in_base, in_over = self.base.below(weights[: self._n_rows]), self.over.below(weights[self._n_rows :])

        def sums(nodes: np.ndarray) -> np.ndarray:
            nodes = np.asarray(nodes)
            place = np.searchsorted(self._shared, nodes)
            place[place == len(self._shared)] = 0
            is_shared, is_added = self._shared[place] == nodes, nodes >= self._n
            total = in_base(np.where(is_added, 0, nodes))
            total[is_added] = 0
            over = np.where(is_added, nodes - self._n, self._shared_over[place])
            either = is_shared | is_added
            total[either] += in_over(over[either])
            return total

        return sums


AnyTrie = Trie | LayeredTrie
"""What can be searched."""


def _twins(base: Trie, over: Trie) -> np.ndarray:
    """The node of `base` with the same path as each node of `over`, -1 where there is none. Shape ``(n_nodes,)``."""
    twin = np.full(over.n_nodes, -1, np.int64)
    twin[0] = 0
    start, end = 0, 1  # nodes of one level
    while (first := int(over.first[start])) < (last := int(over.first[end])):
        start, end = first, last
        nodes = np.arange(start, end)
        above = twin[over.parent[start:end]]
        nodes, above = nodes[above >= 0], above[above >= 0]
        if not len(nodes):
            break
        # Children of one node are ordered by token: look for each token by halving, all of them at once.
        token, low, high = over.token[nodes], base.first[above].astype(np.int64), base.first[above + 1].astype(np.int64)
        stop = high.copy()
        while (low < high).any():
            middle = (low + high) // 2
            is_right = (low < high) & (base.token[np.minimum(middle, base.n_nodes - 1)] < token)
            low, high = np.where(is_right, middle + 1, low), np.where(is_right, high, np.maximum(low, middle))
        found = (low < stop) & (base.token[np.minimum(low, base.n_nodes - 1)] == token)
        twin[nodes[found]] = low[found]
    return twin


def build(indptr: np.ndarray, tokens: np.ndarray) -> Trie:
    """Build the trie over token sequences, one level at a time.

    Args:
        indptr: Sequence i is ``tokens[indptr[i]:indptr[i + 1]]``. Shape ``(n + 1,)``.
        tokens: Token ids, all sequences end to end.

    Returns:
        The trie; its leaves' `row` are sequence numbers.

    Raises:
        PrefixClashError: If the set is not prefix-free.
        ValueError: If there is no sequence, or one is empty.
    """
    length = np.diff(indptr)
    n = len(length)
    if n == 0 or length.min() == 0:
        raise ValueError("a trie needs at least one sequence and no empty one")
    depth = int(length.max())

    # Sort the sequences: zero-padded big-endian rows compare as bytes like the sequences themselves.
    matrix = np.zeros((n, depth), dtype=">u4")
    inside = np.arange(depth) < length[:, None]
    matrix[inside] = tokens.astype(np.uint32) + 1
    row = np.argsort(matrix.view(f"V{4 * depth}").ravel(), kind="stable")
    matrix, length = matrix[row], length[row]

    # shared[i]: how many tokens leaf i has in common with the leaf before it.
    differs = matrix[1:] != matrix[:-1]
    shared = np.concatenate([[-1], np.where(differs.any(axis=1), differs.argmax(axis=1), depth)])
    clash = np.flatnonzero(shared[1:] >= length[:-1])
    if len(clash):
        raise PrefixClashError(np.maximum(row[clash], row[clash + 1]))

    token, parent, low, high = [np.array([-1])], [np.array([-1])], [np.array([0])], [np.array([n])]
    above = np.zeros(n, np.int64)  # node of each leaf's path at the level above
    n_nodes = 1
    for level in range(depth):
        starts = np.flatnonzero(shared <= level)  # where a leaf parts from its predecessor at or above this level
        ends = np.append(starts[1:], n)
        new = length[starts] > level
        starts, ends = starts[new], ends[new]
        token.append(matrix[starts, level].astype(np.int64) - 1)
        parent.append(above[starts])
        low.append(starts)
        high.append(ends)
        is_start = np.zeros(n, np.int64)
        is_start[starts] = 1
        above = n_nodes - 1 + np.cumsum(is_start)
        n_nodes += len(starts)

    def join(parts: list[np.ndarray]) -> np.ndarray:
        joined: np.ndarray = np.concatenate(parts).astype(np.int32)
        return joined

    parents = join(parent)
    n_children = np.bincount(parents[1:], minlength=n_nodes)
    first = np.concatenate([[1], 1 + np.cumsum(n_children)]).astype(np.int32)
    row = row.astype(np.int32)
    return Trie(token=join(token), parent=parents, first=first, low=join(low), high=join(high), row=row)
