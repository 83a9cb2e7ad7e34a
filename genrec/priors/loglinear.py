"""What log-linear voices share: the events as arrays, the choices that weights are fitted to, and the fit.

    log p(item | past) = w · features(item, past) + constant

A voice says what its features are; everything else is here. The weights are those under which the latest choices are
likeliest, each from features in which nothing counts that the person did themselves outside their past. Knows nothing
of what the features mean.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa

from genrec.actions import STRONG
from genrec.catalog import Catalog
from genrec.context import FEATURES
from genrec.earth import Point, point
from genrec.errors import ConfigError
from genrec.events import Context, weights_of
from genrec.priors.base import Prior, State, instant, known_rows
from genrec.sources.zones import clocks, walls

if TYPE_CHECKING:
    from genrec.history import History

SAMPLED = 40_000_000
"""Choices times items that weights are fitted to at most, so that fitting needs a few GiB at most."""


@dataclass(frozen=True, kw_only=True)
class Events:
    """Everybody's events with items of the catalogue, sorted by person and instant. All arrays ``(n_events,)``.

    Events of one instant have no order, so they get one by chance, the same each time: what stood first in a file must
    not be learned. Those that can be targets come first.
    """

    users: dict[str, int]
    """Number of each person."""
    user: np.ndarray
    at: np.ndarray
    """Instants, datetime64[us] in UTC."""
    row: np.ndarray
    """Catalogue rows."""
    zone: np.ndarray
    """Number of the clock on the wall, in `zones`."""
    weight: np.ndarray
    """How much each counts as a choice, float32."""
    place: np.ndarray
    """Number of the place, in `places`; -1 where it is unknown."""
    zones: list[str | None]
    places: list[str]

    @classmethod
    def read(cls, catalog: Catalog, events: Iterable[pa.RecordBatch]) -> Events:
        """Sort events; see `Prior.fit`."""
        users: dict[str, int] = {}
        zones: dict[str | None, int] = {}
        places: dict[str | None, int] = {None: -1, "": -1}
        nobody, never, nothing = np.empty(0, np.int64), np.empty(0, "datetime64[us]"), np.empty(0, np.int32)
        columns = [(nobody, never, nothing, nobody, np.empty(0, np.float32), nobody)]
        for batch in events:
            row = known_rows(catalog, batch)
            told = "place" in batch.schema.names
            found = (
                _numbers(batch["user_id"], users),
                batch["at"].cast(pa.timestamp("us")).to_numpy(),
                row,
                _numbers(clocks(batch), zones),
                weights_of(batch).astype(np.float32),
                _numbers(batch["place"] if told else pa.nulls(len(batch), pa.string()), places, n_unknown=2),
            )
            columns.append(tuple(column[row >= 0] for column in found))  # type: ignore[arg-type]
        user, at, row, zone, weight, place = (np.concatenate(some) for some in zip(*columns, strict=True))
        tie = (row.astype(np.uint64) ^ at.astype(np.int64).astype(np.uint64)) * np.uint64(0x9E3779B97F4A7C15)
        order = np.lexsort((tie, weight < STRONG, at, user))
        user, at, row, zone, weight, place = (column[order] for column in (user, at, row, zone, weight, place))
        return cls(
            users=users,
            user=user,
            at=at,
            row=row,
            zone=zone,
            weight=weight,
            place=place.astype(np.int32),
            zones=list(zones),
            places=[name for name in places if name],
        )

    @cached_property
    def first(self) -> np.ndarray:
        """Where each person's events begin, and the end of all. Shape ``(n_users + 1,)``."""
        return np.searchsorted(self.user, np.arange(len(self.users) + 1))

    @cached_property
    def number(self) -> dict[str, int]:
        """Number of each place."""
        return {name: number for number, name in enumerate(self.places)}

    @cached_property
    def start(self) -> np.ndarray:
        """The first event of each moment. Shape ``(n_moments,)``."""
        new_person = np.diff(self.user, prepend=-1) != 0
        return np.flatnonzero(new_person | (np.diff(self.at, prepend=self.at[:1]) != np.timedelta64(0)))

    @cached_property
    def n_targets(self) -> np.ndarray:
        """How many of each moment's events, the first ones, can be targets. Shape ``(n_moments,)``."""
        strong = np.cumsum(np.append(0, self.weight >= STRONG))
        return np.diff(strong[np.append(self.start, len(self.weight))])

    @cached_property
    def new(self) -> np.ndarray:
        """The first event of each person with each item, by person and row. Shape ``(n_pairs,)``."""
        n_rows = int(self.row.max(initial=0)) + 1
        _, first = np.unique(self.user * n_rows + self.row, return_index=True)  # of events in the order of time
        return first

    @cached_property
    def local(self) -> np.ndarray:
        """What the clock on the wall said, UTC where that is unknown. Shape ``(n_events,)``, datetime64[us]."""
        return walls(self.at.astype(np.int64), self.zone, self.zones).astype("datetime64[us]")


