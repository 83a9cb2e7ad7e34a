"""`SourceContract`: what every source owes its users, as tests that a third party gets by subclassing."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, ClassVar, cast

import pyarrow as pa
import pyarrow.compute as pc

from genrec.events import SCHEMAS, Kind, from_json
from genrec.sources.base import Problem, Source
from genrec.sources.times import is_zone

KEYS: dict[Kind, list[str]] = {"items": ["item_id"], "users": ["user_id"], "edges": ["from_id", "to_id", "kind"]}


class SourceContract:
    """Subclass it in a test module and set `source`; pytest runs the rest.

    Example:
        class TestShop(SourceContract):
            source = Shop(path="tests/orders.db")
    """

    source: ClassVar[Source]
    """The source under test, with options under which it has data."""
    n_batches: ClassVar[int] = 3
    """How many batches of each kind the checks read, for sources with much data."""

    def _batches(self, kind: Kind, problems: list[Problem] | None = None) -> Iterator[pa.RecordBatch]:
        reading = self.source.read(kind, ([] if problems is None else problems).append)
        for _, batch in zip(range(self.n_batches), reading, strict=False):
            yield batch

    def test_options_are_dataclass_fields(self) -> None:
        """Options come from genrec.toml and the command line by field name."""
        assert dataclasses.is_dataclass(self.source), "a source is a dataclass"

    def test_has_data(self) -> None:
        """At least one kind has rows, or nothing else here is tested."""
        assert any(len(batch) for kind in SCHEMAS for batch in self._batches(kind)), "the source under test has no rows"

    def test_batches_have_the_schema(self) -> None:
        """Every batch is of its kind's schema, has rows, and has no null where none may be."""
        for kind, schema in SCHEMAS.items():
            for batch in self._batches(kind):
                assert batch.schema.equals(schema), f"{kind}: {batch.schema} is not {schema}"
                assert 0 < len(batch) <= 100_000, f"{kind}: a batch of {len(batch)} rows"
                batch.validate(full=True)
                for field in schema:
                    assert field.nullable or batch[field.name].null_count == 0, f"{kind}: {field.name} has nulls"

    def test_reading_again_gives_the_same(self) -> None:
        """An interrupted import is finished by running it again, so the order is stable."""
        for kind in SCHEMAS:
            for first, second in zip(self._batches(kind), self._batches(kind), strict=True):
                assert first.equals(second), f"{kind}: the second reading differs from the first"

    def test_identity_is_stable(self) -> None:
        """The same options give the same short name; event ids are unique within it."""
        identity, source = self.source.identity(), cast(Any, self.source)
        assert identity == dataclasses.replace(source).identity(), "an equal source has another identity"
        assert 0 < len(identity) <= 200
        assert identity.isprintable()

    def test_ids_are_unique(self) -> None:
        """One row for an item, a user or a relation, and one for an event that has an id."""
        for kind in SCHEMAS:
            names = KEYS.get(kind, ["event_id"])
            for batch in self._batches(kind):
                known = batch.filter(pc.is_valid(batch[names[0]])).select(names)
                rows = [tuple(row.values()) for row in known.to_pylist()]
                assert len(set(rows)) == len(rows), f"{kind}: {' '.join(names)} stands in a batch twice"
                assert not any("" in row for row in rows), f"{kind}: an empty id"

    def test_values_are_plausible(self) -> None:
        """Instants lie in living memory, places on earth; time zones exist, extras are JSON, titles are not empty."""
        low, high = datetime(1900, 1, 1, tzinfo=UTC), datetime(2200, 1, 1, tzinfo=UTC)
        for batch in self._batches("events"):
            span = pc.min_max(batch["at"]).as_py()
            assert low <= span["min"] <= span["max"] < high, f"events from {span['min']} to {span['max']}"
            for name, limit in (("latitude", 90), ("longitude", 180)):
                assert pc.all(pc.less_equal(pc.abs(batch[name]), limit)).as_py() in (True, None), (
                    f"{name} off the earth"
                )
        for kind in ("events", "users"):
            for batch in self._batches(kind):
                for zone in pc.unique(batch["time_zone"].drop_null()).to_pylist():
                    assert is_zone(zone), f"{kind}: there is no time zone {zone!r}"
        for batch in self._batches("items"):
            assert all(title.strip() for title in batch["title"].to_pylist()), "an item has an empty title"
        for kind, name in (("events", "extra"), ("items", "attributes"), ("users", "attributes")):
            for batch in self._batches(kind):  # type: ignore[arg-type]
                for text in pc.unique(batch[name]).to_pylist():
                    from_json(text)

    def test_problems_say_where_and_what(self) -> None:
        """A person can find the row and mend it; a row that is reported is not in a batch."""
        for kind in SCHEMAS:
            problems: list[Problem] = []
            for _ in self._batches(kind, problems):
                pass
            for problem in problems:
                assert isinstance(problem, Problem)
                assert problem.where.strip()
                assert problem.what.strip()

    def test_reading_can_be_given_up(self) -> None:
        """Whoever reads may stop after a batch; what was opened is closed."""
        for kind in SCHEMAS:
            reading: Any = self.source.read(kind, lambda problem: None)
            next(reading, None)
            if hasattr(reading, "close"):
                reading.close()

    def test_notes_are_lines(self) -> None:
        """What the source worked out is said in lines."""
        for kind in SCHEMAS:
            assert all(line and "\n" not in line for line in self.source.notes(kind))
