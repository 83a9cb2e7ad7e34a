"""What reads like what the person had last: likeness of items by their words or by a sentence-transformers model.

    score(i) = sum over the last items d = 0, 1, ... of  decay^d · cosine(i, that item)

An item is its title, some attributes if they are named, and what its pictures, sounds and texts were read as, in words
and, where a reader gave some, in vectors beside them. Speaks of items that nobody took yet, which counts cannot. Knows
words, vectors and the order of the history.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from genrec.errors import ConfigError
from genrec.models import model_folder
from genrec.packaged import cache_folder
from genrec.priors.base import State
from genrec.priors.loglinear import Past
from genrec.priors.scored import Scored
from genrec.vectors import Embedder, TextVectors, media_vectors


@dataclass(kw_only=True)
class Text(Scored):
    """What reads like the last items, weighted by likelihood."""

    n_last: int = 6
    """Items of the history that are looked at."""
    decay: float = 0.6
    """How much each of them counts beside the one after it."""
    embedding: str = ""
    """A sentence-transformers model whose vectors tell what is alike, as for the setting of that name; the words of
    the items (TF-IDF) when empty."""
    attributes: Sequence[str] = ()
    """Attributes of items that are read beside their titles, e.g. brand."""

    def __post_init__(self) -> None:
        if isinstance(self.attributes, str):  # a single one from a settings file
            self.attributes = (self.attributes,)
        if not (self.n_last >= 1 and 0 < self.decay <= 1 and self.n_fit >= 0):
            raise ConfigError("the prior 'text' needs n_last from 1, decay in (0, 1] and n_fit from 0")
        super().__post_init__()

    def _learn(self) -> None:
        """Read what is said of the items."""
        super()._learn()
        said = self._catalog.descriptions(self.attributes)[: self._n_items]
        if self.embedding and said:
            embedder = Embedder(model_folder(self.embedding))
            vectors = TextVectors.of(said, embedder, cache=cache_folder() / "vectors").values
            self._like: Callable[[int], np.ndarray] = lambda row: vectors @ vectors[row]
        else:
            self._like = self._part("words", Words, lambda: Words.of(said)).like
        seen = media_vectors(self._catalog.media(vectors=True), self._catalog.row, self._n_items)
        if seen is not None:
            self._like = _beside(self._like, seen)

    def state(self) -> State | None:
        """As for the others, but nothing with an embedding model, which may change in its folder."""
        return None if self.embedding else super().state()

    def _scores(self, past: Past) -> np.ndarray:
        """Mean likeness to the last items, the latest most. Shape ``(n_items,)``, float64."""
        rows = past.rows[past.rows < self._n_items][: -self.n_last - 1 : -1]
        shares = self.decay ** np.arange(len(rows))
        scores = np.zeros(self._n_items)
        for row, share in zip(rows.tolist(), shares / max(shares.sum(), 1.0), strict=True):
            scores += share * self._like(row)
        return scores


def _beside(like: Callable[[int], np.ndarray], seen: np.ndarray) -> Callable[[int], np.ndarray]:
    """Cosines of items whose vectors are what is said of them and, beside it, what is seen or heard."""
    length = np.sqrt(1 + (seen**2).sum(axis=1))
    return lambda row: (like(row) + seen @ seen[row]) / (length * length[row])


@dataclass(frozen=True, kw_only=True)
class Words:
    """Which titles have which words, for their likeness: cosines of TF-IDF vectors."""

    words: np.ndarray
    """Numbers of the words of each title, end to end."""
    begin: np.ndarray
    """Where each title's begin in `words`, and the end of all. Shape ``(n_items + 1,)``."""
    rows: np.ndarray
    """Rows of the titles with each word, end to end."""
    first: np.ndarray
    """Where each word's begin in `rows`, and the end of all. Shape ``(n_words + 1,)``."""
    idf: np.ndarray
    """How much each word says. Shape ``(n_words,)``."""
    norm: np.ndarray
    """Length of each title's vector. Shape ``(n_items,)``."""

    @classmethod
    def of(cls, titles: list[str]) -> Words:
        """Read titles."""
        numbers: dict[str, int] = {}
        found = [sorted(set(re.findall(r"\w+", title.lower()))) for title in titles]
        words = np.array([numbers.setdefault(word, len(numbers)) for some in found for word in some], np.int64)
        sizes = np.array([len(some) for some in found], np.int64)
        row = np.repeat(np.arange(len(titles)), sizes)
        order = np.argsort(words, kind="stable")
        first = np.searchsorted(words[order], np.arange(len(numbers) + 1))
        idf = np.log(max(len(titles), 1) / np.maximum(np.diff(first), 1))
        return cls(
            words=words,
            begin=np.concatenate([[0], np.cumsum(sizes)]),
            rows=row[order],
            first=first,
            idf=idf,
            norm=np.sqrt(np.bincount(row, idf[words] ** 2, minlength=len(titles))) + 1e-6,
        )

    def like(self, row: int) -> np.ndarray:
        """Cosine of one title with each; of one that was not read, 0. Shape ``(n_items,)``, float64."""
        likeness = np.zeros(len(self.norm))
        if row < len(self.norm):
            for word in self.words[self.begin[row] : self.begin[row + 1]].tolist():
                likeness[self.rows[self.first[word] : self.first[word + 1]]] += self.idf[word] ** 2
            likeness /= self.norm * self.norm[row]
        return likeness
