"""From events to the moments of one person, as of an instant.

A moment is what one person did at one instant: a basket, a click, a check-in. Never looks at or past the instant asked
for. Knows nothing of words or prompts.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cache, partial
from itertools import groupby

from genrec.actions import STRONG
from genrec.events import Context, Event, User
from genrec.sources.times import is_zone
from genrec.sources.zones import zone_at
from genrec.store import Store, Taken

FRIENDS_DAYS = 90
"""How many days it is looked back at what those took whom somebody knows."""


@dataclass(frozen=True, kw_only=True)
class Moment:
    """What one person did at one instant."""

    at: datetime
    context: Context
    item_ids: tuple[str, ...]
    """Each item once. They have no order of their own: a hash of person, instant and item orders them, so that no
    model learns the order in which a file happened to list them. Those in `weak` come last."""
    weak: frozenset[str] = frozenset()
    """Those of them that were chosen so weakly that they are no target: see `genrec.actions.STRONG`."""

    def on_clock(self, time_zone: str) -> Moment:
        """The same on that clock, if its own is unknown."""
        return self if self.context.time_zone else replace(self, context=replace(self.context, time_zone=time_zone))


@dataclass(frozen=True, kw_only=True)
class History:
    """What one person did before an instant."""

    user_id: str
    user: User | None
    """None for a stranger."""
    at: datetime
    """Everything in `moments` lies strictly before."""
    moments: tuple[Moment, ...]
    """Oldest first."""
    friends_took: Callable[[datetime], list[Taken]] | None = field(default=None, compare=False, repr=False)
    """Looks up what those took whom they know, before an instant that must not lie after `at`. Nothing is read until it
    is called; None where there is no store to read from."""

    def told_as_of(self, at: datetime) -> History:
        """The same person with what friends took told as of this instant, whenever it is asked for, and read once.

        So it stays what it was where moments are left out, and another one comes to be the first of the window.
        """
        if self.friends_took is None:
            return self
        found = cache(partial(self.friends_took, at))
        return replace(self, friends_took=lambda _: found())

    def before(self, index: int) -> History:
        """What was known when one of the moments was "now"."""
        return replace(self, at=self.moments[index].at, moments=self.moments[:index])


def read_history(store: Store, user_id: str, at: datetime, *, max_events: int) -> History:
    """Read what a person chose before an instant; what the store knows to be no choice is no part of it.

    A time zone that this machine does not know, of an event or of the person, is left out as if none had been given:
    one odd name must not keep a person from being recommended to.

    Args:
        store: The log.
        user_id: The person; a stranger has an empty history.
        at: The instant, time-zone-aware.
        max_events: Most events to read. Of a longer history the older part is left out in chunks, so the start stays
            where it is from event to event.

    Raises:
        DataError: If `at` has no time zone.
    """
    events = store.history(user_id, at, max_events=max_events)
    user = store.user(user_id)
    if user and user.time_zone and not is_zone(user.time_zone):
        user = replace(user, time_zone=None)
    friends_took = partial(store.taken_by_friends, user_id, days=FRIENDS_DAYS)
    return History(user_id=user_id, user=user, at=at, moments=moments(events), friends_took=friends_took)


def moments(events: Iterable[Event]) -> tuple[Moment, ...]:
    """Group events of one person, oldest first, by their instant.

    Where an event has a position and no time zone that this machine knows, the clock is the position's.
    """
    return tuple(_moment(list(group)) for _, group in groupby(events, key=lambda event: event.at))


def _moment(events: list[Event]) -> Moment:
    def order(item_id: str) -> bytes:
        key = f"{events[0].user_id}\0{events[0].at.timestamp():.6f}\0{item_id}"
        return hashlib.blake2b(key.encode(errors="surrogatepass"), digest_size=8).digest()

    unique = {event.item_id for event in events}
    weak = unique - {event.item_id for event in events if event.weight >= STRONG}
    context = events[0].context
    if not (context.time_zone and is_zone(context.time_zone)):
        context = replace(context, time_zone=zone_at(context.latitude, context.longitude))
    item_ids = sorted(unique, key=lambda item_id: (item_id in weak, order(item_id)))
    return Moment(at=events[0].at, context=context, item_ids=tuple(item_ids), weak=frozenset(weak))
