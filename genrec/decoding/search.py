"""Exact top-K of a language model's distribution over a trie, by best-first search.

A branch's weight so far bounds every item below it, because going deeper only adds log-probabilities. So the branches
with the best bounds are opened until k items beat every open one: the list is then the true top-K, not a beam's guess.

An engine is asked seldom and for much: each round walks the trie best first as if what is not known yet were what the
prior says, and asks for every branch opened on the way. A good guess ends the search after one round; a bad one costs a
round more, never an item. Both functions are generators that yield token trees and are sent log-probabilities (see
`genrec.engines.base`), so the same code runs on any engine, for one person or hundreds at once. Knows nothing of
engines, items or text.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from genrec.decoding.scoring import FLOOR, Scoring
from genrec.engines.base import Search, TokenTree
from genrec.errors import EngineError
from genrec.trie import AnyTrie

MAX_WIDTH = 256
"""Most branches asked about in one round: what they cost in memory, an engine needs at once."""
MAX_GUESSED = 64
"""Most branches asked about in one round on the strength of a guess."""
LEAST = -25.0
"""An item's log prior counts as no less than this beside the best one's, nats: sums over branches lose what is less."""
MAX_CEILINGS = 10_000
"""Most branches whose ceilings are computed for one search: under a flat prior nearly all are alike, and none helps."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Where a search may stop before it is certain."""

    max_expansions: int | None = None
    """Most branches opened."""
    beam_width: int | None = None
    """Most branches opened at one depth of the trie."""


NO_LIMITS = Limits()
"""The list is exact, whatever it takes."""


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
    gap: float = 0.0
    """How far the best branch left unopened could beat the last item found, nats: 0 where the list is exact, infinite
    where it is short because of a limit."""

    @property
    def is_exact(self) -> bool:
        """Whether this is the true top-k, which it always is without `Limits`."""
        return self.gap == 0.0


@dataclass(frozen=True)
class _Opened:
    """What lies below a branch."""

    forced: float
    """Weight of the tokens that had to follow before there was a choice."""
    children: list[int]
    """Nodes that lead to live items, best first; none where `end` is a leaf."""
    steps: list[float]
    """Their weights, nats."""
    end: int
    """Where the forced tokens led."""