class Popular:
    """How often each item was taken in a window of time; what was counted last is gone on from.

    Args:
        log: The events.
        n_items: How many items there are.
    """

    def __init__(self, log: Events, n_items: int) -> None:
        order = np.argsort(log.at, kind="stable")
        self._log, self._n_items, self._at, self._row = log, n_items, log.at[order], log.row[order]
        self._weight = log.weight[order]
        self._last: dict[int | None, tuple[int, int, np.ndarray]] = {}

    def counts(self, before: np.datetime64 | None, *, days: int | None = None, without: int = -1) -> np.ndarray:
        """Events by item, each by its weight. Shape ``(n_items,)``, float64.

        Args:
            before: The instant at which the window ends; None for everything.
            days: Its length; None for all that came before.
            without: Whose events are left out; -1 for nobody's.
        """
        since = None if days is None or before is None else before - np.timedelta64(days, "D")
        end = len(self._row) if before is None else int(np.searchsorted(self._at, before))
        start = 0 if since is None else int(np.searchsorted(self._at, since))
        last_start, last_end, counts = self._last.get(days, (0, 0, np.zeros(self._n_items)))
        if abs(start - last_start) + abs(end - last_end) > end - start:  # nothing near was counted before
            last_start, last_end, counts = start, start, np.zeros(self._n_items)
        if (start, end) != (last_start, last_end):
            counts = counts + self._change(last_end, end) - self._change(last_start, start)
            self._last[days] = start, end, counts
        if without >= 0:
            own = slice(int(self._log.first[without]), int(self._log.first[without + 1]))
            at, row, weight = self._log.at[own], self._log.row[own], self._log.weight[own]
            there = np.ones(len(at), bool) if before is None else at < before
            if since is not None:
                there &= at >= since
            counts = counts - np.bincount(row[there], weight[there], minlength=self._n_items)
        least: np.ndarray = np.maximum(counts, 0.0)  # sums of fractions leave traces below 0
        return least

    def relative(self, past: Past) -> np.ndarray:
        """Log popularity before a choice, the person's own events left out; 0 is the mean. Shape ``(n_items,)``."""
        counts = self.counts(past.now, without=past.person) + 0.5
        found: np.ndarray = np.log(counts * (self._n_items / counts.sum()))
        return found

    def _change(self, old: int, new: int) -> np.ndarray:
        """What counting up to another event changes. Shape ``(n_items,)``, float64."""
        some = slice(min(old, new), max(old, new))
        between = np.bincount(self._row[some], self._weight[some], minlength=self._n_items)
        return between if new > old else -between


def _numbers(names: pa.Array, numbers: dict[Any, int], *, n_unknown: int = 0) -> np.ndarray:
    """A number for each name, counted up but for the first ones, which stand for unknown."""
    coded = names.dictionary_encode(null_encoding="encode")
    each = [numbers.setdefault(name, len(numbers) - n_unknown) for name in coded.dictionary.to_pylist()]
    number = np.array(each, np.int64)
    found: np.ndarray = number[coded.indices.to_numpy()]
    return found


