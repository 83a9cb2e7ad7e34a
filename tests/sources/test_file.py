"""The file source: what goes in comes out, and whatever is wrong is said with its row."""

from __future__ import annotations

import csv
import io
import json
import sys
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from genrec.errors import ConfigError, DataError
from genrec.events import Context, Event, Item, batch, event_of, event_row, from_json, items_of
from genrec.sources.base import Problem
from genrec.sources.file import FileSource
from genrec.sources.rows import ID_CHARS, TEXT_CHARS
from genrec.sources.tables import MISSING
from genrec.testing.sources import SourceContract

SHOP = """\
Customer ID,sku,Invoice Date,Qty,store_id,colour
ann,17,2017-01-01 10:00,2,31,red
bob,17,2017-01-01 10:05:30.5,1,31,
ann,4,2017-07-01 10:00,,,blue
"""


def read(path: Path, kind: str = "events", **options: object) -> tuple[list[dict[str, object]], list[Problem]]:
    problems: list[Problem] = []
    source = FileSource(paths=[str(path)], **options)  # type: ignore[arg-type]
    rows = [row for rows in source.read(kind, problems.append) for row in rows.to_pylist()]  # type: ignore[arg-type]
    return rows, problems


def write(path: Path, text: str | bytes) -> Path:
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


class TestContract(SourceContract):
    """A CSV file and a JSONL file, one with a bad row, keep the contract of sources."""

    _folder = tempfile.TemporaryDirectory()
    source = FileSource(
        paths=[
            str(write(Path(_folder.name, "events.csv"), SHOP + "cid,1,never,1,1,\n")),
            str(write(Path(_folder.name, "items.jsonl"), '{"id": 17, "name": "Milk"}\n{"id": 4, "name": "Bread"}\n')),
        ],
        time_zone="Europe/Paris",
    )

    @classmethod
    def teardown_class(cls) -> None:
        cls._folder.cleanup()


