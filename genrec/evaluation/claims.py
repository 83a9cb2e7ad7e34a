"""What events say of their own time, in further context, that their instant contradicts.

Works on columns. Where the two differ the instant counts: words leave the other out, see `genrec.context.device`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import pyarrow as pa

from genrec.context.time import claim
from genrec.evaluation.log import DAY_US, numbers, wall
from genrec.events import from_json
from genrec.sources.zones import clocks

_HOURS = frozenset(range(168))
_MONDAY_H = 72
"""Hours from the Monday of the week in which 1970 began to 1970."""


class Tally:
    """Takes down what events say while they pass by."""

    def __init__(self) -> None:
        self._hours = {_HOURS: 0}
        """What was said, as the hours of the week at which it can be true, by its number."""
        self._said = [np.empty(0, np.int64)]

    def watch(self, events: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """The same events."""
        for batch in events:
            self.add(batch)
            yield batch

    def add(self, batch: pa.RecordBatch) -> None:
        """Take one batch down."""
        extras = batch["extra"].dictionary_encode()
        found = [self._hours.setdefault(_true_at(text), len(self._hours)) for text in extras.dictionary.to_pylist()]
        self._said.append(np.array([*found, 0], np.int64)[extras.indices.fill_null(len(found)).to_numpy()])

    def count(self, wall_us: np.ndarray) -> int:
        """How many of them are contradicted.

        Args:
            wall_us: What the clocks on their walls showed, microseconds since 1970 there. Shape ``(n,)``, int64.
        """
        can_be = np.array([[h in hours for h in range(168)] for hours in self._hours])
        return int((~can_be[np.concatenate(self._said), (wall_us // (DAY_US // 24) + _MONDAY_H) % 168]).sum())


def odd(batch: pa.RecordBatch) -> int:
    """How many events of a batch are contradicted, by the clocks that they or their positions name."""
    if not batch["extra"].drop_null():
        return 0
    zones: dict[str, int] = {}
    clock = numbers(clocks(batch), zones)
    batch, clock = batch.filter(pa.array(clock >= 0)), clock[clock >= 0]
    tally = Tally()
    tally.add(batch)
    return tally.count(wall(batch["at"].cast(pa.int64()).to_numpy(), clock, list(zones)))


def _true_at(extra: str) -> frozenset[int]:
    """The hours of the week at which all that is said can be true."""
    try:
        said = from_json(extra)
    except (ValueError, AttributeError):  # no JSON object: the store's to refuse
        return _HOURS
    return _HOURS.intersection(*(hours for pair in said.items() if (hours := claim(*pair))))
