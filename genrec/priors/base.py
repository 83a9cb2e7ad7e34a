"""What an untrained voice is: a distribution over the catalogue from history and moment alone."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from genrec.catalog import Catalog
from genrec.events import Context

if TYPE_CHECKING:
    from genrec.history import History


State = Mapping[str, Any]
"""What a prior has learned, by names of its own: numpy arrays, and what JSON can tell."""


def known_rows(catalog: Catalog, events: pa.RecordBatch) -> np.ndarray:
    """Catalogue row of each event's item, -1 where the catalogue lacks it. Shape ``(n_events,)``, int32."""
    names = events["item_id"].dictionary_encode()
    known = np.array([catalog.row.get(name, -1) for name in names.dictionary.to_pylist()], np.int32)
    rows: np.ndarray = known[names.indices.to_numpy()]
    return rows


def instant(at: datetime) -> np.datetime64:
    """An instant as the events' are kept: microseconds, UTC."""
    return np.datetime64(at.astimezone(UTC).replace(tzinfo=None), "us")


class Prior(ABC):
    """A cheap distribution over items; a dataclass whose fields are its options."""

    def relate(self, edges: Iterable[pa.RecordBatch]) -> None:
        """Hear who knows whom, before `fit`. Most priors do not care.

        Args:
            edges: Record batches of ``SCHEMAS["edges"]``.
        """
        return  # not abstract: nothing is a good answer

    @abstractmethod
    def fit(self, catalog: Catalog, events: Iterable[pa.RecordBatch]) -> None:
        """Count what the events say.

        Args:
            catalog: The items, in the order of `log_mass`.
            events: Record batches of ``SCHEMAS["events"]`` or of `WEIGHED`, in any order, choices alone; items the
                catalogue lacks are passed over.
        """

    @abstractmethod
    def log_mass(self, history: History, now: Context) -> np.ndarray:
        """Log-probability of each catalogue item as the person's next one.

        Uses only what happened before ``history.at``.

        Args:
            history: The person's events before ``history.at``; empty for a stranger.
            now: Context of the moment to recommend for.

        Returns:
            Nats, shape ``(n_items,)``, float64, ``exp`` of it sums to one. Items that were added to the catalogue after
            `fit` may be missing at the end: each then weighs as much as the least likely one that is possible. A search
            takes none that is possible for less likely than ``exp(-25)`` times the likeliest.
        """

    def log_mass_held_out(self, history: History, now: Context) -> np.ndarray:
        """As `log_mass`, by a prior that has seen nothing of what this person did beyond `history`: for training.

        Everybody else may count, whenever it was. A prior that looks at nothing past ``history.at`` is so already.
        """
        return self.log_mass(history, now)

    def state(self) -> State | None:
        """What `fit` learned, so that it can be kept; None where this prior is fitted at each start.

        Arrays come back mapped from disk, so they are never written to in place.
        """
        return None

    def restore(self, catalog: Catalog, state: State) -> None:
        """Become what a prior of the same options was that gave its `state`, instead of `fit` and after `relate`.

        Args:
            catalog: The items that the other one was fitted to.
            state: What it gave.
        """
        raise NotImplementedError

    def grow(self, events: Iterable[pa.RecordBatch]) -> bool:
        """Take in what happened since `fit`, to be exactly what fitting to everything makes.

        Args:
            events: As for `fit`; none is earlier than any that was fitted.

        Returns:
            Whether it did; by default not, and then it is fitted anew.
        """
        return False


def goes_with_fit(prior: Prior, name: str) -> bool:
    """Whether a prior's method is made for its `fit`, and not inherited by a class whose `fit` it knows nothing of."""
    nearest = next(one for one in type(prior).__mro__ if {"fit", name} & vars(one).keys())
    return name in vars(nearest)