@dataclass(frozen=True, kw_only=True)
class Past:
    """What a choice is told from: the person's events before it, oldest first, and the moment. Arrays ``(n_past,)``."""

    rows: np.ndarray
    """Catalogue rows, int64; those of items that came after fitting lie beyond the ones that were fitted."""
    at: np.ndarray
    """Instants, datetime64[us] in UTC."""
    local: np.ndarray
    """The same on the clock on the wall."""
    now: np.datetime64
    """The instant of the choice; everything lies before it."""
    now_local: np.datetime64
    """The same on the clock on the wall."""
    place: np.ndarray
    """Numbers of the places, -1 for one that is unknown."""
    now_place: int
    """The same of the choice."""
    here: Point | None
    """Where the choice is made, in degrees north and east; None where that is unknown."""
    person: int
    """Number of the person, whose own events are known from here alone; -1 for one who has none elsewhere."""
    later: bool
    """Whether what others did after `now` counts."""


@dataclass(frozen=True, kw_only=True)
class Pairs:
    """Which items came shortly before or after which, in the events of one person, by item. Arrays ``(n_pairs,)``."""

    first: np.ndarray
    """Where each item's pairs begin, and the end of all. Shape ``(n_items + 1,)``."""
    other: np.ndarray
    """Row of what came before or after."""
    gap: np.ndarray
    """How many events after the item, below 0 for before."""
    weight: np.ndarray
    """How much what came before or after counts as a choice, float32."""
    when: np.ndarray
    """Instant of the later one."""
    whose: np.ndarray
    """Number of the person."""

    @classmethod
    def of(cls, log: Events, n_items: int, *, reach: int, together: bool = True) -> Pairs:
        """Find the pairs.

        Args:
            log: The events.
            n_items: How many items there are.
            reach: How many events apart still counts.
            together: Whether events of one moment count.
        """
        source, other, gap, weight, when, whose = [], [], [], [], [], []
        for n in range(1, reach + 1):
            same = log.user[n:] == log.user[:-n]
            if not together:
                same &= log.at[n:] != log.at[:-n]
            early, late = np.flatnonzero(same), np.flatnonzero(same) + n
            for a, b, sign in ((early, late, 1), (late, early, -1)):
                source.append(log.row[a])
                other.append(log.row[b])
                weight.append(log.weight[b])
                gap.append(np.full(len(a), sign * n, np.int8))
                when.append(log.at[n:][same])
                whose.append(log.user[n:][same].astype(np.int32))
        sources = np.concatenate(source)
        order = np.argsort(sources, kind="stable")
        return cls(
            first=np.searchsorted(sources[order], np.arange(n_items + 1)),
            other=np.concatenate(other)[order],
            gap=np.concatenate(gap)[order],
            weight=np.concatenate(weight)[order],
            when=np.concatenate(when)[order],
            whose=np.concatenate(whose)[order],
        )

    def near(self, row: int, past: Past) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """What others took near an item, how many events after it, below 0 for before, and how much each counts.

        All ``(n_pairs,)``.
        """
        here = slice(int(self.first[row]), int(self.first[row + 1]))
        counts = self.whose[here] != past.person
        if not past.later:
            counts &= self.when[here] < past.now
        return self.other[here][counts], self.gap[here][counts], self.weight[here][counts]


Part = TypeVar("Part")


def packed(name: str, part: Any) -> State:
    """The fields of a dataclass as a part of a state."""
    return {f"{name}.{field.name}": getattr(part, field.name) for field in fields(part)}


def unpacked(name: str, kind: type[Part], state: State) -> Part:
    """The dataclass that `packed` took apart."""
    return kind(**{field.name: state[f"{name}.{field.name}"] for field in fields(kind)})  # type: ignore[arg-type]


