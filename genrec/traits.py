"""What somebody is like, inferred from what they did before, and what those took whom they know.

An interest is a category that somebody chooses more often than the catalogue offers it; items without a category count
by the values of their attributes. A habit is an item or a device that comes back in a rhythm. An item that was chosen
but weakly says nothing. What is recent counts more, as seen from the last moment looked at and never from now. Below
the evidence nothing is said. Of friends it is told what they took and never who. Nothing of it is stored: it is derived
from the events that are read, and is gone with them. Knows catalogues and moments; knows nothing of prompts.
"""

from __future__ import annotations

import json
import threading
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from itertools import pairwise
from math import log
from typing import Literal, get_args
from weakref import WeakKeyDictionary

from genrec.catalog import Catalog
from genrec.context.device import device
from genrec.history import Moment
from genrec.store import Taken
from genrec.text import clean

Inferred = Literal["interests", "habits"]
"""Traits that a person's own moments tell, in tags."""
Trait = Literal[Inferred, "friends took"]
TRAITS: tuple[Trait, ...] = get_args(Trait)
"""All traits, by the names that profiles give them."""
PREFIX: Mapping[Inferred, str] = {"interests": "interest:", "habits": "habit:"}
"""How the key of a tag begins that somebody may strike; what friends took has no tags and is struck as a whole."""
FRIENDS: Literal["friends took"] = "friends took"

MAX_TAGS = 5
"""Most tags of one trait, and most items that friends took."""
LATELY = timedelta(days=14)
"""What a friend took so long ago counts half."""
HALF_LIFE = timedelta(days=90)
"""What lies so long before the last moment counts half."""
MIN_TIMES, MIN_DAYS, MIN_ITEMS, MIN_LIFT = 5, 3, 2, 2.0
"""Evidence of an interest: chosen so many times, on so many days, so many different items of it, and this many times as
often as the catalogue's share of it says."""
MIN_USES, UNSTEADY, OVER = 6, 1 / 4, 2
"""Evidence of a habit: used on so many days; the gaps between them differ from the middle one by this share of it at
most, on average and a long break counting as one gap; and since then no more than so many gaps have gone by."""
_MARKS = frozenset(("Po", "Ps", "Pe", "Pi", "Pf"))
"""Kinds of punctuation that may end a field or a sentence, or open another: all but dashes and underscores."""
MAX_CHARS = 40
"""Longest name of a category or an attribute's value; a longer value is a description and no interest."""


@dataclass(frozen=True, kw_only=True)
class Tag:
    """One thing that is told of somebody, and why."""

    trait: Inferred
    name: str
    """The category, attribute's value, item or device."""
    text: str
    """What a profile says: ``beer``, ``milk about every 6 days``."""
    n_events: int
    """How many times it was chosen or used."""
    n_days: int
    """On how many different days."""
    first: date
    last: date
    of: Mapping[str, int]
    """The items chosen most, by their texts, three at most, and how many times."""
    lift: float | None = None
    """Of an interest: how many times as often as the catalogue's share says, what is recent counting more."""
    every_days: int | None = None
    """Of a habit: the middle gap between two days, what is recent counting more."""

    @property
    def key(self) -> str:
        """What it is struck by, such as ``interest:beer``."""
        return PREFIX[self.trait] + self.name


class Kinds:
    """What each item of a catalogue is, and how many are; grows with the catalogue."""

    def __init__(self) -> None:
        self.n: Counter[str] = Counter()
        """How many items are of each kind."""
        self._of: list[tuple[str, ...]] = []
        self._n_changes = 0
        self._same: dict[str, tuple[str, ...]] = {"": ()}

    def of(self, row: int) -> tuple[str, ...]:
        """What an item is; nothing for one that came a moment ago."""
        return self._of[row] if row < len(self._of) else ()

    def share(self, kind: str) -> float:
        """Share of all items that are of a kind."""
        return max(1, self.n[kind]) / len(self._of)

    def read(self, catalog: Catalog) -> None:
        """Take in what came and changed since."""
        n, n_changes = len(catalog), len(catalog.changed)
        for row in {row for row in catalog.changed[self._n_changes : n_changes] if row < len(self._of)}:
            for kind in self._of[row]:
                self.n[kind] -= 1
            self._of[row] = self._count(catalog, row)
        self._of += [self._count(catalog, row) for row in range(len(self._of), n)]
        self._n_changes = n_changes

    def _count(self, catalog: Catalog, row: int) -> tuple[str, ...]:
        category, attributes = catalog.categories[row] or "", catalog.attributes[row]
        if category not in self._same:
            name = clean(category, max_chars=MAX_CHARS)
            self._same[category] = (name,) if name else ()
        kinds = self._same[category] or (tuple(dict.fromkeys(_values(attributes))) if attributes else ())
        for kind in kinds:
            self.n[kind] += 1
        return kinds


_of_catalog: WeakKeyDictionary[Catalog, Kinds] = WeakKeyDictionary()
_reading = threading.Lock()


def kinds(catalog: Catalog) -> Kinds:
    """What the items of a catalogue are now; the first call reads them all, up to four seconds for a million."""
    with _reading:
        found = _of_catalog.setdefault(catalog, Kinds())
        found.read(catalog)
    return found


