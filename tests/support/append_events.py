"""Append a generated table to a store: `python append_events.py WHERE N_EVENTS BATCH ids|no-ids`.

Prints `ready` when the store is open, then how many rows are on the disk after each batch. Run as a process of its own
by tests that kill it, or run two at once.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pyarrow as pa

from genrec.events import SCHEMAS
from genrec.store import Appended, Store


def generated(n_events: int, batch: int, *, ids: bool) -> Iterator[pa.RecordBatch]:
    """`n_events` rows, each next to its identical twin; the same rows however they are cut into batches."""
    for start in range(0, n_events, batch):
        rows = range(start, min(start + batch, n_events))
        columns = {
            "event_id": [f"event-{row}" if ids else None for row in rows],
            "user_id": [f"user-{row // 2 % 97}" for row in rows],
            "item_id": [f"item-{row // 2 % 31}" for row in rows],
            "at": [1_700_000_000_000_000 + row // 2 * 1_000_000 for row in rows],
            "action": ["buy"] * len(rows),
        }
        yield pa.RecordBatch.from_arrays(
            [
                pa.array(columns.get(field.name, [None] * len(rows)), pa.int64()).cast(field.type)
                if field.name == "at"
                else pa.array(columns.get(field.name, [None] * len(rows)), field.type)
                for field in SCHEMAS["events"]
            ],
            schema=SCHEMAS["events"],
        )


def main(where: str, n_events: str, batch: str, ids: str) -> None:
    done = 0

    def report(counts: Appended) -> None:
        nonlocal done
        done += counts.n_new + counts.n_known
        print(done, flush=True)

    with Store.open(where) as store:
        print("ready", flush=True)
        store.append(generated(int(n_events), int(batch), ids=ids == "ids"), source="generated", on_batch=report)


if __name__ == "__main__":
    main(*sys.argv[1:])
