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
import threading
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, count
from pathlib import Path
from typing import Any, Protocol, TypeVar, overload

import numpy as np
import pyarrow as pa

from genrec.errors import DataError, EmptyCatalogError
from genrec.events import Item, Medium, from_json, to_json
from genrec.text import clean
from genrec.tokenizer import Tokenizer
from genrec.trie import AnyTrie, LayeredTrie, PrefixClashError, Trie, build

BAR = "|"
"""Stands between a line's context and its items."""
SEPARATOR = ";"
"""Closes every item's text; no text contains it, so no item's tokens are the beginning of another's."""
TEXT_RULE = "short-title-1"
"""Names the way texts are made; adapters remember it."""
MAX_SHORT = 48
"""Longest short form, in characters; a longer title is cut at a word unless it takes more to tell it apart."""
MERGE_AT = 4096
"""Newcomers above which an encoded catalogue is made anew in the background."""
_CHUNK = 50_000  # rows hashed or tokenised at a time

T = TypeVar("T")


class Media(Protocol):
    """Gives what was read of media, with vectors only where they are asked for."""

    def __call__(self, *, vectors: bool = False) -> Iterable[Medium]:
        """See `Store.media`."""


_TRAILING_NOTE = re.compile(r"\s*[(\[][^()\[\]]*[)\]]$")


def short_forms(item_id: str, title: str, numbers: Mapping[str, Iterator[int]]) -> Iterator[str]:
    """Texts an item could have, best first: a short title, a longer one, numbered ones without end.

    Args:
        item_id: The item's id, for want of a title.
        title: Its title.
        numbers: The numbers not tried yet, by short title: items of one title go on where the one before stopped.
    """
    whole = clean(title, max_chars=4 * MAX_SHORT) or clean(f"item {item_id}") or "item"
    short = clean(_TRAILING_NOTE.sub("", whole) or whole, max_chars=MAX_SHORT)
    yield short
    yield clean(whole, max_chars=2 * MAX_SHORT)
    yield whole
    for n in numbers[short]:
        yield f"{short} ({n})"


