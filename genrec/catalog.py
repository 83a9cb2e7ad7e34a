"""Items, their short unique texts, and the token trie over them.

An item's text is its identifier towards the language model: short, unique, assigned once and kept for good, closed by a
separator that no text contains. Knows nothing of people, prompts or engines.
"""

from __future__ import annotations

import hashlib
import json
import re
import secrets
import shutil
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain, count
from pathlib import Path

import numpy as np

from genrec.errors import DataError, EmptyCatalogError
from genrec.events import Item
from genrec.text import clean
from genrec.tokenizer import Tokenizer
from genrec.trie import PrefixClashError, Trie, build

BAR = "|"
"""Stands between a line's context and its items."""
SEPARATOR = ";"
"""Closes every item's text; no text contains it, so no item's tokens are the beginning of another's."""
TEXT_RULE = "short-title-1"
"""Names the way texts are made; adapters remember it."""
MAX_SHORT = 48
"""Longest short form, in characters; a longer title is cut at a word unless it takes more to tell it apart."""

_TRAILING_NOTE = re.compile(r"\s*[(\[][^()\[\]]*[)\]]$")


def short_forms(item: Item, numbers: Mapping[str, Iterator[int]]) -> Iterator[str]:
    """Texts an item could have, best first: a short title, a longer one, numbered ones without end.

    Args:
        item: The item.
        numbers: The numbers not tried yet, by short title: items of one title go on where the one before stopped.
    """
    whole = clean(item.title, max_chars=4 * MAX_SHORT) or clean(f"item {item.item_id}") or "item"
    short = clean(_TRAILING_NOTE.sub("", whole) or whole, max_chars=MAX_SHORT)
    yield short
    yield clean(whole, max_chars=2 * MAX_SHORT)
    yield whole
    for n in numbers[short]:
        yield f"{short} ({n})"


@dataclass(frozen=True, kw_only=True)
class Catalog:
    """The items that can be recommended, in the order in which they came."""

    items: tuple[Item, ...]
    texts: tuple[str, ...]
    """Each item's text, unique."""
    new_texts: Mapping[str, str] = field(default_factory=dict)
    """Texts assigned just now, by item id: keep them, so that they never change."""

    @classmethod
    def of(cls, items: Iterable[Item], texts: Mapping[str, str] | None = None) -> Catalog:
        """Give every item a text.

        An incumbent keeps its text; a newcomer whose short form is taken gets a longer one or a number.

        Args:
            items: The items; of several with one id the last counts.
            texts: Texts assigned before, by item id, also of items that are gone: they stay reserved.
        """
        known = dict(texts or {})
        unique = {item.item_id: item for item in items}
        taken = set(known.values())
        new: dict[str, str] = {}
        numbers: Mapping[str, Iterator[int]] = defaultdict(lambda: count(2))
        for item in unique.values():
            if item.item_id not in known:
                text = next(form for form in short_forms(item, numbers) if form not in taken)
                taken.add(text)
                new[item.item_id] = text
        known |= new
        return cls(items=tuple(unique.values()), texts=tuple(known[i] for i in unique), new_texts=new)

    def __len__(self) -> int:
        return len(self.items)

    @cached_property
    def row(self) -> Mapping[str, int]:
        """Position of each item, by item id."""
        return {item.item_id: row for row, item in enumerate(self.items)}

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the ids, texts and text rule."""
        return _digest([TEXT_RULE, [item.item_id for item in self.items], self.texts])

    def encode(self, tokenizer: Tokenizer, *, cache: Path | None = None) -> EncodedCatalog:
        """Write every text as token ids and build the trie over them.

        Args:
            tokenizer: The language model's.
            cache: Folder that keeps encodings by fingerprint; nothing is kept when omitted, or where it cannot be
                written.

        Raises:
            EmptyCatalogError: If there is no item.
        """
        if not self.items:
            raise EmptyCatalogError("the catalogue has no items", hint="Bring some in with genrec import.")
        folder = cache / _digest([self.fingerprint, tokenizer.fingerprint]) if cache else None
        if folder and folder.is_dir():
            try:
                return EncodedCatalog.load(folder, self)
            except (OSError, ValueError, EOFError):  # damaged, say by a power cut
                shutil.rmtree(folder, ignore_errors=True)
        encoded = _encode(self, tokenizer)
        if folder:
            with suppress(OSError):
                encoded.save(folder)
        return encoded


@dataclass(frozen=True, kw_only=True)
class EncodedCatalog:
    """A catalogue in one model's token ids."""

    catalog: Catalog
    indptr: np.ndarray
    """Row i's ids are ``tokens[indptr[i]:indptr[i + 1]]``. Shape ``(n_items + 1,)``, int64."""
    tokens: np.ndarray
    """Ids of each text and its separator, end to end, int32."""
    trie: Trie

    def ids(self, row: int) -> list[int]:
        """Token ids of one item as it stands in a history line, separator included."""
        return [int(i) for i in self.tokens[self.indptr[row] : self.indptr[row + 1]]]

    def save(self, folder: Path) -> None:
        """Keep it in `folder`, which appears when all of it is written.

        Raises:
            OSError: If it cannot be written, or the folder is there already: others may have mapped what is in it.
        """
        part = folder.with_name(f"{folder.name}.{secrets.token_hex(4)}")
        try:
            self.trie.save(part)
            np.save(part / "indptr.npy", self.indptr)
            np.save(part / "tokens.npy", self.tokens)
            part.rename(folder)
        finally:
            shutil.rmtree(part, ignore_errors=True)

    @classmethod
    def load(cls, folder: Path, catalog: Catalog) -> EncodedCatalog:
        """Memory-map what `save` kept for this catalogue."""
        indptr, tokens = (np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("indptr", "tokens"))
        return cls(catalog=catalog, indptr=indptr, tokens=tokens, trie=Trie.load(folder))


def _encode(catalog: Catalog, tokenizer: Tokenizer) -> EncodedCatalog:
    [separator] = tokenizer.encode([SEPARATOR], after="x")
    words = tokenizer.encode([f" {text}" for text in catalog.texts], after=BAR)
    for attempt in range(2, 12):
        ids = [word + separator for word in words]
        indptr = np.concatenate([[0], np.cumsum([len(i) for i in ids])])
        tokens = np.fromiter(chain.from_iterable(ids), np.int32, int(indptr[-1]))
        try:
            return EncodedCatalog(catalog=catalog, indptr=indptr, tokens=tokens, trie=build(indptr, tokens))
        except PrefixClashError as clash:
            # A tokenizer that folds case or drops characters can write two texts alike: number the later ones.
            rows = [int(r) for r in clash.rows]
            again = tokenizer.encode([f" {catalog.texts[r]} ({attempt})" for r in rows], after=BAR)
            for r, word in zip(rows, again, strict=True):
                words[r] = word
    raise DataError(
        f"the model's tokenizer cannot tell items apart, {catalog.texts[rows[0]]!r} for one",
        hint="Give such items titles in a script that the model's tokenizer knows.",
    )


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, ensure_ascii=True).encode()).hexdigest()[:16]