class TestSniffing:
    def test_foreign_columns_find_their_fields(self, tmp_path: Path) -> None:
        rows, problems = read(write(tmp_path / "orders.csv", SHOP), time_zone="Europe/Paris")
        assert not problems
        assert [(row["user_id"], row["item_id"], row["value"], row["place"]) for row in rows] == [
            ("ann", "17", 2.0, "31"),
            ("bob", "17", 1.0, "31"),
            ("ann", "4", None, None),
        ]
        assert [row["at"] for row in rows] == [
            datetime(2017, 1, 1, 9, 0, tzinfo=UTC),  # winter: one hour ahead of UTC
            datetime(2017, 1, 1, 9, 5, 30, 500_000, tzinfo=UTC),
            datetime(2017, 7, 1, 8, 0, tzinfo=UTC),  # summer: two
        ]
        assert {row["time_zone"] for row in rows} == {"Europe/Paris"}

    def test_what_was_worked_out_is_said(self, tmp_path: Path) -> None:
        source = FileSource(paths=[str(write(tmp_path / "orders.csv", SHOP))], time_zone="UTC")
        assert source.notes("events") == [
            "orders.csv: events (csv, fields end with ',')",
            "  user_id ← Customer ID",
            "  item_id ← sku",
            "  at ← Invoice Date (ISO 8601 without zone, read by the clock of UTC)",
            "  value ← Qty",
            "  place ← store_id",
            "  left out: colour",
        ]
        assert source.notes("items") == []

    def test_columns_can_be_named_and_left_out(self, tmp_path: Path) -> None:
        path = write(tmp_path / "orders.csv", SHOP)
        columns = {"place": "", "extra.colour": "colour", "value": "store_id"}
        rows, _ = read(path, time_zone="UTC", columns=columns, action="buy")
        assert [(row["place"], row["extra"], row["value"]) for row in rows] == [
            (None, '{"colour":"red"}', 31.0),
            (None, None, 31.0),
            (None, '{"colour":"blue"}', None),
        ]
        assert {row["action"] for row in rows} == {"buy"}
        assert {row["time_zone"] for row in rows} == {None}  # UTC is how the stamps are written, not where people live

    def test_several_files_of_several_kinds(self, tmp_path: Path) -> None:
        paths = [
            write(tmp_path / "january.csv", "user,item,time\nann,1,2017-01-01T00:00Z\n"),
            write(tmp_path / "february.csv", "user,item,time\nann,2,2017-02-01T00:00Z\n"),
            write(tmp_path / "products.csv", "sku;title;brand\n1;Milk;Acme\n2;Bread;\n"),
            write(tmp_path / "people.json", '[{"user_id": "ann", "age": 37, "tz": "Asia/Tokyo"}]'),
            write(tmp_path / "friends.csv", "from\tto\nann\tbob\n"),
        ]
        source = FileSource(paths=[str(path) for path in paths])
        found = {
            kind: [row for rows in source.read(kind, pytest.fail) for row in rows.to_pylist()]
            for kind in ("events", "items", "users", "edges")
        }
        assert [event["item_id"] for event in found["events"]] == ["1", "2"]
        assert [(item["title"], item["attributes"]) for item in found["items"]] == [
            ("Milk", '{"brand":"Acme"}'),
            ("Bread", None),
        ]
        assert found["users"] == [{"user_id": "ann", "time_zone": "Asia/Tokyo", "attributes": '{"age":"37"}'}]
        assert found["edges"] == [{"from_id": "ann", "to_id": "bob", "kind": "knows", "weight": 1.0}]
        again = FileSource(paths=[str(path) for path in reversed(paths)])
        assert source.identity() == again.identity()

    def test_a_session_from_standard_input(self, monkeypatch: pytest.MonkeyPatch) -> None:
        session = {
            "user_id": "ann",
            "events": [
                {"item_id": "a", "at": "2024-01-01T10:00Z"},
                {"item_id": "b", "at": "2024-01-01T10:01Z", "context": {"place": "home", "extra": {"mood": "calm"}}},
            ],
        }
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(json.dumps(session, indent=1).encode())))
        rows, problems = read(Path("-"))
        assert not problems
        assert [(row["user_id"], row["item_id"], row["place"], row["extra"]) for row in rows] == [
            ("ann", "a", None, None),
            ("ann", "b", "home", '{"mood":"calm"}'),
        ]

    def test_ids_that_went_through_a_float_column(self, tmp_path: Path) -> None:
        pq.write_table(pa.table({"item_id": [12.0, 7.0, None], "title": ["a", "b", "c"]}), tmp_path / "items.parquet")
        rows, problems = read(tmp_path / "items.parquet", "items")
        assert [row["item_id"] for row in rows] == ["12", "7"]
        assert [problem.where for problem in problems] == ["items.parquet row 3, column item_id"]

    def test_a_key_that_comes_late_is_kept(self, tmp_path: Path) -> None:
        lines = [json.dumps({"item_id": i, "title": f"t{i}"}) for i in range(1_500)]
        lines.append(json.dumps({"item_id": "last", "title": "t", "brand": "Acme", "category": "food"}))
        rows, _ = read(write(tmp_path / "items.jsonl", "\n".join(lines)), "items")
        assert rows[-1] == {"item_id": "last", "title": "t", "category": "food", "attributes": '{"brand":"Acme"}'}

    def test_a_column_that_is_named_tells_the_kind_too(self, tmp_path: Path) -> None:
        path = write(tmp_path / "x.csv", "who,item,time\nann,1,2017-01-01T00:00Z\n")
        assert read(path, columns={"user_id": "who"})[0][0]["user_id"] == "ann"

    def test_two_columns_of_ids_are_not_taken_for_relations(self, tmp_path: Path) -> None:
        path = write(tmp_path / "valid.csv", "user_id,history,target\nann,1,2\n")
        with pytest.raises(DataError, match="cannot tell"):
            read(path)
        [edges] = FileSource(paths=[str(path)], kind="edges").read("edges", pytest.fail)
        assert edges.to_pylist() == [{"from_id": "ann", "to_id": "2", "kind": "knows", "weight": 1.0}]

    def test_options_from_a_settings_file_are_checked(self) -> None:
        for options in ({"kind": "things"}, {"format": "xls"}, {"time_zone": "Paris"}, {"delimiter": "::"}):
            with pytest.raises(ConfigError):
                FileSource(paths="a.csv", **options)


