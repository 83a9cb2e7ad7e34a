"""The run over a store: each file that an item names is read once by each reader, and again when it has changed.

No file and no reader fails the run: what is missing, broken or not allowed is counted with its reason. An item keeps
what was read of it as long as it names the same file. Nothing outside the folders of the readers is opened, and nothing
is fetched.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

import numpy as np

from genrec.errors import DataError, GenrecError
from genrec.events import Medium, items_of
from genrec.media.base import MediaReader
from genrec.store import Store
from genrec.text import clean

MAX_BYTES = 64 << 20
"""Longest file that is read."""
MAX_CHARS = 240
"""Longest line of words that is kept."""
SHOWN = 10
"""Most reasons, and most examples, that are told of one reader."""
_TOGETHER = 64  # files kept in one transaction: what a run that is killed has to do again

_ADDRESS = re.compile(r"data:|[a-z][a-z0-9+.-]*://", re.IGNORECASE)
T = TypeVar("T")


@dataclass(kw_only=True)
class Outcome:
    """What became of the files of one reader."""

    n_read: int = 0
    """Files that were read now."""
    n_unchanged: int = 0
    """Files that were read before, by the same reader with the same options, for this item or another."""
    n_missing: int = 0
    """Files that are not there."""
    n_failed: int = 0
    """Files that cannot be read, or may not be."""
    reasons: list[str] = field(default_factory=list)
    """The first of what is missing or failed, which item, which file and why; or why there is no file at all."""
    examples: dict[str, str] = field(default_factory=dict)
    """The first of what was read now: words by item."""
    unusable: str = ""
    """Why the reader cannot be used, and what to do; empty where it can."""


def read_media(
    store: Store,
    readers: Mapping[str, MediaReader],
    workspace: Path,
    *,
    advance: Callable[[int], None] = lambda n: None,
) -> dict[str, Outcome]:
    """Read what has to be read, and keep it in the store.

    Args:
        store: Holds the items and gets what is read.
        readers: By name.
        workspace: Where the folders are that readers name by a relative path.
        advance: Is told how many more files are done.

    Returns:
        What became of the files of each reader.

    Raises:
        StoreError: If the store fails; what was read until then is kept but for the last few files.
    """
    return {name: _Run(store, name, reader, workspace, advance)() for name, reader in readers.items()}


class _UnusableError(Exception):
    """The reader cannot read any file."""


class _Run:
    """The files of one reader."""

    def __init__(
        self, store: Store, name: str, reader: MediaReader, workspace: Path, advance: Callable[[int], None]
    ) -> None:
        self._store, self._name, self._reader, self._advance = store, name, reader, advance
        self._folder = (workspace / reader.folder).resolve()
        self._known = {one.item_id: (one.file, one.content) for one in store.media() if one.reader == name}
        self._waiting: list[Medium] = []
        self._outcome = Outcome()

    def __call__(self) -> Outcome:
        """Go through the items."""
        kept: set[str] = set()
        try:
            identity = self._asked(self._reader.identity)
            for item in items_of(self._store.items()):
                if file := item.attributes.get(self._reader.attribute, "").strip():
                    if self._take(item.item_id, file, identity):
                        kept.add(item.item_id)
                    self._advance(1)
        except (_UnusableError, DataError) as error:
            self._outcome.unusable = str(error)
        else:
            if not (kept or self._outcome.reasons):
                self._outcome.reasons.append(f"no item has an attribute {self._reader.attribute!r}")
            self._store.drop_media(self._name, self._known.keys() - kept)
        finally:
            self._store.put_media(self._waiting)
        return self._outcome

    def _take(self, item_id: str, file: str, identity: str) -> bool:
        """Read a file if that is needed; whether what is kept of the item, now or from before, is of this file."""
        outcome, before = self._outcome, self._known.get(item_id, ("", ""))
        try:
            content = _content(self._folder, file)
            key = hashlib.blake2b(identity.encode() + b"\0" + content, digest_size=16).hexdigest()
            if before == (file, key):
                outcome.n_unchanged += 1
            elif like := next((one for one in self._waiting if one.content == key), None) or self._store.medium(key):
                outcome.n_unchanged += 1
                self._keep(replace(like, item_id=item_id, reader=self._name, file=file))
            else:
                words, vector = self._read(content)
                outcome.n_read += 1
                if len(outcome.examples) < SHOWN:
                    outcome.examples[item_id] = words
                self._keep(
                    Medium(item_id=item_id, reader=self._name, file=file, content=key, words=words, vector=vector)
                )
            return True
        except FileNotFoundError:
            outcome.n_missing += 1
            why = "is not there"
        except DataError as error:
            outcome.n_failed += 1
            why = str(error)
        if len(outcome.reasons) < SHOWN:
            outcome.reasons.append(f"item {item_id}: {file} {why}")
        return file == before[0]

    def _read(self, content: bytes) -> tuple[str, bytes | None]:
        """Words fit to be kept, and the vector as bytes."""
        reading = self._asked(lambda: self._reader.read(content))
        vector = None if reading.vector is None else np.asarray(reading.vector, "<f4")
        if vector is not None and not (vector.ndim == 1 and np.isfinite(vector).all()):
            raise DataError("was read as a vector that is no row of numbers")
        return clean(reading.words, max_chars=MAX_CHARS), None if vector is None else vector.tobytes()

    def _asked(self, ask: Callable[[], T]) -> T:
        """What the reader answers. Raises _UnusableError or DataError, whatever the reader raises."""
        try:
            return ask()
        except DataError:
            raise
        except GenrecError as error:
            raise _UnusableError(f"{error}. {error.hint or ''}".strip()) from error
        except Exception as error:  # of a plugin, or of a library on a file that it did not foresee
            raise DataError(f"cannot be read: {type(error).__name__}: {error}") from error

    def _keep(self, medium: Medium) -> None:
        self._waiting.append(medium)
        if len(self._waiting) >= _TOGETHER:
            self._store.put_media(self._waiting)
            self._waiting.clear()


def _content(folder: Path, file: str) -> bytes:
    """What stands in a file of a folder.

    Raises:
        FileNotFoundError: If it is not there.
        DataError: If it lies elsewhere, is too long or cannot be read.
    """
    if _ADDRESS.match(file):
        raise DataError("is an address; nothing is fetched: put the file into the folder and name it there")
    try:
        path = (folder / file).resolve()
        if not path.is_relative_to(folder):
            raise DataError(f"lies outside {folder}")
        if path.exists() and not path.is_file():
            raise DataError("is no file")
        with path.open("rb") as opened:
            content = opened.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise
    except (OSError, ValueError, RuntimeError) as error:  # a name with NUL, a link that leads to itself
        raise DataError(f"cannot be opened: {error}") from error
    if len(content) > MAX_BYTES:
        raise DataError(f"is longer than {MAX_BYTES >> 20} MiB")
    return content
