"""`genrec describe`: numbers that can be counted by hand."""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from genrec.catalog import Catalog
from genrec.cli import main
from genrec.cli.describe import Description, describe
from genrec.evaluation.audit import sentences
from genrec.evaluation.log import Log
from genrec.evaluation.positions import Positions
from genrec.events import Context, Event, Item, User, batch
from genrec.store import Store

START = datetime(2024, 1, 1, 9, tzinfo=UTC)


def event(user_id: str, item_id: str, hours: int, place: str | None = None) -> Event:
    return Event(
        user_id=user_id, item_id=item_id, at=START + timedelta(hours=hours), action="buy", context=Context(place=place)
    )


# ann buys milk and bread together, then milk again; bob buys a thing nobody has heard of.
EVENTS = [
    event("ann", "milk", 0, "store 1"),
    event("ann", "bread", 0, "store 1"),
    event("ann", "milk", 24, "store 2"),
    event("bob", "moon", 48),
]
ITEMS = [
    Item(item_id="milk", title="Milk"),
    Item(item_id="bread", title="Bread"),
    Item(item_id="loaf", title=" bread"),
    Item(item_id="tea", title="Tea"),
]
USERS = [User(user_id="ann"), User(user_id="cid")]


def described(events: Iterable[Event], size: int = 1_000) -> Description:
    rows = list(events)
    batches: list[pa.RecordBatch] = [batch("events", rows[i : i + size]) for i in range(0, len(rows), size)]
    return describe(catalog=Catalog.of(ITEMS), users=[batch("users", USERS)], edges=[], events=batches)


@pytest.mark.parametrize("size", [1, 2, 1_000])
def test_what_can_be_counted_by_hand(size: int) -> None:
    found = described(EVENTS, size)
    assert (found.n_users, found.n_users_listed, found.n_items, found.n_items_used, found.n_events) == (2, 2, 4, 2, 4)
    assert (found.first_at, found.last_at) == (START, START + timedelta(hours=48))
    assert found.density == 2 / 8  # ann-milk and ann-bread, of two people times four items
    assert found.events_per_user == {"0%": 1, "25%": 1.5, "50%": 2, "75%": 2.5, "100%": 3}
    assert found.moments_per_user == 1.5
    assert found.actions == {"buy": 4}
    assert (found.places, found.n_places) == ({"store 1": 2, "store 2": 1}, 2)
    assert found.tied == 2 / 4
    assert found.repeated == 1 / 4
    assert (found.n_unknown_items, found.n_unknown_item_events) == (1, 1)
    assert [(one.name, one.n, one.of) for one in found.audit if one.name == "duplicate titles"] == [
        ("duplicate titles", 2, 4)
    ]


def test_findings_are_in_words() -> None:
    found = described(EVENTS)
    said = "\n".join([*found.findings, *sentences(found.audit)])
    for words in (
        "25% of the events (1) name 1 item the catalogue does not have",
        "2 items of the catalogue never occurred",
        "2 of 4 items share their title with another one (50%)",
        "2 of 4 events share person and instant with another one (50%)",
        "25% of the choices repeat an item",
        "two instants or fewer",
        "No event says by which clock",
        "less than two months",
    ):
        assert words in said


def test_clean_data_has_nothing_to_find() -> None:
    context = Context(time_zone="UTC")
    clean = [
        Event(user_id=user, item_id=item, at=START + timedelta(days=days), context=context)
        for user in ("ann", "bob")
        for days, item in ((0, "milk"), (40, "bread"), (80, "tea"), (90, "loaf"), (95, "milk"))
    ]
    found = described(clean)
    assert found.repeated == 2 / 10
    assert [line for line in found.findings if "repeat an item" not in line] == []


def test_what_events_say_of_their_time_wrongly_is_counted_by_whoevers_clock() -> None:
    def at(hours: float, said: str, zone: str | None = None, user_id: str = "ann") -> Event:
        context = Context(time_zone=zone, extra={"part_of_day": said, "mood": "calm"})
        return Event(user_id=user_id, item_id="tea", at=START + timedelta(hours=hours), context=context)

    hours = START.hour
    events = [at(12 - hours, "noon"), at(12 - hours, "noon", "Asia/Tokyo"), at(36 - hours, "noon", user_id="bob")]
    found = described(events)
    assert found.n_contradicted == 1, "it is evening in Tokyo"
    assert "1 of the events name a weekday or a part of day" in "\n".join(found.findings)
    assert described(EVENTS).n_contradicted == 0


def test_positions_that_cannot_be_are_counted_and_said() -> None:
    berlin, paris, tokyo = (52.52, 13.405), (48.857, 2.352), (35.68, 139.69)

    def at(hours: float, where: tuple[float, float], user_id: str = "ann", zone: str = "Europe/Paris") -> Event:
        context = Context(latitude=where[0], longitude=where[1], time_zone=zone)
        return Event(user_id=user_id, item_id="tea", at=START + timedelta(hours=hours), context=context)

    flight = [at(0, berlin), at(1, paris), at(13, tokyo)]
    found = described([*flight, event("cid", "tea", 1)])
    assert found.positions == Positions(n=3, n_off_earth=0, n_nowhere=0, n_turned_round=0, n_jumps=0, n_jumpers=0)
    wrong = [
        at(13.5, (0.0, 0.0)),
        at(14, paris),  # which nobody gets to in an hour
        at(0, (2.352, 48.857), "bob"),
        at(2000, (-73.99, 40.75), "bob", "America/New_York"),
        at(4000, (95.0, 13.0), "bob"),
        at(6000, (139.69, 35.68), "bob", "Asia/Tokyo"),  # swapped, and off the earth
        at(0, berlin, "dan"),
        at(0, (41.9, 12.5), "dan"),
    ]
    found = described(reversed([*flight, *wrong]), size=2)
    assert found.positions == Positions(n=11, n_off_earth=2, n_nowhere=1, n_turned_round=3, n_jumps=2, n_jumpers=2)
    said = "\n".join(found.findings)
    for words in (
        "2 of 11 positions lie off the earth",
        "1 of 11 positions are latitude 0, longitude 0",
        "3 of 11 positions lie far from their time zone and would lie in it with latitude and longitude swapped",
        "2 times (2 people) somebody got farther than an airliner flies",
    ):
        assert words in said