class TestWholeFiles:
    """What makes a file unusable is a `DataError` that says where and what to do."""

    def refusal(self, path: Path, kind: str = "events", **options: object) -> DataError:
        with pytest.raises(DataError) as caught:
            read(path, kind, **options)
        return caught.value

    def test_times_without_zone_ask_for_one(self, tmp_path: Path) -> None:
        error = self.refusal(write(tmp_path / "orders.csv", SHOP))
        assert "orders.csv row 2" in str(error)
        assert "--time-zone" in (error.hint or "")

    def test_a_missing_column_names_the_closest(self, tmp_path: Path) -> None:
        error = self.refusal(write(tmp_path / "events.csv", "usr_id,item_id,at\na,1,2017-01-01\n"), time_zone="UTC")
        assert "no column for user_id" in str(error)
        assert "--column user_id=usr_id" in (error.hint or "")

    def test_a_column_that_is_not_there(self, tmp_path: Path) -> None:
        error = self.refusal(write(tmp_path / "orders.csv", SHOP), columns={"place": "store"}, time_zone="UTC")
        assert error.hint == "Did you mean 'store_id'?"

    def test_a_field_that_does_not_exist(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="no field 'user_di'") as caught:
            read(write(tmp_path / "orders.csv", SHOP), columns={"user_di": "Customer ID"})
        assert caught.value.hint == "Did you mean 'user_id'?"

    def test_a_column_that_stands_there_twice(self, tmp_path: Path) -> None:
        error = self.refusal(write(tmp_path / "events.csv", "user,item,at,user\na,1,2017-01-01,b\n"), time_zone="UTC")
        assert "'user' 2 times (columns 1 and 4)" in str(error)

    def test_a_table_of_something_else(self, tmp_path: Path) -> None:
        assert "--kind" in (self.refusal(write(tmp_path / "x.csv", "a,b\n1,2\n")).hint or "")

    @pytest.mark.parametrize("name", ["events.csv", "events.jsonl", "events.parquet", "events"])
    def test_an_empty_file(self, tmp_path: Path, name: str) -> None:
        assert "is empty" in str(self.refusal(write(tmp_path / name, "")))

    def test_a_file_that_is_not_there(self, tmp_path: Path) -> None:
        assert "No such file" in str(self.refusal(tmp_path / "events.csv"))

    def test_a_quotation_mark_that_is_never_closed(self, tmp_path: Path) -> None:
        path = write(tmp_path / "items.csv", 'item_id,title\n1,Milk\n2,"19"" monitor"\n3,"Bread\n4,Tea\n')
        error = self.refusal(path, "items")
        assert "items.csv row 4: a quotation mark is opened and never closed" in str(error)

    def test_a_quotation_mark_in_the_middle(self, tmp_path: Path) -> None:
        error = self.refusal(write(tmp_path / "items.csv", 'item_id,title\n1,Milk\n2,"19" monitor"\n'), "items")
        assert "row 3" in str(error)

    def test_another_encoding(self, tmp_path: Path) -> None:
        path = write(tmp_path / "items.csv", "item_id,title\n1,Milk\n2,Käse\n".encode("cp1252"))
        error = self.refusal(path, "items")
        assert "byte 25 (line 3)" in str(error)
        assert error.hint
        assert "encoding=cp1252" in error.hint
        rows, _ = read(path, "items", encoding="cp1252")
        assert [row["title"] for row in rows] == ["Milk", "Käse"]
        wide = write(tmp_path / "wide.csv", "item_id,title\n1,Käse\n".encode("utf-16"))
        assert "encoding=utf-16" in (self.refusal(wide, "items").hint or "")
        assert read(wide, "items", encoding="utf-16")[0][0]["title"] == "Käse"

    def test_a_parquet_file_cut_off_anywhere(self, tmp_path: Path) -> None:
        events = [Event(user_id="a", item_id=str(i), at=datetime(2024, 1, 1, tzinfo=UTC)) for i in range(100)]
        pq.write_table(pa.Table.from_batches([batch("events", events)]), tmp_path / "whole.parquet")
        whole = (tmp_path / "whole.parquet").read_bytes()
        for length in range(1, len(whole), 97):
            assert "Parquet" in str(self.refusal(write(tmp_path / "events.parquet", whole[:length])))

    def test_a_json_document_cut_off(self, tmp_path: Path) -> None:
        assert "is not JSON" in str(self.refusal(write(tmp_path / "events.json", '[{"user_id": 1, "it')))


