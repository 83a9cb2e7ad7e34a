"""What the untrained voices are worth, alone and blended, on data sets with their own protocols.

    python benchmarks/priors.py --dataset foursquare-nyc --data DIR
    python benchmarks/priors.py --dataset speed               # what an answer costs, on made-up people
    python benchmarks/priors.py --dataset start               # what a workspace's first start costs, and its second

Options are chosen from small grids, and the weights of the blend fitted, by likelihood on validation cases; what is
likeliest there is the best, which all others are compared with; the test cases are looked at once. Every list is ranked
over the whole catalogue. Results go to `benchmarks/results/<data set>/priors.json`. DIR holds a folder a data set:

- foursquare-nyc `events.parquet` (user_id, location_id, start_day, start_min, weekday, split), `items.parquet`
  (location_id, lat, lon, category): the check-ins in New York of Yang et al. 2014, as split by published work on LLMs
  for locations
- smartthings-fr `windows.parquet` (window, household_chain, position, weekday, hours, action), `actions.parquet`:
  device actions in French homes, in windows of ten
- online-retail `events.parquet` (customer_id, invoice, at, item_id), `items.parquet`: UCI Online Retail
- amazon-industrial, movielens-last-five: as in `rows.py`, where the latter's films are those of movielens-100k
- complete-journey comes with the plugin genrec-completejourney
"""

from __future__ import annotations

import hashlib
import itertools
import json
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import click
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from rows import RESULTS, Amazon, look

from genrec.bench.report import Book
from genrec.catalog import Catalog
from genrec.config import create_workspace
from genrec.decoding.search import place_by_weight
from genrec.evaluation.metrics import difference, hit_rate, summary
from genrec.events import Context, Event, Item, batch, items_of
from genrec.filters import LATITUDE, LONGITUDE
from genrec.history import History, moments
from genrec.plugins import Registry
from genrec.priors.base import Prior
from genrec.priors.blend import Blend
from genrec.sources.base import Problem
from genrec.store import Store
from genrec.workspace import CACHE, open_workspace

GRIDS: dict[str, dict[str, list[Any]]] = {
    "popularity": {"strength": [3.0, 30.0, 300.0]},
    "sequence": {"decay": [0.4, 0.6, 0.8]},
    "repeat": {"half_life": [15.0, 40.0, 120.0]},
    "basket": {"n_last": [1, 3, 8]},
    "ease": {"ridge": [30.0, 100.0, 300.0]},
    "nearby": {"n_last": [10, 50, 200]},
    "neighbours": {"shrink": [3.0, 10.0, 30.0]},
    "text": {"decay": [0.6, 0.8]},
}
"""What is chosen from, prior by prior."""
MAX_EVENTS = 1000
"""Events of a history that are looked at."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """A choice that judges."""

    history: History
    """What came before; at the instant of the choice, as far as that is told."""
    now: Context
    item_id: str
    cluster: str
    """Whose cases hang together."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """What is learned from, and the cases that judge it."""

    learn: list[Event]
    cases: list[Case]

    @cached_property
    def batches(self) -> list[pa.RecordBatch]:
        """What is learned from, as priors take it."""
        return [batch("events", self.learn)]


@dataclass(frozen=True, kw_only=True)
class Round:
    """A fold, an origin or a seed: where options are chosen, and where they are judged."""

    tune: Part
    test: Part


@dataclass(frozen=True, kw_only=True)
class Data:
    """A data set under its protocol."""

    items: list[Item]
    rounds: list[Round]
    """Each is fitted anew; all are judged together."""
    options: dict[str, dict[str, Any]] | None = None
    """Options of priors that the protocol asks for."""
    held_out: bool = False
    """Whether others may count whenever it was: where the protocol leaves out each person's last items."""
    apart: bool = False
    """Whether rounds learn from different people, whom other rounds ask about: a model learns for one round alone."""
    unseen: bool = False
    """Whether what the person has already is left out of the lists."""


