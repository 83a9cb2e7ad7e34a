"""Writing one batch of events into the log, in a transaction of the caller's.

What is there already is asked for in one query, decided on in numpy and written in bulk: rows of a batch cost no
statement of their own. The source's row is locked meanwhile, so two imports of the same data cannot both find an event
missing.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from sqlalchemy import Connection, bindparam, select, update

from genrec.store.connection import copy_rows
from genrec.store.rows import Names, content_digests
from genrec.store.tables import events, sources

_PIECE = 10_000  # rows turned into Python values at a time
_COLUMNS = [column.name for column in events.columns if column.name != "seq"]
_NAMES = ", ".join(_COLUMNS)
_INSERT = f"INSERT INTO events ({_NAMES}) VALUES ({', '.join('?' * len(_COLUMNS))})"
_COPY = f"COPY events ({_NAMES}) FROM STDIN"
_FIND_SQLITE = """
    SELECT asked.key, seq, content FROM json_each(?) AS asked
    CROSS JOIN events WHERE source_id = ? AND event_id = asked.value AND is_current"""
_FIND_POSTGRES = """
    SELECT n - 1, seq, content FROM unnest(%s::text[]) WITH ORDINALITY AS asked (id, n)
    JOIN events ON source_id = %s AND event_id = asked.id AND is_current"""


@dataclass(frozen=True, kw_only=True)
class Appended:
    """What became of the events handed to the store."""

    n_new: int = 0
    """Events it did not have."""
    n_known: int = 0
    """Events it had, with the same content: nothing was written."""
    n_corrected: int = 0
    """New versions of events it had with another content."""

    def __add__(self, other: Appended) -> Appended:
        return Appended(
            n_new=self.n_new + other.n_new,
            n_known=self.n_known + other.n_known,
            n_corrected=self.n_corrected + other.n_corrected,
        )


def append_batch(connection: Connection, source_id: int, rows: pa.RecordBatch, names: Names) -> Appended:
    """Write the events of one batch that are new or corrected.

    The outcome is that of taking the rows one by one: each is compared with the current version of its event.

    Args:
        connection: In a transaction that may write.
        source_id: Key of the source they come from.
        rows: Events that passed `check`.
        names: Names the nameless of this import.
    """
    connection.execute(select(sources.c.source_id).where(sources.c.source_id == source_id).with_for_update())
    digests = content_digests(rows)
    ids = names.fill(rows["event_id"], digests)
    content = digests[:, 0].view(np.int64)

    taken, is_first, is_last = _chains(ids, content)
    asked = taken[is_first]
    current = _find(connection, source_id, [ids[row] for row in asked.tolist()])
    known = np.zeros(len(ids), bool)
    stored: dict[str, int] = {}  # id -> seq of the version the store has
    for index, seq, stored_content in current:
        row = int(asked[index])
        known[row] = stored_content == content[row]
        stored[ids[row]] = seq
    written = taken[~known[taken]]
    retired = {stored[ids[row]] for row in written.tolist() if ids[row] in stored} if stored else set()
    if retired:
        statement = update(events).where(events.c.seq == bindparam("old")).values(is_current=False)
        connection.execute(statement, [{"old": seq} for seq in retired])

    is_current = np.zeros(len(ids), bool)
    is_current[taken[is_last]] = True
    _insert(connection, source_id, rows, ids, content, is_current, written)
    n_new = len(asked) - len(stored)
    return Appended(n_new=n_new, n_known=len(ids) - len(written), n_corrected=len(written) - n_new)


def _chains(ids: list[str], content: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Find rows of one batch that are versions of the same event.

    Returns:
        The rows left when direct repetitions are passed over, in order, shape ``(m,)``; and for each whether it is
        the first and whether it is the last of its event here, shape ``(m,)``.
    """
    codes = pa.array(ids, pa.string()).dictionary_encode()
    if len(codes.dictionary) == len(ids):
        every = np.ones(len(ids), bool)
        return np.arange(len(ids)), every, every
    event = codes.indices.to_numpy()
    order = np.argsort(event, kind="stable")
    same = event[order][1:] == event[order][:-1]
    repeats = np.concatenate([[False], same & (content[order][1:] == content[order][:-1])])
    order = order[~repeats]
    starts = np.concatenate([[True], event[order][1:] != event[order][:-1]])
    ends = np.concatenate([starts[1:], [True]])
    back = np.argsort(order)
    return order[back], starts[back], ends[back]


def _find(connection: Connection, source_id: int, ids: list[str]) -> Iterator[tuple[int, int, int]]:
    """Look up current versions: (index into `ids`, seq, content) of those the store has."""
    if connection.dialect.name == "sqlite":
        found = connection.exec_driver_sql(_FIND_SQLITE, (json.dumps(ids, ensure_ascii=False), source_id))
    else:
        found = connection.exec_driver_sql(_FIND_POSTGRES, (ids, source_id))
    for index, seq, content in found:
        yield int(index), int(seq), int(content)


def _insert(
    connection: Connection,
    source_id: int,
    rows: pa.RecordBatch,
    ids: list[str],
    content: np.ndarray,
    is_current: np.ndarray,
    which: np.ndarray,
) -> None:
    """Write the rows `which`, in order."""
    for start in range(0, len(which), _PIECE):
        piece = which[start : start + _PIECE]
        taken = rows.take(pa.array(piece))
        n = len(piece)
        columns: dict[str, list[object]] = {
            "source_id": [source_id] * n,
            "event_id": [ids[row] for row in piece.tolist()],
            "content": content[piece].tolist(),
            "is_current": is_current[piece].tolist(),
        }
        for name in _COLUMNS[len(columns) :]:
            column = taken[name]
            columns[name] = (column.cast(pa.int64()) if name == "at" else column).to_pylist()
        values = list(zip(*(columns[name] for name in _COLUMNS), strict=True))
        if connection.dialect.name == "sqlite":
            connection.exec_driver_sql(_INSERT, values)
        else:
            copy_rows(connection, _COPY, values)
