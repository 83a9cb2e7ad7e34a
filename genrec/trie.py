"""A token trie in flat arrays: what may follow what, and how much weight lies below each branch.

Works on token ids and row numbers; knows nothing of items or text. Nodes are numbered breadth first, so the children of
a node are neighbours; leaves are numbered in sorted order, so the leaves below a node are neighbours too and any sum
over them is a difference of two prefix sums.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path

import numpy as np


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
        """A node's children, ascending; none for a leaf. Int64."""
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
        """Which leaf each row is, the inverse of `row`. Shape ``(n_leaves,)``, int64."""
        leaf = np.empty(self.n_leaves, np.int64)
        leaf[self.row] = np.arange(self.n_leaves)
        return leaf

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
        dtype = np.int64 if weights.dtype == np.bool_ else np.float64
        sums = np.zeros(self.n_leaves + 1, dtype)
        np.cumsum(weights[self.row], out=sums[1:], dtype=dtype)
        return lambda nodes: sums[self.high[nodes]] - sums[self.low[nodes]]

    def save(self, folder: Path) -> None:
        """Write the arrays to `folder`, one ``.npy`` file each."""
        folder.mkdir(parents=True, exist_ok=True)
        for field in fields(self):
            np.save(folder / f"{field.name}.npy", getattr(self, field.name))

    @classmethod
    def load(cls, folder: Path) -> Trie:
        """Memory-map the arrays that `save` wrote."""
        return cls(**{f.name: np.load(folder / f"{f.name}.npy", mmap_mode="r") for f in fields(cls)})


class PrefixClashError(ValueError):
    """Two sequences are equal, or one begins with the other.

    Args:
        rows: Rows that clash with an earlier one and would have to change.
    """

    def __init__(self, rows: np.ndarray) -> None:
        super().__init__(f"{len(rows)} token sequences are equal to another or a beginning of it")
        self.rows = rows


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