def cases_of(
    events: Iterable[Event],
    split: str,
    *,
    max_events: int = MAX_EVENTS,
    cluster: Callable[[str], str] = str,
    told: Callable[[datetime, datetime], datetime] = lambda at, last: at,
) -> list[Case]:
    """Moments of a split, as cases: the first item by hash, told from what the person did before.

    Args:
        events: All; `Event.action` says which split each is of.
        split: Which judges.
        max_events: Most events of a history.
        cluster: From a person to whose cases hang together.
        told: What is told of the instant, given the last one before it.
    """
    by_user: dict[str, list[Event]] = {}
    for event in events:
        by_user.setdefault(event.user_id, []).append(event)
    found = []
    for user, own in by_user.items():
        own.sort(key=lambda event: event.at)
        judged = {event.at for event in own if event.action == split}
        past = moments(own)
        sizes = np.cumsum([0, *(len(moment.item_ids) for moment in past)])
        for i, moment in enumerate(past):
            if i and moment.at in judged:
                first = min(int(np.searchsorted(sizes, sizes[i] - max_events)), i - 1)
                at = told(moment.at, past[i - 1].at)
                history = History(user_id=user, user=None, at=at, moments=past[first:i])
                now = Context(time_zone=moment.context.time_zone)
                found.append(Case(history=history, now=now, item_id=moment.item_ids[0], cluster=cluster(user)))
    return found


def part(events: list[Event], learn: Sequence[str], judge: str, **how: Any) -> Part:
    """Splits that are learned from, and one that judges."""
    return Part(learn=[e for e in events if e.action in learn], cases=cases_of(events, judge, **how))


