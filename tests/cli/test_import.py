"""`genrec import`, from the command line to the rows in the store."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pytest
from click.testing import CliRunner, Result

from genrec.cli import main
from genrec.events import Kind, event_of
from genrec.sources.base import Report
from genrec.sources.file import FileSource
from genrec.store import Store

EVENTS = """\
customer,sku,when_ts,note
ann,1,2024-01-01T10:00Z,x
ann,2,2024-01-02T10:00Z,y
bob,9,2024-01-03T10:00Z,z
"""
ITEMS = '{"sku": 1, "name": "Milk"}\n{"sku": 2, "name": "Bread"}\n{"sku": 3, "name": "Tea"}\n'


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    folder = tmp_path / "shop"
    folder.mkdir()
    (folder / "genrec.toml").write_text("")
    (folder / "events.csv").write_text(EVENTS)
    (folder / "items.jsonl").write_text(ITEMS)
    return folder


def run(workspace: Path, *arguments: str, stdin: str | None = None) -> Result:
    words = [str(workspace / word) if (workspace / word).is_file() else word for word in arguments]
    return CliRunner().invoke(main, ["import", *words, "--workspace", str(workspace)], input=stdin)


def stored(workspace: Path) -> list[tuple[str, str]]:
    with Store.open(workspace / "genrec.db") as store:
        return [(row["user_id"], row["item_id"]) for rows in store.events() for row in rows.to_pylist()]


BOTH = ("file", "events.csv", "items.jsonl", "--column", "at=when_ts")


def test_events_and_items_arrive(workspace: Path) -> None:
    result = run(workspace, *BOTH)
    assert result.exit_code == 0, result.stderr
    assert "at ← when_ts (ISO 8601 with zone)" in result.stdout
    assert "items: 3 rows" in result.stdout
    assert "3 new, 0 known before, 0 corrected; source 'file:events.csv'" in result.stdout
    assert "name 1 item the catalogue does not have yet" in result.stdout  # bob's 9
    assert stored(workspace) == [("ann", "1"), ("ann", "2"), ("bob", "9")]
    with Store.open(workspace / "genrec.db") as store:
        titles = {row["item_id"]: row["title"] for rows in store.items() for row in rows.to_pylist()}
        first = next(store.events()).to_pylist()[0]
    assert titles == {"1": "Milk", "2": "Bread", "3": "Tea"}
    assert event_of(first).at == datetime(2024, 1, 1, 10, tzinfo=UTC)


def test_what_a_row_says_of_its_time_wrongly_is_said(workspace: Path) -> None:
    (workspace / "said.csv").write_text(
        "user_id,item_id,at,weekday,time_of_day,lat,lon\n"
        "ann,1,2024-01-01T10:00Z,Monday,morning,,\n"  # nobody knows by which clock
        "ann,1,2024-01-01T10:00Z,Monday,night,48.86,2.35\n"  # eleven in Paris
        "ann,1,2024-01-01T04:00Z,Sun,evening,40.71,-74\n"  # eleven on Sunday evening in New York
        "ann,1,2024-01-01T04:00Z,Sun,morning,40.71,-74\n"
        "ann,1,2199-01-01T04:00Z,,,,\n"
    )
    columns = ["--column", "extra.weekday=weekday", "--column", "extra.time_of_day=time_of_day"]
    for more in (["--dry-run"], []):
        result = run(workspace, "file", "said.csv", *columns, *more)
        assert result.exit_code == 0, result.stderr
        assert "2 of the events name a weekday or a part of day that their own time contradicts" in result.stdout
        assert "1 of the events lie in the future" in result.stdout
    result = run(workspace, "file", "events.csv", "--time-zone", "UTC")
    assert "contradicts" not in result.stdout
    assert "in the future" not in result.stdout


def test_the_workspaces_clock_tells_that_a_position_is_turned_round(workspace: Path) -> None:
    (workspace / "genrec.toml").write_text('time_zone = "Europe/Paris"\n')
    (workspace / "places.csv").write_text(
        "user_id,item_id,at,lat,lon\nann,1,2024-01-02T10:00Z,2.35,48.86\nann,1,2024-01-03T10:00Z,48.86,2.35\n"
    )
    for more in (["--dry-run"], []):
        result = run(workspace, "file", "places.csv", *more)
        assert "1 of the events lie far from their time zone" in result.stdout, result.stderr


def test_positions_that_a_row_shows_to_be_wrong_are_said_and_kept_as_they_came(workspace: Path) -> None:
    (workspace / "places.csv").write_text(
        "user_id,item_id,at,lat,lon\n"
        "ann,1,2024-01-01 10:00,0,0\n"
        "ann,1,2024-01-02 10:00,2.35,48.86\n"
        "ann,1,2024-01-03 10:00,48.86,2.35\n"
        "ann,1,2024-01-04 10:00,,\n"
    )
    for more in ([], ["--dry-run"]):
        result = run(workspace, "file", "places.csv", "--time-zone", "Europe/Paris", *more)
        assert result.exit_code == 0, result.stderr
        assert "1 of the events are at latitude 0, longitude 0" in result.stdout
        assert "1 of the events lie far from their time zone, and in it with latitude and longitude swapped" in (
            result.stdout
        )
    with Store.open(workspace / "genrec.db") as store:
        kept = [(row["latitude"], row["longitude"]) for rows in store.events() for row in rows.to_pylist()]
    assert kept == [(0, 0), (2.35, 48.86), (48.86, 2.35), (None, None)]


def test_a_second_import_adds_nothing(workspace: Path) -> None:
    run(workspace, *BOTH)
    result = run(workspace, *BOTH, "--json")
    said = json.loads(result.stdout)
    assert said["events"] == {"n_new": 0, "n_known": 3, "n_corrected": 0}
    assert (said["n_unknown_items"], said["n_unknown_users"]) == (1, 2)
    assert len(stored(workspace)) == 3


def test_the_same_file_under_another_name_is_another_source(workspace: Path) -> None:
    run(workspace, *BOTH)
    said = json.loads(run(workspace, *BOTH, "--source-name", "second shop", "--json").stdout)
    assert said["name"] == "second shop"
    assert said["events"]["n_new"] == 3


def test_a_dry_run_changes_nothing(workspace: Path) -> None:
    (workspace / "events.csv").write_text(EVENTS + "ann,3,never,\nann,,2024-01-01T10:00Z,\n")
    result = run(workspace, *BOTH, "--dry-run")
    assert result.exit_code == 4
    assert "events.csv row 5, column when_ts: 'never' is no time that can be read" in result.stdout
    assert "events.csv row 6, column sku: the id is missing" in result.stdout
    assert "2 rows cannot be stored" in result.stdout
    assert {path.name for path in workspace.iterdir()} == {"genrec.toml", "events.csv", "items.jsonl"}


def test_a_dry_run_names_items_that_no_row_describes(workspace: Path) -> None:
    said = run(workspace, *BOTH, "--dry-run").stdout
    assert "the events name 1 item not listed here: '9'" in said
    assert "not listed" not in run(workspace, "file", "events.csv", "--column", "at=when_ts", "--dry-run").stdout


def test_rows_and_memory_are_said_at_the_end(workspace: Path) -> None:
    last = run(workspace, *BOTH).stdout.splitlines()[-1]
    found = re.fullmatch(r"[\d.]+ s, [\d,]+ rows/s, at most ([\d,]+) MiB of memory", last)
    assert found, last
    assert 20 < int(found[1].replace(",", "")) < 100_000  # a Python process with Arrow, in MiB
    assert json.loads(run(workspace, *BOTH, "--json").stdout)["peak_memory_mib"] >= int(found[1].replace(",", ""))


def test_a_clock_that_does_not_exist_is_a_bad_row(workspace: Path) -> None:
    (workspace / "people.csv").write_text("user_id,time_zone\nann,Europe/Paris\nbob,Mars/Base\n")
    (workspace / "plays.csv").write_text(
        "user,item,time,tz\nann,1,2024-01-01T10:00Z,\nann,1,2024-01-01 10:00,Mars/Base\n"
    )
    result = run(workspace, "file", "people.csv", "plays.csv", "--dry-run")
    assert result.exit_code == 4
    assert "people.csv row 3, column time_zone: there is no time zone 'Mars/Base'" in result.stdout
    assert "plays.csv row 3, column tz: there is no time zone 'Mars/Base'" in result.stdout


def test_rejects_never_overwrite_what_is_read(workspace: Path) -> None:
    (workspace / "alias.csv").symlink_to("events.csv")
    result = run(workspace, *BOTH, "--rejects", str(workspace / "alias.csv"))
    assert result.exit_code == 3
    assert "Name another --rejects FILE" in result.stderr
    assert (workspace / "events.csv").read_text() == EVENTS


def test_a_dry_run_needs_no_workspace(workspace: Path) -> None:
    (workspace / "genrec.toml").unlink()
    assert run(workspace, *BOTH, "--dry-run").exit_code == 0
    result = run(workspace, *BOTH)
    assert result.exit_code == 3
    assert "genrec init" in result.stderr


def test_a_bad_row_stops_the_import_before_its_batch(workspace: Path) -> None:
    (workspace / "events.csv").write_text(EVENTS + "ann,3,never,\n" * 30)
    result = run(workspace, *BOTH)
    assert result.exit_code == 4
    assert "30 rows of events cannot be stored; no events were stored" in result.stderr
    assert "events.csv row 5, column when_ts: 'never'" in result.stderr
    assert "… and 10 more" in result.stderr
    assert "--rejects FILE" in result.stderr
    assert stored(workspace) == []


def test_an_import_that_stopped_is_finished_by_the_next(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("genrec.sources.tables.CHUNK_ROWS", 2)
    (workspace / "events.csv").write_text(EVENTS.replace("bob,9,2024-01-03T10:00Z", "bob,9,never"))
    result = run(workspace, *BOTH)
    assert "the 2 rows before are stored" in result.stderr
    assert len(stored(workspace)) == 2
    (workspace / "events.csv").write_text(EVENTS)
    said = json.loads(run(workspace, *BOTH, "--json").stdout)
    assert said["events"] == {"n_new": 1, "n_known": 2, "n_corrected": 0}


def test_an_interrupted_import_says_how_to_finish_it(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def read_and_be_interrupted(self: FileSource, kind: Kind, report: Report) -> Iterator[pa.RecordBatch]:
        yield from whole(self, kind, report)
        if kind == "events":
            raise KeyboardInterrupt

    whole = FileSource.read
    monkeypatch.setattr(FileSource, "read", read_and_be_interrupted)
    result = run(workspace, *BOTH)
    assert result.exit_code == 1
    assert "interrupted: what was stored stays; the same command again finishes it" in result.stderr
    monkeypatch.undo()
    assert len(stored(workspace)) == 3
    assert json.loads(run(workspace, *BOTH, "--json").stdout)["events"]["n_known"] == 3


def test_rejects_go_into_a_file_and_the_rest_goes_in(workspace: Path) -> None:
    (workspace / "events.csv").write_text(EVENTS + "ann,3,never,\nann,3,2024-01-04T10:00Z,\n")
    result = run(workspace, *BOTH, "--rejects", str(workspace / "bad.jsonl"))
    assert result.exit_code == 0, result.stderr
    assert "1 row cannot be stored; see" in result.stdout
    assert [json.loads(line) for line in (workspace / "bad.jsonl").read_text().splitlines()] == [
        {"where": "events.csv row 5, column when_ts", "what": "'never' is no time that can be read"}
    ]
    assert len(stored(workspace)) == 4


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_full_disk_under_the_rejects_stops_the_import(workspace: Path) -> None:
    (workspace / "events.csv").write_text(EVENTS + "ann,3,never,\n")
    result = run(workspace, *BOTH, "--rejects", "/dev/full")
    assert result.exit_code == 3
    assert "No space left on device" in result.stderr
    assert stored(workspace) == []


def test_a_session_from_standard_input(workspace: Path) -> None:
    session = json.dumps([{"user_id": "ann", "item_id": "1", "at": "2024-01-01T10:00Z", "place": "home"}])
    result = run(workspace, "file", "-", "--kind", "events", stdin=session)
    assert result.exit_code == 0, result.stderr
    assert stored(workspace) == [("ann", "1")]


def test_options_of_the_workspace_hold_and_flags_override_them(workspace: Path) -> None:
    (workspace / "genrec.toml").write_text('[sources.file]\ntime_zone = "Asia/Tokyo"\naction = "buy"\n')
    (workspace / "events.csv").write_text("user,item,time\nann,1,2024-01-01 10:00\n")
    for arguments, at in (((), 1), (("--time-zone", "UTC", "--option", "action=view"), 10)):
        result = run(workspace, "file", "events.csv", "--source-name", str(at), *arguments)
        assert result.exit_code == 0, result.stderr
        with Store.open(workspace / "genrec.db") as store:
            rows = [row for rows in store.events() for row in rows.to_pylist()]
        assert {(row["at"].hour, row["action"]) for row in rows} >= {(at, "view" if arguments else "buy")}


@pytest.mark.parametrize(
    ("arguments", "exit_code", "said"),
    [
        (("events.csv",), 3, "genrec import file"),
        (("fiel", "events.csv"), 6, "Did you mean 'file'?"),
        (("file",), 3, "no file is named"),
        (("file", "events.csv", "--option", "encodign=utf-8"), 3, "Did you mean 'encoding'?"),
        (("file", "events.csv", "--column", "when_ts"), 3, "not of the form"),
        (("file", "events.csv", "--column", "at=when"), 4, "Did you mean 'when_ts'?"),
        (("file", "nowhere.csv"), 4, "No such file"),
        (("file", "events.csv", "--kind", "things"), 2, "things"),
    ],
)
def test_a_wrong_command_line_is_advice(workspace: Path, arguments: tuple[str, ...], exit_code: int, said: str) -> None:
    result = run(workspace, *arguments)
    assert result.exit_code == exit_code
    assert said in result.stderr
    assert not (workspace / "genrec.db").exists()
