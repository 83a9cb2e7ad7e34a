"""What may enter the store, and what an event is called that came without an id. Works on record batches alone.

An event's content is hashed over every column but its id, each value with its length, so that no two contents are
written alike. An event without an id is called by that hash and by which of the identical rows of one import it is:
the same import run again finds the same names, and two identical rows remain two events.
"""

from __future__ import annotations

import json
from hashlib import blake2b

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from genrec.errors import DataError
from genrec.events import SCHEMAS, Kind

_EARLIEST, _LATEST = -62_135_596_800_000_000, 253_402_300_799_999_999  # years 1 to 9999, what a datetime can say


def check(kind: Kind, rows: pa.RecordBatch) -> None:
    """Let through only what the store can keep and give back as it was.

    Raises:
        DataError: If the schema differs, or a row has a null, a number that is not finite, an instant outside the
            years 1 to 9999, a NUL character or key-value data that is not a JSON object.
    """
    schema = SCHEMAS[kind]
    expected = [(field.name, field.type) for field in schema]
    found = [(field.name, field.type) for field in rows.schema]
    if found != expected:
        wrong = [f"{name}: {type_}" for name, type_ in expected if (name, type_) not in found]
        wrong += [f"no {name}: {type_}" for name, type_ in found if (name, type_) not in expected]
        raise DataError(
            f"a batch of {kind} does not have their schema; it should have {', '.join(wrong) or 'another order'}",
            hint=f'Build it with schema=genrec.events.SCHEMAS["{kind}"].',
        )
    try:
        rows.validate(full=True)
    except (pa.ArrowInvalid, UnicodeDecodeError) as error:
        raise DataError(f"a batch of {kind} is damaged: {error}") from error
    for field, column in zip(schema, rows.columns, strict=True):
        if not field.nullable and column.null_count:
            _refuse(kind, field.name, column.is_null(), "is missing")
        if pa.types.is_floating(field.type):
            _refuse(kind, field.name, pc.invert(pc.is_finite(column)), "is not a finite number")
        elif pa.types.is_timestamp(field.type):
            us = column.cast(pa.int64())
            outside = pc.or_(pc.less(us, _EARLIEST), pc.greater(us, _LATEST))
            _refuse(kind, field.name, outside, "lies outside the years 1 to 9999")
        else:
            _refuse(kind, field.name, pc.match_substring(column, "\0"), "contains a NUL character")
            if field.name in ("extra", "attributes"):
                bad = [text for text in column.unique().to_pylist() if text is not None and not _is_object(text)]
                _refuse(kind, field.name, pc.is_in(column, pa.array(bad, pa.string())), "is not a JSON object")


def _refuse(kind: Kind, name: str, bad: pa.BooleanArray, what: str) -> None:
    row = pc.index(bad, value=True).as_py()
    if row >= 0:
        raise DataError(f"row {row + 1} of a batch of {kind}: {name} {what}")


def _is_object(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except ValueError:
        return False


def content_digests(rows: pa.RecordBatch) -> np.ndarray:
    """Hash each event's content: every column but the id.

    Returns:
        Shape ``(n, 2)``, uint64: 128 bits a row, the same on every machine and in every version.
    """
    parts = []
    for name, column in zip(rows.schema.names, rows.columns, strict=True):
        if name == "event_id":
            continue
        if pa.types.is_floating(column.type):
            column = column.view(pa.int64())  # the bits: how a float is printed is nobody's promise
        text = column.cast(pa.int64()).cast(pa.string()) if not pa.types.is_string(column.type) else column
        parts += [pc.binary_length(text).cast(pa.string()), text]
    joined = pc.binary_join_element_wise(*parts, " ", null_handling="replace", null_replacement="-")
    raw = b"".join(blake2b(text.encode(), digest_size=16).digest() for text in joined.to_pylist())
    return np.frombuffer(raw, dtype="<u8").reshape(-1, 2)


class Names:
    """Names for the events of one import that came without an id.

    Counts identical rows in sorted arrays of 64 bits of their hash, merged as they grow: 12 bytes for each different
    row, so tens of millions fit.
    """

    def __init__(self) -> None:
        self._runs: list[tuple[np.ndarray, np.ndarray]] = []  # (keys, sorted, uint64; how often, uint32), longest first

    def fill(self, ids: pa.StringArray, digests: np.ndarray) -> list[str]:
        """Name the nameless.

        Args:
            ids: The events' own ids, null where there is none. Shape ``(n,)``.
            digests: Their `content_digests`. Shape ``(n, 2)``.

        Returns:
            An id for each; ``hash:n`` for the n-th of identical rows without one.
        """
        names: list[str] = ids.to_pylist()
        if ids.null_count:
            (rows,) = np.nonzero(ids.is_null().to_numpy(zero_copy_only=False))
            hexes = digests[rows].astype("<u8").tobytes().hex()
            for i, (row, n) in enumerate(zip(rows.tolist(), self._count(digests[rows, 0]).tolist(), strict=True)):
                names[row] = f"{hexes[32 * i : 32 * i + 32]}:{n}"
        return names

    def _count(self, keys: np.ndarray) -> np.ndarray:
        """Which occurrence of its key, counted from one over all calls, each of these is."""
        unique, inverse, counts = np.unique(keys, return_inverse=True, return_counts=True)
        order = np.argsort(inverse, kind="stable")
        nth = np.empty(len(keys), np.int64)
        nth[order] = np.arange(len(keys)) - np.repeat(np.cumsum(counts) - counts, counts)
        before = np.zeros(len(unique), np.int64)
        for run, seen in self._runs:
            at = np.minimum(np.searchsorted(run, unique), len(run) - 1)
            before += np.where(run[at] == unique, seen[at], 0)
        self._runs.append((unique, counts.astype(np.uint32)))
        while len(self._runs) > 1 and len(self._runs[-2][0]) < 2 * len(self._runs[-1][0]):
            (a, n_a), (b, n_b) = self._runs.pop(), self._runs.pop()
            merged, where = np.unique(np.concatenate([a, b]), return_inverse=True)
            self._runs.append((merged, np.bincount(where, np.concatenate([n_a, n_b])).astype(np.uint32)))
        return nth + before[inverse] + 1