def foursquare(data: Path, told: Callable[[datetime, datetime], datetime], *, clock: bool) -> Data:
    """Check-ins, 60/20/20 by time, rolling histories.

    Days count from each person's first, so everybody is moved by whole weeks until the test begins in the same one.
    What happened in the same minute keeps its order, a second apart.
    """
    rows = pq.read_table(data / "foursquare-nyc" / "events.parquet").to_pylist()
    weekday = {row["user_id"]: (row["weekday"] - row["start_day"]) % 7 for row in rows}
    begins: dict[int, int] = {}
    for row in rows:
        if row["split"] == "test":
            begins.setdefault(row["user_id"], (row["start_day"] + weekday[row["user_id"]]) // 7)
    monday = datetime(2013, 1, 7, tzinfo=UTC)
    minutes: Counter[tuple[int, datetime]] = Counter()
    events = []
    for row in rows:
        user = row["user_id"]
        day = row["start_day"] + weekday[user] - 7 * begins[user]
        minute = monday + timedelta(days=day, minutes=row["start_min"])
        at = minute + timedelta(seconds=minutes[user, minute])
        minutes[user, minute] += 1
        events.append(Event(user_id=str(user), item_id=str(row["location_id"]), at=at, action=row["split"]))
    places = pq.read_table(data / "foursquare-nyc" / "items.parquet").to_pylist()
    return Data(
        items=[
            Item(
                item_id=str(row["location_id"]),
                title=f"place {row['location_id']}",
                category=row["category"],
                attributes={LATITUDE: str(row["lat"]), LONGITUDE: str(row["lon"])},
            )
            for row in places
        ],
        rounds=[
            Round(
                tune=part(events, ["train"], "valid", told=told),
                test=part(events, ["train", "valid"], "test", told=told),
            )
        ],
        options={"repeat": {"clock": clock}},
    )


def slot(at: datetime, last: datetime) -> datetime:
    """The middle of the three hours that an instant lies in, but after the last event."""
    begin = at.replace(hour=at.hour // 3 * 3, minute=0, second=0)
    return max(begin + timedelta(hours=1.5), last + timedelta(minutes=1))


def smartthings(data: Path) -> Data:
    """The tenth of ten device actions; five folds by chain of windows, a fifth of the rest to tune on.

    Weekday and three hours are all that is known of an instant: each action is put at the next such, the tenth of
    every window in the same week.
    """
    table = pq.read_table(data / "smartthings-fr" / "windows.parquet").sort_by(
        [("window", "ascending"), ("position", "ascending")]
    )
    days = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"]
    monday, week = datetime(2024, 1, 1, tzinfo=UTC), timedelta(days=7)
    windows: list[list[Event]] = []
    chain: dict[str, str] = {}
    for window, rows in itertools.groupby(table.to_pylist(), key=lambda row: row["window"]):
        own: list[Event] = []
        at = monday
        for row in rows:
            begin = timedelta(days=days.index(row["weekday"]), hours=int(row["hours"].split("-")[0]))
            slot_at = monday + begin
            while slot_at + timedelta(hours=3) <= at:
                slot_at += week
            at = max(slot_at, at + timedelta(minutes=1) if own else slot_at)
            own.append(Event(user_id=str(window), item_id=row["action"], at=at))
            chain[str(window)] = str(row["household_chain"])
        back = (at - monday) // week * week
        windows.append([replace(event, at=event.at - back) for event in own])
    chains = sorted(set(chain.values()), key=lambda name: hashlib.blake2b(name.encode()).digest())
    fold = {name: i % 5 for i, name in enumerate(chains)}
    rounds = []
    for n in range(5):
        splits = {n: "test", (n + 1) % 5: "valid"}
        events = []
        for own in windows:
            split = splits.get(fold[chain[own[0].user_id]], "train")
            context = "train" if split == "train" else f"{split} context"
            events += [replace(event, action=context) for event in own[:-1]] + [replace(own[-1], action=split)]
        learned = ["train", "valid context", "valid"]
        rounds.append(
            Round(
                tune=part(events, ["train"], "valid", cluster=chain.__getitem__),
                test=part(events, learned, "test", cluster=chain.__getitem__),
            )
        )
    names = pq.read_table(data / "smartthings-fr" / "actions.parquet")["action"].to_pylist()
    return Data(items=[Item(item_id=name, title=name) for name in names], rounds=rounds, apart=True)


def retail(data: Path) -> Data:
    """The next invoice of a customer: 80 % of all invoices, 10 % to tune on, 10 % to judge, by time."""
    rows = pq.read_table(data / "online-retail" / "events.parquet").to_pylist()
    first = {row["invoice"]: row["at"] for row in reversed(rows)}
    instants = sorted(first.values())
    valid, test = (instants[int(share * len(instants))] for share in (0.8, 0.9))
    events = []
    for user, item, invoice in {(row["customer_id"], row["item_id"], row["invoice"]): None for row in rows}:
        at = first[invoice]
        split = "train" if at < valid else "valid" if at < test else "test"
        events.append(Event(user_id=str(user), item_id=item, at=at.replace(tzinfo=UTC), action=split))
    items = pq.read_table(data / "online-retail" / "items.parquet").to_pylist()
    return Data(items=[Item(**row) for row in items], rounds=[by_time(events)])


def by_time(events: list[Event]) -> Round:
    """What is called train, valid and test."""
    return Round(tune=part(events, ["train"], "valid"), test=part(events, ["train", "valid"], "test"))


def groceries(data: Path) -> Data:
    """The next basket of 300 households; three origins, the month before each to tune on and the one after to judge."""
    from genrec_completejourney import CompleteJourney

    def complain(problem: Problem) -> None:
        raise click.ClickException(str(problem))

    source = CompleteJourney()
    events = [
        Event(
            user_id=row["user_id"],
            item_id=row["item_id"],
            at=row["at"],
            context=Context(time_zone=row["time_zone"]),
        )
        for rows in source.read("events", complain)
        for row in rows.select(["user_id", "item_id", "at", "time_zone"]).to_pylist()
    ]
    rounds = []
    for month in (6, 8, 10):
        valid, test, end = (datetime(2017, month + n, 1, tzinfo=UTC) for n in range(3))
        named = [
            replace(e, action="train" if e.at < valid else "valid" if e.at < test else "test")
            for e in events
            if e.at < end
        ]
        rounds.append(by_time(named))
    return Data(items=list(items_of(source.read("items", complain))), rounds=rounds)


def movielens(data: Path) -> Data:
    """The last five films of each person, the one before to tune on; five orders of what has the same time stamp."""
    from rows import MovieLens

    whole = MovieLens(data, "smollm2-135m")
    rounds = []
    for seed in range(5):
        events = []
        for person in whole._whole:
            ordered = sorted(
                person.moments,
                key=lambda m: (
                    m.at.replace(microsecond=0),
                    hashlib.blake2b(f"{seed} {person.user_id} {m.item_ids[0]}".encode()).digest(),
                ),
            )
            for i, moment in enumerate(ordered):
                left = len(ordered) - i
                events.append(
                    Event(
                        user_id=person.user_id,
                        item_id=moment.item_ids[0],
                        at=moment.at.replace(microsecond=0) + timedelta(microseconds=i),
                        action="test" if left <= 5 else "valid" if left == 6 else "train",
                    )
                )
        test = part(events, ["train", "valid"], "test", max_events=10_000)
        tune = rounds[0].tune if rounds else part(events, ["train"], "valid", max_events=10_000)
        rounds.append(Round(tune=tune, test=test))
    return Data(items=whole.catalog.items[:], rounds=rounds, held_out=True, unseen=True)


def amazon(data: Path) -> Data:
    """The rows that MiniOneRec released; learned from what of the training period their histories show."""
    whole = Amazon(data, "smollm2-135m")
    learn = [
        Event(user_id=person.user_id, item_id=moment.item_ids[0], at=moment.at)
        for person in whole.people
        for moment in person.moments
    ]
    tune, test = (
        Part(
            learn=learn,
            cases=[
                Case(
                    history=case.before(-1),
                    now=Context(),
                    item_id=case.moments[-1].item_ids[0],
                    cluster=case.user_id,
                )
                for case in whole.cases(split)
            ],
        )
        for split in ("valid", "test")
    )
    return Data(
        items=whole.catalog.items[:], rounds=[Round(tune=tune, test=test)], options={"repeat": {"clock": False}}
    )


DATA: dict[str, dict[str, Callable[[Path], Data]]] = {
    "foursquare-nyc": {
        "time unknown": lambda data: foursquare(data, lambda at, last: last + timedelta(seconds=1), clock=False),
        "three hours known": lambda data: foursquare(data, slot, clock=True),
        "time known": lambda data: foursquare(data, lambda at, last: at, clock=True),
    },
    "smartthings-fr": {"": smartthings},
    "online-retail": {"": retail},
    "complete-journey": {"": groceries},
    "movielens-last-five": {"": movielens},
    "amazon-industrial": {"": amazon},
}
"""The ways in which each data set is asked."""


def say(prior: Prior, case: Case, data: Data) -> np.ndarray:
    """Log-probability of each item."""
    return (prior.log_mass_held_out if data.held_out else prior.log_mass)(case.history, case.now)


def some(cases: list[Case], n: int) -> list[Case]:
    """So many cases drawn by chance, all when 0."""
    return [cases[i] for i in np.random.default_rng(0).permutation(len(cases))[: n or len(cases)]]


def tuned(data: Data, n_cases: int, name: str) -> Choice:
    """The options of a prior under which validation cases are likeliest, and how many nats each takes then."""
    asked, found = (data.options or {}).get(name, {}), []
    for values in itertools.product(*GRIDS[name].values()):
        options = {name: asked | dict(zip(GRIDS[name], values, strict=True))}
        found.append(on_validation(data, n_cases, options))
    return min(found, key=lambda one: one["nats"])


Choice = dict[str, Any]
"""What validation cases chose: options by prior, mean nats, and of several priors the weights in each round."""


def on_validation(data: Data, n_cases: int, options: dict[str, dict[str, Any]]) -> Choice:
    """Mean negative log-probability of validation cases under a prior; of several, under the best blend of them."""
    catalog, nats, weights = Catalog.of(data.items), [], {}
    for part in {id(one.tune): one.tune for one in data.rounds}.values():
        prior, cases = fitted({"options": options, "weights": []}, catalog, part), some(part.cases, n_cases)
        if isinstance(prior, Blend):
            prior.weigh([(case.history, case.now, catalog.row[case.item_id]) for case in cases], held_out=data.held_out)
            weights[id(part)] = dict(zip(options, prior.weights.round(3).tolist(), strict=True))
        nats += [-say(prior, case, data)[catalog.row[case.item_id]] for case in cases]
    made = {"options": options, "nats": round(float(np.mean(nats)), 4)}
    return made | ({"weights": [weights[id(one.tune)] for one in data.rounds]} if weights else {})


def fitted(choice: Choice, catalog: Catalog, part: Part, n_round: int = 0) -> Prior:
    """A prior that has learned from a part; several are a blend, by the weights of a round where any were chosen."""
    voices = {name: Registry().build("priors", name, options) for name, options in choice["options"].items()}
    if len(voices) == 1:
        [prior] = voices.values()
        prior.fit(catalog, part.batches)
        return prior
    weights = choice.get("weights")
    blend = Blend.of(voices) if weights is None else Blend.of(voices, n_fit=0)
    blend.fit(catalog, part.batches)
    if weights:
        blend.weights = np.array([weights[n_round][name] for name in blend.members])
    return blend


def best_of(dataset: str) -> Choice:
    """What was best on validation cases.

    Raises:
        ClickException: If nothing was tuned yet.
    """
    file = RESULTS / dataset / "priors.json"
    rows = json.loads(file.read_text(encoding="utf-8"))["rows"] if file.is_file() else []
    tuned = [row for row in rows if row["name"].endswith(", validation")]
    if not tuned:
        raise click.ClickException(f"no priors were tuned: python benchmarks/priors.py --dataset {dataset}")
    return min(tuned, key=lambda row: row["nats"])


def placed(priors: Sequence[Prior], data: Data, n_cases: int) -> tuple[np.ndarray, list[str], dict[str, Any]]:
    """Places of the test cases' targets by one prior of each round, whose cases they are, and the figures."""
    row = {item.item_id: i for i, item in enumerate(data.items)}
    ranks, nats, people = [], [], []
    spent_s = 0.0
    for prior, one in zip(priors, data.rounds, strict=True):
        for case in some(one.test.cases, n_cases):
            started_s = time.perf_counter()
            log_mass = say(prior, case, data)
            spent_s += time.perf_counter() - started_s
            live = None
            if data.unseen:
                live = np.ones(len(row), bool)
                live[[row[item] for moment in case.history.moments for item in moment.item_ids]] = False
            target = row[case.item_id]
            ranks.append(place_by_weight(log_mass, target, live))
            nats.append(-float(log_mass[target]))
            people.append(case.cluster)
    hits, whose = hit_rate(np.array(ranks), 1), np.unique(people, return_inverse=True)[1]
    figures = {
        **summary(ranks, people),
        "HR@1 over people": round(float((np.bincount(whose, hits) / np.bincount(whose)).mean()), 4),
        "HR@5": round(float(hit_rate(np.array(ranks), 5).mean()), 4),
        "nats": round(float(np.mean(nats)), 4),
        "ms a case": round(1000 * spent_s / len(ranks), 2),
    }
    return np.array(ranks), people, figures


def measure(book: Book, data: Data, way: str, names: Sequence[str], n_tune: int, n_test: int) -> None:
    """Tune, fit, place and compare, in one way of asking."""
    label, chosen = f"{way}: " if way else "", {}

    def choose(name: str, work: Callable[[], Choice]) -> None:
        book.add(f"{label}{name}, validation", work)
        chosen[name] = next(row for row in book.rows if row["name"] == f"{label}{name}, validation")

    for name in names:
        if n_tune:
            choose(name, lambda name=name: tuned(data, n_tune, name))
        else:
            chosen[name] = {"options": {name: (data.options or {}).get(name, {})}, "nats": 0.0}
    options = {name: chosen[name]["options"][name] for name in names}
    if len(names) > 1:
        chosen["blend"] = {"options": options, "nats": 0.0}
        if n_tune:
            choose("blend", lambda: on_validation(data, n_tune, options))
    n_cases = sum(len(some(one.test.cases, n_test)) for one in data.rounds)
    look(book.dataset, f"{book.stage}: {label}{', '.join(names)}", n_cases)
    whole = "blend" if len(names) > 1 else names[0]
    everyone: dict[str, list[Prior]] = {}
    for n, one in enumerate(data.rounds):
        prior = fitted(chosen[whole], Catalog.of(data.items), one.test, n)
        for name, voice in {**(prior.voices if isinstance(prior, Blend) else {}), whole: prior}.items():
            everyone.setdefault(name, []).append(voice)
    found: dict[str, tuple[np.ndarray, list[str]]] = {}
    for name, each in everyone.items():
        ranks, people, row = placed(each, data, n_test)
        found[name] = ranks, people
        book.add(label + name, lambda row=row: row)
    best = min(chosen, key=lambda name: chosen[name]["nats"])
    for name in (name for name in everyone if name != best):
        book.add(f"{label}{best} - {name}", lambda name=name: difference(found[best][0], *found[name]))


def made_up(n_events: int) -> tuple[list[Item], list[Event]]:
    """10,000 items, and one person's turn every three minutes; each has 50 events."""
    rng = np.random.default_rng(0)
    words = [f"word{i}" for i in range(800)]
    items = [Item(item_id=str(i), title=" ".join([*rng.choice(words, 4), str(i)])) for i in range(10_000)]
    taken = (10_000 * rng.random(n_events) ** 3).astype(int).tolist()
    start, step, n_people = datetime(2025, 1, 1, tzinfo=UTC), timedelta(minutes=3), n_events // 50
    return items, [
        Event(user_id=str(i % n_people), item_id=str(item), at=start + i * step) for i, item in enumerate(taken)
    ]


def starts(book: Book, n_events: int = 1_000_000) -> None:
    """What it costs to get a prior ready: a workspace's first start, its second, and one after a new event."""
    with TemporaryDirectory() as folder:
        shop = Path(folder, "shop")
        create_workspace(shop, {"engine": "none"})
        items, events = made_up(n_events)
        with Store.open(shop / "genrec.db") as store:
            store.put("items", [batch("items", items)])
            store.append(
                (batch("events", events[i : i + 50_000]) for i in range(0, n_events, 50_000)), source="made up"
            )

        def measure(name: str, when: Sequence[str]) -> dict[str, float]:
            found: dict[str, float] = {}
            for start in when:
                with open_workspace(shop) as workspace:
                    if start == "after an event":
                        workspace.store.append([batch("events", [replace(events[-1], user_id="new")])], source="since")
                    _ = workspace.catalog
                    began_s, began_cpu_s = time.perf_counter(), time.process_time()
                    workspace.fitted_prior(name)
                    found[f"{start}, s"] = round(time.perf_counter() - began_s, 2)
                    found[f"{start}, CPU s"] = round(time.process_time() - began_cpu_s, 2)
            kept = (shop / CACHE / "priors").glob("*/*")
            return found | {"MB kept": round(sum(file.stat().st_size for file in kept) / 1e6, 1)}

        book.add("sequence", lambda: measure("sequence", ("first", "second")))
        shutil.rmtree(shop / CACHE, ignore_errors=True)
        book.add("popularity", lambda: measure("popularity", ("first", "second", "after an event")))


def speed(book: Book) -> None:
    """What an answer costs: 100 people over 10,000 made-up items, after 100,000 events of 2,000 people."""
    items, events = made_up(100_000)
    catalog, end = Catalog.of(items), events[0].at + timedelta(days=300)
    own: dict[str, list[Event]] = {}
    for event in events:
        own.setdefault(event.user_id, []).append(event)
    people = [History(user_id=str(i), user=None, at=end, moments=moments(own[str(i)])) for i in range(100)]
    registry = Registry()
    unweighed: dict[str, dict[str, Any]] = {name: {"n_fit": 0} for name in GRIDS if name != "popularity"}
    voices = {name: registry.build("priors", name, unweighed.get(name)) for name in GRIDS}
    blend = Blend.of(voices, n_fit=0)  # what weighs how much does not change what it costs
    blend.fit(catalog, [batch("events", events)])
    for name, prior in {**blend.voices, "blend": blend}.items():

        def answer(prior: Prior = prior) -> dict[str, Any]:
            prior.log_mass(people[0], Context())  # what is made once, at the first question
            each = []
            for person in people:
                began_s = time.perf_counter()
                prior.log_mass(person, Context())
                each.append(1000 * (time.perf_counter() - began_s))
            return {"median ms": round(float(np.median(each)), 2), "slowest ms": round(max(each), 2)}

        book.add(name, answer)


MADE_UP: dict[str, Callable[[Book], None]] = {"speed": speed, "start": starts}
"""What is measured on made-up people."""


@click.command(help=__doc__)
@click.option("--dataset", type=click.Choice([*DATA, *MADE_UP]), required=True)
@click.option("--data", type=click.Path(path_type=Path), default="../shared/data", show_default=True)
@click.option("--prior", "names", multiple=True, type=click.Choice(list(GRIDS)), help="All when none is named.")
@click.option("--way", help="One of the ways in which the data set is asked; all when omitted.")
@click.option("--tune-cases", default=500, show_default=True, help="Validation cases of a round; 0 tunes nothing.")
@click.option("--cases", default=0, show_default=True, help="Test cases of a round, drawn by chance; 0 for all.")
@click.option("--name", help="Names the file of results; priors when omitted, and start for start.")
def main(
    dataset: str, data: Path, names: tuple[str, ...], way: str | None, tune_cases: int, cases: int, name: str | None
) -> None:
    """What the untrained voices are worth."""
    folder = "made-up" if dataset in MADE_UP else dataset
    name = name or ("start" if dataset == "start" else "priors")
    book = Book(
        RESULTS / folder / f"{name}.json",
        stage=name,
        dataset=folder,
        settings={"tune_cases": tune_cases, "cases": cases, "max_events": MAX_EVENTS, "grids": GRIDS},
        say=click.echo,
    )
    if dataset in MADE_UP:
        MADE_UP[dataset](book)
    for asked, read in DATA.get(dataset, {}).items():
        if way in (None, asked):
            measure(book, read(data), asked, names or tuple(GRIDS), tune_cases, cases)


if __name__ == "__main__":
    main()
