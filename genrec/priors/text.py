"""What reads like what the person had last: likeness of titles, by their words or by a sentence-transformers model.

    score(i) = sum over the last items d = 0, 1, ... of  decay^d · cosine(title of i, title of that item)

Speaks of items that nobody took yet, which counts cannot. Knows titles and the order of the history.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from genrec.errors import ConfigError
from genrec.models import model_folder
from genrec.packaged import cache_folder
from genrec.priors.loglinear import Past
from genrec.priors.scored import Scored
from genrec.vectors import Embedder, TextVectors


@dataclass(kw_only=True)
class Text(Scored):
    """What reads like the last items, weighted by likelihood."""

    n_last: int = 6
    """Items of the history that are looked at."""
    decay: float = 0.6
    """How much each of them counts beside the one after it."""
    embedding: str = ""
    """A sentence-transformers model whose vectors tell what is alike, as for the setting of that name; the words of the
    titles (TF-IDF) when empty."""

    def __post_init__(self) -> None:
        if not (self.n_last >= 1 and 0 < self.decay <= 1 and self.n_fit >= 0):
            raise ConfigError("the prior 'text' needs n_last from 1, decay in (0, 1] and n_fit from 0")
        super().__post_init__()

    def _learn(self) -> None:
        """Read the titles."""
        super()._learn()
        titles = self._catalog.titles[: self._n_items]
        if self.embedding and titles:
            embedder = Embedder(model_folder(self.embedding))
            vectors = TextVectors.of(titles, embedder, cache=cache_folder() / "vectors").values
            self._like: Callable[[int], np.ndarray] = lambda row: vectors @ vectors[row]
        else:
            self._like = Words(titles).like

    def _scores(self, past: Past) -> np.ndarray:
        """Mean likeness to the last items, the latest most. Shape ``(n_items,)``, float64."""
        rows = past.rows[past.rows < self._n_items][: -self.n_last - 1 : -1]
        shares = self.decay ** np.arange(len(rows))
        scores = np.zeros(self._n_items)
        for row, share in zip(rows.tolist(), shares / max(shares.sum(), 1.0), strict=True):
            scores += share * self._like(row)
        return scores


class Words:
    """Which titles have which words, for their likeness: cosines of TF-IDF vectors."""

    def __init__(self, titles: list[str]) -> None:
        words = [set(re.findall(r"\w+", title.lower())) for title in titles]
        self._numbers: dict[str, int] = {}
        number = [[self._numbers.setdefault(word, len(self._numbers)) for word in sorted(some)] for some in words]
        self._of = [np.array(some, np.int64) for some in number]
        flat = np.concatenate([np.empty(0, np.int64), *self._of])
        row = np.repeat(np.arange(len(titles)), [len(some) for some in number])
        order = np.argsort(flat, kind="stable")
        self._rows = row[order]
        self._first = np.searchsorted(flat[order], np.arange(len(self._numbers) + 1))
        self._idf = np.log(max(len(titles), 1) / np.maximum(np.diff(self._first), 1))
        self._norm = np.sqrt(np.bincount(row, self._idf[flat] ** 2, minlength=len(titles))) + 1e-6

    def like(self, row: int) -> np.ndarray:
        """Cosine of one title with each. Shape ``(n_items,)``, float64."""
        likeness = np.zeros(len(self._norm))
        for word in self._of[row].tolist() if row < len(self._of) else ():
            likeness[self._rows[self._first[word] : self._first[word + 1]]] += self._idf[word] ** 2
        if row < len(self._of):
            likeness /= self._norm * self._norm[row]
        return likeness
