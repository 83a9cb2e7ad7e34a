"""From people to training steps: rows of token ids, packed side by side, with the trie's choices marked in them.

A row is a person's prompt with many moments in it, each a target, as `genrec.prompt.render_rows` writes it. A step is
as many rows as fit in so many tokens, laid end to end; what all of them begin with, the instructions, stands there once
and is read once. Knows tokens and the trie; knows nothing of models, losses or optimizers.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from genrec.catalog import SEPARATOR, EncodedCatalog
from genrec.context import Words
from genrec.history import History, Moment
from genrec.prompt import ALIGN, Row, Template, render_rows
from genrec.text import clean
from genrec.tokenizer import Tokenizer
from genrec.trie import AnyTrie

FILLER_SHARE = 0.25
"""Share of the rows that end like a served prompt, with the filler before the line for "now"."""


@dataclass(frozen=True, kw_only=True)
class Writing:
    """How training writes people: exactly as serving does."""

    template: Template
    encoded: EncodedCatalog
    tokenizer: Tokenizer
    words: Words
    max_tokens: int = 1024
    """Longest prompt."""
    align: int | None = ALIGN
    """What serving aligns prompts to."""

    def rows(
        self, history: History, rng: random.Random | None = None, *, instead: Mapping[str, str] | None = None
    ) -> Iterator[Row]:
        """A person's rows.

        Args:
            history: What the person did.
            rng: Shuffles the items within each moment, of which the first is the target, and gives some rows the filler
                that a served prompt ends with; None for the order that serving shows, without filler.
            instead: As for `render`, of the last moment.
        """
        if rng is not None:
            history = replace(history, moments=tuple(_shuffled(moment, rng) for moment in history.moments))
        yield from render_rows(
            self.template,
            history,
            self.encoded,
            self.tokenizer,
            words=self.words,
            max_tokens=self.max_tokens,
            align=self.align,
            filler=rng is not None and rng.random() < FILLER_SHARE,
            instead=instead,
        )

    def texts(self) -> Iterator[np.ndarray]:
        """What the catalogue says of each item, as token ids: category and attributes, then its text."""
        n_at_once = 1000
        for start in range(0, len(self.encoded.catalog), n_at_once):
            items = self.encoded.catalog.items[start : start + n_at_once]
            said = [({"category": i.category} if i.category else {}) | dict(i.attributes) for i in items]
            lines = [", ".join(f"{key}: {value}" for key, value in one.items()) for one in said]
            heads = [f"{clean(line, max_chars=200)}{SEPARATOR}" for line in lines]
            for row, ids in enumerate(self.tokenizer.encode(heads), start):
                yield np.array([*ids, *self.encoded.ids(row)], np.int32)


def _shuffled(moment: Moment, rng: random.Random) -> Moment:
    """Its items in another order, those that can be targets still first."""
    strong = [item for item in moment.item_ids if item not in moment.weak]
    weak = [item for item in moment.item_ids if item in moment.weak]
    return replace(moment, item_ids=(*rng.sample(strong, len(strong)), *rng.sample(weak, len(weak))))


@dataclass(frozen=True, kw_only=True)
class Choices:
    """Choices between branches of a trie, all that lie on the way to some targets, one after the other."""

    target: np.ndarray
    """Which target each choice is on the way to. Shape ``(n,)``, int64."""
    depth: np.ndarray
    """Tokens between the end of the target's open line and the choice. Shape ``(n,)``, int64."""
    node: np.ndarray
    """The trie node whose children are to be chosen from. Shape ``(n,)``, int64."""
    chosen: np.ndarray
    """Which of the children the target is below. Shape ``(n,)``, int64."""

    def __len__(self) -> int:
        return len(self.node)