class Catalog:
    """The items that can be recommended, in the order in which they came: one row each, for good.

    It grows while it is in use: newcomers get rows behind the others, an item that comes again takes its old row and
    keeps its text, and one that is retired keeps both. So what was made of the first rows stays right, and whoever
    keeps something about rows has only to look at those from `len` at the time, and at what was `changed` since.
    Items are kept in columns, which a million of them need; changing them is for one thread at a time (`lock`).
    """

    def __init__(self) -> None:
        self.item_ids: list[str] = []
        """Each row's item, as are the columns below."""
        self.titles: list[str] = []
        self.categories: list[str | None] = []
        self.attributes: list[str | None] = []
        """Key-value data as `genrec.events.to_json` writes it."""
        self.texts: list[str] = []
        """Each item's text, unique."""
        self.words: list[str | None] = []
        """What pictures, sounds and texts of each item were read as; null where nothing was."""
        self.media: Media = lambda *, vectors=False: ()
        """Gives what was read of media, as `Store.media` does."""
        self.media_fingerprint = ""
        """Hash of all that was read of media."""
        self.row: dict[str, int] = {}
        """Position of each item, by item id."""
        self.retired: set[int] = set()
        """Rows of items that are no longer on offer."""
        self.changed: list[int] = []
        """Rows that were replaced, retired or offered again since they were first there, in order."""
        self.new_texts: dict[str, str] = {}
        """Texts that `of` assigned, by item id: keep them, so that they never change."""
        self.lock = threading.RLock()
        """Held while items are added."""
        self._n = 0
        self._taken: set[str] = set()  # every text that was ever assigned
        self._hashed = (0, hashlib.sha256(TEXT_RULE.encode()))  # how many rows, and the hash of them
        self._hashing = threading.Lock()

    @classmethod
    def of(cls, items: Iterable[Item], texts: Mapping[str, str] | None = None) -> Catalog:
        """Give every item a text.

        An incumbent keeps its text; a newcomer whose short form is taken gets a longer one or a number.

        Args:
            items: The items; of several with one id the last counts.
            texts: Texts assigned before, by item id, also of items that are gone: they stay reserved.
        """
        unique = {item.item_id: item for item in items}
        catalog = cls()
        catalog._begin(texts or {}, list(unique), *_columns(unique.values()))
        return catalog

    @classmethod
    def read(
        cls,
        batches: Iterable[pa.RecordBatch],
        texts: Mapping[str, str],
        *,
        retired: Collection[str] = (),
        media: Media = lambda *, vectors=False: (),
    ) -> Catalog:
        """As `of`, from what a store holds.

        Args:
            batches: Record batches of ``SCHEMAS["items"]`` in which each id is found once.
            texts: As for `of`.
            retired: Items that are not on offer.
            media: Gives what was read of the items' media: `Store.media`.
        """
        catalog = cls()
        columns: dict[str, list[Any]] = {"item_id": [], "title": [], "category": [], "attributes": []}
        for rows in batches:
            for name, column in columns.items():
                column += rows[name].to_pylist()
        catalog._begin(texts, *columns.values())
        catalog.retired = {catalog.row[item_id] for item_id in retired if item_id in catalog.row}
        catalog.media = media
        catalog._describe()
        return catalog

    def _begin(
        self,
        texts: Mapping[str, str],
        item_ids: list[str],
        titles: list[str],
        categories: list[str | None],
        attributes: list[str | None],
    ) -> None:
        self._taken.update(texts.values())
        nameless = [(item_id, t) for item_id, t in zip(item_ids, titles, strict=True) if item_id not in texts]
        self.new_texts = self._name(nameless)
        named = {**texts, **self.new_texts} if nameless else texts
        self._append([named[item_id] for item_id in item_ids], item_ids, titles, categories, attributes)

    def _name(self, nameless: Iterable[tuple[str, str]]) -> dict[str, str]:
        """A text for each item id and title, none of them taken; they are when the items are added."""
        new: dict[str, str] = {}
        mine: set[str] = set()
        numbers: Mapping[str, Iterator[int]] = defaultdict(lambda: count(2))
        for item_id, title in nameless:
            forms = short_forms(item_id, title, numbers)
            new[item_id] = next(form for form in forms if form not in self._taken and form not in mine)
            mine.add(new[item_id])
        return new

    def _append(
        self,
        texts: list[str],
        item_ids: list[str],
        titles: list[str],
        categories: list[str | None],
        attributes: list[str | None],
    ) -> None:
        """New rows. Whoever reads meanwhile sees none of them, or whole ones."""
        self.item_ids += item_ids
        self.titles += titles
        self.categories += categories
        self.attributes += attributes
        self.texts += texts
        self.words += [None] * len(texts)
        self._taken.update(texts)
        n = self._n
        self._n = n + len(item_ids)
        self.row.update(zip(item_ids, range(n, self._n), strict=True))

    def _describe(self) -> None:
        """Take in the words of media."""
        found = hashlib.sha256()
        for one in self.media():
            if (row := self.row.get(one.item_id)) is not None and one.words:
                self.words[row] = f"{self.words[row]} {one.words}" if self.words[row] else one.words
            found.update(f"{one.item_id}\0{one.reader}\0{one.content}\n".encode(errors="surrogatepass"))
        self.media_fingerprint = found.hexdigest()[:16]

    def description(self, row: int, attributes: Sequence[str] = ()) -> str:
        """What is said of an item: its title, some attributes, and what its media were read as.

        Not what a language model reads: that is its text.

        Args:
            row: The item's.
            attributes: Names of attributes whose values count.
        """
        own = from_json(self.attributes[row]) if attributes else {}
        said = [self.titles[row], *(own.get(name) for name in attributes), self.words[row]]
        return " ".join(one for one in said if one)

    def descriptions(self, attributes: Sequence[str] = ()) -> list[str]:
        """What is said of each item, by row; see `description`."""
        return [self.description(row, attributes) for row in range(self._n)]

    def name(self, items: Iterable[Item], texts: Mapping[str, str] | None = None) -> dict[str, str]:
        """Texts for items that are to be added, by item id; only of those that the catalogue lacks.

        Args:
            items: The items.
            texts: Texts that others assigned meanwhile, by item id: to these items or to any.
        """
        with self.lock:
            known = dict(texts or {})
            self._taken.update(known.values())
            lacking = {item.item_id: item.title for item in items if item.item_id not in self.row}
            assigned = {item_id: known[item_id] for item_id in lacking if item_id in known}
            return assigned | self._name((i, t) for i, t in lacking.items() if i not in assigned)

    def add(self, items: Iterable[Item], texts: Mapping[str, str] | None = None) -> list[int]:
        """Add newcomers behind the others and replace what comes again; both are on offer then.

        Args:
            items: The items; of several with one id the last counts.
            texts: The newcomers' texts as `name` gave them; given now when omitted.

        Returns:
            The rows of the newcomers.
        """
        with self.lock:
            unique = {item.item_id: item for item in items}
            named = self.name(unique.values()) if texts is None else texts
            n = self._n
            new = [item for item in unique.values() if item.item_id not in self.row]
            for item in unique.values():
                if (row := self.row.get(item.item_id)) is not None:
                    self.titles[row], self.categories[row] = item.title, item.category
                    self.attributes[row] = to_json(item.attributes)
                    self.retired.discard(row)
                    self.changed.append(row)
            new_ids = [item.item_id for item in new]
            self._append([named[item_id] for item_id in new_ids], new_ids, *_columns(new))
            return list(range(n, self._n))

    def retire(self, item_ids: Iterable[str]) -> None:
        """Take items off offer; unknown ones are passed over."""
        with self.lock:
            rows = [self.row[item_id] for item_id in item_ids if item_id in self.row]
            self.retired.update(rows)
            self.changed += rows

    def __len__(self) -> int:
        return self._n

    @property
    def items(self) -> Sequence[Item]:
        """The items, each made when it is asked for."""
        return _Items(self)

    @property
    def fingerprint(self) -> str:
        """Hash of the ids, texts and text rule."""
        with self._hashing:
            n, whole = self._hashed
            if self._n > n:
                self._hash(whole, n, n := self._n)
                self._hashed = n, whole
            return whole.hexdigest()[:16]

    def fingerprints_of(self, ns: Iterable[int]) -> list[str]:
        """What the fingerprint was when there were so many items; `ns` ascending."""
        start, whole, digests = 0, hashlib.sha256(TEXT_RULE.encode()), []
        for n in ns:
            self._hash(whole, start, n)
            start = n
            digests.append(whole.hexdigest()[:16])
        with self._hashing:
            if start > self._hashed[0]:
                self._hashed = start, whole
        return digests

    def _hash(self, whole: hashlib._Hash, start: int, end: int) -> None:
        """Take rows into a hash: each id and text with its length, so that no two lists are written alike."""
        for at in range(start, end, _CHUNK):
            rows = slice(at, min(end, at + _CHUNK))
            pairs = zip(self.item_ids[rows], self.texts[rows], strict=True)
            written = "".join(f"{len(item_id)} {item_id}{len(text)} {text}" for item_id, text in pairs)
            whole.update(written.encode(errors="surrogatepass"))

    def encode(self, tokenizer: Tokenizer, *, cache: Path | None = None) -> EncodedCatalog:
        """Write every text as token ids and build the trie over them.

        Args:
            tokenizer: The language model's.
            cache: Folder that keeps encodings; nothing is kept when omitted, or where it cannot be written.

        Raises:
            EmptyCatalogError: If there is no item.
        """
        if not self._n:
            raise EmptyCatalogError("the catalogue has no items", hint="Bring some in with genrec import.")
        return EncodedCatalog(self, tokenizer, cache)


