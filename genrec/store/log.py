"""The one object of the store: append and put, read back as of an instant, forget.

Gives back what was put in and nothing it concluded from it; moments, windows in tokens and catalogues are made by
others. Which events are choices and which are refusals it is told when it is opened; untold, all are choices. What a
method wrote is on the disk when it returns.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import pyarrow as pa
from sqlalchemy import (
    ColumnElement,
    Connection,
    Engine,
    Select,
    Table,
    TextClause,
    bindparam,
    case,
    delete,
    func,
    literal,
    or_,
    select,
    text,
    union,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite

from genrec.actions import SEPARATORS, STRONG, Actions, Rule
from genrec.errors import DataError, StoreError, TextTakenError
from genrec.events import SCHEMAS, WEIGHED, Event, Kind, Medium, User, event_of, from_json
from genrec.store.append import Appended, append_batch
from genrec.store.connection import connect, outside_transactions, writing
from genrec.store.rows import Names, check
from genrec.store.summary import Summary, summarise
from genrec.store.tables import (
    CURRENT,
    RETIRED,
    corrections,
    edges,
    events,
    item_media,
    item_texts,
    items,
    metadata,
    sources,
    users,
)
from genrec.text import clean

_BATCH = 20_000  # rows of a record batch read back, and of a statement that writes
_NAMED = 1_000  # ids named in one statement
_KEYS = {"items": ["item_id"], "users": ["user_id"], "edges": ["from_id", "to_id", "kind"]}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

TIME_ZONE = "time_zone"
"""Name under which somebody corrects the clock they live by."""
MAX_NAME = 40
"""Longest name of an attribute that somebody may give, in characters."""


@dataclass(frozen=True, kw_only=True)
class Forgotten:
    """What was deleted with a person."""

    n_events: int
    """Events, superseded versions included."""
    n_users: int
    """1 if the person had a row of their own, else 0."""
    n_edges: int
    """Relations from and to the person."""
    n_corrections: int
    """What the person had corrected."""


@dataclass(frozen=True, kw_only=True)
class Taken:
    """That somebody whom a person knows took an item; not who."""

    item_id: str
    at: datetime
    """When they last did."""
    weight: float
    """Of the person's relations to them, all kinds together."""


@dataclass(frozen=True, kw_only=True)
class Mark:
    """What the current events come to at one moment: where two marks are equal, so are the events behind them."""

    n_events: int
    last: int
    """Number of the event that came last, counted as they come; 0 where there is none."""
    numbers: int
    """Sum of all their numbers."""
    content: int
    """Sum of the hashes of all their contents."""
    last_at: int
    """Latest instant, microseconds since 1970 in UTC; 0 where there is none."""


