"""A moment's context in words: what stands before the bar of a history line.

A word is written only where it differs from the line before, but for `ANEW`; the first line of a window is written in
full. A line says what was known at its moment and never depends on "now". Knows nothing of items, tokens or templates.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, get_args
from zoneinfo import ZoneInfo

from genrec.context import time
from genrec.context.device import device, extra
from genrec.context.place import distance, place
from genrec.context.usual import Whereabouts
from genrec.errors import DataError
from genrec.history import Moment
from genrec.sources.times import is_zone

Feature = Literal[
    "weekday",
    "weekend",
    "part_of_day",
    "hour",
    "daylight",
    "season",
    "holiday",
    "ahead",
    "since",
    "session",
    "place",
    "kind",
    "usual",
    "bearing",
    "distance",
    "device",
    "extra",
]
FEATURES: tuple[Feature, ...] = get_args(Feature)
"""All features, in the order in which their words are written."""
USUAL: frozenset[Feature] = frozenset({"kind", "usual", "bearing"})
"""Those that are told from all moments before, as `daylight` is where a moment has no position of its own."""
OPTIONAL: frozenset[Feature] = USUAL | {"weekend", "hour", "daylight", "ahead", "session"}
"""Those that a template writes only if it names them."""
ANEW: frozenset[Feature] = frozenset({"ahead"})
"""Those that are written on each line on which there is something to say, for one day there is nothing any more."""


@dataclass(frozen=True, kw_only=True)
class Words:
    """How contexts are put into words."""

    features: tuple[Feature, ...] = FEATURES
    """Which features are written; the others are switched off."""
    time_zone: str = "UTC"
    """IANA name of the clock of a moment whose own is unknown."""
    country: str = ""
    """Whose public holidays and seasons count, two letters; empty for no holidays and northern seasons."""

    def each(
        self, moments: Iterable[Moment], category: Callable[[str], str | None] = lambda item_id: None
    ) -> Iterator[dict[str, str]]:
        """The words of a person's moments, each told from those before it and never from a later one.

        Args:
            moments: Oldest first.
            category: Of an item, by its id.

        Raises:
            DataError: If the time zone is unknown.
        """
        been, before, nth = self._nowhere(), None, 0
        for moment in moments:
            nth = 1 + nth * time.goes_on(moment.at, before.at if before else None)
            yield self.of(moment, before, been, nth)
            been.add(moment.context, self.local(moment), (category(item) or "" for item in moment.item_ids))
            before = moment

    def of(
        self, moment: Moment, before: Moment | None, been: Whereabouts | None = None, nth: int | None = None
    ) -> dict[str, str]:
        """The word of each feature that is switched on, in the order of `FEATURES`; empty where nothing is to say.

        Args:
            moment: What is to be described.
            before: The moment before, to count from; None where there was none.
            been: Where the person has been, up to `before`; that alone when omitted.
            nth: Which moment of its visit it is, from 1; counted from `before` alone when omitted.

        Raises:
            DataError: If the time zone is unknown.
        """
        if been is None:
            been = self._nowhere()
            if before is not None:
                been.add(before.context, self.local(before))
        before_at = before.at if before else None
        if nth is None:
            nth = 1 + time.goes_on(moment.at, before_at)
        context, at = moment.context, self.local(moment)
        here = been.find(context, at)
        latitude = context.latitude if context.longitude is None else here.position[0] if here.position else None
        to_words: Mapping[Feature, Callable[[], str]] = {
            "weekday": lambda: time.weekday(at),
            "weekend": lambda: time.weekend(at, self.country),
            "part_of_day": lambda: time.part_of_day(at),
            "hour": lambda: time.hour(at),
            "daylight": lambda: time.daylight(at, here.position or been.last),
            "season": lambda: time.season(at, latitude, self.country),
            "holiday": lambda: time.holiday(at, self.country),
            "ahead": lambda: time.ahead(at, self.country),
            "since": lambda: time.since(at, before_at),
            "session": lambda: time.session(nth),
            "place": lambda: place(context),
            "kind": lambda: been.kind(here),
            "usual": lambda: been.usual_place(here),
            "bearing": lambda: been.bearing(here),
            "distance": lambda: distance(here.position, been.before),
            "device": lambda: device(context),
            "extra": lambda: extra(context, at),
        }
        words: dict[str, str] = {feature: to_words[feature]() for feature in FEATURES if feature in self.features}
        for word, said_by in (("bearing", "usual"), ("ahead", "holiday")):  # nothing is said twice
            if word in words and words[word] == words.get(said_by):
                words[word] = ""
        return words

    def _nowhere(self) -> Whereabouts:
        return Whereabouts(usual=not USUAL.isdisjoint(self.features))

    def local(self, moment: Moment) -> datetime:
        """When a moment is on the clock on the wall there.

        Raises:
            DataError: If the time zone is unknown.
        """
        return moment.at.astimezone(clock(moment.context.time_zone or self.time_zone))


def line(words: Mapping[str, str], previous: Mapping[str, str] | None) -> str:
    """The context part of a history line, such as ``Friday evening, next day, store 3``.

    Args:
        words: Of this moment.
        previous: Of the moment written on the line before; None for the first line, which is written in full.
    """
    new = said(words, previous)
    day = " ".join(new.pop(f) for f in ("weekday", "weekend", "part_of_day", "hour") if f in new)
    return ", ".join(filter(None, [day, *new.values()]))


def said(words: Mapping[str, str], previous: Mapping[str, str] | None) -> dict[str, str]:
    """The words that a history line says, by feature; as for `line`."""
    before = previous or {}
    return {f: word for f, word in words.items() if word and (f in ANEW or before.get(f) != word)}


def clock(name: str) -> ZoneInfo:
    """The time zone of that IANA name.

    Raises:
        DataError: If there is none.
    """
    if not is_zone(name):
        raise DataError(f"there is no time zone {name!r}", hint="Write it like Europe/Berlin.")
    return ZoneInfo(name)