def test_a_person_s_own_clock_tells_that_a_position_is_turned_round() -> None:
    there = Context(latitude=2.352, longitude=48.857)
    events = [batch("events", [Event(user_id="ann", item_id="tea", at=START, context=there)])]
    users = [batch("users", [User(user_id="ann", time_zone="Europe/Paris")])]
    for listed, n in ((users, 1), ([], 0)):
        found = describe(catalog=Catalog.of(ITEMS), users=listed, edges=[], events=events)
        assert found.positions.n_turned_round == n
    found = describe(catalog=Catalog.of(ITEMS), users=[], edges=[], events=events, time_zone="Europe/Paris")
    assert found.positions.n_turned_round == 1, "of everybody else it is the workspace's"


def test_nothing_at_all() -> None:
    found = described([])
    assert (found.n_events, found.density, found.first_at) == (0, None, None)
    assert "genrec import" in found.findings[0]


@given(
    st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from(["milk", "tea", "moon"]), st.integers(0, 3)), min_size=1)
)
def test_shares_agree_with_a_plain_count(rows: list[tuple[str, str, int]]) -> None:
    found = described([event(*row) for row in rows], size=3)
    tied = sum(sum((u, h) == (user, hour) for u, _, h in rows) > 1 for user, _, hour in rows)
    repeated = sum(any((u, i) == (user, item) and h < hour for u, i, h in rows) for user, item, hour in rows)
    assert found.tied == pytest.approx(tied / len(rows))
    assert found.repeated == pytest.approx(repeated / len(rows))


def test_from_the_command_line(tmp_path: Path) -> None:
    (tmp_path / "genrec.toml").write_text("")
    with Store.open(tmp_path / "genrec.db") as store:
        store.put("items", [batch("items", ITEMS)])
        store.append([batch("events", EVENTS)], source="test")
    result = CliRunner().invoke(main, ["describe", "--workspace", str(tmp_path)])
    assert result.exit_code == 0, result.stderr
    for words in (
        "2 people with events",
        "4 items in the catalogue, 2 of them used",
        "2 places: store 1 2, store 2 1",
        "What would flatter an evaluation:\n- 2 of 4 events share person and instant",
    ):
        assert words in result.stdout
    found = json.loads(CliRunner().invoke(main, ["describe", "--workspace", str(tmp_path), "--json"]).stdout)
    assert found["n_events"] == 4
    assert found["first_at"] == str(START)
    assert found["findings"]
    assert found["audit"][0]["name"] == "ties"
    assert set(found["audit"][0]) == {"name", "n", "of", "counted", "means", "do"}


def test_the_clock_on_the_wall_is_that_of_the_event_then_of_the_person_then_of_the_workspace() -> None:
    at = datetime(2024, 7, 1, tzinfo=UTC)
    events = [
        Event(user_id="ann", item_id="tea", at=at, context=Context(time_zone="Asia/Tokyo")),
        Event(user_id="ann", item_id="tea", at=at),
        Event(user_id="bob", item_id="tea", at=at),
    ]
    log = Log.read([batch("events", events)], Catalog.of(ITEMS), zones={"ann": "America/New_York"}, time_zone="UTC")
    hours = [int(us // 3_600_000_000) for us in log.wall_us - log.at_us]
    assert hours == [9, -4, 0]


def test_memory_needs_a_model_that_gives_log_probabilities(tmp_path: Path) -> None:
    (tmp_path / "genrec.toml").write_text('engine = "none"\n')
    refused = CliRunner().invoke(main, ["describe", "--probe-memory", "-w", str(tmp_path)])
    assert refused.exit_code == 3
    assert "gives no log-probabilities" in refused.output


def test_memory_is_asked_about_titles_long_enough(tmp_path: Path, tiny_model: Path) -> None:
    (tmp_path / "genrec.toml").write_text(f'model = "{tiny_model}"\nengine = "transformers"\ndtype = "float32"\n')
    arguments = ["describe", "--probe-memory", "--json", "-w", str(tmp_path)]
    with Store.open(tmp_path / "genrec.db") as store:
        store.put("items", [batch("items", ITEMS)])
        found = json.loads(CliRunner().invoke(main, arguments, catch_exceptions=False).stdout)
        assert found["audit"][-1]["name"] != "memory"
        assert "The model's memory was not probed: hardly any title" in found["findings"][-1]

        long = [Item(item_id=f"{n}", title=f"a kettle of {n} litres, {n + 1} handles and no lid") for n in range(9)]
        store.put("items", [batch("items", long)])
        found = json.loads(CliRunner().invoke(main, arguments, catch_exceptions=False).stdout)
    assert (found["audit"][-1]["name"], found["audit"][-1]["n"], found["audit"][-1]["of"]) == ("memory", 0, 9)
