"""The contract of media: a reader turns the bytes of one file into words and, where it can, a vector.

Knows nothing of items, stores or where files are; cleaning and cutting the words is the business of whoever asked.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path

import numpy as np


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What a reader made of a file."""

    words: str
    """A title, a caption or tags, in any length and shape; empty where there is nothing to say."""
    vector: np.ndarray | None = None
    """What is alike has a large cosine. Shape ``(n_dims,)``, float32, the same length for all files of one reader."""


@dataclass(kw_only=True)
class MediaReader(ABC):
    """Reads one kind of files; a dataclass whose fields are its options, one sentence under each."""

    folder: Path
    """The folder that holds the files, in the workspace unless the path is absolute; nothing outside it is read."""
    attribute: str = "image"
    """The attribute of items that names the file, by its path in that folder."""

    @abstractmethod
    def identity(self) -> str:
        """What decides what it makes of a file, besides the file: versions, the model, options.

        Files that were read under another identity are read again.

        Raises:
            GenrecError: If the reader cannot be used, e.g. as its model is not on this machine.
        """

    @abstractmethod
    def read(self, content: bytes) -> Reading:
        """Read a file.

        Args:
            content: All of it.

        Raises:
            DataError: If this file cannot be read.
            GenrecError: If the reader cannot be used, whatever the file.
        """
