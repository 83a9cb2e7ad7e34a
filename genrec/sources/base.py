"""The connector contract: a source turns foreign data into record batches of the project's schemas.

Knows nothing of the store. A source reads; what becomes of the rows is decided by whoever asked.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pyarrow as pa

from genrec.events import Kind


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One row (or a whole input) that cannot be stored as it is."""

    where: str
    """Where a person would look: ``purchases.csv row 17, column at``."""
    what: str
    """What is wrong and what to do about it."""


Report = Callable[[Problem], None]
"""Takes each problem as it is found, before the batch that its row is left out of."""


class Source(ABC):
    """A connector; a dataclass whose fields are its options, one sentence under each."""

    @abstractmethod
    def identity(self) -> str:
        """A short name under which this data's event ids are unique, the same at every import of the same data.

        The store recognises an event it already holds by this name and the event's id.
        """

    def notes(self, kind: Kind) -> list[str]:
        """What the source worked out by itself about one kind, line by line, for a person to check; nothing as a rule.

        Raises:
            DataError: If the input as a whole cannot be read.
        """
        return []

    @abstractmethod
    def read(self, kind: Kind, report: Report) -> Iterator[pa.RecordBatch]:
        """Stream the rows of one kind, in a stable order.

        Args:
            kind: What to read; a source that has none of it yields nothing. It may be read any number of times.
            report: Called with each row that cannot be used.

        Returns:
            Record batches of ``SCHEMAS[kind]``, at most about 50,000 rows each.

        Raises:
            DataError: If the input as a whole cannot be read.
        """
