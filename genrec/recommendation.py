"""What is asked and what is answered: the values at the two ends of the road, and the answer's JSON.

Knows nothing of how an answer is found.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any, Literal

from genrec.errors import ConfigError
from genrec.events import Context


@dataclass(frozen=True, kw_only=True)
class Query:
    """Whom to recommend to, as of when, where and on what."""

    user_id: str
    at: datetime | str | None = None
    """The moment to recommend for; now when omitted. Without a zone it is read on the person's own clock."""
    k: int = 10
    """How many items, at least 1."""
    place: str | None = None
    """Where the person is, in words."""
    position: tuple[float, float] | None = None
    """Where the person is: latitude and longitude in degrees."""
    device: str | None = None
    exclude_seen: bool = False
    """Whether to leave out what the person already has."""
    exclude_refused: bool = True
    """Whether to leave out what the person refused and did not choose again since."""
    categories: tuple[str, ...] = ()
    """Only items of one of these categories; of any when there is none."""
    where: Mapping[str, str] = field(default_factory=dict)
    """Only items with these attributes, e.g. ``{"tenant": "a", "available": "yes"}``."""
    near: tuple[float, float] | None = None
    """Latitude and longitude in degrees; with `within_km`."""
    within_km: float | None = None
    """Only items so near, by their attributes ``latitude`` and ``longitude``."""

    candidates: tuple[str, ...] = ()
    """Rank these items alone, by their ids; all of the catalogue when there is none. Their numbers do not depend on
    which others are among them."""
    explain: bool | Literal["context"] = False
    """Whether to tell what speaks for each item: see `Evidence`. Costs about as much as asking again for each piece of
    it, 37 times at most. With ``context`` the history is not taken apart: only words and voices are left out, which
    costs a few short lists."""

    def __post_init__(self) -> None:
        if (self.near is None) != (self.within_km is None):
            raise ConfigError(
                "how near is near? A distance takes a place and a number of kilometres",
                hint="Give both, e.g. --near 48.85,2.35 --within-km 5",
            )
        for there in (self.near, self.position):
            if there is not None and not (abs(there[0]) <= 90 and abs(there[1]) <= 180):
                raise ConfigError(
                    f"{there[0]:g},{there[1]:g} is no place on earth",
                    hint="The latitude comes first, -90 to 90 degrees north, then the longitude, -180 to 180 degrees "
                    "east.",
                )
        if self.within_km is not None and not 0 < self.within_km < math.inf:
            raise ConfigError(f"a distance of {self.within_km:g} km; it must be above 0")
        if self.k < 1:
            raise ConfigError(f"a list of {self.k} items was asked for; k must be at least 1")

    @property
    def conditions(self) -> str:
        """What an item must be besides on offer, in words; empty when it need be nothing."""
        parts = ["among the candidates"] if self.candidates else []
        parts += [f"in the category {' or '.join(self.categories)}"] if self.categories else []
        if self.where:
            parts.append("with " + " and ".join(f"{name} {value}" for name, value in self.where.items()))
        if self.near is not None:
            parts.append(f"within {self.within_km:g} km of {self.near[0]:g},{self.near[1]:g}")
        return " ".join(parts)


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What one thing that is known does to an item: it was left out, and the same question asked again."""

    kind: Literal["item", "others", "context", "now", "voice"]
    """An item of the history, with all events of it; all items that were not left out alone; a word of the line for
    "now"; all these words at once; the model or the prior."""
    what: str
    """The item's title, how many others, the word, ``all words of now``, ``the model`` or ``the prior``."""
    change: float = 0.0
    """The log-probability minus what it is without this, nats: above 0 it speaks for the item, below 0 against it.
    Infinite where there would be no probability without it."""
    item_id: str | None = None
    n_events: int | None = None
    """How many events of the history were left out."""
    at: datetime | None = None
    """When the last of them happened, on the person's own clock."""
    feature: str | None = None
    """Of the word: ``weekday``, ``place`` …"""

    def to_dict(self) -> dict[str, Any]:
        """As JSON shows it: without what does not apply; an infinite change is null."""
        known = {name: value for name, value in asdict(self).items() if value is not None}
        if self.at:
            known["at"] = self.at.isoformat()
        return known | {"change": self.change if math.isfinite(self.change) else None}


@dataclass(frozen=True, kw_only=True)
class RankedItem:
    """One place of the list."""

    rank: int
    """1 is the best."""
    item_id: str
    title: str
    logprob: float
    """What the scoring gives the item, nats; where titles were grounded, the logarithm of its share of their votes."""
    probability: float | None
    """``exp(logprob)`` where the scoring is a distribution over the catalogue, otherwise null."""
    score: float
    """What the list is ordered by: the log-probability unless a reranker set its own."""
    evidence: tuple[Evidence, ...] | None = None
    """All that was left out, what speaks most for the item first; null where nobody asked."""

    def to_dict(self) -> dict[str, Any]:
        """As JSON shows it; `evidence` only where it was asked for."""
        shown = {name: value for name, value in vars(self).items() if name != "evidence"}
        return shown | ({"evidence": [one.to_dict() for one in self.evidence]} if self.evidence is not None else {})


@dataclass(frozen=True, kw_only=True)
class Recommendation:
    """A list for one person at one moment, and how it came about."""

    user_id: str
    at: datetime
    """The moment recommended for, on the person's own clock."""
    context: Context
    items: tuple[RankedItem, ...]
    model: str | None
    """The language model that answered; null for the prior alone."""
    prompt: str | None
    """Name of the prompt template; null for the prior alone."""
    catalog: str
    """Fingerprint of the catalogue."""
    engine: str
    scoring: str
    timings_s: Mapping[str, float]
    """Seconds by stage; of a batch's search this person's share, so that sums over people are real time."""
    usage: Mapping[str, int] = field(default_factory=dict)
    """What the engine did for this answer: tokens needed, of them cached and computed, and requests; see `Usage`."""
    exact: bool = True
    """Whether this is the true top-k under the scoring; false where the search was told to stop early, and
    where a model was asked for titles."""
    needs_review: bool = False
    """Whether a person must check the list before anything is done; the prompt template says so of its domain."""
    notes: tuple[str, ...] = ()
    """What a reader should know about this answer, in plain sentences."""

    def to_dict(self) -> dict[str, Any]:
        """As JSON shows it; instants in ISO 8601, context without its unknown parts."""
        return {
            "user_id": self.user_id,
            "at": self.at.isoformat(),
            "context": {name: value for name, value in asdict(self.context).items() if value not in (None, {})},
            "items": [item.to_dict() for item in self.items],
            "model": self.model,
            "prompt": self.prompt,
            "catalog": self.catalog,
            "engine": self.engine,
            "scoring": self.scoring,
            "timings_s": {stage: round(seconds, 6) for stage, seconds in self.timings_s.items()},
            "usage": dict(self.usage),
            "exact": self.exact,
            "needs_review": self.needs_review,
            "notes": list(self.notes),
        }
