"""What places mean to a person, told from what the person did before: home, work, other usual places, the way there.

Folded over a person's moments, oldest first, at a cost that does not grow with their number. Nothing of it is stored:
it is derived from the events that are read, and is gone with them. A place is a cell of about 200 m with its
neighbours, or, where only a name is known, that name. Evidence of home, work and usual places that is older than
`LOOK_BACK_DAYS` is forgotten, so that people may move; what kind of place one is, is told from all. Below the evidence
nothing is said.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache
from math import atan2, cos, degrees, radians, sin
from typing import Any, Literal, get_args

from genrec.context.place import is_jump, place, rounded
from genrec.earth import Point, kilometres, point
from genrec.events import Context
from genrec.text import clean

CELL = 10
"""H3 resolution of a place: hexagons of 76 m a side, 131 m from centre to centre. A cell and its six neighbours are one
place: what lies within 50 m of where it was first seen belongs to it, and nothing beyond 350 m does."""
MIN_DAYS = 5
"""Evidence: on so many different days somebody was at a usual place; at home in so many nights and on so many days of
weekends, more than half of those that there is anything from; at work in the working hours of so many days, more than
half as well, and in no more than half of the nights and days of weekends."""
NIGHT, WORKING_HOURS = (22, 6), (9, 17)
"""Hours from and to, on the clock there. A night belongs to its evening; working hours are those of Monday to Friday,
and Saturday and Sunday are the weekend."""
LOOK_BACK_DAYS = 90
"""Older moments are no evidence."""
DIRECTIONS = ("north", "northeast", "east", "southeast", "south", "southwest", "west", "northwest")

Place = int | str
"""A cell, the first that was seen of those it stands for, or a name where no position is known."""
_Span = Literal["any", "night", "weekend", "work"]


@dataclass(frozen=True, kw_only=True)
class Here:
    """Where a moment is, as far as that can be believed."""

    position: Point | None
    place: Place | None
    """None where neither position nor name is known, or nobody asked."""


@dataclass(frozen=True, kw_only=True)
class UsualPlace:
    """A place where somebody often is."""

    word: str
    """``at home``, ``at work`` or ``at a usual place``."""
    names: tuple[str, ...]
    """What it is called, where that is known."""
    position: Point | None
    """The middle of its cell; None where only a name is known."""
    n_days: int
    """Days on which the person was there, of the last `LOOK_BACK_DAYS`."""


class Whereabouts:
    """What is known of where a person has been; `add` takes in a moment, all else looks at what was added before."""

    def __init__(self, *, usual: bool = True) -> None:
        self.usual = usual  # without it, only positions are followed
        self.before: Point | None = None  # where the moment before was, if that can be believed
        self.last: Point | None = None  # the last position that can be believed
        self._last_s = 0.0  # when that was
        self._anchors: dict[int, int] = {}
        self._named: dict[str, Place] = {}
        self._kinds: dict[Place, Counter[str]] = {}
        self._n_kinds: Counter[Place] = Counter()
        self._queue: deque[tuple[int, _Span, Place]] = deque()
        self._last_day: dict[tuple[_Span, Place], int] = {}
        self._days: dict[_Span, Counter[Place]] = {span: Counter() for span in get_args(_Span)}
        self._often: dict[_Span, dict[Place, None]] = {span: {} for span in get_args(_Span)}

    def find(self, context: Context, at: datetime) -> Here:
        """Where a moment is that comes after all that were added.

        A position to which nobody gets so fast is not believed; whichever of the two is wrong, that heals within a day.
        """
        position = point(context.latitude, context.longitude)
        if position and self.last and is_jump(kilometres(*position, *self.last), at.timestamp() - self._last_s):
            position = None
        if not self.usual:
            return Here(position=position, place=None)
        self._forget(at)
        if position is None:
            name = place(context)
            return Here(position=None, place=self._named.get(name, name) or None)
        return Here(position=position, place=self._anchor(position))

    def add(self, context: Context, at: datetime, kinds: Iterable[str] = ()) -> None:
        """Take in a moment, the next of the person's.

        Args:
            context: Where it happened.
            at: When, on the clock of the place.
            kinds: Categories of what the person chose there.
        """
        here = self.find(context, at)
        self.before = here.position
        if here.position:
            self.last, self._last_s = here.position, at.timestamp()
        if here.place is None:
            return
        if here.position:
            assert isinstance(here.place, int)
            self._anchors[_cell(here.position)] = here.place
            if name := place(context):  # one that was seen at two places stands for itself alone
                known = self._named.setdefault(name, here.place)
                self._named[name] = here.place if known == here.place else name
        for span, day in _spans(at):
            self._count(span, here.place, day)
        if found := {kind for kind in kinds if kind}:
            self._kinds.setdefault(here.place, Counter()).update(found)
            self._n_kinds[here.place] += 1

    def usual_place(self, here: Here) -> str:
        """``at home``, ``at work``, ``at a usual place``, or ``elsewhere`` where the person has such and is at none."""
        often = self._often["any"]
        if here.place is None:
            return ""
        if here.place == self._home():
            return "at home"
        if here.place == self._work():
            return "at work"
        if here.place in often:
            return "at a usual place"
        return "elsewhere" if any(isinstance(one, type(here.place)) for one in often) else ""

    def usual_places(self, at: datetime) -> list[UsualPlace]:
        """Where the person often is, as of an instant on the clock there: home, work, then those of most days."""
        self._forget(at)
        names: dict[Place, list[str]] = {}
        for name, one in self._named.items():
            names.setdefault(one, []).append(name)
        words: dict[Place | None, str] = {self._work(): "at work", self._home(): "at home"}
        found = [
            UsualPlace(
                word=words.get(one, "at a usual place"),
                names=tuple(sorted(names.get(one, []))) if isinstance(one, int) else (one,),
                position=_centre(one) if isinstance(one, int) else None,
                n_days=self._days["any"][one],
            )
            for one in self._often["any"]
        ]
        order = ("at home", "at work", "at a usual place")
        return sorted(found, key=lambda one: (order.index(one.word), -one.n_days, one.names))

    def bearing(self, here: Here) -> str:
        """``5 km north of home``, ``near home``, ``at home``; from work where no home is known; else nothing."""
        if not isinstance(here.place, int):
            return ""
        there, name = self._home(), "home"
        if there is None:
            there, name = self._work(), "work"
        if there is None:
            return ""
        if here.place == there:
            return f"at {name}"
        a, b = _centre(there), _centre(here.place)
        km = rounded(kilometres(*a, *b))
        return f"{km} km {_direction(a, b)} of {name}" if km else f"near {name}"

    def kind(self, here: Here) -> str:
        """The category of most that the person chose here before.

        Where that is unknown, and known of other places, it is ``some place``: nothing would be read as: as before.
        """
        if here.place is None or not self._kinds:
            return ""
        for kind, n in self._kinds.get(here.place, Counter()).most_common(1):
            if 2 * n > self._n_kinds[here.place]:
                return clean(kind, max_chars=40)
        return "some place"

    def _home(self) -> int | None:
        weekend = self._often["weekend"]
        return self._best("night", [one for one in weekend if self._mostly("weekend", one)])

    def _work(self) -> int | None:
        return self._best("work", [one for one in self._often["work"] if not self._is_lived_at(one)])

    def _is_lived_at(self, one: Place) -> bool:
        """Whether most nights or weekends are spent there; one Saturday in the office says nothing."""
        spans: tuple[_Span, ...] = ("night", "weekend")
        return any(self._days[span][one] > 1 and self._mostly(span, one) for span in spans)

    def _best(self, span: _Span, among: Iterable[Place]) -> int | None:
        """The cell with most days of a span, if they are enough and more than half of them."""
        found = [o for o in among if isinstance(o, int) and o in self._often[span] and self._mostly(span, o)]
        return max(found, key=self._days[span].__getitem__, default=None)

    def _mostly(self, span: _Span, one: Place) -> bool:
        return 2 * self._days[span][one] > self._days[span][_ANYWHERE]

    def _anchor(self, position: Point) -> int:
        cell = _cell(position)
        if cell in self._anchors:
            return self._anchors[cell]
        near = [one for one in _h3().grid_disk(cell, 1) if self._anchors.get(one) == one]
        return min(near, key=lambda one: (kilometres(*position, *_centre(one)), one), default=cell)

    def _count(self, span: _Span, where: Place, day: int) -> None:
        for one in (where, _ANYWHERE):
            if self._last_day.get((span, one), -1) >= day:
                continue
            self._last_day[span, one] = day
            self._queue.append((day, span, one))
            self._days[span][one] += 1
            if one != _ANYWHERE and self._days[span][one] == MIN_DAYS:
                self._often[span][one] = None

    def _forget(self, at: datetime) -> None:
        first = at.toordinal() - LOOK_BACK_DAYS
        while self._queue and self._queue[0][0] < first:
            _, span, one = self._queue.popleft()
            self._days[span][one] -= 1
            if self._days[span][one] < MIN_DAYS:
                self._often[span].pop(one, None)


_ANYWHERE = ""  # no place: a name is never empty


def _spans(at: datetime) -> list[tuple[_Span, int]]:
    """Of what an instant is evidence, each with its day."""
    day = at.toordinal()
    spans: list[tuple[_Span, int]] = [("any", day)]
    if at.hour >= NIGHT[0] or at.hour < NIGHT[1]:
        spans.append(("night", (at - timedelta(hours=NIGHT[1])).toordinal()))
    if at.weekday() >= 5:
        spans.append(("weekend", day))
    elif WORKING_HOURS[0] <= at.hour < WORKING_HOURS[1]:
        spans.append(("work", day))
    return spans


@cache
def _h3() -> Any:
    from h3.api import basic_int  # takes a moment: only where cells are needed

    return basic_int


def _cell(position: Point) -> int:
    return _h3().latlng_to_cell(*position, CELL)  # type: ignore[no-any-return]


def _centre(cell: int) -> Point:
    return _h3().cell_to_latlng(cell)  # type: ignore[no-any-return]


def _direction(a: Point, b: Point) -> str:
    """Which way b lies from a."""
    (north, east), (to_north, to_east) = map(radians, a), map(radians, b)
    x = sin(to_east - east) * cos(to_north)
    y = cos(north) * sin(to_north) - sin(north) * cos(to_north) * cos(to_east - east)
    return DIRECTIONS[round(degrees(atan2(x, y)) / 45) % 8]