class Store:
    """A log of events, and the items, users and relations they speak of. Made by `Store.open`.

    One store may be used from several threads, and one database by several processes.
    """

    def __init__(self, engine: Engine, actions: Actions, *seen: ColumnElement[bool] | TextClause) -> None:
        self._engine, self._actions = engine, actions
        self._weight = _weight(actions.rules, _plain_name(events.c.action)).label("weight")
        self._seen = seen or (CURRENT,)
        """Conditions on events that are read."""

    @classmethod
    def open(cls, where: str | Path, *, actions: Actions | None = None) -> Store:
        """Open a store, making it if there is none, and bring its schema up to date.

        Args:
            where: A path (a SQLite file) or a URL such as ``postgresql://user@host/genrec``.
            actions: Which events are choices and which are refusals; when omitted, all are choices.

        Raises:
            StoreError: If it cannot be opened, belongs to something else, or was written by a newer genrec.
        """
        return cls(connect(where), actions or Actions())

    def without(self, kind: Literal["action", "source"], name: str) -> Store:
        """The same log as if events of an action or a source had never come: to read what is known without them.

        It shares the database, which its owner closes; counts, items and users are those of the whole.
        """
        if kind == "action":
            return Store(self._engine, self._actions, *self._seen, events.c.action != name)
        theirs = select(sources.c.source_id).where(sources.c.name == name)
        return Store(self._engine, self._actions, *self._seen, events.c.source_id.not_in(theirs))

    def close(self) -> None:
        """Let go of the database; closing twice does no harm."""
        self._engine.dispose()

    def __enter__(self) -> Store:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def append(
        self,
        batches: Iterable[pa.RecordBatch],
        *,
        source: str,
        on_batch: Callable[[Appended], None] | None = None,
    ) -> Appended:
        """Add events to the log, one transaction a batch.

        An event is recognised by its source and its id, so handing in the same data again adds nothing; another
        content under the same id becomes the event's current version. Events without an id are told apart by their
        content and, among identical rows of this one call, by their number.

        Args:
            batches: Record batches of ``SCHEMAS["events"]``, taken one after the other.
            source: Name within which event ids are unique.
            on_batch: Called with each batch's own counts once it is on the disk.

        Returns:
            The counts of all batches together.

        Raises:
            DataError: If a batch cannot be stored as it is; the batches before it stay.
            StoreError: If the database fails; the batches before stay.
        """
        names, total, source_id = Names(), Appended(), None
        for rows in batches:
            check("events", rows)
            with writing(self._engine) as connection, connection.begin():
                if source_id is None:
                    source_id = self._source_id(connection, source)
                done = append_batch(connection, source_id, rows, names)
            total += done
            if on_batch is not None:
                on_batch(done)
        return total

    def _insert(self, table: Table) -> sqlite.Insert | postgresql.Insert:
        return sqlite.insert(table) if self._engine.dialect.name == "sqlite" else postgresql.insert(table)

    def _source_id(self, connection: Connection, name: str) -> int:
        connection.execute(self._insert(sources).values(name=name).on_conflict_do_nothing())
        return int(connection.execute(select(sources.c.source_id).where(sources.c.name == name)).scalar_one())

    def put(self, kind: Literal["items", "users", "edges"], batches: Iterable[pa.RecordBatch]) -> int:
        """Add or replace items (by id), users (by id) or edges (by both ends and kind), one transaction a batch.

        A retired item that is put again is on offer again.

        Returns:
            How many rows were put.

        Raises:
            DataError: If a batch cannot be stored as it is; the batches before it stay.
            StoreError: If the database fails; the batches before stay.
        """
        n = 0
        for rows in batches:
            check(kind, rows)
            with writing(self._engine) as connection, connection.begin():
                self._put(connection, kind, rows)
            n += rows.num_rows
        return n

    def _put(self, connection: Connection, kind: Literal["items", "users", "edges"], rows: pa.RecordBatch) -> None:
        statement = self._insert(metadata.tables[kind])
        values: dict[str, Any] = {n: statement.excluded[n] for n in SCHEMAS[kind].names if n not in _KEYS[kind]}
        if kind == "items":
            values["retired_at"] = None
        upsert = statement.on_conflict_do_update(index_elements=_KEYS[kind], set_=values)
        for start in range(0, rows.num_rows, _BATCH):
            connection.execute(upsert, rows.slice(start, _BATCH).to_pylist())

    def add_items(self, rows: pa.RecordBatch, texts: Mapping[str, str]) -> None:
        """Add or replace items and assign texts, all in one transaction.

        Args:
            rows: A record batch of ``SCHEMAS["items"]``.
            texts: As for `save_texts`.

        Raises:
            DataError: If the batch cannot be stored as it is.
            TextTakenError: If an item has another text, or a text belongs to another item; then nothing is stored.
            StoreError: If the database fails; then nothing is stored.
        """
        check("items", rows)
        with writing(self._engine) as connection, connection.begin():
            self._put(connection, "items", rows)
            self._save_texts(connection, texts)

    def retire(self, item_ids: Iterable[str]) -> set[str]:
        """Take items off offer; they keep their texts and come back when they are put again.

        Returns:
            Those of the ids that the store has, retired before or just now.
        """
        known: set[str] = set()
        now = _microseconds(datetime.now(UTC))
        with writing(self._engine) as connection, connection.begin():
            for some in _pieces(item_ids):
                known |= set(connection.execute(select(items.c.item_id).where(items.c.item_id.in_(some))).scalars())
                on_offer = items.c.item_id.in_(some), items.c.retired_at.is_(None)
                connection.execute(update(items).where(*on_offer).values(retired_at=now))
        return known

    def retired(self) -> set[str]:
        """The items that are no longer on offer."""
        with self._engine.begin() as connection:
            return set(connection.execute(select(items.c.item_id).where(RETIRED)).scalars())

    def history(self, user_id: str, at: datetime, *, max_events: int) -> list[Event]:
        """What a person chose strictly before an instant, oldest first.

        Args:
            user_id: Whose; unknown people have none.
            at: The instant, time-zone-aware.
            max_events: At most so many are returned, the latest. Where there are more, the first one returned moves
                in steps of ``max_events // 4``, so that it stays the same while events are added at the end.

        Raises:
            DataError: If `at` has no time zone or `max_events` is below one.
        """
        if max_events < 1:
            raise DataError(f"max_events is {max_events}, but must be at least 1")
        theirs = self._chosen(user_id, at).add_columns(*events.c, self._weight)
        latest_first = theirs.order_by(events.c.at.desc(), events.c.seq.desc()).limit(max_events + 1)
        with self._engine.begin() as connection:
            rows = connection.execute(latest_first).mappings().all()
            if len(rows) > max_events:
                chosen = self._weight_by(self._rules(connection, user_id, at)) > 0  # mostly told from the index alone
                n = connection.execute(self._theirs(user_id, at).where(chosen).add_columns(func.count())).scalar_one()
                step = max(1, max_events // 4)
                n_dropped = -(-(n - max_events) // step) * step
                rows = rows[: n - n_dropped]
        return [event_of({**row, "at": _EPOCH + timedelta(microseconds=row["at"])}) for row in reversed(rows)]

    def n_events(self, user_id: str, at: datetime) -> int:
        """How many events of a person lie strictly before an instant.

        Raises:
            DataError: If `at` has no time zone.
        """
        theirs = self._theirs(user_id, at).add_columns(func.count())
        with self._engine.begin() as connection:
            return int(connection.execute(theirs).scalar_one())

    def taken_by_friends(
        self, user_id: str, at: datetime, *, days: float, max_friends: int = 100, max_each: int = 50
    ) -> list[Taken]:
        """What those took whom a person knows, in the days strictly before an instant, latest first.

        Only relations from the person to others with a weight above 0 count, and choices that are not weak. Relations
        have no date.

        Args:
            user_id: Whose relations; unknown people have none.
            at: The instant, time-zone-aware.
            days: How far it is looked back.
            max_friends: At most so many others are looked at, those with the heaviest relations.
            max_each: At most so many choices of each other are, the latest; each other's item is returned once.

        Raises:
            DataError: If `at` has no time zone.
        """
        end, weight = _microseconds(at), func.sum(edges.c.weight).label("weight")
        known = (
            select(edges.c.to_id, weight)
            .where(edges.c.from_id == user_id, edges.c.to_id != user_id, edges.c.weight > 0)
            .group_by(edges.c.to_id)
            .order_by(weight.desc(), edges.c.to_id)
            .limit(max_friends)
        )
        latest = (
            select(events.c.item_id, events.c.at)
            .where(*self._seen, self._weight >= STRONG, events.c.user_id == bindparam("friend"))
            .where(events.c.at >= end - round(days * 86_400e6), events.c.at < end)
            .order_by(events.c.at.desc(), events.c.seq.desc())
            .limit(max_each)
        )
        found = []
        with self._engine.begin() as connection:
            for other in connection.execute(known).all():  # one by one, or all of the days of each would be read
                rows = connection.execute(latest, {"friend": other.to_id}).all()
                found += [(-last, item_id, other.weight) for item_id, last in dict(reversed(rows)).items()]
        return [
            Taken(item_id=item_id, at=_EPOCH - timedelta(microseconds=last), weight=weight)
            for last, item_id, weight in sorted(found)
        ]

    def item_ids(self, user_id: str, at: datetime) -> set[str]:
        """The items that a person ever chose strictly before an instant.

        Raises:
            DataError: If `at` has no time zone.
        """
        theirs = self._chosen(user_id, at).add_columns(events.c.item_id)
        with self._engine.begin() as connection:
            return set(connection.execute(theirs.distinct()).scalars())

    def refused(self, user_id: str, at: datetime) -> set[str]:
        """The items that a person refused strictly before an instant, and did not choose again since.

        A choice weaker than `STRONG` takes no refusal back, and neither does one at the same instant.

        Raises:
            DataError: If `at` has no time zone.
        """
        theirs = self._theirs(user_id, at).add_columns(events.c.item_id).group_by(events.c.item_id)
        with self._engine.begin() as connection:
            rules = self._rules(connection, user_id, at)
            if not any(rule.may_refuse for rule in rules.values()):
                return set()
            weight = self._weight_by(rules)
            no, yes = (func.max(case((said, events.c.at))) for said in (weight < 0, weight >= STRONG))
            return set(connection.execute(theirs.having(no >= func.coalesce(yes, no))).scalars())

    def _rules(self, connection: Connection, user_id: str, at: datetime) -> dict[str, Rule]:
        """What a person's actions count, by their names as they are spelt; read from an index alone."""
        if not self._actions.rules:
            return {}
        names = self._theirs(user_id, at).add_columns(events.c.action).distinct()
        return {name: self._actions.of_action(name) for name in connection.execute(names).scalars()}

    def _weight_by(self, rules: Mapping[str, Rule]) -> ColumnElement[float]:
        """How much an event with one of some actions counts: `_weight`, told faster where these are few.

        An action that came in since they were read counts nothing, as if it were not there yet.
        """
        few = self._actions.rules and len(rules) <= _NAMED
        return _weight(rules, events.c.action, others=0.0) if few else self._weight

    def _theirs(self, user_id: str, at: datetime) -> Select[Any]:
        """A person's events before an instant, with no columns yet."""
        return select().where(*self._seen, events.c.user_id == user_id, events.c.at < _microseconds(at))

    def _chosen(self, user_id: str, at: datetime) -> Select[Any]:
        return self._theirs(user_id, at).where(self._weight > 0)

    def events(self, *, before: datetime | None = None) -> Iterator[pa.RecordBatch]:
        """Stream all events in the order of their instants, those of one instant in the order they came.

        Args:
            before: Only events strictly before this instant, time-zone-aware.

        Returns:
            Record batches of ``SCHEMAS["events"]``; one consistent view, whatever is appended meanwhile.

        Raises:
            DataError: If `before` has no time zone.
        """
        return self._stream(SCHEMAS["events"], self._in_order(before))

    def choices(self, *, before: datetime | None = None) -> Iterator[pa.RecordBatch]:
        """The events that are choices, as `events` has them; record batches of `WEIGHED`."""
        return self._stream(WEIGHED, self._choices_in_order(before))

    def weighed(self) -> Iterator[pa.RecordBatch]:
        """All events as `events` has them, refusals and what counts nothing too; record batches of `WEIGHED`."""
        return self._stream(WEIGHED, self._in_order(None).add_columns(self._weight))

    def marked_choices(
        self, *, before: datetime | None = None, since: Mark | None = None
    ) -> tuple[Mark, Generator[pa.RecordBatch, None, None]]:
        """The mark of all events, and the events as `choices` has them, in one consistent view; to be read or closed.

        Args:
            before: As for `events`; holds for the mark as well.
            since: Only events that came after the log had this mark, whatever their instants.

        Raises:
            DataError: If `before` has no time zone.
        """
        query = self._choices_in_order(before)
        if since is not None:
            query = query.where(events.c.seq > since.last)

        def read() -> Generator[Any, None, None]:
            with self._engine.connect() as connection:
                if connection.dialect.name == "postgresql":  # SQLite's transactions see one view anyhow
                    connection = connection.execution_options(isolation_level="REPEATABLE READ")
                yield self._mark(connection, before)
                yield from self._batches(connection, WEIGHED, query)

        reading = read()
        return next(reading), reading

    def mark(self, *, before: datetime | None = None, until: Mark | None = None) -> Mark:
        """What the events come to, at a few hundredths of what reading them takes.

        Args:
            before: As for `events`.
            until: Only events that came before the log had this mark: it is the mark again while none of them was
                deleted or corrected, and none has slipped in among them.

        Raises:
            DataError: If `before` has no time zone.
        """
        with self._engine.begin() as connection:
            return self._mark(connection, before, until)

    def _mark(self, connection: Connection, before: datetime | None, until: Mark | None = None) -> Mark:
        seq = events.c.seq
        # Halves, because the sum of whole hashes is more than a database's integers hold.
        halves = text("sum(content >> 32)"), text("sum(content & 4294967295)")
        sums = select(func.count(), func.max(seq), func.sum(seq), *halves, func.max(events.c.at))
        # Along the primary key: along the index of instants each row would be looked up by itself.
        query = sums.where(*self._seen, seq >= 0)
        if before is not None:
            query = query.where(events.c.at + 0 < _microseconds(before))
        if until is not None:
            query = query.where(seq <= until.last)
        n, last, numbers, high, low, last_at = (int(value or 0) for value in connection.execute(query).one())
        return Mark(n_events=n, last=last, numbers=numbers, content=(high << 32) + low, last_at=last_at)

    def _in_order(self, before: datetime | None) -> Select[Any]:
        query = self._select("events").where(*self._seen).order_by(events.c.at, events.c.seq)
        return query if before is None else query.where(events.c.at < _microseconds(before))

    def _choices_in_order(self, before: datetime | None) -> Select[Any]:
        return self._in_order(before).add_columns(self._weight).where(self._weight > 0)

    def items(self) -> Iterator[pa.RecordBatch]:
        """Stream the items in the order they first came, as ``SCHEMAS["items"]``."""
        return self._stream(SCHEMAS["items"], self._select("items").order_by(items.c.seq))

    def users(self) -> Iterator[pa.RecordBatch]:
        """Stream the users as sources know them, in the order they first came, as ``SCHEMAS["users"]``."""
        return self._stream(SCHEMAS["users"], self._select("users").order_by(users.c.seq))

    def edges(self) -> Iterator[pa.RecordBatch]:
        """Stream the edges in the order they first came, as ``SCHEMAS["edges"]``."""
        return self._stream(SCHEMAS["edges"], self._select("edges").order_by(edges.c.seq))

    @staticmethod
    def _select(kind: Kind) -> Select[Any]:
        table = metadata.tables[kind]
        return select(*(table.c[name] for name in SCHEMAS[kind].names))

    def _stream(self, schema: pa.Schema, query: Select[Any]) -> Iterator[pa.RecordBatch]:
        with self._engine.connect() as connection:
            yield from self._batches(connection, schema, query)

    @staticmethod
    def _batches(connection: Connection, schema: pa.Schema, query: Select[Any]) -> Iterator[pa.RecordBatch]:
        found = connection.execution_options(yield_per=_BATCH).execute(query)
        for rows in found.partitions():
            columns = (
                pa.array(values, pa.int64()).cast(field.type)
                if pa.types.is_timestamp(field.type)
                else pa.array(values, field.type)
                for values, field in zip(zip(*rows, strict=True), schema, strict=True)
            )
            yield pa.RecordBatch.from_arrays(list(columns), schema=schema)

    def user(self, user_id: str) -> User | None:
        """What holds of a person: what they corrected, and else what sources say.

        Returns:
            None for one of whom neither says anything.
        """
        with self._engine.begin() as connection:
            row = connection.execute(self._select("users").where(users.c.user_id == user_id)).mappings().first()
            own = self._corrections(connection, user_id)
        if row is None and not own:
            return None
        given = from_json(row["attributes"]) if row else {}
        zone = own.get(TIME_ZONE, row["time_zone"] if row else None)
        said = {key: value for key, value in own.items() if value is not None and key != TIME_ZONE}
        return User(
            user_id=user_id,
            time_zone=zone,
            attributes=said | {key: value for key, value in given.items() if key not in own},
            struck=frozenset(own) - frozenset(said) - {TIME_ZONE},
        )

    def knows(self, user_id: str) -> bool:
        """Whether a person has a row or an event."""
        asked = [
            select(users.c.user_id).where(users.c.user_id == user_id),
            select(events.c.user_id).where(*self._seen, events.c.user_id == user_id).limit(1),
        ]
        with self._engine.begin() as connection:
            return any(connection.execute(query).first() for query in asked)

    def correct(self, user_id: str, changes: Mapping[str, str | None]) -> None:
        """Keep what a person says of themselves: it comes before what any source says, now or later.

        Args:
            user_id: Who.
            changes: Attributes by name, ``time_zone`` among them. None strikes one, or by its key a tag such as
                ``interest:beer`` that is told from the person's events.

        Raises:
            DataError: If a name or value cannot be kept and shown; then nothing is kept.
            StoreError: If the database fails; then nothing is kept.
        """
        for key, value in changes.items():
            _check_correction(key, value)
        own = self._insert(corrections)
        upsert = own.on_conflict_do_update(index_elements=["user_id", "key"], set_={"value": own.excluded.value})
        rows = [{"user_id": user_id, "key": key, "value": value} for key, value in changes.items()]
        if rows:
            with writing(self._engine) as connection, connection.begin():
                connection.execute(upsert, rows)

    def withdraw(self, user_id: str, keys: Collection[str]) -> None:
        """Take corrections back: what sources say and events tell holds again. Unknown ones are passed over."""
        with writing(self._engine) as connection, connection.begin():
            theirs = corrections.c.user_id == user_id
            connection.execute(delete(corrections).where(theirs, corrections.c.key.in_(keys)))

    def corrections(self, user_id: str) -> dict[str, str | None]:
        """What a person corrected, by name; None for what is struck."""
        with self._engine.begin() as connection:
            return self._corrections(connection, user_id)

    @staticmethod
    def _corrections(connection: Connection, user_id: str) -> dict[str, str | None]:
        own = select(corrections.c.key, corrections.c.value).where(corrections.c.user_id == user_id)
        return {one.key: one.value for one in connection.execute(own.order_by(corrections.c.key))}

    def user_ids(self, limit: int | None = None) -> list[str]:
        """Everybody known by a row of their own or by an event, those with most events first, then by id."""
        n = func.count().label("n")
        active = select(events.c.user_id, n).where(*self._seen).group_by(events.c.user_id).subquery()
        known = union(select(users.c.user_id), select(active.c.user_id)).subquery()
        query = (
            select(known.c.user_id)
            .outerjoin(active, active.c.user_id == known.c.user_id)
            .order_by(func.coalesce(active.c.n, 0).desc(), known.c.user_id)
            .limit(limit)
        )
        with self._engine.begin() as connection:
            return list(connection.execute(query).scalars())

    def texts(self, item_ids: Iterable[str] | None = None) -> dict[str, str]:
        """The text assigned to each item, by item id; of all items when omitted."""
        with self._engine.begin() as connection:
            return self._texts(connection, item_ids)

    @staticmethod
    def _texts(connection: Connection, item_ids: Iterable[str] | None = None) -> dict[str, str]:
        query = select(item_texts.c.item_id, item_texts.c.text)
        named = [query] if item_ids is None else [query.where(item_texts.c.item_id.in_(s)) for s in _pieces(item_ids)]
        return {item_id: text for one in named for item_id, text in connection.execute(one).all()}

    def save_texts(self, texts: Mapping[str, str]) -> None:
        """Assign texts to items, for good; all of them or none.

        Args:
            texts: Item id → text. Saving an assignment again does no harm.

        Raises:
            TextTakenError: If an item has another text, or a text belongs to another item.
        """
        with writing(self._engine) as connection, connection.begin():
            self._save_texts(connection, texts)

    def _save_texts(self, connection: Connection, texts: Mapping[str, str]) -> None:
        if not texts:
            return
        rows = [{"item_id": item_id, "text": text} for item_id, text in texts.items()]
        connection.execute(self._insert(item_texts).on_conflict_do_nothing(), rows)
        stored = self._texts(connection, texts if len(texts) < _BATCH else None)
        for item_id, wanted in texts.items():
            if stored.get(item_id) != wanted:
                owner = select(item_texts.c.item_id).where(item_texts.c.text == wanted)
                why = (
                    f"it has the text {stored[item_id]!r}, which never changes"
                    if item_id in stored
                    else f"that text belongs to item {connection.execute(owner).scalar()!r}"
                )
                raise TextTakenError(
                    f"item {item_id!r} cannot get the text {wanted!r}: {why}",
                    hint="Another process may have assigned texts meanwhile; read them again and retry.",
                )

    def media(self, *, vectors: bool = False) -> Iterator[Medium]:
        """Stream what readers made of the media of items, by item and reader.

        Args:
            vectors: Whether to read vectors too, which are long; without, they are null.
        """
        columns = [column for column in item_media.columns if vectors or column.name != "vector"]
        query = select(*columns).order_by(item_media.c.item_id, item_media.c.reader)
        with self._engine.connect() as connection:
            for row in connection.execution_options(yield_per=_BATCH).execute(query).mappings():
                yield Medium(**row)

    def medium(self, content: str) -> Medium | None:
        """What a reader made of a file before, whichever item named it."""
        query = select(item_media).where(item_media.c.content == content).limit(1)
        with self._engine.begin() as connection:
            row = connection.execute(query).mappings().first()
        return Medium(**row) if row else None

    def put_media(self, media: Iterable[Medium]) -> None:
        """Add or replace, by item and reader, what was made of media; all of them or none."""
        statement = self._insert(item_media)
        values = {name: statement.excluded[name] for name in ("file", "content", "words", "vector")}
        upsert = statement.on_conflict_do_update(index_elements=["item_id", "reader"], set_=values)
        if rows := [vars(medium) for medium in media]:
            with writing(self._engine) as connection, connection.begin():
                connection.execute(upsert, rows)

    def drop_media(self, reader: str, item_ids: Iterable[str]) -> None:
        """Delete what a reader made of the media of some items."""
        with writing(self._engine) as connection, connection.begin():
            for some in _pieces(item_ids):
                theirs = item_media.c.reader == reader, item_media.c.item_id.in_(some)
                connection.execute(delete(item_media).where(*theirs))

    def forget(self, user_id: str) -> Forgotten:
        """Delete a person: their events in every version, their row, what they corrected, their relations.

        A SQLite file is rewritten without them, which takes seconds a million events and as much free space as the
        file is long. In PostgreSQL the tables are vacuumed; its own log and backups are the administrator's.

        Raises:
            StoreError: If the database fails, or other processes keep old pages of a SQLite file in use.
        """
        with writing(self._engine) as connection, connection.begin():
            done = Forgotten(
                n_events=connection.execute(delete(events).where(events.c.user_id == user_id)).rowcount,
                n_users=connection.execute(delete(users).where(users.c.user_id == user_id)).rowcount,
                n_edges=connection.execute(
                    delete(edges).where(or_(edges.c.from_id == user_id, edges.c.to_id == user_id))
                ).rowcount,
                n_corrections=connection.execute(delete(corrections).where(corrections.c.user_id == user_id)).rowcount,
            )
        with outside_transactions(self._engine) as connection:
            if self._engine.dialect.name == "postgresql":
                connection.execute(text("VACUUM events, users, edges, corrections"))
                return done
            # Deleted rows are overwritten, but pages that were split before may still hold copies: rewrite them all.
            connection.execute(text("VACUUM"))
            if connection.execute(text("PRAGMA wal_checkpoint(TRUNCATE)")).scalar_one():
                raise StoreError(
                    f"{user_id!r} is deleted, but a reader still keeps old pages in the write-ahead log",
                    hint="Stop what reads the store and forget the same user again.",
                )
        return done

    def summary(self) -> Summary:
        """Count what is there."""
        with self._engine.begin() as connection:
            return summarise(connection)


def _plain_name(action: ColumnElement[str]) -> ColumnElement[str]:
    """The name as `genrec.actions.plain_name` has it, as databases compute it."""
    name: ColumnElement[str] = func.lower(action)
    for sign in SEPARATORS:
        name = func.replace(name, sign, "")
    return name


def _weight(rules: Mapping[str, Rule], name: ColumnElement[str], *, others: float = 1.0) -> ColumnElement[float]:
    """How much an event counts as a choice, by rules for names and for all others, as databases compute it."""
    told = {
        action: literal(rule.weight)
        if rule.positive is None
        else case((func.coalesce(events.c.value, rule.positive) >= rule.positive, 1.0), else_=-1.0)
        for action, rule in rules.items()
        if rule != Rule(weight=others)
    }
    return case(told, value=name, else_=others) if told else literal(others)


def _pieces(ids: Iterable[str]) -> Iterator[list[str]]:
    """Ids in lists short enough for one statement."""
    waiting = iter(ids)
    while some := list(islice(waiting, _NAMED)):
        yield some


def _microseconds(at: datetime) -> int:
    if at.utcoffset() is None:
        raise DataError(f"the instant {at.isoformat()} has no time zone", hint="Add one, e.g. 2026-11-24T18:00+01:00.")
    return (at - _EPOCH) // timedelta(microseconds=1)


def _check_correction(key: str, value: str | None) -> None:
    if not key or "\0" in key + (value or "") or not _is_unicode(key + (value or "")):
        raise DataError(f"{key!r} cannot be corrected so: a name or value is empty, has a NUL in it or is not Unicode")
    if value is None:
        return
    if clean(key, max_chars=MAX_NAME) != key:
        raise DataError(
            f"{key!r} cannot be the name of an attribute, since a prompt would not show it as it is",
            hint=f"Take up to {MAX_NAME} letters, digits, spaces and the like, on one line.",
        )
    if not clean(value):
        raise DataError(f"{key!r} would have no value that can be shown", hint="To have nothing said of it, strike it.")


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
