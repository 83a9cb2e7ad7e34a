"""Who is learned from and who judges: a cut in time, after which what happened is held out.

Knows histories and the store; knows nothing of models, priors or metrics.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import pyarrow as pa
import pyarrow.compute as pc

from genrec.errors import TrainingError
from genrec.events import SCHEMAS
from genrec.history import History, read_history
from genrec.store import Store


@dataclass(frozen=True, kw_only=True)
class Split:
    """People before an instant, and what some of them chose after it."""

    cut: datetime
    """Everything that is learned from happened before."""
    learn: list[History]
    """People as they were at the cut."""
    fit: list[History]
    """Cases that weights are fitted to: the last moment is the target, and of it what the catalogue has."""
    judge: list[History]
    """Cases of other people, that judge."""
    future: frozenset[str]
    """Items that nobody had before the cut and somebody after it: as far as anyone knew then, they did not exist."""


def split_by_time(
    store: Store,
    known: Callable[[str], bool],
    *,
    share: float,
    max_events: int,
    n_cases: int,
    until: float = 0.0,
) -> Split:
    """Hold out what happened last, or what happened in a stretch before that.

    Args:
        store: The log.
        known: Whether the catalogue has an item.
        share: How much of all moments lies after the cut.
        until: How much of all moments is later than any case; 0 for cases up to the last moment.
        max_events: Most events read for one person.
        n_cases: Most cases of each half, one a person, chosen by hash.

    Raises:
        TrainingError: If that leaves nothing to learn from or nobody to judge by.
    """
    schema = pa.schema([SCHEMAS["events"].field(name) for name in ("user_id", "item_id", "at")])
    events = pa.Table.from_batches([batch.select(schema.names) for batch in store.events()], schema)
    if not len(events):
        raise TrainingError("the store holds no events", hint="Bring some in: genrec import SOURCE")
    instants = events.group_by(["user_id", "at"]).aggregate([])["at"].sort().to_pylist()
    cut, stop = (
        instants[min(math.ceil((1 - some) * len(instants)), len(instants) - 1)]
        if some
        else instants[-1] + timedelta(microseconds=1)
        for some in (share, until)
    )
    is_before = pc.less(events["at"], cut)
    before, after = events.filter(is_before), events.filter(pc.invert(is_before))
    seen, later = (set(pc.unique(some["item_id"]).to_pylist()) for some in (before, after))
    there = pa.array([item for item in seen | later if known(item)], pa.string())
    is_case = pc.and_(pc.less(after["at"], stop), pc.is_in(after["item_id"].cast(pa.string()), there))
    first = after.filter(is_case).group_by("user_id").aggregate([("at", "min")])
    first_at = dict(zip(first["user_id"].to_pylist(), first["at_min"].to_pylist(), strict=True))
    learners = set(pc.unique(before["user_id"]).to_pylist())
    learn, halves = [], ([], [])  # type: list[History], tuple[list[History], list[History]]
    for user in sorted(learners | set(first_at), key=hashed):
        if user in learners:
            learn.append(read_history(store, user, cut, max_events=max_events))
        half = halves[hashed(user, 1)[0] % 2]
        if user in first_at and len(half) < n_cases:
            at = first_at[user]
            person = read_history(store, user, at + timedelta(microseconds=1), max_events=max_events)
            *past, now = person.moments
            chosen = tuple(item for item in now.item_ids if known(item))
            half.append(replace(person, at=at, moments=(*past, replace(now, item_ids=chosen))))
    if not learn or not halves[0] or not halves[1]:
        raise TrainingError(
            f"cut at {cut:%Y-%m-%d %H:%M}, {len(learn)} people are left to learn from and "
            f"{len(halves[0])} and {len(halves[1])} to judge by",
            hint="It takes a few people with several moments each, spread over time.",
        )
    return Split(cut=cut, learn=learn, fit=halves[0], judge=halves[1], future=frozenset(later - seen))


def hashed(text: str, size: int = 8) -> bytes:
    """So many bytes that decide by chance, the same each time, where a person belongs."""
    return hashlib.blake2b(text.encode(errors="surrogatepass"), digest_size=size).digest()