class _Weights:
    """The weight of a node's children, given the model's log-probabilities: scoring, prior and filter in one place."""

    def __init__(self, trie: AnyTrie, scoring: Scoring, live: np.ndarray | None, log_mass: np.ndarray | None) -> None:
        self.trie, self.scoring = trie, scoring
        live = None if live is None or live.all() else live
        self.ceilings: dict[tuple[int, int], float] = {}
        self.live: dict[int, np.ndarray] = {}  # of nodes met so far, as walks meet the same ones again and again
        self.mass: Callable[[np.ndarray], np.ndarray] | None = None
        self.alive: Callable[[np.ndarray], np.ndarray] | None = None
        if log_mass is not None:
            top = log_mass.max()
            mass = np.exp(np.where(log_mass > -np.inf, np.maximum(log_mass - top, LEAST), -np.inf))
            mass = mass if top > -np.inf else np.zeros(len(log_mass))
            self.mass = trie.below(mass if live is None else mass * live)
        elif scoring.name == "fused":
            raise ValueError("fused scoring needs log_mass")
        if live is not None and scoring.name != "fused":
            self.alive = trie.below(live)

    @property
    def can_guess(self) -> bool:
        """Whether the prior tells what to expect; it says nothing about a raw log-probability's size."""
        return self.mass is not None and self.scoring.normalised

    def live_children(self, node: int) -> np.ndarray:
        """Children that lead to an item that may be recommended."""
        if node not in self.live:
            children = self.trie.children(node)
            count = self.mass if self.scoring.name == "fused" else self.alive
            self.live[node] = children if count is None else children[count(children) > 0]
        return self.live[node]

    def considered(self, node: int) -> np.ndarray:
        """Children whose log-probability is needed: `masked` normalises over filtered items too."""
        return self.trie.children(node) if self.scoring.name == "masked" else self.live_children(node)

    def of(self, children: np.ndarray, logprob: np.ndarray) -> np.ndarray:
        """Weights of `considered` children, nats."""
        if self.scoring.name == "fused":
            assert self.mass is not None
            return self.scoring.weights(logprob, self.mass(children))
        return self.scoring.weights(logprob)

    def skip_certain(self, node: int) -> int:
        """Follow children that a normalised weight gives all there is; any node with one item below stands for it."""
        while self.scoring.normalised and self.trie.n_below(node) > 1:
            if (child := self.trie.only_child(node)) < 0:
                children = self.considered(node)
                if len(children) != 1:
                    break
                child = int(children[0])
            node = child
        return node

    def is_complete(self, node: int) -> bool:
        """Whether reaching a node settles which item it is."""
        return self.trie.n_below(node) == 1 if self.scoring.normalised else self.trie.is_leaf(node)

    def opened(self, node: int, children: np.ndarray, steps: np.ndarray, forced: float = 0.0) -> _Opened:
        """A branch with its children's weights; the dead and the hopeless are left out."""
        possible = steps > -np.inf
        if self.alive is not None:
            possible &= self.alive(children) > 0
        children, steps = children[possible], steps[possible]
        order = np.argsort(-steps, kind="stable")
        return _Opened(forced, children[order].tolist(), steps[order].tolist(), node)

    def ceiling(self, node: int, depth: int = 3) -> float:
        """The most that one item below a branch may get of its weight under `fused`, whatever the model says.

        However unlikely the model finds all children but one, `FLOOR` bounds how far they fall; so where the prior
        spreads thinly, no item can get much. Looks `depth` choices ahead. 1 where nothing is known.
        """
        if self.scoring.name != "fused" or depth == 0:
            return 1.0
        node = self.skip_certain(node)
        if (node, depth) not in self.ceilings:
            if len(self.ceilings) >= MAX_CEILINGS:
                return 1.0
            best = 1.0
            if not self.is_complete(node):
                assert self.mass is not None
                children = self.live_children(node)
                mass = self.mass(children) ** self.scoring.beta
                share = mass / (mass + np.exp(self.scoring.gamma * FLOOR) * (mass.sum() - mass))
                best = 0.0
                for i in np.argsort(-share):
                    if share[i] <= best:
                        break
                    best = max(best, float(share[i]) * self.ceiling(int(children[i]), depth - 1))
            self.ceilings[node, depth] = best
        return self.ceilings[node, depth]

    def guess(self, node: int) -> _Opened:
        """A branch as the prior sees it: where the model has no preference."""
        assert self.mass is not None
        children = self.considered(node)
        mass = self.mass(children)
        if self.scoring.name == "fused":
            return self.opened(node, children, self.scoring.weights(np.zeros(len(children)), mass))
        with np.errstate(divide="ignore", invalid="ignore"):
            return self.opened(node, children, np.log(mass / mass.sum()))


class _TreeBuilder:
    """Collects paths and children of trie nodes into one token tree in which shared beginnings stand once.

    A node's children are added as one block before any of them is used as the beginning of a path.
    """

    def __init__(self, trie: AnyTrie) -> None:
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
        above = self.trie.parent_of(node)
        if above in self.blocks:
            children, where = self.blocks[above]
            return int(where.start + np.searchsorted(children, node))
        parent = self.position(above)
        self.place[node] = len(self.token)
        self.parent.append(parent)
        self.token.append(int(self.trie.tokens(np.array([node]))[0]))
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
            self.token += self.trie.tokens(children).tolist()
            self.wanted += [True] * len(children)
            self.blocks[node] = children, slice(start, start + len(children))
        return self.blocks[node][1]

    def tree(self) -> TokenTree:
        """What was collected."""
        return TokenTree(
            parent=np.array(self.parent, np.int32), token=np.array(self.token, np.int32), wanted=np.array(self.wanted)
        )