def _columns(items: Iterable[Item]) -> tuple[list[str], list[str | None], list[str | None]]:
    """Titles, categories and attributes of items, as a catalogue keeps them."""
    kept = [(item.title, item.category, to_json(item.attributes)) for item in items]
    return [k[0] for k in kept], [k[1] for k in kept], [k[2] for k in kept]


class _Items(Sequence[Item]):
    """The items of a catalogue's columns."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog, self._n = catalog, len(catalog)

    def __len__(self) -> int:
        return self._n

    @overload
    def __getitem__(self, row: int) -> Item: ...
    @overload
    def __getitem__(self, row: slice) -> list[Item]: ...
    def __getitem__(self, row: int | slice) -> Item | list[Item]:
        rows = range(self._n)[row]
        return [self._item(r) for r in rows] if isinstance(rows, range) else self._item(rows)

    def _item(self, row: int) -> Item:
        of = self._catalog
        return Item(
            item_id=of.item_ids[row],
            title=of.titles[row],
            category=of.categories[row],
            attributes=from_json(of.attributes[row]),
        )


@dataclass(frozen=True, kw_only=True)
class _Encoding:
    """The first rows of a catalogue in token ids, at one moment."""

    indptr: np.ndarray
    """Row i's ids are ``tokens[indptr[i]:indptr[i + 1]]``. Shape ``(n_base + 1,)``, int64."""
    tokens: np.ndarray
    """Ids of each text and its separator, end to end, int32."""
    base: Trie
    """Over those rows."""
    added: tuple[list[int], ...] = ()
    """The ids of each row behind them."""
    trie: AnyTrie
    """Over all rows."""

    def __len__(self) -> int:
        return self.base.n_leaves + len(self.added)

    def with_added(self, ids: Sequence[list[int]]) -> _Encoding:
        """The same with these rows behind `base`; raises PrefixClashError, which counts them from 0."""
        return replace(self, added=tuple(ids), trie=LayeredTrie(self.base, build(*_flat(ids))) if ids else self.base)

    def save(self, folder: Path) -> None:
        """Keep what is not `added` in `folder`, which appears when all of it is written.

        Raises:
            OSError: If it cannot be written, or the folder is there already: others may have mapped what is in it.
        """
        part = folder.with_name(f"{folder.name}.{secrets.token_hex(4)}")
        try:
            self.base.save(part)
            np.save(part / "indptr.npy", self.indptr)
            np.save(part / "tokens.npy", self.tokens)
            part.rename(folder)
        finally:
            shutil.rmtree(part, ignore_errors=True)

    @classmethod
    def load(cls, folder: Path) -> _Encoding:
        """Memory-map what `save` kept; as plain arrays, see `Trie.load`."""
        indptr, tokens = (np.asarray(np.load(folder / f"{n}.npy", mmap_mode="r")) for n in ("indptr", "tokens"))
        trie = Trie.load(folder)
        if not len(indptr) - 1 == trie.n_leaves or len(tokens) != indptr[-1]:
            raise ValueError(f"what {folder} holds does not fit together")
        return cls(indptr=indptr, tokens=tokens, base=trie, trie=trie)


