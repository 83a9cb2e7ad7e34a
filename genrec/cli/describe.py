"""`genrec describe`: what the store holds, and what is odd about it, in numbers and in words.

Of each event three numbers (person, item, instant) are held in memory, beside the names of people, items and places;
everything is computed on arrays.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import click
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from genrec.cli._common import Advance, json_option, plain, print_json, progress, workspace_option
from genrec.config import load_settings
from genrec.store import Store

QUANTILES = (0.0, 0.25, 0.5, 0.75, 1.0)
NAMED = 10
"""Most actions, places, devices and time zones that are listed by name."""


@dataclass(frozen=True, kw_only=True)
class Description:
    """What a store holds."""

    n_users: int
    """People with at least one event."""
    n_users_listed: int
    """People with a row of their own."""
    n_items: int
    """Items of the catalogue."""
    n_items_used: int
    """Items of the catalogue that at least one event names."""
    n_events: int
    n_edges: int
    first_at: datetime | None
    last_at: datetime | None
    density: float | None
    """Share of all pairs of a person and an item of the catalogue that have an event."""
    events_per_user: Mapping[str, float]
    """Quantiles over people: minimum, quartiles, maximum."""
    moments_per_user: float
    """Median over people of how many different instants they have events at."""
    actions: Mapping[str, int]
    places: Mapping[str, int]
    """Events at the most frequent places."""
    n_places: int
    devices: Mapping[str, int]
    n_devices: int
    time_zones: Mapping[str, int]
    n_time_zones: int
    tied: float
    """Share of events that share person and instant with another one."""
    repeated: float
    """Share of events whose item the person had an event with at an earlier instant."""
    n_unknown_items: int
    """Items that events name and the catalogue does not have."""
    n_unknown_item_events: int
    """Events that name them."""
    n_duplicate_titles: int
    """Items whose title another item has too."""
    findings: Sequence[str] = field(default=())
    """What a person should know about the data, in words."""


@click.command("describe", short_help="Say what the store holds, and what is odd about it.")
@workspace_option
@json_option
def command(workspace: Path, as_json: bool) -> None:
    """Say what the store of a workspace holds, and what is odd about it."""
    settings = load_settings(workspace)
    with Store.open(settings.store_in(workspace)) as store, progress("reading events") as advance:
        events = _counted(store.events(), advance)
        description = describe(items=store.items(), users=store.users(), edges=store.edges(), events=events)
    if as_json:
        print_json(asdict(description))
    else:
        for line in _lines(description):
            click.echo(line)


def describe(
    *,
    items: Iterable[pa.RecordBatch],
    users: Iterable[pa.RecordBatch],
    edges: Iterable[pa.RecordBatch],
    events: Iterable[pa.RecordBatch],
) -> Description:
    """Describe data of the project's schemas.

    Args:
        items: Batches of the catalogue; each item once.
        users: Batches of people; each once.
        edges: Batches of relations.
        events: Batches of events, in any order.
    """
    titles: Counter[str] = Counter()
    catalog: list[str] = []
    for batch in items:
        catalog += batch["item_id"].to_pylist()
        titles.update(" ".join(title.split()).casefold() for title in batch["title"].to_pylist())
    item_codes = {item_id: code for code, item_id in enumerate(catalog)}
    user_codes: dict[str, int] = {}
    counts: dict[str, Counter[str]] = {name: Counter() for name in ("action", "place", "device", "time_zone")}
    parts: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    for batch in events:
        at_us = np.asarray(batch["at"].cast(pa.int64()))
        parts.append((_coded(batch["user_id"], user_codes), _coded(batch["item_id"], item_codes), at_us))
        for name, counter in counts.items():
            for entry in pc.value_counts(batch[name].drop_null()).to_pylist():
                counter[entry["values"]] += entry["counts"]
    empty = np.zeros(0, np.int64)
    user, item, at = (np.concatenate(column) for column in zip(*parts, strict=True)) if parts else (empty,) * 3
    per_user = np.bincount(user) if len(user) else empty
    known = item < len(catalog)
    pairs = np.unique(user[known].astype(np.int64) * max(1, len(catalog)) + item[known])
    n_moments, tied = _moments(user, at)
    description = Description(
        n_users=len(user_codes),
        n_users_listed=sum(len(batch) for batch in users),
        n_items=len(catalog),
        n_items_used=len(np.unique(item[known])),
        n_events=len(at),
        n_edges=sum(len(batch) for batch in edges),
        first_at=_instant(at.min()) if len(at) else None,
        last_at=_instant(at.max()) if len(at) else None,
        density=len(pairs) / (len(user_codes) * len(catalog)) if len(user_codes) and catalog else None,
        events_per_user={f"{q:.0%}": float(np.quantile(per_user, q)) for q in QUANTILES} if len(at) else {},
        moments_per_user=float(np.median(n_moments)) if len(at) else 0.0,
        actions=dict(counts["action"].most_common(NAMED)),
        places=dict(counts["place"].most_common(NAMED)),
        n_places=len(counts["place"]),
        devices=dict(counts["device"].most_common(NAMED)),
        n_devices=len(counts["device"]),
        time_zones=dict(counts["time_zone"].most_common(NAMED)),
        n_time_zones=len(counts["time_zone"]),
        tied=tied,
        repeated=_repeated(user, item, at),
        n_unknown_items=len(item_codes) - len(catalog),
        n_unknown_item_events=int((~known).sum()),
        n_duplicate_titles=sum(n for n in titles.values() if n > 1),
    )
    return Description(**{**vars(description), "findings": tuple(_findings(description))})


def _coded(values: pa.Array, codes: dict[str, int]) -> np.ndarray:
    """Numbers of strings, new strings numbered as they come; shape (n,)."""
    encoded = pc.dictionary_encode(values)
    numbers = [codes.setdefault(text, len(codes)) for text in encoded.dictionary.to_pylist()]
    return np.take(np.array(numbers, np.int64), np.asarray(encoded.indices))


def _moments(user: np.ndarray, at: np.ndarray) -> tuple[np.ndarray, float]:
    """How many instants each person has, and the share of events that share theirs."""
    if not len(at):
        return np.zeros(0, np.int64), 0.0
    order = np.lexsort((at, user))
    starts = np.flatnonzero(np.r_[True, (np.diff(user[order]) != 0) | (np.diff(at[order]) != 0)])
    sizes = np.diff(np.r_[starts, len(at)])
    return np.bincount(user[order][starts]), float(sizes[sizes > 1].sum() / len(at))


def _repeated(user: np.ndarray, item: np.ndarray, at: np.ndarray) -> float:
    """Share of events with an earlier event of the same person and item."""
    if not len(at):
        return 0.0
    order = np.lexsort((at, item, user))
    new = np.r_[True, (np.diff(user[order]) != 0) | (np.diff(item[order]) != 0)]
    first_at = at[order][new][np.cumsum(new) - 1]
    return float((at[order] > first_at).mean())


def _findings(d: Description) -> Iterator[str]:
    if not d.n_events:
        yield "There are no events yet. Bring them in with: genrec import"
        return
    if not d.n_items:
        yield "The catalogue is empty, so there is nothing to recommend. Import items: an id and a title each."
    elif d.n_unknown_items:
        share = d.n_unknown_item_events / d.n_events
        yield (
            f"{_share(share)} of the events ({d.n_unknown_item_events:,}) name {_n(d.n_unknown_items, 'item')} the "
            "catalogue does not have; they stay out of histories."
        )
    if d.n_items > d.n_items_used:
        yield f"{_n(d.n_items - d.n_items_used, 'item')} of the catalogue never occurred in an event."
    if d.n_duplicate_titles:
        yield (
            f"{_n(d.n_duplicate_titles, 'item')} share their title with another one; each gets a text of its own, "
            "but neither a person nor the model can tell them apart by more than a suffix."
        )
    if d.tied >= 0.05:
        yield (
            f"{_share(d.tied)} of the events share person and instant with another one: baskets or rating sprees. "
            "The order inside an instant is not real, and nothing should be learnt from it."
        )
    if d.moments_per_user <= 2:
        yield "Half of the people were there at two instants or fewer: their past says little about what comes next."
    if d.repeated >= 0.2:
        yield (
            f"{_share(d.repeated)} of the events repeat an item the person had before: recommend with seen items "
            "included, and report repeats and discoveries apart."
        )
    elif d.repeated < 0.01:
        yield "People hardly ever come back to an item: recommend with seen items excluded."
    if not d.n_time_zones:
        yield "No event says by which clock it happened: part of day and weekday go by the person's or the workspace's."
    assert d.first_at is not None
    assert d.last_at is not None
    if d.last_at - d.first_at < timedelta(days=60):
        yield "The events span less than two months: nothing can be said about seasons."


def _lines(d: Description) -> Iterator[str]:
    yield f"{_n(d.n_users, 'person', 'people')} with events ({d.n_users_listed:,} with a row of their own)"
    yield f"{_n(d.n_items, 'item')} in the catalogue, {d.n_items_used:,} of them used"
    yield _n(d.n_events, "event") + (f", {_n(d.n_edges, 'relation')}" if d.n_edges else "")
    if d.first_at and d.last_at:
        days = (d.last_at - d.first_at) / timedelta(days=1)
        yield f"  from {d.first_at:%Y-%m-%d %H:%M} to {d.last_at:%Y-%m-%d %H:%M} UTC ({days:,.0f} days)"
        spread = ", ".join(f"{q} {n:,.0f}" for q, n in d.events_per_user.items())
        yield f"  per person: {spread}; at {d.moments_per_user:,.0f} instants (median)"
        yield f"  {_share(d.tied)} share person and instant with another, {_share(d.repeated)} repeat an earlier item"
    if d.density is not None:
        yield f"  {d.density:.3%} of all pairs of a person and an item have an event"
    for name, n, named in (
        ("action", len(d.actions), d.actions),
        ("place", d.n_places, d.places),
        ("device", d.n_devices, d.devices),
        ("time zone", d.n_time_zones, d.time_zones),
    ):
        if n:
            top = ", ".join(f"{plain(text)} {count:,}" for text, count in list(named.items())[:4])
            yield f"{_n(n, name)}: {top}{' …' if n > 4 else ''}"
    if d.findings:
        yield ""
        yield from (f"- {finding}" for finding in d.findings)


def _counted(batches: Iterable[pa.RecordBatch], advance: Advance) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        yield batch
        advance(len(batch))


def _instant(us: int) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=int(us))


def _n(n: int, one: str, many: str | None = None) -> str:
    return f"{n:,} {one if n == 1 else many or one + 's'}"


def _share(share: float) -> str:
    return f"{share:.0%}" if share == 0 or share >= 0.1 else f"{share:.1%}"