def search(
    trie: AnyTrie,
    *,
    k: int,
    scoring: Scoring,
    live: np.ndarray | None = None,
    log_mass: np.ndarray | None = None,
    limits: Limits = NO_LIMITS,
    margin: float = 2.0,
    width: int = 8,
) -> Search[Ranking]:
    """Find the k items of highest weight, exactly unless `limits` say otherwise.

    Args:
        trie: Over the items' token sequences.
        k: How many items to find.
        scoring: What a step is worth.
        live: Which rows may be recommended, shape ``(n_leaves,)``, bool; all when omitted. Filtered items are never
            found; `joint` and `masked` weights of the others do not change, in `fused` a filtered item has no mass.
        log_mass: The prior's log-probability of each row, nats, shape ``(n_leaves,)``. `fused` weighs with it; `masked`
            guesses with it which branches will be needed, which never changes the result.
        limits: Where to stop early.
        margin: A guess asks for what a list so many times as long would need: some branches more, often a round less.
            Never changes the result.
        width: Without a guess, how many branches to open in the first round; every round opens twice as many as the
            one before, up to `MAX_WIDTH`. Never changes the result.

    Returns:
        A generator that yields token trees, is sent log-probabilities and returns a `Ranking`; equal weights are
        ordered by row.
    """
    weights = _Weights(trie, scoring, live, log_mass)
    known: dict[int, _Opened] = {}
    n_rounds = 0
    if k < 1 or not len(weights.live_children(0)):
        return _ranking(_Walk(), 0, 0, k)
    while True:
        walk = _walk(weights, known, k, width, limits)
        if not walk.asked:
            return _ranking(walk, n_rounds, len(known), k)
        if weights.can_guess and margin > 1:
            walk = _walk(weights, known, math.ceil(margin * k), width, limits)
        yield from _open(weights, walk.asked, known)
        n_rounds += 1
        width = min(2 * width, MAX_WIDTH)


def place(
    trie: AnyTrie,
    row: int,
    *,
    within: int,
    scoring: Scoring,
    live: np.ndarray | None = None,
    log_mass: np.ndarray | None = None,
    width: int = 8,
) -> Search[int]:
    """Find the place of a given item, exactly up to a number: what judging a model by its targets takes.

    Much cheaper than the list. The item's own weight is known after the first round, so no branch below it is opened;
    and once `within` items are found above it, it does not matter which others are.

    Args:
        trie: Over the items' token sequences.
        row: The item, a row of the catalogue.
        within: How far down places are told apart.
        scoring: What a step is worth.
        live: As for `search`.
        log_mass: As for `search`.
        width: As for `search`.

    Returns:
        A generator that yields token trees, is sent log-probabilities and returns at how many items' place in the list
        that `search` gives this one stands, from 0; `within` where it is not above that, or cannot be recommended.
    """
    weights = _Weights(trie, scoring, live, log_mass)
    if (live is not None and not live[row]) or (
        scoring.name == "fused" and log_mass is not None and log_mass[row] == -np.inf
    ):
        return within
    known: dict[int, _Opened] = {}
    path = [0, *trie.path(row)]
    own = _branches(weights, path)
    yield from _open(weights, own, known)
    if (weight := _weight(weights, own, path, known)) == -np.inf:
        return within
    floor = weight, -row
    while True:
        n_above, unknown = _above(weights, known, floor, within, guess=False)
        if n_above == within or not unknown:
            return n_above
        if weights.can_guess:
            _, unknown = _above(weights, known, floor, within, guess=True)
        yield from _open(weights, unknown[: MAX_GUESSED if weights.can_guess else width], known)
        width = min(2 * width, MAX_WIDTH)


def place_by_weight(weights: np.ndarray, row: int, live: np.ndarray | None = None) -> int:
    """The place of a row among weights that are all known, from 0, ordered as a list is: equal ones by row.

    Args:
        weights: Of every row. Shape ``(n,)``.
        row: The row.
        live: Which rows are in the list, all when omitted. Shape ``(n,)``, bool.
    """
    before = (weights > weights[row]) | ((weights == weights[row]) & (np.arange(len(weights)) < row))
    return int((before if live is None else before & live).sum())


