"""Who is learned from and who judges: held out is what happened after a cut in time, or everybody's last two moments.

Knows histories and the store; knows nothing of models, priors or metrics.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc

from genrec.actions import STRONG
from genrec.errors import TrainingError
from genrec.events import WEIGHED
from genrec.history import History, read_history
from genrec.store import Store

_TICK = timedelta(microseconds=1)


@dataclass(frozen=True, kw_only=True)
class Split:
    """People before what is held out of them, and some of what they chose then."""

    target: Literal["first", "last"]
    """Which of a person's held-out moments judges."""
    cut: datetime
    """The earliest that is held out: nothing before it is."""
    ends: Mapping[str, datetime]
    """By person, the instant before which what they did is learned from; after a cut in time the same for all."""
    learn: list[History]
    """People as they were at their ends."""
    fit: list[History]
    """Cases that weights are fitted to: the last moment is the target, and of it what the catalogue has and was chosen
    not only weakly."""
    judge: list[History]
    """Cases that judge: of other people; where the target is the last, of the same, a moment later."""
    future: frozenset[str]
    """Items of which no event was known before a cut in time, and that somebody had after it: as far as anyone knew
    then, they did not exist. None where the target is the last, for what is held out must not decide what is ranked."""

    def learned(self, events: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Of record batches of events what may be learned from; nothing of people who came since."""
        for batch in events:
            names = batch["user_id"].dictionary_encode()
            ends = pa.array([self.ends.get(name) for name in names.dictionary.to_pylist()], batch["at"].type)
            yield batch.filter(pc.less(batch["at"], ends.take(names.indices)))


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

    Half of the people with something after the cut judge by their first choice there; weights are fitted to that of the
    others.

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
    events, begun = _read(store)
    instants = events.group_by(["user_id", "at"]).aggregate([])["at"].sort().to_pylist()
    cut, stop = (
        instants[min(math.ceil((1 - some) * len(instants)), len(instants) - 1)] if some else instants[-1] + _TICK
        for some in (share, until)
    )
    after = events.filter(pc.greater_equal(events["at"], cut))
    seen = set(begun.filter(pc.less(begun["at_min"], cut))["item_id"].to_pylist())
    later = set(pc.unique(after["item_id"]).to_pylist())
    first = _targets(known, after.filter(pc.less(after["at"], stop))).group_by("user_id").aggregate([("at", "min")])
    halves: tuple[dict[str, datetime], dict[str, datetime]] = ({}, {})
    for user, at in zip(first["user_id"].to_pylist(), first["at_min"].to_pylist(), strict=True):
        halves[hashed(user, 1)[0] % 2][user] = at
    return _split(
        store,
        known,
        "first",
        cut=cut,
        ends=dict.fromkeys(pc.unique(events["user_id"]).to_pylist(), cut),
        asked=halves,
        future=later - seen,
        max_events=max_events,
        n_cases=n_cases,
    )


def split_by_person(store: Store, known: Callable[[str], bool], *, max_events: int, n_cases: int) -> Split:
    """Hold out everybody's last two moments, as published tables mostly do: the last judges, the other is fitted to.

    Moments without an item of the catalogue do not count as such, and of people with less than three nothing is held
    out. What others did later is learned from.

    Args:
        store: The log.
        known: Whether the catalogue has an item.
        max_events: Most events read for one person.
        n_cases: Most people who judge, chosen by hash.

    Raises:
        TrainingError: If that leaves nobody to judge by.
    """
    events, _ = _read(store)
    ends = dict.fromkeys(pc.unique(events["user_id"]).to_pylist(), pc.max(events["at"]).as_py() + _TICK)
    theirs = _targets(known, events).group_by("user_id").aggregate([("at", "distinct")])
    fit, judge = {}, {}
    for user, instants in zip(theirs["user_id"].to_pylist(), theirs["at_distinct"].to_pylist(), strict=True):
        if len(instants) > 2:
            *_, fit[user], judge[user] = sorted(instants)
    return _split(
        store,
        known,
        "last",
        cut=min((ends | fit).values()),
        ends=ends | fit,
        asked=(fit, judge),
        future=set(),
        max_events=max_events,
        n_cases=n_cases,
    )


def _read(store: Store) -> tuple[pa.Table, pa.Table]:
    """All choices, and when each item first was in an event (``at_min``): what was shown or refused was there, too."""
    schema = pa.schema([WEIGHED.field(name) for name in ("user_id", "item_id", "at", "weight")])
    choices, begun = [schema.empty_table()], _firsts(schema.empty_table())
    for batch in store.weighed():
        some = pa.Table.from_batches([batch.select(schema.names)])
        choices.append(some.filter(pc.greater(some["weight"], 0)))
        begun = _firsts(pa.concat_tables([begun, _firsts(some)]).rename_columns(["item_id", "at"]))
    events = pa.concat_tables(choices)
    if not len(events):
        raise TrainingError("the store holds no events that are choices", hint="Bring some in: genrec import SOURCE")
    return events, begun


def _firsts(events: pa.Table) -> pa.Table:
    """When each item first was in an event."""
    return events.group_by("item_id").aggregate([("at", "min")])


def _targets(known: Callable[[str], bool], events: pa.Table) -> pa.Table:
    """Events with an item of the catalogue that was chosen not only weakly."""
    strong = events.filter(pc.greater_equal(events["weight"], STRONG))
    there = [item for item in pc.unique(strong["item_id"]).to_pylist() if known(item)]
    return strong.filter(pc.is_in(strong["item_id"], pa.array(there, strong["item_id"].type)))


def _split(
    store: Store,
    known: Callable[[str], bool],
    target: Literal["first", "last"],
    *,
    cut: datetime,
    ends: Mapping[str, datetime],
    asked: tuple[Mapping[str, datetime], Mapping[str, datetime]],
    future: set[str],
    max_events: int,
    n_cases: int,
) -> Split:
    """Everybody at their ends, and what some chose at the instants of which they are asked: to fit to, and to judge."""

    def case(user: str, at: datetime) -> History:
        person = read_history(store, user, at + _TICK, max_events=max_events)
        *past, now = person.moments
        chosen = tuple(item for item in now.item_ids if known(item) and item not in now.weak)
        return replace(person, at=at, moments=(*past, replace(now, item_ids=chosen, weak=frozenset())))

    people = [read_history(store, user, ends[user], max_events=max_events) for user in sorted(ends, key=hashed)]
    learn = [person for person in people if person.moments]
    fit, judge = ([case(user, at[user]) for user in sorted(at, key=hashed)[:n_cases]] for at in asked)
    if not learn or not fit or not judge:
        raise TrainingError(
            f"cut at {cut:%Y-%m-%d %H:%M}, {len(learn)} people are left to learn from and "
            f"{len(fit)} and {len(judge)} to judge by",
            hint="It takes a few people with several moments each, spread over time. Only what counts "
            f"{STRONG:g} or more judges: see genrec describe, and [actions] in genrec.toml.",
        )
    return Split(target=target, cut=cut, ends=ends, learn=learn, fit=fit, judge=judge, future=frozenset(future))


def hashed(text: str, size: int = 8) -> bytes:
    """So many bytes that decide by chance, the same each time, where a person belongs."""
    return hashlib.blake2b(text.encode(errors="surrogatepass"), digest_size=size).digest()
