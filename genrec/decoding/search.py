"""Exact top-K of a language model's distribution over a trie, by best-first search.

A branch's weight so far bounds every item below it, because going deeper only adds log-probabilities. So the branches
with the best bounds are opened, a few at a time, until k items beat every open one: the list is then the true top-K,
not a beam's guess. Both functions are generators that yield token trees and are sent log-probabilities (see
`genrec.engines.base`), so the same code runs on any engine, for one person or hundreds at once. Knows nothing of
engines, items or text.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from genrec.decoding.scoring import Scoring
from genrec.engines.base import Search, TokenTree
from genrec.trie import Trie

MAX_WIDTH = 256
"""Most branches opened in one round: what they cost in memory, an engine needs at once."""


@dataclass(frozen=True, kw_only=True)
class Ranking:
    """Items of a catalogue by what the model gives them, best first."""

    rows: np.ndarray
    """Catalogue rows, shape ``(k,)`` or fewer when fewer are live and have any weight, int64."""
    logprobs: np.ndarray
    """Their weights under the scoring, nats, same shape."""
    n_rounds: int
    """How often the engine was asked."""
    n_opened: int
    """Branches opened on the way."""


class _Weights:
    """The weight of a node's children, given the model's log-probabilities: scoring, prior and filter in one place."""

    def __init__(self, trie: Trie, scoring: Scoring, live: np.ndarray | None, log_mass: np.ndarray | None) -> None:
        self.trie, self.scoring = trie, scoring
        if scoring.name == "fused":
            if log_mass is None:
                raise ValueError("fused scoring needs log_mass")
            mass = np.exp(log_mass - log_mass.max())
            self.mass = trie.prefix_sums(mass if live is None else np.where(live, mass, 0.0))
        self.alive = None if live is None or live.all() else trie.prefix_sums(live)

    def live_children(self, node: int) -> np.ndarray:
        """Children that lead to an item that may be recommended."""
        first, last = self.trie.children(node)
        children = np.arange(first, last)
        if self.alive is None:
            return children
        live: np.ndarray = children[self.alive[self.trie.high[first:last]] > self.alive[self.trie.low[first:last]]]
        return live

    def considered(self, node: int) -> np.ndarray:
        """Children whose log-probability is needed: `masked` normalises over filtered items too."""
        return np.arange(*self.trie.children(node)) if self.scoring.name == "masked" else self.live_children(node)

    def of(self, children: np.ndarray, logprob: np.ndarray) -> np.ndarray:
        """Weights of `considered` children, nats."""
        if self.scoring.name == "fused":
            mass = self.mass[self.trie.high[children]] - self.mass[self.trie.low[children]]
            return self.scoring.weights(logprob, mass)
        return self.scoring.weights(logprob)


class _TreeBuilder:
    """Collects paths and children of trie nodes into one token tree in which shared beginnings stand once.

    A node's children are added as one block before any of them is used as the beginning of a path.
    """

    def __init__(self, trie: Trie) -> None:
        self.trie = trie
        self.place: dict[int, int] = {0: -1}  # trie node → position in the tree
        self.blocks: dict[int, tuple[np.ndarray, slice]] = {}  # trie node → its children and their positions
        self.parent: list[int] = []
        self.token: list[int] = []
        self.wanted: list[bool] = []

    def position(self, node: int) -> int:
        """Where a node stands, with the path to it, added if need be."""
        if node in self.place:
            return self.place[node]
        above = int(self.trie.parent[node])
        if above in self.blocks:
            children, where = self.blocks[above]
            return int(where.start + np.searchsorted(children, node))
        parent = self.position(above)
        self.place[node] = len(self.token)
        self.parent.append(parent)
        self.token.append(int(self.trie.token[node]))
        self.wanted.append(False)
        return self.place[node]

    def want(self, node: int) -> int:
        """Ask for one node; returns its position."""
        position = self.position(node)
        self.wanted[position] = True
        return position

    def want_children(self, node: int, children: np.ndarray) -> slice:
        """Ask for children of one node; returns their positions."""
        if node not in self.blocks:
            parent, start = self.position(node), len(self.token)
            self.parent += [parent] * len(children)
            self.token += self.trie.token[children].tolist()
            self.wanted += [True] * len(children)
            self.blocks[node] = children, slice(start, start + len(children))
        return self.blocks[node][1]

    def tree(self) -> TokenTree:
        """What was collected."""
        return TokenTree(
            parent=np.array(self.parent, np.int32), token=np.array(self.token, np.int32), wanted=np.array(self.wanted)
        )


def search(
    trie: Trie,
    *,
    k: int,
    scoring: Scoring,
    live: np.ndarray | None = None,
    log_mass: np.ndarray | None = None,
    width: int = 8,
) -> Search[Ranking]:
    """Find the k items of highest weight, exactly.

    Args:
        trie: Over the items' token sequences.
        k: How many items to find.
        scoring: What a step is worth.
        live: Which rows may be recommended, shape ``(n_leaves,)``, bool; all when omitted. Filtered items are never
            found; `joint` and `masked` weights of the others do not change, in `fused` a filtered item has no mass.
        log_mass: The prior's log-probability of each row, nats, shape ``(n_leaves,)``; for `fused`.
        width: How many branches to open in the first round; every round opens twice as many as the one before, up to
            `MAX_WIDTH`, so a model without preferences costs few rounds too. Never changes the result.

    Returns:
        A generator that yields token trees, is sent log-probabilities and returns a `Ranking`; equal weights are
        ordered by row.
    """
    weights = _Weights(trie, scoring, live, log_mass)
    found: list[tuple[float, int]] = []  # (weight, -row) of complete items, a heap of the best k
    frontier: list[tuple[float, int]] = []  # (-weight, node) of open branches
    n_rounds = n_opened = 0

    def close(weight: float, leaf: int) -> None:
        """A complete item: keep it if it is possible at all and among the best k so far."""
        if weight == -np.inf:
            return
        entry = (weight, -int(trie.row[trie.low[leaf]]))
        if len(found) < k:
            heapq.heappush(found, entry)
        else:
            heapq.heappushpop(found, entry)

    def reach(weight: float, node: int) -> None:
        """A branch with a known weight: complete, open, or hopeless."""
        if scoring.normalised:
            node = _skip_certain(weights, node)
        if trie.first[node] == trie.first[node + 1]:
            close(weight, node)
        elif weight > -np.inf and (len(found) < k or weight >= found[0][0]):
            heapq.heappush(frontier, (-weight, node))

    if k > 0 and len(weights.live_children(0)):
        reach(0.0, 0)
    while frontier:
        builder = _TreeBuilder(trie)
        opened: list[tuple[float, list[int], int, np.ndarray, slice]] = []
        while frontier and len(opened) < width and (len(found) < k or -frontier[0][0] >= found[0][0]):
            negative, node = heapq.heappop(frontier)
            chain: list[int] = []
            children = weights.considered(node)
            # Raw log-probabilities charge for forced tokens too: follow them to the next real choice in the same round.
            while not scoring.normalised and trie.first[node + 1] - trie.first[node] == 1:
                child = int(children[0])
                chain.append(builder.want(child))
                node, children = child, weights.considered(child)
            opened.append((-negative, chain, node, children, builder.want_children(node, children)))
        if not opened:
            break
        logprob = yield builder.tree()
        n_rounds += 1
        n_opened += len(opened)
        width = min(2 * width, MAX_WIDTH)
        for weight, chain, node, children, where in opened:
            weight += float(logprob[chain].sum())
            if not len(children):
                close(weight, node)
                continue
            steps = weights.of(children, logprob[where])
            for child, step in _live_only(weights, node, children, steps):
                reach(weight + step, child)
    ranked = sorted(found, key=lambda entry: (-entry[0], -entry[1]))
    return Ranking(
        rows=np.array([-row for _, row in ranked], np.int64),
        logprobs=np.array([weight for weight, _ in ranked], np.float64),
        n_rounds=n_rounds,
        n_opened=n_opened,
    )


def _skip_certain(weights: _Weights, node: int) -> int:
    """Follow lone children: a normalised weight gives them all there is."""
    while len(children := weights.considered(node)) == 1:
        node = int(children[0])
    return node


def _live_only(weights: _Weights, node: int, children: np.ndarray, steps: np.ndarray) -> Iterator[tuple[int, float]]:
    """The children that lead to live items, best first, so that the worst are seen to be hopeless at once."""
    if len(live := weights.live_children(node)) < len(children):
        children, steps = live, steps[np.searchsorted(children, live)]
    order = np.argsort(-steps, kind="stable")
    yield from zip(children[order].tolist(), steps[order].tolist(), strict=True)


def score(
    trie: Trie,
    rows: Sequence[int],
    *,
    scoring: Scoring,
    live: np.ndarray | None = None,
    log_mass: np.ndarray | None = None,
) -> Search[np.ndarray]:
    """Weigh a given shortlist: the same numbers that `search` would give these items, in one round.

    Args:
        trie: Over the items' token sequences.
        rows: The candidates, rows of the catalogue.
        scoring: What a step is worth.
        live: As for `search`; a filtered candidate weighs ``-inf``.
        log_mass: As for `search`.

    Returns:
        A generator that yields one token tree, is sent its log-probabilities and returns weights in nats, shape
        ``(len(rows),)``, float64.
    """
    weights = _Weights(trie, scoring, live, log_mass)
    builder = _TreeBuilder(trie)
    steps: list[list[tuple[int, int]]] = []  # of each candidate: (node, child) pairs that cost something
    for row in rows:
        path = trie.path(row) if live is None or live[row] else []
        steps.append([])
        for node, child in zip([0, *path], path, strict=False):
            children = weights.considered(node)
            if scoring.normalised and len(children) == 1:
                continue
            if scoring.normalised:
                builder.want_children(node, children)
            else:
                builder.want(child)
            steps[-1].append((node, child))
    logprob = (yield builder.tree()) if builder.token else np.empty(0)
    if scoring.normalised:
        value = {
            node: dict(zip(children.tolist(), weights.of(children, logprob[where]).tolist(), strict=True))
            for node, (children, where) in builder.blocks.items()
        }
        totals = [sum(value[node][child] for node, child in pairs) for pairs in steps]
    else:
        totals = [sum(float(logprob[builder.place[child]]) for _, child in pairs) for pairs in steps]
    result = np.array(totals, np.float64)
    if live is not None:
        result[~live[np.asarray(rows, np.int64)]] = -np.inf
    return result
