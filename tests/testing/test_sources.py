"""The contract of sources passes for a good source and names what is wrong with a bad one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pytest

from genrec.events import SCHEMAS, Event, Item, Kind, User, batch
from genrec.sources.base import Problem, Report, Source
from genrec.testing import SourceContract

ITEMS = [Item(item_id="1", title="Milk"), Item(item_id="2", title="Bread")]
EVENTS = [Event(event_id=str(n), user_id="ann", item_id="1", at=datetime(2024, 1, n, tzinfo=UTC)) for n in (1, 2)]


@dataclass(frozen=True, kw_only=True)
class Good(Source):
    """Two items and two events."""

    name: str = "good"

    def identity(self) -> str:
        return self.name

    def read(self, kind: Kind, report: Report) -> Iterator[pa.RecordBatch]:
        if kind == "items":
            yield batch("items", ITEMS)
        elif kind == "events":
            report(Problem(where="row 3", what="has no item"))
            yield batch("events", EVENTS)


class TestGood(SourceContract):
    source = Good()


class NoOptions(Source):
    def identity(self) -> str:
        return "plain"

    def read(self, kind: Kind, report: Report) -> Iterator[pa.RecordBatch]:
        yield from Good().read(kind, report)


class Nothing(Good):
    def read(self, kind: Kind, report: Report) -> Iterator[pa.RecordBatch]:
        yield from ()


class WrongSchema(Good):
    def read(self, kind: Kind, report: Report) -> Iterator[pa.RecordBatch]:
        if kind == "items":
            yield pa.RecordBatch.from_pydict({"item_id": ["1"], "title": ["Milk"]})


class Nulls(Good):
    def read(self, kind: Kind, report: Report) -> Iterator[pa.RecordBatch]:
        if kind == "users":
            columns = [pa.nulls(1, column.type) for column in SCHEMAS["users"]]
            yield pa.RecordBatch.from_arrays(columns, schema=SCHEMAS["users"])


@dataclass(frozen=True, kw_only=True)
class Unstable(Good):
    seen: list[int] = field(default_factory=list)

    def read(self, kind: Kind, report: Report) -> Iterator[pa.RecordBatch]:
        self.seen.append(1)
        if kind == "items":
            yield batch("items", ITEMS if len(self.seen) % 2 else ITEMS[::-1])


class Nameless(Good):
    def identity(self) -> str:
        return f"source at {id(self)}"


class Twice(Good):
    def read(self, kind: Kind, report: Report) -> Iterator[pa.RecordBatch]:
        if kind == "events":
            yield batch("events", EVENTS + EVENTS[:1])


class BeforeTime(Good):
    def read(self, kind: Kind, report: Report) -> Iterator[pa.RecordBatch]:
        if kind == "events":
            yield batch("events", [Event(user_id="ann", item_id="1", at=datetime(1, 1, 1, tzinfo=UTC))])


class NowhereOnEarth(Good):
    def read(self, kind: Kind, report: Report) -> Iterator[pa.RecordBatch]:
        if kind == "users":
            yield batch("users", [User(user_id="ann", time_zone="Mars/Base")])


class Vague(Good):
    def read(self, kind: Kind, report: Report) -> Iterator[pa.RecordBatch]:
        report(Problem(where="", what="something"))
        yield from super().read(kind, lambda problem: None)


class TwoLineNotes(Good):
    def notes(self, kind: Kind) -> list[str]:
        return ["one\ntwo"]


@pytest.mark.parametrize(
    ("source", "broken"),
    [
        (NoOptions(), "test_options_are_dataclass_fields"),
        (Nothing(), "test_has_data"),
        (WrongSchema(), "test_batches_have_the_schema"),
        (Nulls(), "test_batches_have_the_schema"),
        (Unstable(), "test_reading_again_gives_the_same"),
        (Nameless(), "test_identity_is_stable"),
        (Twice(), "test_ids_are_unique"),
        (BeforeTime(), "test_values_are_plausible"),
        (NowhereOnEarth(), "test_values_are_plausible"),
        (Vague(), "test_problems_say_where_and_what"),
        (TwoLineNotes(), "test_notes_are_lines"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_a_broken_promise_is_found(source: Any, broken: str) -> None:
    contract = type("Contract", (SourceContract,), {"source": source})()
    with pytest.raises(AssertionError):
        getattr(contract, broken)()