def _above(
    weights: _Weights, known: dict[int, _Opened], floor: tuple[float, int], most: int, *, guess: bool
) -> tuple[int, list[int]]:
    """Count items above a floor until there are so many, and name the branches that are not known on the way.

    Goes first where items weigh most on average, for any items will do. Without `guess`, all that is counted is real,
    and all that might hold more is named.

    Args:
        weights: What steps are worth.
        known: Branches that are.
        floor: Weight of an item and minus its row; what ties with it comes after it in a list.
        most: When to stop counting.
        guess: Whether to go on below what is not known as the prior sees it.
    """
    trie, n_found, unknown, n_pushed = weights.trie, 0, list[int](), 0
    heap = [(0.0, 0, 0, 0.0)]  # (-average weight below, number, node, weight)
    while heap and n_found < most:
        _, _, node, weight = heapq.heappop(heap)
        node = weights.skip_certain(node)
        if weights.is_complete(node):
            n_found += (weight, -trie.row_of(node)) > floor
            continue
        opened = known.get(node)
        if opened is None:
            if weight + math.log(weights.ceiling(node)) + 1e-9 < floor[0]:  # for rounding
                continue
            unknown.append(node)
            if not guess:
                continue
            opened = weights.guess(node)
        above = weight + opened.forced
        if trie.is_leaf(opened.end):
            n_found += (above, -trie.row_of(opened.end)) > floor
        for child, step in zip(opened.children, opened.steps, strict=True):
            if above + step < floor[0]:
                break
            n_pushed += 1
            heapq.heappush(heap, (math.log(trie.n_below(child)) - above - step, n_pushed, child, above + step))
    return n_found, unknown


def _branches(weights: _Weights, path: list[int]) -> list[int]:
    """Nodes of a path at which there is something to ask."""
    found, i = [], 0
    while i < len(path) and not weights.is_complete(node := weights.skip_certain(path[i])):
        found.append(node)
        i = path.index([node, *_forced(weights, node)][-1]) + 1
    return found


def _forced(weights: _Weights, node: int) -> list[int]:
    """Nodes that have to follow one, where they are not certain: raw log-probabilities charge for them too."""
    chain: list[int] = []
    while not weights.scoring.normalised and (child := weights.trie.only_child(node)) >= 0:
        chain.append(child)
        node = child
    return chain


def _weight(weights: _Weights, branches: list[int], path: list[int], known: dict[int, _Opened]) -> float:
    """Weight of the item at the end of a path whose branches are known, nats; added up as a walk does."""
    total = 0.0
    for node in branches:
        opened = known[node]
        total += opened.forced
        if opened.end != path[-1]:
            child = path[path.index(opened.end) + 1]
            if child not in opened.children:
                return -math.inf
            total += opened.steps[opened.children.index(child)]
    return total


def _open(weights: _Weights, nodes: list[int], known: dict[int, _Opened]) -> Search[None]:
    """Ask about some branches, all in one round."""
    if not nodes:
        return
    builder = _TreeBuilder(weights.trie)
    asked: list[tuple[int, list[int], int, np.ndarray, slice]] = []
    for node in nodes:
        forced = _forced(weights, node)  # to the next real choice in the same round
        chain, end = [builder.want(child) for child in forced], forced[-1] if forced else node
        children = weights.considered(end)
        asked.append((node, chain, end, children, builder.want_children(end, children)))
    logprob = _numbers(builder, (yield builder.tree()))
    for node, chain, end, children, where in asked:
        steps = weights.of(children, logprob[where]) if len(children) else np.empty(0)
        known[node] = weights.opened(end, children, steps, float(logprob[chain].sum()))


def _numbers(builder: _TreeBuilder, logprob: np.ndarray) -> np.ndarray:
    """An engine's answer, if it is one: what is no number would drop items from a list that calls itself exact."""
    if np.isnan(logprob[np.array(builder.wanted)]).any():
        raise EngineError(
            "the model gives log-probabilities that are no numbers",
            hint='Its weights are damaged, or its number format is too narrow: try dtype = "float32".',
        )
    return logprob


class _Walk:
    """A best-first walk: what it found, and what it would have to know."""

    def __init__(self) -> None:
        self.found: list[tuple[float, int]] = []  # (weight, -row) of complete items, a heap of the best k
        self.asked: list[int] = []  # branches that are not known, best first
        self.left_out = -np.inf  # weight of the best branch that limits forbade to open