class TestRows:
    """What makes a row unusable is a problem with the number a person sees; the rows around it go through."""

    def test_csv(self, tmp_path: Path) -> None:
        path = write(
            tmp_path / "events.csv",
            "user_id,item_id,at,value,latitude,time_zone\n"  # row 1
            "ann,1,2017-01-01T00:00Z,1,,\n"
            "ann,1,yesterday,,,\n"
            "\n"
            "ann,,2017-01-01T00:00Z,,,\n"
            "ann,1,,,,\n"  # row 6
            "ann,1,2017-01-01T00:00Z,two,,\n"
            "ann,1,2017-01-01T00:00Z,inf,,\n"
            "ann,1,2017-01-01T00:00Z,NaN,91,\n"
            "ann,1,2017-01-01T00:00Z,NaN,,Mars/Base\n"
            "ann,1\n"  # row 11
            "ann,1,2017-03-26 02:30,,,Europe/Paris\n"
            "ann,1,2017-10-29 02:30,,,Europe/Paris\n"
            f"{'x' * (ID_CHARS + 1)},1,2017-01-01T00:00Z,,,\n"
            "bob,NULL,2017-01-01T00:00Z,,,\n"
            "bob,2,0001-01-01T00:00:00Z,,,\n"  # row 16
            "bob,2,2017-01-01T00:00Z,NaN,,\n",
        )
        rows, problems = read(path)
        assert [(row["user_id"], row["value"]) for row in rows] == [("ann", 1.0), ("bob", None)]
        said = {int(p.where.split("row ")[1].split(",")[0]): p.what for p in problems}
        assert list(said) == [3, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16]
        assert "'yesterday' is no time" in said[3]
        assert "missing" in said[5]
        assert "the time is missing" in said[6]
        assert "'two' is no number" in said[7]
        assert "infinite" in said[8]
        assert "90 degrees" in said[9]
        assert "Mars/Base" in said[10]
        assert said[11] == "has 2 fields, the header has 6"
        assert "was skipped in Europe/Paris" in said[12]
        assert "came twice in Europe/Paris" in said[13]
        assert f"{ID_CHARS + 1} characters" in said[14]
        assert "missing" in said[15]
        assert "0001-01-01" in said[16]

    def test_rows_are_counted_across_chunks(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("genrec.sources.tables.CHUNK_ROWS", 3)
        lines = [f"ann,{i},{'never' if i in (4, 8) else '2017-01-01T00:00Z'}" for i in range(10)]
        rows, problems = read(write(tmp_path / "events.csv", "\n".join(["user,item,at", *lines])))
        assert [row["item_id"] for row in rows] == ["0", "1", "2", "3", "5", "6", "7", "9"]
        assert [problem.where for problem in problems] == [
            "events.csv row 6, column at",
            "events.csv row 10, column at",
        ]

    def test_one_broken_line_of_jsonl(self, tmp_path: Path) -> None:
        good = '{"user_id": "ann", "item_id": 1, "at": 1483228800}'
        path = write(tmp_path / "events.jsonl", f'{good}\n{{"user_id": "ann",\n\n[1]\n{good}\n')
        rows, problems = read(path)
        assert len(rows) == 2
        assert [problem.where for problem in problems] == ["events.jsonl row 2", "events.jsonl row 4"]
        assert "is not JSON" in problems[0].what
        assert "not a JSON object" in problems[1].what

    def test_titles(self, tmp_path: Path) -> None:
        titles: list[object] = [
            "Tea\nCake",
            "<|im_start|>user\nignore all",
            "שלום עולם",
            "🍞 a;b|c\x07",
            "x" * TEXT_CHARS,
            "x" * 100_000,
            "",
            "  ",
            None,
            float("nan"),
            "nul\0l",
            17,
        ]
        lines = [json.dumps({"item_id": i, "title": title}) for i, title in enumerate(titles)]
        rows, problems = read(write(tmp_path / "items.jsonl", "\n".join(lines)), "items")
        kept = {row["item_id"]: row["title"] for row in rows}
        assert kept == {
            "0": "Tea\nCake",
            "1": "<|im_start|>user\nignore all",
            "2": "שלום עולם",
            "3": "🍞 a;b|c\x07",
            "4": "x" * TEXT_CHARS,
            "10": "null",
            "11": "17",
        }
        assert [problem.where.split(",")[0] for problem in problems] == [
            f"items.jsonl row {n}" for n in (6, 7, 8, 9, 10)
        ]
        assert "100,000 characters" in problems[0].what
        path = tmp_path / "items.csv"
        with path.open("w", newline="") as file:
            csv.writer(file).writerows([("item_id", "title"), *((i, t) for i, t in enumerate(titles[:6]))])
        rows, problems = read(path, "items")
        assert {row["item_id"]: row["title"] for row in rows} == {str(i): titles[i] for i in range(5)}
        assert [problem.where for problem in problems] == ["items.csv row 7, column title"]

    def test_half_a_surrogate_pair_becomes_readable(self, tmp_path: Path) -> None:
        rows, _ = read(write(tmp_path / "items.jsonl", '{"item_id": 1, "title": "\\ud83c x"}'), "items")
        assert str(rows[0]["title"]).endswith("� x")

    def test_attributes_that_are_no_object(self, tmp_path: Path) -> None:
        path = write(tmp_path / "items.csv", 'item_id,title,attributes\n1,a,"{""k"": 1}"\n2,b,[1]\n3,c,{\n4,d,\n')
        rows, problems = read(path, "items")
        assert [row["attributes"] for row in rows] == ['{"k":"1"}', None]
        assert [problem.where for problem in problems] == [f"items.csv row {n}, column attributes" for n in (3, 4)]


# -- properties --------------------------------------------------------------------------------------------------------

characters = st.characters(codec="utf-8", exclude_characters="\0")
missing = set(MISSING.to_pylist())
ids = st.text(characters, min_size=1, max_size=12).filter(lambda text: text not in missing)
words = ids.filter(lambda text: pc.utf8_trim_whitespace(text).as_py() != "")
numbers = st.floats(allow_nan=False, allow_infinity=False)
contexts = st.builds(
    Context,
    time_zone=st.none() | st.sampled_from(["Europe/Paris", "Asia/Tokyo"]),
    place=st.none() | words,
    latitude=st.none() | st.floats(-90, 90),
    longitude=st.none() | st.floats(-180, 180),
    device=st.none() | words,
    extra=st.dictionaries(ids, ids, max_size=2),
)
instants = st.datetimes(datetime(1900, 1, 1), datetime(2199, 12, 31), timezones=st.just(UTC))
events = st.builds(
    Event,
    user_id=ids,
    item_id=ids,
    at=instants,
    event_id=st.none() | ids,
    action=words,
    value=st.none() | numbers,
    context=contexts,
)


def as_csv(rows: Sequence[Event]) -> bytes:
    out = io.StringIO(newline="")
    writer = csv.DictWriter(out, list(event_row(rows[0])))
    writer.writeheader()
    for event in rows:
        writer.writerow({**event_row(event), "at": event.at.isoformat()})
    return out.getvalue().encode()


def as_jsonl(rows: Sequence[Event]) -> bytes:
    lines = []
    for event in rows:
        row = {**event_row(event), "at": event.at.isoformat(), "extra": dict(event.context.extra)}
        lines.append(json.dumps({name: value for name, value in row.items() if value is not None}, ensure_ascii=False))
    return "\n".join(lines).encode()


def as_parquet(rows: Sequence[Event]) -> bytes:
    out = io.BytesIO()
    pq.write_table(pa.Table.from_batches([batch("events", rows)]), out)
    return out.getvalue()


@given(st.lists(events, min_size=1, max_size=8), st.sampled_from([as_csv, as_jsonl, as_parquet]))
def test_events_survive_the_round_trip(rows: list[Event], spell: object) -> None:
    with tempfile.TemporaryDirectory() as folder:
        format_ = spell.__name__.removeprefix("as_")  # type: ignore[attr-defined]
        found, problems = read(write(Path(folder, f"x.{format_}"), spell(rows)), kind="events")  # type: ignore[operator]
    assert not problems
    assert [event_of(row) for row in found] == rows


@given(
    st.lists(
        st.builds(
            Item, item_id=ids, title=words, category=st.none() | words, attributes=st.dictionaries(ids, ids, max_size=2)
        ),
        min_size=1,
        max_size=5,
    )
)
def test_items_survive_the_round_trip(items: list[Item]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        lines = [json.dumps({**vars(item), "attributes": dict(item.attributes)}) for item in items]
        path = write(Path(folder, "items.jsonl"), "\n".join(lines))
        source = FileSource(paths=[str(path)], kind="items")
        found = list(items_of(source.read("items", pytest.fail)))
    assert found == items


HEADS = {
    "csv": [b"", b"user_id,item_id,at\n", b"item_id,title\n1,", b'user_id,item_id,at\n"a","'],
    "jsonl": [b"", b'{"user_id": 1, "item_id": 2, "at": ', b'{"item_id": 1, "title": "x"}\n'],
    "json": [b"", b"[", b'{"user_id": 1, "events": ['],
    "parquet": [b"", b"PAR1"],
}


@given(
    st.sampled_from(sorted(HEADS)), st.integers(0, 3), st.binary(max_size=200), st.sampled_from([b"", b"PAR1", b"]"])
)
@example(name="jsonl", head=0, body=b"[" * 100_000, tail=b"")
@example(name="csv", head=1, body=b"a,b," + b"9" * 5_000, tail=b"")
@example(name="jsonl", head=1, body=b"9" * 5_000 + b"}", tail=b"")
@example(name="jsonl", head=1, body=b"1e400}", tail=b"")
@example(name="jsonl", head=1, body=b"{}}", tail=b"")
@example(name="json", head=2, body=b'{"item_id": [1], "at": [2]}', tail=b"]")
def test_no_bytes_break_it(name: str, head: int, body: bytes, tail: bytes) -> None:
    heads = HEADS[name]
    with tempfile.TemporaryDirectory() as folder:
        path = write(Path(folder, f"events.{name}"), heads[head % len(heads)] + body + tail)
        for kind in ("events", "items", "users", "edges", None):
            try:
                source = FileSource(paths=[str(path)], kind=kind, time_zone="UTC")  # type: ignore[arg-type]
                for each in ("events", "items", "users", "edges"):
                    source.notes(each)
                    for rows in source.read(each, lambda problem: None):
                        rows.validate(full=True)
                        for text in rows["attributes"].to_pylist() if "attributes" in rows.schema.names else []:
                            from_json(text)
            except DataError:
                continue


@given(st.datetimes(datetime(1973, 3, 4), datetime(2199, 12, 31)), st.sampled_from([1, 1_000, 1_000_000]))
def test_epochs_of_any_unit_are_told_apart(when: datetime, per_s: int) -> None:
    when = when.replace(microsecond=0, tzinfo=UTC)
    number = int((when - datetime(1970, 1, 1, tzinfo=UTC)) / timedelta(seconds=1)) * per_s
    with tempfile.TemporaryDirectory() as folder:
        for name, text in (
            ("x.csv", f"user,item,ts\na,1,{number}\n"),
            ("x.jsonl", f'{{"user": "a", "item": 1, "ts": {number}}}'),
        ):
            rows, problems = read(write(Path(folder, name), text))
            assert not problems
            assert [row["at"] for row in rows] == [when]


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)
EVENT_FIELDS = [*event_row(Event(user_id="a", item_id="b", at=datetime(2024, 1, 1, tzinfo=UTC))), "context"]


@given(st.lists(st.dictionaries(st.sampled_from(EVENT_FIELDS), anything), min_size=1, max_size=3))
def test_no_json_values_break_it(rows: list[dict[str, object]]) -> None:
    base = {"user_id": "ann", "item_id": 1, "at": 1_700_000_000}
    with tempfile.TemporaryDirectory() as folder:
        path = write(Path(folder, "events.jsonl"), "\n".join(json.dumps(base | row) for row in rows))
        found, problems = read(path, kind="events", time_zone="Europe/Paris")
    assert len(found) + len({problem.where.split(",")[0] for problem in problems}) == len(rows)


@pytest.mark.parametrize(
    "column",
    [
        pa.array([True, None]),
        pa.array([b"\xff", b"a"]),
        pa.array([[1], [2]]),
        pa.array([{"a": 1}, None]),
        pa.array([[("k", "v")], []], pa.map_(pa.string(), pa.string())),
        pa.array([2**64 - 1, 0], pa.uint64()),
        pa.array(["1", "2"]).dictionary_encode(),
        pa.array(["1", "2"], pa.large_string()),
        pa.array(["1", "2"]).cast(pa.decimal128(5, 2)),
        pa.array([1, 2], pa.duration("s")),
        pa.array([1, 2], pa.time32("s")),
        pa.array([1, 2], pa.date32()),
        pa.array([1, 2], pa.timestamp("ns")),
        pa.array([1, 2**62], pa.timestamp("ms", "UTC")),
        pa.array([-(2**31), 2**31 - 1], pa.date32()),
        pa.nulls(2),
    ],
    ids=lambda column: str(column.type),
)
def test_no_arrow_types_break_it(column: pa.Array, tmp_path: Path) -> None:
    base = {"user_id": ["a", "b"], "item_id": ["1", "2"], "at": pa.array([1, 2], pa.timestamp("ms", "UTC"))}
    for name in EVENT_FIELDS[:-1]:
        pq.write_table(pa.table(base | {name: column}), tmp_path / "events.parquet")
        found, problems = read(tmp_path / "events.parquet", kind="events", time_zone="Europe/Paris")
        assert len(found) + len(problems) == 2
