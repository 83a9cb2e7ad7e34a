"""Who is learned from and who judges: a cut in time, after which what happened is held out.

Knows histories and the store; knows nothing of models, priors or metrics.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from genrec.errors import TrainingError
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
    """Cases that weights are fitted to: the last moment is the target."""
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
    last = store.summary().last_at
    if last is None:
        raise TrainingError("the store holds no events", hint="Bring some in: genrec import SOURCE")
    end = last + timedelta(microseconds=1)
    everybody = [read_history(store, user, end, max_events=max_events) for user in store.user_ids()]
    instants = sorted(moment.at for person in everybody for moment in person.moments)
    cut, stop = (
        instants[min(math.ceil((1 - some) * len(instants)), len(instants) - 1)] if some else end
        for some in (share, until)
    )
    seen = {item for person in everybody for m in person.moments if m.at < cut for item in m.item_ids}
    later = {item for person in everybody for m in person.moments if m.at >= cut for item in m.item_ids}
    learn, halves = [], ([], [])  # type: tuple[list[History], tuple[list[History], list[History]]]
    for person in sorted(everybody, key=lambda one: hashlib.blake2b(one.user_id.encode(), digest_size=8).digest()):
        before = tuple(moment for moment in person.moments if moment.at < cut)
        if before:
            learn.append(replace(person, at=cut, moments=before))
        for i, moment in enumerate(person.moments):
            if cut <= moment.at < stop and any(known(item) for item in moment.item_ids):
                half = halves[hashlib.blake2b(person.user_id.encode(), digest_size=1).digest()[0] % 2]
                if len(half) < n_cases:
                    half.append(replace(person, at=moment.at, moments=person.moments[: i + 1]))
                break
    if not learn or not halves[0] or not halves[1]:
        raise TrainingError(
            f"cut at {cut:%Y-%m-%d %H:%M}, {len(learn)} people are left to learn from and "
            f"{len(halves[0])} and {len(halves[1])} to judge by",
            hint="It takes a few people with several moments each, spread over time.",
        )
    return Split(cut=cut, learn=learn, fit=halves[0], judge=halves[1], future=frozenset(later - seen))