class Chooser:
    """Knows what a model must choose to arrive at each row of a catalogue; forced tokens are no choices."""

    def __init__(self, trie: AnyTrie) -> None:
        self.trie = trie
        self._ways: dict[int, np.ndarray] = {}

    def to(self, rows: Sequence[int] | np.ndarray) -> Choices:
        """The choices on the way to each of some rows."""
        found = [self._way(int(row)) for row in rows]
        flat = np.concatenate([np.empty((0, 3), np.int64), *found])
        return Choices(
            target=np.repeat(np.arange(len(found)), [len(one) for one in found]),
            depth=flat[:, 0],
            node=flat[:, 1],
            chosen=flat[:, 2],
        )

    def _way(self, row: int) -> np.ndarray:
        if row not in self._ways:
            node, found = 0, []
            for depth, child in enumerate(self.trie.path(row)):
                if self.trie.n_below(node) == 1:
                    break
                children = self.trie.children(node)
                if len(children) > 1:
                    found.append((depth, node, int(np.searchsorted(children, child))))
                node = child
            self._ways[row] = np.array(found, np.int64).reshape(-1, 3)
        return self._ways[row]


@dataclass(frozen=True, kw_only=True)
class Packed:
    """Rows laid end to end, the beginning that they share once in front of them."""

    token_ids: np.ndarray
    """Shape ``(n,)``, int64."""
    position_ids: np.ndarray
    """Place of each id in its own row. Shape ``(n,)``, int64."""
    lengths: tuple[int, ...]
    """Ids of the shared beginning, then of what is left of each row."""
    position: np.ndarray
    """Where each target's open line ends. Shape ``(n_targets,)``, int64."""
    depth_step: np.ndarray
    """Index of the id behind that; the next ones follow. Shape ``(n_targets,)``, int64."""
    target: np.ndarray
    """Catalogue row of each target. Shape ``(n_targets,)``, int64."""
    of: np.ndarray
    """Which of the rows each target stands in. Shape ``(n_targets,)``, int64."""

    def at(self, choices: Choices) -> np.ndarray:
        """Index of the id after which each choice is made. Shape ``(n_choices,)``, int64."""
        after = self.depth_step[choices.target] + choices.depth - 1
        index: np.ndarray = np.where(choices.depth == 0, self.position[choices.target], after)
        return index


def pack(rows: Sequence[Row]) -> Packed:
    """Lay rows end to end."""
    first = rows[0].token_ids
    n_shared = min(int(row.position[0]) + 1 for row in rows) if len(rows) > 1 else 0
    for row in rows[1:]:
        differs = np.flatnonzero(first[:n_shared] != row.token_ids[:n_shared])
        n_shared = int(differs[0]) if len(differs) else n_shared
    rest = [row.token_ids[n_shared:] for row in rows]
    starts = n_shared + np.cumsum([0, *(len(ids) for ids in rest)])
    position = np.concatenate([row.position for row in rows]).astype(np.int64)
    of = np.repeat(np.arange(len(rows)), [len(row.position) for row in rows])

    def index(place: np.ndarray) -> np.ndarray:
        moved: np.ndarray = np.where(place < n_shared, place, place - n_shared + starts[of])
        return moved

    return Packed(
        token_ids=np.concatenate([first[:n_shared], *rest]).astype(np.int64),
        position_ids=np.concatenate([np.arange(n_shared), *(n_shared + np.arange(len(ids)) for ids in rest)]),
        lengths=(n_shared, *(len(ids) for ids in rest)),
        position=index(position),
        depth_step=index(position + 1),
        target=np.concatenate([row.target for row in rows]).astype(np.int64),
        of=of,
    )


def plan(lengths: Sequence[int], n_tokens: int, rng: random.Random, *, n_shared: int = 0) -> list[list[int]]:
    """Which rows go into which step: all of them once, in random order.

    Args:
        lengths: Ids of each row.
        n_tokens: Most ids of a step; a longer row has one of its own.
        rng: Decides the order.
        n_shared: Ids that all rows begin with, which a step reads once.

    Returns:
        Indices of the rows of each step.
    """
    order = list(range(len(lengths)))
    rng.shuffle(order)
    steps: list[list[int]] = []
    room = 0
    for i in order:
        length = lengths[i] - n_shared
        if length > room or not steps:
            steps.append([])
            room = n_tokens - n_shared
        steps[-1].append(i)
        room -= length
    return steps
