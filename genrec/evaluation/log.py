"""Events as columns of numbers: who took what and when, and which of it is held out.

For what looks at all events at once, a million and more. Knows nothing of what is looked for.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import cached_property

import numpy as np
import pyarrow as pa

from genrec.actions import STRONG
from genrec.catalog import Catalog
from genrec.evaluation.split import hashed
from genrec.events import Event, weights_of
from genrec.history import History, moments
from genrec.sources.zones import clocks as clocks_of
from genrec.sources.zones import walls

DAY_US = 86_400_000_000
"""Microseconds of a day."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, kw_only=True)
class Log:
    """Events in the order in which they are stored. Made by `Log.read` or `Log.of`."""

    users: Sequence[str]
    """Ids of people, by their numbers."""
    item_ids: Sequence[str]
    """Ids of items, by their numbers: the catalogue's rows, then what events name besides."""
    n_items: int
    """How many the catalogue has."""
    user: np.ndarray
    """Number of each event's person. Shape ``(n_events,)``, int64, as are the next three."""
    item: np.ndarray
    """Number of its item."""
    at_us: np.ndarray
    """Its instant, microseconds since 1970 UTC."""
    wall_us: np.ndarray
    """What the clock on the wall said, microseconds since 1970 there."""
    weight: np.ndarray
    """How much it counts as a choice. Shape ``(n_events,)``, float64."""
    held_out: np.ndarray
    """Whether it is kept from what is learned from. Shape ``(n_events,)``, bool."""

    def __len__(self) -> int:
        return len(self.at_us)

    @classmethod
    def read(
        cls,
        events: Iterable[pa.RecordBatch],
        catalog: Catalog,
        *,
        zones: Mapping[str, str] | None = None,
        time_zone: str = "UTC",
    ) -> Log:
        """From record batches of ``SCHEMAS["events"]`` or of `WEIGHED`; nothing is held out yet.

        Args:
            events: The batches.
            catalog: The items.
            zones: By which clock people live, by user id: where an event does not say.
            time_zone: By which clock everybody else does.
        """
        users: dict[str, int] = {}
        items, clocks = dict(catalog.row), {time_zone: 0}
        columns: list[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]] = []
        weights = [np.empty(0)]
        for batch in events:
            at_us = batch["at"].cast(pa.int64()).to_numpy()
            clock = _numbers(clocks_of(batch), clocks)
            columns.append((_numbers(batch["user_id"], users), _numbers(batch["item_id"], items), at_us, clock))
            weights.append(weights_of(batch))
        user, item, at_us, clock = (
            np.concatenate([np.empty(0, np.int64), *(column[i] for column in columns)]) for i in range(4)
        )
        own = np.array([clocks.setdefault((zones or {}).get(name, time_zone), len(clocks)) for name in users], np.int64)
        clock = np.where(clock < 0, own[user], clock) if len(own) else clock
        return cls(
            users=list(users),
            item_ids=list(items),
            n_items=len(catalog),
            user=user,
            item=item,
            at_us=at_us,
            wall_us=walls(at_us, clock, list(clocks)),
            weight=np.concatenate(weights),
            held_out=np.zeros(len(user), bool),
        )

    @classmethod
    def of(cls, learned: Iterable[History], cases: Iterable[History], catalog: Catalog) -> Log:
        """From people of a split that is given: all they did is learned from; of cases the last moment is held out.

        Args:
            learned: Who is learned from.
            cases: Who judges; what they did before may be learned from or not.
            catalog: The items.
        """
        users: dict[str, int] = {}
        items, clocks = dict(catalog.row), {"UTC": 0}
        rows: list[tuple[int, int, int, int, bool]] = []
        for people, held_out in ((learned, False), (cases, True)):
            for person in people:
                user = users.setdefault(person.user_id, len(users))
                own = person.user.time_zone if person.user else None
                for moment in person.moments[-1:] if held_out else person.moments:
                    at_us = microseconds(moment.at)
                    clock = clocks.setdefault(moment.context.time_zone or own or "UTC", len(clocks))
                    rows += [
                        (user, items.setdefault(item_id, len(items)), at_us, clock, held_out)
                        for item_id in moment.item_ids
                    ]
        columns = np.array(rows, np.int64).reshape(-1, 5).T
        return cls(
            users=list(users),
            item_ids=list(items),
            n_items=len(catalog),
            user=columns[0],
            item=columns[1],
            at_us=columns[2],
            wall_us=walls(columns[2], columns[3], list(clocks)),
            weight=np.ones(len(rows)),
            held_out=columns[4].astype(bool),
        )

    def choices(self) -> Log:
        """The same without refusals and what counts nothing."""
        kept, arrays = self.weight > 0, ("user", "item", "at_us", "wall_us", "weight", "held_out")
        return replace(self, **{name: getattr(self, name)[kept] for name in arrays})

    def cut(self, ends: Mapping[str, datetime]) -> Log:
        """The same with what people did from an instant of their own on held out; see `Split.ends`."""
        since = datetime.min.replace(tzinfo=UTC)  # of people who came since nothing is learned
        ends_us = np.array([microseconds(ends.get(user, since)) for user in self.users], np.int64)
        return replace(self, held_out=self.at_us >= ends_us[self.user])

    def hold_out(self, share: float) -> Log:
        """The same, cut so that a share of all moments is held out, the last ones; see `split_by_time`."""
        at_us = np.sort(self.at_us[self.by_moment[self.moment_starts]])
        cut = at_us[min(math.ceil((1 - share) * len(at_us)), len(at_us) - 1)] if len(at_us) else 0
        return replace(self, held_out=self.at_us >= cut)

    @cached_property
    def by_moment(self) -> np.ndarray:
        """Events by person, then instant, those of one instant as they are stored. Shape ``(n_events,)``, int64."""
        by_moment: np.ndarray = np.lexsort((self.at_us, self.user))
        return by_moment

    @cached_property
    def moment_starts(self) -> np.ndarray:
        """Where in `by_moment` a moment begins: one person at one instant. Shape ``(n_moments,)``, int64."""
        user, at_us = self.user[self.by_moment], self.at_us[self.by_moment]
        changes = (np.diff(user) != 0) | (np.diff(at_us) != 0)
        starts: np.ndarray = np.flatnonzero(np.r_[np.ones(len(user[:1]), bool), changes])
        return starts

    def cases(self, n: int, *, max_events: int = 200) -> list[History]:
        """People up to their first held-out moment with an item of the catalogue, chosen not only weakly.

        Args:
            n: Most people, chosen by hash.
            max_events: Most events read of one person.
        """
        events = self.by_moment
        judges = self.held_out[events] & (self.item[events] < self.n_items) & (self.weight[events] >= STRONG)
        judges = np.flatnonzero(judges)
        _, first = np.unique(self.user[events[judges]], return_index=True)
        chosen = sorted(judges[first].tolist(), key=lambda i: hashed(self.users[self.user[events[i]]]))[:n]
        starts = np.searchsorted(self.user[events], np.arange(len(self.users)))
        found = []
        for i in chosen:
            moment = int(np.searchsorted(self.moment_starts, i, "right"))
            end = int(self.moment_starts[moment]) if moment < len(self.moment_starts) else len(events)
            user = int(self.user[events[i]])
            rows = events[max(int(starts[user]), end - max_events) : end]
            name, at = self.users[user], _instant(int(self.at_us[events[i]]))
            past = (
                Event(
                    user_id=name,
                    item_id=self.item_ids[self.item[r]],
                    at=_instant(self.at_us[r]),
                    weight=float(self.weight[r]),
                )
                for r in rows
            )
            found.append(History(user_id=name, user=None, at=at, moments=moments(past)))
        return found

    def batch(self, which: np.ndarray) -> pa.RecordBatch:
        """Some of the events as a prior is fitted to them: who, what and when."""
        return pa.RecordBatch.from_pydict(
            {
                "user_id": pa.array(self.users, pa.string()).take(pa.array(self.user[which])),
                "item_id": pa.array(self.item_ids, pa.string()).take(pa.array(self.item[which])),
                "at": pa.array(self.at_us[which]).cast(pa.timestamp("us", "UTC")),
            }
        )


def microseconds(at: datetime) -> int:
    """An instant as microseconds since 1970 UTC."""
    return (at - _EPOCH) // timedelta(microseconds=1)


def _instant(us: int) -> datetime:
    return _EPOCH + timedelta(microseconds=int(us))


def _numbers(values: pa.Array, known: dict[str, int]) -> np.ndarray:
    """Numbers of strings, new ones numbered as they come; -1 for null. Shape ``(n,)``, int64."""
    encoded = values.dictionary_encode()
    numbers = np.array([known.setdefault(text, len(known)) for text in encoded.dictionary.to_pylist()] + [-1], np.int64)
    found: np.ndarray = numbers[encoded.indices.fill_null(len(numbers) - 1).to_numpy()]
    return found
