"""Priors that are fitted once: what they learned is kept in a folder and mapped from there at the next start.

Whatever decides what a prior learns, decides whether what was kept is taken: its options and its code, the catalogue,
who knows whom, the events, and what tells by which clock they happened. Events that came since are taken in where the
prior can do so exactly; in every other case it is fitted anew. Nothing stays of events that were deleted or corrected.
Knows nothing of what priors learn.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import os
import secrets
import shutil
from collections.abc import Iterable, Iterator
from contextlib import closing, suppress
from dataclasses import asdict, fields
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from genrec.catalog import Catalog
from genrec.priors.base import Prior, State, goes_with_fit
from genrec.priors.blend import Blend
from genrec.sources import zones
from genrec.store import Mark, Store

MOST = 8
"""Most priors that are kept, those used last."""
_ABOUT, _VALUES = "about.json", "values.json"
_CHUNK = 50_000  # items hashed at a time


def save(state: State, folder: Path) -> None:
    """Write a state to a new folder: a ``.npy`` file for each array, and JSON for the rest. Nothing in it is code.

    Raises:
        OSError: If it cannot be written.
        ValueError: If an array holds Python objects.
        TypeError: If something else is nothing that JSON can tell.
    """
    folder.mkdir(parents=True)
    arrays = [name for name, value in state.items() if isinstance(value, np.ndarray)]
    rest = {name: value for name, value in state.items() if name not in arrays}
    for number, name in enumerate(arrays):
        with (folder / f"{number}.npy").open("wb") as file:
            np.save(file, state[name], allow_pickle=False)
            os.fsync(file.fileno())  # or a power cut could leave a folder with its name and without its content
    _write({"arrays": arrays, "rest": rest}, folder / _VALUES)


def load(folder: Path) -> State:
    """Map what `save` wrote; as plain arrays, which are faster than `numpy.memmap`.

    Raises:
        OSError, ValueError, EOFError, KeyError: If it is damaged.
    """
    values = json.loads((folder / _VALUES).read_text(encoding="utf-8"))
    arrays = (np.asarray(np.load(folder / f"{n}.npy", mmap_mode="r")) for n in range(len(values["arrays"])))
    return {**values["rest"], **dict(zip(values["arrays"], arrays, strict=True))}


class SavedPriors:
    """Fits priors to a store's events, or gives back what was fitted to the very same.

    Args:
        folder: Where they are kept, a folder each; any number of processes may share it.
        store: The events, and who knows whom.
        catalog: The items.
        version: What else decides what a prior learns, such as the versions of plugins; JSON can tell it.
    """

    def __init__(self, folder: Path, store: Store, catalog: Catalog, *, version: object = None) -> None:
        self._folder, self._store, self._catalog, self._version = folder, store, catalog, version
        self._swept = False

    def fitted(self, prior: Prior, *, before: datetime | None = None) -> Prior:
        """Fit a prior to all events, or to those before an instant, unless that was done before.

        Args:
            prior: A new one.
            before: As for `Store.events`.

        Returns:
            The same prior.
        """
        size = _size(self._catalog)
        about: dict[str, Any] = {"items": _hash(_rows(self._catalog)), "edges": None}
        about["before"] = before and before.isoformat()
        if _hears(prior):
            edges = list(self._store.edges())
            about["edges"] = _hash(edges)
            prior.relate(edges)
        try:
            key = _digest([about, _described(prior), self._version, zones.version()])
        except (OSError, TypeError):  # without its source nobody can tell whether it is the same another time
            self._fit(prior, before)
            return prior
        kept = self._place(key, self._store.mark(before=before))
        self._sweep(about["items"], kept)
        if self._restored(prior, kept):
            with suppress(OSError):
                os.utime(kept)
            return prior
        mark = self._grown(prior, key, before) or self._fit(prior, before)
        state = prior.state() if goes_with_fit(prior, "state") else None
        if state and _size(self._catalog) == size and self._store.mark(before=before, until=mark) == mark:
            with suppress(OSError):  # where nothing can be written it is fitted at each start
                self._keep(state, about | {"log": asdict(mark)}, self._place(key, mark))
        return prior

    def _place(self, key: str, mark: Mark) -> Path:
        """Its folder: what decides a prior, and the events."""
        return self._folder / f"{key}-{_digest(asdict(mark))}"

    def _restored(self, prior: Prior, kept: Path) -> bool:
        """Whether it could be had from there."""
        if not kept.is_dir():
            return False
        try:
            prior.restore(self._catalog, load(kept))
        except Exception:  # however it is damaged, fitting anew mends it
            _remove(kept)
            return False
        return True

    def _fit(self, prior: Prior, before: datetime | None) -> Mark:
        """Fit it; the mark of the events that it saw."""
        mark, events = self._store.marked_choices(before=before)
        with closing(events):
            prior.fit(self._catalog, events)
        return mark

    def _grown(self, prior: Prior, key: str, before: datetime | None) -> Mark | None:
        """Restore what was fitted to fewer events, and let it take in the others; their mark, where that can be."""
        if not goes_with_fit(prior, "grow"):
            return None
        for kept in self._folder.glob(f"{key}-*"):
            if (about := _about(kept)) is None:
                continue
            since = about["log"]
            mark, events = self._store.marked_choices(before=before, since=since)
            batches = list(events)
            first_at = batches[0]["at"][0].value if batches else since.last_at
            if (
                first_at >= since.last_at
                and self._store.mark(before=before, until=since) == since
                and self._restored(prior, kept)
                and prior.grow(batches)
            ):
                return mark
        return None

    def _keep(self, state: State, about: dict[str, Any], place: Path) -> None:
        """Write it to a folder that appears under its name when it is complete, instead of what it supersedes."""
        part = self._folder / f".{secrets.token_hex(8)}"
        try:
            save(state, part)
            _write(about, part / _ABOUT)
            part.rename(place)
        finally:
            shutil.rmtree(part, ignore_errors=True)
        for other in self._folder.glob(f"{place.name.split('-')[0]}-*"):
            if other != place:
                _remove(other)
        for old in sorted(self._folder.glob("[!.]*"), key=_used, reverse=True)[MOST:]:
            _remove(old)

    def sweep(self) -> None:
        """Remove what was made of anything that is not so any more, as the first `fitted` does."""
        self._sweep(_hash(_rows(self._catalog)), None)

    def _sweep(self, items: str, found: Path | None) -> None:
        """Once: remove what was made of anything that is not so any more, and what a process left half done."""
        if self._swept:
            return
        self._swept, edges = True, None
        for kept in self._folder.glob("*/"):
            about = _about(kept)
            if about and about["edges"]:
                edges = edges or _hash(self._store.edges())
            if kept != found and not (
                about
                and about["items"] == items
                and about["edges"] in (None, edges)
                and self._store.mark(before=about["before"], until=about["log"]) == about["log"]
            ):
                _remove(kept)


def _about(kept: Path) -> dict[str, Any] | None:
    """What a folder was made of; None where it is not complete."""
    if kept.name.startswith("."):
        return None
    try:
        about: dict[str, Any] = json.loads((kept / _ABOUT).read_text(encoding="utf-8"))
        before = about["before"]
        return about | {"log": Mark(**about["log"]), "before": before and datetime.fromisoformat(before)}
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _used(kept: Path) -> float:
    with suppress(OSError):
        return kept.stat().st_mtime
    return 0.0


def _remove(folder: Path) -> None:
    """Take its name from it first: a process that still writes it then cannot finish half of it."""
    nameless = folder.with_name(f".{secrets.token_hex(8)}")
    with suppress(OSError):
        folder.rename(nameless)
    shutil.rmtree(nameless, ignore_errors=True)


def _write(value: object, file: Path) -> None:
    with file.open("w", encoding="utf-8") as opened:
        json.dump(value, opened)
        opened.flush()
        os.fsync(opened.fileno())


def _size(catalog: Catalog) -> tuple[int, int]:
    """Tells whether a catalogue was changed meanwhile."""
    return len(catalog), len(catalog.changed)


def _rows(catalog: Catalog) -> Iterator[pa.RecordBatch]:
    """All that a prior can know of a catalogue; what is retired goes on being counted."""
    columns = (catalog.item_ids, catalog.texts, catalog.titles, catalog.categories, catalog.attributes)
    for start in range(0, n := len(catalog), _CHUNK):
        rows = range(start, min(n, start + _CHUNK))
        some = [pa.array(column[rows.start : rows.stop], pa.string()) for column in columns]
        yield pa.RecordBatch.from_arrays(some, [str(i) for i in range(len(some))])
    yield pa.RecordBatch.from_arrays([pa.array([catalog.media_fingerprint])], ["media"])


def _hash(batches: Iterable[pa.RecordBatch]) -> str:
    whole = hashlib.sha256()
    for rows in batches:
        whole.update(rows.serialize())
    return whole.hexdigest()[:32]


def _hears(prior: Prior) -> bool:
    """Whether who knows whom decides what a prior learns."""
    if isinstance(prior, Blend):
        return any(_hears(voice) for voice in prior.voices.values())
    return type(prior).relate is not Prior.relate


def _described(prior: Prior) -> list[Any]:
    """What a prior is: with what it is told, this decides what it learns.

    Raises:
        OSError, TypeError: If it is no dataclass, or its source cannot be read.
    """
    kind = type(prior)
    options = {f.name: repr(getattr(prior, f.name)) for f in fields(prior)}  # type: ignore[arg-type]
    voices = prior.voices if isinstance(prior, Blend) else {}
    return [kind.__module__, kind.__qualname__, _code(kind), options, {n: _described(v) for n, v in voices.items()}]


def _code(kind: type) -> str:
    """Hash of the source of a class and its bases, with the modules beside it in its package."""
    files = set[Path]()
    for one in kind.__mro__:
        if issubclass(one, Prior):
            file = Path(inspect.getfile(one))
            files.update(file.parent.glob("*.py") if "." in one.__module__ else [file])
    return _digest([file.read_text(encoding="utf-8") for file in sorted(files)])


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:32]
