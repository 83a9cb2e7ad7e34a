"""Where something happened, in words: the place's name, and how far it is from the place before.

Says, too, which coordinates are not to be believed. Knows one moment and the one before it; what places mean to a
person is told by `genrec.context.usual`.
"""

from __future__ import annotations

from genrec.earth import Point, kilometres
from genrec.events import Context
from genrec.text import clean

DISTANCES_KM = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000)
"""Round distances; what is nearer than half the first is the same place."""
AIRLINER_KMH = 1000.0
"""Nobody travels faster."""
SLACK_KM = 50.0
"""What somebody may seem to have moved in no time at all: clocks are coarse, and so are positions by mobile mast."""


def place(context: Context) -> str:
    """Name of the place, or nothing where it is unknown."""
    return clean(context.place or "", max_chars=40)


def distance(here: Point | None, there: Point | None) -> str:
    """How far it is from where the moment before was: ``nearby``, ``5 km away``; nothing where that is unknown."""
    if here is None or there is None:
        return ""
    km = kilometres(*here, *there)
    return f"{rounded(km)} km away" if rounded(km) else "nearby"


def rounded(km: float) -> int:
    """The nearest of `DISTANCES_KM`; 0 for what is the same place."""
    return min(DISTANCES_KM, key=lambda one: abs(one - km)) if km >= DISTANCES_KM[0] / 2 else 0


def is_jump(km: float, seconds: float) -> bool:
    """Whether nobody gets so far in that time: faster than an airliner, `SLACK_KM` aside."""
    return km > SLACK_KM + AIRLINER_KMH / 3600 * seconds