def _walk(weights: _Weights, known: dict[int, _Opened], k: int, width: int, limits: Limits) -> _Walk:
    """Walk the trie best first over what is known; where nothing is, ask, and go on with a guess if there is one.

    Until the first branch is asked about, all is as in the real distribution: a walk that asks nothing is the answer.
    """
    walk, trie = _Walk(), weights.trie
    found = walk.found
    n_at_depth: dict[int, int] = {}
    # (-bound, number, branch, which of its children, weight of the branch, how many branches lie above): a branch's
    # next best child enters when the one before it leaves, so a wide branch costs no more than what is looked at.
    # A child that is not known enters a second time, under the best that any item below it can reach.
    heap: list[tuple[float, int, _Opened, int, float, int]] = []
    doubtful: set[int] = set()
    n_pushed = 0

    def push(opened: _Opened, i: int, above: float, depth: int) -> None:
        nonlocal n_pushed
        if i < len(opened.children):
            n_pushed += 1
            heapq.heappush(heap, (-(above + opened.steps[i]), n_pushed, opened, i, above, depth))

    def close(weight: float, node: int) -> None:
        if weight == -np.inf:
            return
        entry = (weight, -trie.row_of(node))
        if len(found) < k:
            heapq.heappush(found, entry)
        else:
            heapq.heappushpop(found, entry)

    push(_Opened(0.0, [0], [0.0], -1), 0, 0.0, 0)
    while heap and (len(found) < k or -heap[0][0] >= found[0][0]):
        _, _, branch, i, above, depth = heapq.heappop(heap)
        weight, node = above + branch.steps[i], weights.skip_certain(branch.children[i])
        if node not in doubtful:
            push(branch, i + 1, above, depth)
        if weights.is_complete(node):
            close(weight, node)
            continue
        opened = known.get(node)
        if opened is None and node not in doubtful and (ceiling := weights.ceiling(node)) < 1.0:
            doubtful.add(node)
            n_pushed += 1
            bound = weight + np.log(ceiling) + 1e-9  # for rounding
            heapq.heappush(heap, (-bound, n_pushed, branch, i, above, depth))
            continue
        n_at_depth[depth] = n_at_depth.get(depth, 0) + 1
        if opened is None:
            n_after = len(known) + len(walk.asked) + 1
            if (limits.max_expansions is not None and n_after > limits.max_expansions) or (
                limits.beam_width is not None and n_at_depth[depth] > limits.beam_width
            ):
                walk.left_out = max(walk.left_out, weight)
                continue
            walk.asked.append(node)
            if len(walk.asked) >= (MAX_GUESSED if weights.can_guess else width):
                break
            if not weights.can_guess:
                continue
            opened = weights.guess(node)
        if trie.is_leaf(opened.end):
            close(weight + opened.forced, opened.end)
        push(opened, 0, weight + opened.forced, depth + 1)
    return walk


def _ranking(walk: _Walk, n_rounds: int, n_opened: int, k: int) -> Ranking:
    ranked = sorted(walk.found, key=lambda entry: (-entry[0], -entry[1]))
    gap = 0.0
    if walk.left_out > -np.inf:
        gap = max(0.0, walk.left_out - ranked[-1][0]) if len(ranked) == k else np.inf
    return Ranking(
        rows=np.array([-row for _, row in ranked], np.int64),
        logprobs=np.array([weight for weight, _ in ranked], np.float64),
        n_rounds=n_rounds,
        n_opened=n_opened,
        gap=gap,
    )


def score(
    trie: AnyTrie,
    rows: Sequence[int] | np.ndarray,
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
    totals = np.zeros(len(rows))
    for candidate, row in enumerate(rows):
        steps.append([])
        if live is not None and not live[row]:
            totals[candidate] = -np.inf
            continue
        path = trie.path(row)
        for node, child in zip([0, *path], path, strict=False):
            if not scoring.normalised:
                builder.want(child)
            else:
                children = weights.considered(node)
                if child not in children:  # the prior rules it out
                    totals[candidate] = -np.inf
                    break
                if len(children) == 1:
                    continue
                builder.want_children(node, children)
            steps[-1].append((node, child))
    logprob = _numbers(builder, (yield builder.tree())) if builder.token else np.empty(0)
    if scoring.normalised:
        value = {
            node: dict(zip(children.tolist(), weights.of(children, logprob[where]).tolist(), strict=True))
            for node, (children, where) in builder.blocks.items()
        }
        totals += [sum(value[node][child] for node, child in pairs) for pairs in steps]
    else:
        totals += [sum(float(logprob[builder.place[child]]) for _, child in pairs) for pairs in steps]
    return totals
