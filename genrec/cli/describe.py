"""`genrec describe`: what the store holds, what is odd about it, and what of it would flatter an evaluation.

Of each event, person, item, instant and position are held in memory as numbers, beside the names of people and items;
everything is computed on arrays.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import click
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from genrec.actions import Actions
from genrec.catalog import Catalog
from genrec.cli._common import Advance, json_option, plain, print_json, progress, workspace_option
from genrec.engines.base import Engine
from genrec.errors import ConfigError, DataError
from genrec.evaluation.audit import Finding, audit, percent, sentences
from genrec.evaluation.claims import contradicted
from genrec.evaluation.log import Log
from genrec.evaluation.positions import Positions, Tally
from genrec.evaluation.positions import sentences as of_positions
from genrec.workspace import Workspace, open_workspace

QUANTILES = (0.0, 0.25, 0.5, 0.75, 1.0)
HELD_OUT = 0.1
"""Share of all moments that is held out, as in `genrec evaluate`."""
N_CASES = 1000
"""Most people whose choices after that are looked at."""
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
    """Events of the most frequent actions."""
    n_actions: int
    counts_as: Mapping[str, str]
    """What each of these actions counts, in words."""
    unnamed_actions: Sequence[str]
    """The first of those that count 1 because nothing is said of them."""
    n_unnamed_actions: int
    n_choices: int
    """Events that are choices."""
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
    """Share of choices whose item the person chose at an earlier instant."""
    n_unknown_items: int
    """Items that events name and the catalogue does not have."""
    n_unknown_item_events: int
    """Events that name them."""
    positions: Positions
    n_contradicted: int
    """Events whose further context names a weekday or a part of day that their instant contradicts."""
    findings: Sequence[str] = field(default=())
    """What a person should know about the data, in words."""
    audit: Sequence[Finding] = field(default=())
    """What would flatter an evaluation."""


@click.command("describe", short_help="Say what the store holds, and what is odd about it.")
@workspace_option
@click.option("--probe-memory", is_flag=True, help="Also ask the model, untuned, whether it knows the titles by heart.")
@click.option("--engine", metavar="NAME", help="What runs the model then: auto, vllm or transformers.")
@json_option
def command(workspace: Path, probe_memory: bool, engine: str | None, as_json: bool) -> None:
    """Say what the store of a workspace holds, what is odd about it, and what would flatter an evaluation.

    The last tenth of all moments is held out for that, as genrec evaluate does, and simple heuristics are tried on it.
    """
    with open_workspace(workspace) as opened:
        store = opened.store
        catalog = Catalog.read(store.items(), store.texts())
        with progress("reading events") as advance:
            description = describe(
                catalog=catalog,
                users=store.users(),
                edges=store.edges(),
                events=_counted(store.weighed(), advance),
                time_zone=opened.settings.time_zone,
                actions=opened.actions,
            )
        if probe_memory:
            from genrec.evaluation.memory import probe

            try:
                with closing(_untuned(opened, engine)) as model:
                    description = replace(description, audit=(*description.audit, probe(model, catalog.titles)))
            except DataError as error:
                findings = (*description.findings, f"The model's memory was not probed: {error}.")
                description = replace(description, findings=findings)
    if as_json:
        print_json(asdict(description))
        return
    for line in _lines(description):
        click.echo(line)


def _untuned(opened: Workspace, engine: str | None) -> Engine:
    """The model as it is, without the adapter in use."""
    name = opened.engine_name(engine)
    if name in ("none", "chat"):
        raise ConfigError(
            f"the engine {name!r} gives no log-probabilities, which probing a model's memory needs",
            hint="Choose vllm or transformers with --engine.",
        )
    return opened.start_engine(name, None)


def describe(
    *,
    catalog: Catalog,
    users: Iterable[pa.RecordBatch],
    edges: Iterable[pa.RecordBatch],
    events: Iterable[pa.RecordBatch],
    time_zone: str = "UTC",
    actions: Actions | None = None,
) -> Description:
    """Describe data of the project's schemas.

    Args:
        catalog: The items.
        users: Batches of people; each once.
        edges: Batches of relations.
        events: Batches of events, weighed or not; in the order in which they are stored, where that order is to be
            judged.
        time_zone: The clock of people and events that name none.
        actions: What each action counts; as usual when omitted.
    """
    zones: dict[str, str] = {}
    n_users_listed = 0
    for batch in users:
        n_users_listed += len(batch)
        listed = zip(batch["user_id"].to_pylist(), batch["time_zone"].to_pylist(), strict=True)
        zones.update((user_id, zone) for user_id, zone in listed if zone)
    counts: dict[str, Counter[str]] = {name: Counter() for name in ("action", "place", "device", "time_zone")}
    tally, n_contradicted = Tally(), 0

    def watched() -> Iterator[pa.RecordBatch]:
        nonlocal n_contradicted
        for batch in _tallied(tally.watch(events), counts):
            n_contradicted += contradicted(batch, zones, time_zone)
            yield batch

    log = Log.read(watched(), catalog, zones=zones, time_zone=time_zone)
    user, item, at = log.user, log.item, log.at_us
    n_users, n_items = len(log.users), log.n_items
    per_user = np.bincount(user) if len(log) else user
    known = item < n_items
    pairs = np.unique(user[known] * max(1, n_items) + item[known])
    moment_sizes = np.diff(log.moment_starts, append=len(log))
    n_moments = np.bincount(user[log.by_moment][log.moment_starts])
    rules, frequent = actions or Actions.of(), dict(counts["action"].most_common(NAMED))
    choices = log.choices()
    held_out = choices.hold_out(HELD_OUT)
    unnamed = sorted(action for action in counts["action"] if not rules.names(action))
    description = Description(
        n_users=n_users,
        n_users_listed=n_users_listed,
        n_items=n_items,
        n_items_used=len(np.unique(item[known])),
        n_events=len(at),
        n_edges=sum(len(batch) for batch in edges),
        first_at=_instant(at.min()) if len(at) else None,
        last_at=_instant(at.max()) if len(at) else None,
        density=len(pairs) / (n_users * n_items) if n_users and n_items else None,
        events_per_user={f"{q:.0%}": float(np.quantile(per_user, q)) for q in QUANTILES} if len(at) else {},
        moments_per_user=float(np.median(n_moments)) if len(at) else 0.0,
        actions=frequent,
        n_actions=len(counts["action"]),
        counts_as={action: str(rules.of_action(action)) for action in frequent},
        unnamed_actions=unnamed[:NAMED],
        n_unnamed_actions=len(unnamed),
        n_choices=len(choices),
        places=dict(counts["place"].most_common(NAMED)),
        n_places=len(counts["place"]),
        devices=dict(counts["device"].most_common(NAMED)),
        n_devices=len(counts["device"]),
        time_zones=dict(counts["time_zone"].most_common(NAMED)),
        n_time_zones=len(counts["time_zone"]),
        tied=float(moment_sizes[moment_sizes > 1].sum() / len(log)) if len(log) else 0.0,
        repeated=_repeated(choices.user, choices.item, choices.at_us),
        n_unknown_items=len(log.item_ids) - n_items,
        n_unknown_item_events=int((~known).sum()),
        positions=tally.count(log, zones, time_zone),
        n_contradicted=n_contradicted,
        audit=audit(held_out, held_out.cases(N_CASES), catalog),
    )
    return replace(description, findings=tuple(_findings(description)))


def _tallied(events: Iterable[pa.RecordBatch], counts: Mapping[str, Counter[str]]) -> Iterator[pa.RecordBatch]:
    """The same events, with what some of their columns hold counted on the way."""
    for batch in events:
        for name, counter in counts.items():
            for entry in pc.value_counts(batch[name].drop_null()).to_pylist():
                counter[entry["values"]] += entry["counts"]
        yield batch


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
            f"{percent(share)} of the events ({d.n_unknown_item_events:,}) name {_n(d.n_unknown_items, 'item')} the "
            "catalogue does not have; they stay out of histories."
        )
    if d.n_items > d.n_items_used:
        yield f"{_n(d.n_items - d.n_items_used, 'item')} of the catalogue never occurred in an event."
    if d.moments_per_user <= 2:
        yield "Half of the people were there at two instants or fewer: their past says little about what comes next."
    if d.repeated >= 0.2:
        yield (
            f"{percent(d.repeated)} of the choices repeat an item the person had before: recommend with seen items "
            "included."
        )
    elif d.n_choices and d.repeated < 0.01:
        yield "People hardly ever come back to an item: recommend with seen items excluded."
    if d.unnamed_actions:
        named = ", ".join(plain(action) for action in d.unnamed_actions)
        more = " …" if d.n_unnamed_actions > NAMED else ""
        yield f"Each counts 1, for want of an entry under [actions] in genrec.toml: {named}{more}."
    if not d.n_time_zones:
        whose = "their positions', else the person's" if d.positions.n else "the person's"
        yield f"No event says by which clock it happened: part of day and weekday go by {whose} or the workspace's."
    assert d.first_at is not None
    assert d.last_at is not None
    if d.last_at - d.first_at < timedelta(days=60):
        yield "The events span less than two months: nothing can be said about seasons."
    if n := d.n_contradicted:
        yield (
            f"{n:,} of the events name a weekday or a part of day that their own time contradicts: the time counts, "
            "and the other is not used. Look for a wrong time zone, and import them again."
        )
    yield from of_positions(d.positions)


def _lines(d: Description) -> Iterator[str]:
    yield f"{_n(d.n_users, 'person', 'people')} with events ({d.n_users_listed:,} with a row of their own)"
    yield f"{_n(d.n_items, 'item')} in the catalogue, {d.n_items_used:,} of them used"
    yield _n(d.n_events, "event") + (f", {_n(d.n_edges, 'relation')}" if d.n_edges else "")
    if d.first_at and d.last_at:
        days = (d.last_at - d.first_at) / timedelta(days=1)
        yield f"  from {d.first_at:%Y-%m-%d %H:%M} to {d.last_at:%Y-%m-%d %H:%M} UTC ({days:,.0f} days)"
        spread = ", ".join(f"{q} {n:,.0f}" for q, n in d.events_per_user.items())
        yield f"  per person: {spread}; at {d.moments_per_user:,.0f} instants (median)"
        yield f"  {percent(d.tied)} share person and instant with another, {percent(d.repeated)} repeat an earlier item"
    if d.density is not None:
        yield f"  {d.density:.3%} of all pairs of a person and an item have an event"
    if d.actions:
        each = (f"{plain(text)} {count:,} (counts {d.counts_as[text]})" for text, count in d.actions.items())
        yield f"{_n(d.n_actions, 'action')}: {', '.join(each)}{' …' if d.n_actions > NAMED else ''}"
    for name, n, named in (
        ("place", d.n_places, d.places),
        ("device", d.n_devices, d.devices),
        ("time zone", d.n_time_zones, d.time_zones),
    ):
        if n:
            top = ", ".join(f"{plain(text)} {count:,}" for text, count in list(named.items())[:4])
            yield f"{_n(n, name)}: {top}{' …' if n > 4 else ''}"
    if d.positions.n:
        yield f"{percent(d.positions.n / d.n_events)} of the events have a position"
    if d.findings:
        yield ""
        yield from (f"- {finding}" for finding in d.findings)
    if d.n_events:
        yield ""
        yield "What would flatter an evaluation:" if d.audit else "Nothing was found that would flatter an evaluation."
        yield from (f"- {sentence}" for sentence in sentences(d.audit))


def _counted(batches: Iterable[pa.RecordBatch], advance: Advance) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        yield batch
        advance(len(batch))


def _instant(us: int) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=int(us))


def _n(n: int, one: str, many: str | None = None) -> str:
    return f"{n:,} {one if n == 1 else many or one + 's'}"
