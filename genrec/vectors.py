"""Texts as vectors: an embedding model, the vectors of a catalogue's texts, and the nearest of them.

Vectors have length 1, so an inner product is a cosine. Neighbours are exact: all vectors are looked at, which for a
hundred thousand items takes a fraction of a second, where an approximate index takes minutes to build. Knows nothing of
catalogues, people or what the neighbours are for.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from genrec.errors import ModelError
from genrec.events import Medium

BLOCK = 1 << 16
"""Vectors looked at in one go, so that a large catalogue needs no more memory than a small one."""
ALIKE = 0.85
"""Cosine from which two titles are taken for the same thing, measured with all-MiniLM-L6-v2: see docs/ground.md."""


class Embedder:
    """A sentence-transformers model: texts in, vectors out.

    Args:
        folder: A local model folder.

    Raises:
        ModelError: If sentence-transformers is missing or cannot load the folder.
    """

    def __init__(self, folder: Path) -> None:
        if not (folder / "modules.json").is_file():
            raise ModelError(
                f"{folder} holds no embedding model of sentence-transformers (it has no modules.json)",
                hint='Set embedding = "minilm-l6-v2" in genrec.toml and run: genrec models get minilm-l6-v2',
            )
        try:
            from sentence_transformers import SentenceTransformer
            from transformers.utils import logging
        except ModuleNotFoundError as error:
            raise ModelError(
                f"vectors of texts need the package {error.name}", hint="pip install 'genrec[embed]'"
            ) from error
        logging.set_verbosity_error()
        logging.disable_progress_bar()
        self.folder = folder
        try:
            self._model: Any = SentenceTransformer(str(folder), local_files_only=True)
        except Exception as error:  # a damaged file raises errors of the library that reads it
            raise ModelError(
                f"sentence-transformers cannot load {folder}: {error}",
                hint="Get the whole model again with genrec models get NAME, its old folder removed.",
            ) from error

    @cached_property
    def fingerprint(self) -> str:
        """Hash of all the model's files but its card: equal fingerprints mean equal vectors."""
        total = hashlib.sha256()
        for path in sorted(self.folder.rglob("*")):
            if path.is_file() and path.suffix != ".md":
                with path.open("rb") as file:
                    content = hashlib.file_digest(file, "sha256").hexdigest()
                total.update(f"{path.relative_to(self.folder).as_posix()} {content}\n".encode())
        return total.hexdigest()[:16]

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        """Vectors of length 1, one for each text. Shape ``(n_texts, n_dims)``, float32."""
        vectors = self._model.encode(
            list(texts) or [""],  # for nothing it would make an array without dimensions
            batch_size=128,
            normalize_embeddings=True,
            convert_to_numpy=True,
            show_progress_bar=False,
        )
        return np.asarray(vectors, np.float32)[: len(texts)]


@dataclass(frozen=True, kw_only=True)
class TextVectors:
    """The vectors of some texts, by position; of a catalogue's texts, by row."""

    values: np.ndarray
    """Vectors of length 1. Shape ``(n_texts, n_dims)``, float32; mapped from disk where they are kept."""
    embedder: Embedder

    @classmethod
    def of(cls, texts: Sequence[str], embedder: Embedder, *, cache: Path | None = None) -> TextVectors:
        """Embed texts, or map what was kept of an earlier time.

        Args:
            texts: Any texts; `Catalog.texts` for the items of a catalogue.
            embedder: The model.
            cache: Folder that keeps vectors by a fingerprint of texts and model; nothing is kept when omitted, or where
                it cannot be written.
        """
        if cache is None:
            return cls(values=embedder.embed(texts), embedder=embedder)
        digest = hashlib.sha256("\0".join([embedder.fingerprint, *texts]).encode(errors="replace")).hexdigest()[:16]
        file = cache / f"{digest}.npy"
        if (kept := _kept(file, len(texts))) is None:
            kept = embedder.embed(texts)
            with suppress(OSError):
                _keep(kept, file)
        return cls(values=kept, embedder=embedder)

    def nearest(self, texts: Sequence[str], n: int = 1) -> tuple[np.ndarray, np.ndarray]:
        """The texts most like each of other texts; see `nearest`."""
        return nearest(self.values, self.embedder.embed(texts), n)


def media_vectors(media: Iterable[Medium], row: Mapping[str, int], n_items: int) -> np.ndarray | None:
    """One vector for each item out of what readers made of its media, the parts of several readers side by side.

    What a reader says of all items alike tells none from another, so the mean is taken off; then a part has length 1.

    Args:
        media: With their vectors.
        row: The row of each item; others are passed over.
        n_items: How many rows there are.

    Returns:
        Shape ``(n_items, n_dims)``, float32, zeros where nothing was read; None where no reader gave a vector.
    """
    parts: dict[tuple[str, int], dict[int, np.ndarray]] = {}
    for one in media:
        if one.vector and (at := row.get(one.item_id, n_items)) < n_items:
            vector = np.frombuffer(one.vector, "<f4")
            parts.setdefault((one.reader, len(vector)), {})[at] = vector
    found = []
    for (_, n_dims), vectors in sorted(parts.items()):
        values = np.stack(list(vectors.values()))
        if len(values) > 1:
            values = values - values.mean(axis=0)
        part = np.zeros((n_items, n_dims), np.float32)
        part[list(vectors)] = values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-9)
        found.append(part)
    return np.hstack(found) if found else None


def nearest(values: np.ndarray, queries: np.ndarray, n: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Find the vectors with the largest inner product.

    Args:
        values: Vectors of length 1, shape ``(n_values, n_dims)``.
        queries: Vectors of length 1, shape ``(n_queries, n_dims)``.
        n: How many for each query.

    Returns:
        Positions in `values` and cosines, best first, both of shape ``(n_queries, min(n, n_values))``.
    """
    rows = np.empty((len(queries), 0), np.int64)
    cosines = np.empty((len(queries), 0), np.float32)
    for start in range(0, len(values), BLOCK):
        block = queries @ values[start : start + BLOCK].T  # (n_queries, up to BLOCK)
        places = np.broadcast_to(np.arange(start, start + block.shape[1]), block.shape)
        rows, cosines = np.hstack([rows, places]), np.hstack([cosines, block])
        if cosines.shape[1] > n:
            best = np.argpartition(-cosines, n - 1, axis=1)[:, :n]
            rows, cosines = np.take_along_axis(rows, best, 1), np.take_along_axis(cosines, best, 1)
    order = np.lexsort((rows, -cosines), axis=1)
    return np.take_along_axis(rows, order, 1), np.take_along_axis(cosines, order, 1)


def _kept(file: Path, n_texts: int) -> np.ndarray | None:
    try:
        values: np.ndarray = np.load(file, mmap_mode="r")
    except (OSError, ValueError, EOFError):  # not there, or damaged, say by a power cut
        return None
    return values if values.ndim == 2 and len(values) == n_texts else None


def _keep(values: np.ndarray, file: Path) -> None:
    """Write a file that appears under its name when it is complete."""
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_name(f"{file.stem}.{secrets.token_hex(4)}.npy")
    try:
        np.save(part, values)
        part.replace(file)
    finally:
        part.unlink(missing_ok=True)