def tags(
    moments: Sequence[Moment],
    catalog: Catalog,
    *,
    local: Callable[[Moment], datetime],
    struck: Collection[str] = (),
) -> list[Tag]:
    """What somebody's moments tell of them.

    Args:
        moments: What the person did, oldest first. Items that are weak or that the catalogue lacks say nothing.
        catalog: What there is to choose from.
        local: When a moment was, on the clock there: days begin at midnight.
        struck: Keys of tags that are not to be told; others take their places.

    Returns:
        Interests, then habits, five of each at most, those that tell most first.
    """
    known, n_all = kinds(catalog), 0.0
    interests: dict[str, _Evidence] = defaultdict(_Evidence)
    habits: dict[str, _Evidence] = defaultdict(_Evidence)
    day = 0
    for moment in moments:
        weight, day = 0.5 ** ((moments[-1].at - moment.at) / HALF_LIFE), local(moment).toordinal()
        if used := device(moment.context):
            habits[used].add(day, weight)
        for item_id in moment.item_ids:
            if item_id in moment.weak or (row := catalog.row.get(item_id)) is None:
                continue
            n_all += weight
            text = catalog.texts[row]
            habits[text].add(day, weight, text)
            for kind in known.of(row):
                interests[kind].add(day, weight, text)
    told = [_interest(name, found, n_all, known.share(name)) for name, found in interests.items()]
    told += [_habit(name, found, day) for name, found in habits.items()]
    ranked = sorted((one for one in told if one and one[1].key not in struck), key=lambda one: (-one[0], one[1].name))
    return [tag for trait in PREFIX for tag in [tag for _, tag in ranked if tag.trait == trait][:MAX_TAGS]]


def friends_took(taken: Iterable[Taken], at: datetime, catalog: Catalog) -> list[str]:
    """The items that most of somebody's friends took last before an instant, by their texts, five at most.

        score(i) = sum over friends f who took i of  weight(f) · 2^(-age / LATELY)

    Each friend counts once for an item, so that nobody can push one by taking it again and again. Whoever writes a
    title writes here into a profile of others, ``name: value, name: value.``; so texts lose their punctuation, all but
    dashes and apostrophes, and none can pass for another field or a sentence of its own.
    """
    scores: dict[str, float] = defaultdict(float)
    for one in taken:
        if (row := catalog.row.get(one.item_id)) is not None:
            scores[catalog.texts[row]] += one.weight * 0.5 ** ((at - one.at) / LATELY)
    ranked = map(_bare, sorted(scores, key=lambda text: (-scores[text], text)))
    return [text for text in dict.fromkeys(ranked) if text][:MAX_TAGS]


def _bare(text: str) -> str:
    kept = (" " if unicodedata.category(c) in _MARKS and c not in "'’" else c for c in text)
    return " ".join("".join(kept).split())


@dataclass(slots=True)
class _Evidence:
    """What speaks for one thing."""

    weight: float = 0.0
    n_events: int = 0
    days: dict[int, float] = field(default_factory=dict)
    """What each day counts, by its number."""
    of: dict[str, int] = field(default_factory=dict)

    def add(self, day: int, weight: float, item: str = "") -> None:
        self.weight += weight
        self.n_events += 1
        self.days[day] = weight
        if item:
            self.of[item] = self.of.get(item, 0) + 1

    def tag(
        self, trait: Inferred, name: str, text: str, *, lift: float | None = None, every_days: int | None = None
    ) -> Tag:
        most = sorted(self.of.items(), key=lambda one: (-one[1], one[0]))[:3]
        return Tag(
            trait=trait,
            name=name,
            text=text,
            n_events=self.n_events,
            n_days=len(self.days),
            first=date.fromordinal(min(self.days)),
            last=date.fromordinal(max(self.days)),
            of=dict(most),
            lift=lift,
            every_days=every_days,
        )


def _interest(name: str, found: _Evidence, n_all: float, share: float) -> tuple[float, Tag] | None:
    """A tag and how much it tells: nats by which it moves what is expected of a choice."""
    if found.n_events < MIN_TIMES or len(found.days) < MIN_DAYS or len(found.of) < MIN_ITEMS or not n_all:
        return None
    own = found.weight / n_all
    if own < MIN_LIFT * share:
        return None
    return own * log(own / share), found.tag("interests", name, name, lift=own / share)


def _habit(name: str, found: _Evidence, today: int) -> tuple[float, Tag] | None:
    """A tag and how much it tells: days of use, what is recent counting more."""
    if len(found.days) < MIN_USES:
        return None
    days = sorted(found.days)
    gaps = sorted((after - before, found.days[after]) for before, after in pairwise(days))
    n_all = sum(weight for _, weight in gaps)
    every, below = 0, 0.0
    for gap, weight in gaps:
        every, below = gap, below + weight
        if 2 * below >= n_all:
            break
    off = sum(weight * min(abs(gap - every), every) for gap, weight in gaps)
    if off > UNSTEADY * every * n_all or today - days[-1] > OVER * every:
        return None
    rhythm = {1: "daily", 7: "weekly"}.get(every, f"about every {every} days")
    return sum(found.days.values()), found.tag("habits", name, f"{name} {rhythm}", every_days=every)


def _values(attributes: str) -> Iterator[str]:
    """What the attributes of an item say it is: neither numbers nor descriptions."""
    for name, value in sorted(json.loads(attributes).items()):
        said = f"{name} {value}"
        if len(said) <= MAX_CHARS and not _is_number(str(value)) and (kind := clean(said, max_chars=MAX_CHARS)):
            yield kind


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