@dataclass(kw_only=True)
class LogLinear(Prior):
    """A prior that weighs features by likelihood."""

    n_fit: int = 1500
    """Choices that the weights are fitted to, the latest ones."""
    without: tuple[str, ...] = ()
    """Context that tells it nothing, of now and of the past, named as in prompts: part_of_day, weekday, since …"""

    START: ClassVar[np.ndarray]
    """Where the weights begin and what they are pulled towards. Shape ``(n_gates, n_features)``."""

    def __post_init__(self) -> None:
        if unknown := set(self.without).difference(FEATURES):
            raise ConfigError(f"a prior cannot do without {min(unknown)!r}", hint=f"There are: {', '.join(FEATURES)}.")
        self.weights = self.START.copy()
        """Weights of the features, a row for each of the `_gates`. Shape ``(n_gates, n_features)``."""
        self._begin(Catalog(), Events.read(Catalog(), ()))

    @abstractmethod
    def _learn(self) -> None:
        """Count what `_features` needs from `self._log`; what takes long as a `_part`."""

    def _part(self, name: str, kind: type[Part], make: Callable[[], Part]) -> Part:
        """A dataclass of arrays that is kept in the state: as it was kept, or made."""
        part = unpacked(name, kind, self._kept) if self._kept else make()
        self._parts[name] = part
        return part

    @abstractmethod
    def _features(self, past: Past) -> np.ndarray:
        """Features of every item. Shape ``(n_features, n_items)``, float64."""

    def _gates(self, past: Past) -> np.ndarray:
        """How much each row of the weights counts. Shape ``(n_gates,)``, float64."""
        return np.ones(1)

    def fit(self, catalog: Catalog, events: Iterable[pa.RecordBatch]) -> None:
        """Count, then weigh; see `Prior.fit`."""
        self._begin(catalog, Events.read(catalog, events))
        self.weights = fitted_weights(self._choices(), self.START)

    def state(self) -> State | None:
        """The weights, the events and the parts; see `Prior.state`."""
        found = {"weights": self.weights, **packed("log", self._log)}
        for name, part in self._parts.items():
            found.update(packed(name, part))
        return found

    def restore(self, catalog: Catalog, state: State) -> None:
        """Take all of it back; see `Prior.restore`."""
        self._begin(catalog, unpacked("log", Events, state), state)
        self.weights = state["weights"]

    def log_mass(self, history: History, now: Context) -> np.ndarray:
        """Log-probability of each item as the person's next one; see `Prior.log_mass`."""
        return self._log_mass(self._past(history, now, later=False))

    def log_mass_held_out(self, history: History, now: Context) -> np.ndarray:
        """Log-probability of each item from everybody else's events; see `Prior.log_mass_held_out`."""
        return self._log_mass(self._past(history, now, later=True))

    def _log_mass(self, past: Past) -> np.ndarray:
        return normalised(self._gates(past) @ self.weights @ self._features(past))

    def _begin(self, catalog: Catalog, log: Events, kept: State | None = None) -> None:
        self._catalog, self._n_items, self._log = catalog, len(catalog), log
        self._kept, self._parts = kept or {}, dict[str, Any]()
        self._learn()
        self._kept = {}

    def _past(self, history: History, now: Context, *, later: bool) -> Past:
        row, moments = self._catalog.row, history.moments
        known = [[row[item] for item in moment.item_ids if item in row] for moment in moments]
        sizes = [len(some) for some in known]
        walls = [_naive(moment.at, moment.context.time_zone or now.time_zone) for moment in moments]
        place = self._numbered()
        there = [place(moment.context) for moment in moments]
        return Past(
            rows=np.array([one for some in known for one in some], np.int64),
            at=np.repeat(np.array([_naive(moment.at, None) for moment in moments], "datetime64[us]"), sizes),
            local=np.repeat(np.array(walls, "datetime64[us]"), sizes),
            now=instant(history.at),
            now_local=np.datetime64(_naive(history.at, now.time_zone), "us"),
            place=np.repeat(np.array(there, np.int32), sizes),
            now_place=place(now),
            here=point(now.latitude, now.longitude),
            person=self._log.users.get(history.user_id, -1),
            later=later,
        )

    def _numbered(self) -> Callable[[Context], int]:
        """What gives each place a number, -1 if it is unknown; those that are not in the log come after all others."""
        known, new = self._log.number, dict[str, int]()

        def number(context: Context) -> int:
            if not context.place:
                return -1
            at = known.get(context.place)
            return new.setdefault(context.place, len(known) + len(new)) if at is None else at

        return number

    def _choices(self) -> list[Choice]:
        """The latest choices, one of each moment that has something before it, with their features."""
        log = self._log
        start = log.start
        rng = np.random.default_rng(0)
        chosen = start + (rng.random(len(start)) * log.n_targets).astype(np.int64)  # one of each: they hang together
        latest_first = np.lexsort((rng.permutation(len(start)), -log.at[start].astype(np.int64)))
        fit = (start > log.first[log.user[start]]) & (log.n_targets > 0)  # with something before them
        latest_first = latest_first[fit[latest_first]]
        found = []
        for i in latest_first[: min(self.n_fit, SAMPLED // max(self._n_items, 1))].tolist():
            person = int(log.user[start[i]])
            before = slice(int(log.first[person]), int(start[i]))
            past = Past(
                rows=log.row[before].astype(np.int64),
                at=log.at[before],
                local=log.local[before],
                now=log.at[start[i]],
                now_local=log.local[start[i]],
                place=log.place[before],
                now_place=int(log.place[start[i]]),
                here=None,
                person=person,
                later=True,
            )
            found.append((self._features(past).astype(np.float32), self._gates(past), int(log.row[chosen[i]])))
        return found


Choice = tuple[np.ndarray, np.ndarray, int]
"""Features of every item, shape ``(n_features, n_items)``, float32; gates, shape ``(n_gates,)``; the row chosen."""


def fitted_weights(choices: Sequence[Choice], start: np.ndarray) -> np.ndarray:
    """The weights under which choices are likeliest, by Newton's method with a unit ridge towards `start`.

    Args:
        choices: What was chosen; fewer than there are weights teach nothing.
        start: Where to begin. Shape ``(n_gates, n_features)``.

    Returns:
        Shape as `start`.
    """
    weights = start.copy()
    if len(choices) < start.size:
        return weights
    step, best = np.zeros(start.size), np.inf
    for _ in range(25):
        trial = weights - step.reshape(start.shape)
        gradient, curvature = (trial - start).ravel(), np.eye(start.size)
        loss = 0.5 * float(gradient @ gradient)
        for features, gates, target in choices:
            logits = (gates @ trial).astype(np.float32) @ features
            logits -= logits.max()
            p = np.exp(logits)
            loss += float(np.log(p.sum())) - float(logits[target])
            p /= p.sum()
            mean = features @ p
            gradient = gradient + np.outer(gates, mean - features[:, target]).ravel()
            spread = (features * p) @ features.T - np.outer(mean, mean)
            gated = np.multiply.outer(np.outer(gates, gates), spread)  # (n_gates, n_gates, n_features, n_features)
            curvature = curvature + gated.transpose(0, 2, 1, 3).reshape(curvature.shape)  # what kron says, slower
        if loss > best:  # too far
            step = step / 2
            continue
        done = best - loss < 1e-3
        weights, best = trial, loss
        if done:
            break
        step = np.linalg.solve(curvature, gradient)
    return weights


def normalised(log_weights: np.ndarray) -> np.ndarray:
    """Log-probabilities in proportion to weights. Shape as `log_weights`, float64."""
    shifted = log_weights - log_weights.max()
    found: np.ndarray = shifted - np.log(np.exp(shifted).sum())
    return found


def _naive(at: datetime, zone: str | None) -> datetime:
    """What a clock in that zone says, UTC where it is unknown."""
    return at.astimezone(ZoneInfo(zone) if zone else UTC).replace(tzinfo=None)