class EncodedCatalog:
    """A catalogue in one model's token ids, growing with it. Made by `Catalog.encode`; for any number of threads.

    What is added goes into a small trie over the large one; when that has more than `MERGE_AT` items, a thread makes
    one trie of both, keeps it and puts it in their place. A search that has taken `trie` goes on with what it took.
    """

    def __init__(self, catalog: Catalog, tokenizer: Tokenizer, cache: Path | None) -> None:
        self.catalog = catalog
        self._tokenizer, self._cache = tokenizer, cache
        self._lock = threading.Lock()  # held while `_now` is replaced
        self._thread: threading.Thread | None = None
        self._kept: Path | None = None
        [self._separator] = tokenizer.encode([SEPARATOR], after="x")
        n = len(catalog)
        self._now = self._load(n) or self._first(n)
        self.longest = int(np.diff(self._now.indptr).max())
        """Most tokens that an item takes."""
        self._grow(n)
        if len(self._now.added) > MERGE_AT:
            self._merge()

    @property
    def trie(self) -> AnyTrie:
        """Over the token ids of all items that there are at this moment: taken once, it never changes."""
        self.grow()
        return self._now.trie

    @property
    def indptr(self) -> np.ndarray:
        """Where each row of the large trie begins in `tokens`. Shape ``(n + 1,)``, int64."""
        return self._now.indptr

    @property
    def tokens(self) -> np.ndarray:
        """Ids of the texts in the large trie, separators included, end to end, int32."""
        return self._now.tokens

    def ids(self, row: int) -> list[int]:
        """Token ids of one item as it stands in a history line, separator included."""
        if row >= len(self._now):
            self.grow()
        now = self._now
        if (n_after := row - now.base.n_leaves) >= 0:
            return now.added[n_after]
        ids: list[int] = now.tokens[now.indptr[row] : now.indptr[row + 1]].tolist()
        return ids

    def n_ids(self, row: int) -> int:
        """How many `ids` an item has."""
        now = self._now
        if row >= now.base.n_leaves:
            return len(self.ids(row))
        return int(now.indptr[row + 1]) - int(now.indptr[row])

    def save(self, folder: Path) -> None:
        """Keep the large trie and its tokens in `folder`, which appears when all of it is written.

        Raises:
            OSError: If it cannot be written, or the folder is there already: others may have mapped what is in it.
        """
        self._now.save(folder)

    def grow(self) -> None:
        """Take in what was added to the catalogue; costs what was added and what waits to be merged, not the rest."""
        if len(self.catalog) == len(self._now):
            return
        with self._lock:
            self._grow(len(self.catalog))
            if len(self._now.added) > MERGE_AT and not self.is_merging:
                self._thread = threading.Thread(target=self._merge, name="genrec merges a catalogue")
                self._thread.start()

    @property
    def is_merging(self) -> bool:
        """Whether a merge is under way."""
        return self._thread is not None and self._thread.is_alive()

    def settle(self) -> None:
        """Wait for a merge that is under way."""
        if (thread := self._thread) is not None:
            thread.join()

    def _grow(self, n: int) -> None:
        now = self._now
        if n == len(now):
            return
        new = self._write(self.catalog.texts[len(now) : n])
        self._now = self._tell_apart(now.base.n_leaves, [*now.added, *new], now.with_added)
        self.longest = max(self.longest, *(len(ids) for ids in self._now.added[len(now.added) :]))

    def _merge(self) -> None:
        """Make one trie of both, and lay what came meanwhile over it; again if that is much."""
        while len((before := self._now).added) > MERGE_AT:
            indptr, tokens = _flat(before.added)
            indptr = np.concatenate([before.indptr, before.indptr[-1] + indptr[1:]])
            tokens = np.concatenate([before.tokens, tokens])
            outdated = self._kept
            merged = self._keep(indptr, tokens, build(indptr, tokens))
            with self._lock:
                self._now = merged.with_added(self._now.added[len(before.added) :])
            if outdated is not None and outdated != self._kept:
                shutil.rmtree(outdated, ignore_errors=True)  # whoever has mapped it keeps what is mapped

    def _first(self, n: int) -> _Encoding:
        """The first `n` rows, from their texts."""

        def built(ids: list[list[int]]) -> tuple[np.ndarray, np.ndarray, Trie]:
            indptr, tokens = _flat(ids)
            return indptr, tokens, build(indptr, tokens)

        return self._keep(*self._tell_apart(0, self._write(self.catalog.texts[:n]), built))

    def _write(self, texts: Sequence[str]) -> list[list[int]]:
        ids: list[list[int]] = []
        for start in range(0, len(texts), _CHUNK):
            words = self._tokenizer.encode([f" {text}" for text in texts[start : start + _CHUNK]], after=BAR)
            ids += [word + self._separator for word in words]
        return ids

    def _tell_apart(self, first: int, ids: list[list[int]], make: Callable[[list[list[int]]], T]) -> T:
        """Make something of the token ids of the rows from `first` that takes a prefix-free set.

        A tokenizer that folds case or drops characters can write texts alike: the later ones get their row's number,
        which tells any number of them apart.
        """
        for sign in ("#", "##", "###"):  # more than one only where a title looks like what this makes
            try:
                return make(ids)
            except PrefixClashError as clash:
                rows = clash.rows.tolist()
                texts = [self.catalog.texts[first + row] for row in rows]
                numbered = [f"{text} ({sign}{first + row})" for text, row in zip(texts, rows, strict=True)]
                for row, again in zip(rows, self._write(numbered), strict=True):
                    ids[row] = again
        raise DataError(
            f"the model's tokenizer cannot tell items apart, {texts[0]!r} for one",
            hint="Give such items titles in a script that the model's tokenizer knows.",
        )

    def _load(self, n: int) -> _Encoding | None:
        """What the cache has of the most of the first `n` rows."""
        found = self._cache.glob(f"{self._key}-*-*") if self._cache else ()
        sizes = {int(size) for folder in found if (size := folder.name.split("-")[1]).isdigit()}
        usable = sorted(size for size in sizes if size <= n)
        folders = [self._folder(*of) for of in zip(usable, self.catalog.fingerprints_of(usable), strict=True)]
        for folder in reversed(folders):
            if folder.is_dir():
                try:
                    encoding = _Encoding.load(folder)
                except (OSError, ValueError, EOFError):  # damaged, say by a power cut
                    shutil.rmtree(folder, ignore_errors=True)
                else:
                    self._kept = folder
                    return encoding
        return None

    def _keep(self, indptr: np.ndarray, tokens: np.ndarray, trie: Trie) -> _Encoding:
        """Write it into the cache and map it from there; where that cannot be, it stays in memory."""
        encoding = _Encoding(indptr=indptr, tokens=tokens, base=trie, trie=trie)
        if self._cache is None:
            return encoding
        folder = self._folder(len(encoding), *self.catalog.fingerprints_of([len(encoding)]))
        try:
            encoding.save(folder)
            encoding = _Encoding.load(folder)
        except OSError:
            return encoding
        self._kept = folder
        return encoding

    @property
    def _key(self) -> str:
        return _digest([TEXT_RULE, self._tokenizer.fingerprint])

    def _folder(self, n: int, fingerprint: str) -> Path:
        assert self._cache is not None
        return self._cache / f"{self._key}-{n}-{fingerprint}"


def _flat(ids: Sequence[Sequence[int]]) -> tuple[np.ndarray, np.ndarray]:
    """Where each of some lists of token ids begins, shape ``(n + 1,)``, int64, and all of them end to end, int32."""
    indptr = np.zeros(len(ids) + 1, np.int64)
    np.cumsum([len(one) for one in ids], out=indptr[1:])
    return indptr, np.fromiter(chain.from_iterable(ids), np.int32, int(indptr[-1]))


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, ensure_ascii=True).encode()).hexdigest()[:16]
