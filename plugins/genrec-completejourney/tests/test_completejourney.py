"""The Complete Journey source: the contract of sources, and facts of the data that can be looked up."""

from __future__ import annotations

import json
from collections import Counter
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from genrec_completejourney import UNTYPED, ZONE, CompleteJourney, descriptions, readable

from genrec.errors import ConfigError
from genrec.events import Kind
from genrec.plugins import Registry
from genrec.testing.sources import SourceContract


class TestContract(SourceContract):
    source = CompleteJourney(households=50)


class TestContractOfLines(SourceContract):
    source = CompleteJourney(households=50, lines=True)


def rows(source: CompleteJourney, kind: Kind) -> pa.Table:
    return pa.Table.from_batches(source.read(kind, pytest.fail))


@pytest.fixture(scope="module")
def everything() -> pa.Table:
    return rows(CompleteJourney(households=0, lines=True), "events")


def test_it_is_installed_under_its_name() -> None:
    assert Registry().get("sources", "completejourney") is CompleteJourney


def test_the_whole_year(everything: pa.Table) -> None:
    assert len(everything) == 1_469_307
    assert len(pc.unique(everything["event_id"])) == 1_469_307
    assert len(pc.unique(everything["user_id"])) == 2_469
    assert len(pc.unique(everything["place"])) == 457
    local = pc.min_max(everything["at"]).as_py()
    assert {local["min"].astimezone(ZoneInfo(ZONE)).year, local["max"].astimezone(ZoneInfo(ZONE)).year} == {2017}


def test_every_type_is_an_item_but_none_stands_for_no_type(everything: pa.Table) -> None:
    items = rows(CompleteJourney(), "items")
    assert len(items) == 2_242
    bought = set(pc.unique(everything["item_id"]).to_pylist())
    assert bought - set(items["item_id"].to_pylist()) == {UNTYPED}


def test_the_clock_is_right(everything: pa.Table) -> None:
    """Shops close early on Christmas Eve and stay closed on Christmas Day."""
    local = pc.local_timestamp(pc.cast(everything["at"], pa.timestamp("us", ZONE)))
    christmas = (pa.scalar(datetime(2017, 12, 24, 21)), pa.scalar(datetime(2017, 12, 26, 5)))
    assert not pc.any(pc.and_(pc.greater(local, christmas[0]), pc.less(local, christmas[1]))).as_py()
    hours = Counter(pc.hour(local).to_pylist())
    assert hours.most_common(1)[0][0] in (16, 17, 18)


def test_a_basket_has_one_event_for_each_type(everything: pa.Table) -> None:
    lines = rows(CompleteJourney(households=20, lines=True), "events")
    events = rows(CompleteJourney(households=20), "events")
    counted: Counter[tuple[str, str]] = Counter()
    for row in lines.select(["event_id", "item_id", "value"]).to_pylist():
        if row["item_id"] != UNTYPED:
            counted[row["event_id"].split(":")[0], row["item_id"]] += row["value"]
    found = {
        (row["event_id"].split(":", 1)[0], row["item_id"]): row["value"]
        for row in events.select(["event_id", "item_id", "value"]).to_pylist()
    }
    assert found == dict(counted)


def test_a_smaller_sample_is_part_of_a_larger_one() -> None:
    few, many = (rows(CompleteJourney(households=n), "users")["user_id"].to_pylist() for n in (30, 300))
    assert len(few) == 30
    assert many[:30] == few
    assert len(rows(CompleteJourney(households=None), "users")) == 2_469
    bought = set(pc.unique(rows(CompleteJourney(households=30), "events")["user_id"]).to_pylist())
    assert bought == set(few)


def test_households_are_described_in_words() -> None:
    users = rows(CompleteJourney(households=0), "users").to_pylist()
    described = {user["user_id"]: json.loads(user["attributes"]) for user in users if user["attributes"]}
    assert len(described) == 801
    assert described["1"] == {
        "age": "65+",
        "home": "homeowner",
        "household": "2 adults, no kids",
        "income": "$35-49K",
        "marital status": "married",
    }


def test_a_purchase_that_can_be_looked_up(everything: pa.Table) -> None:
    first = everything.slice(0, 1).to_pylist()[0]
    assert first["at"] == datetime(2017, 1, 1, 11, 53, 26, tzinfo=UTC)
    assert (first["user_id"], first["place"], first["action"], first["value"]) == ("900", "store 330", "buy", 1.0)


@pytest.mark.parametrize(
    ("shorthand", "words"),
    [
        ("BREAD:ITALIAN/FRENCH", "bread: italian/french"),
        ("SFT DRNK SNGL SRV BTL CARB (EX", "soft drink single serve bottle carbonated"),
        ("CANDY BARS (SINGLES)(INCLUDING", "candy bars (singles)"),
        ("BEERALEMALT LIQUORS", "beer, ale, malt liquors"),
        ("MISC. OTC MEDICINES", "miscellaneous otc medicines"),
        ("YOGURT NOT MULTI-PACKS", "yogurt not multi-packs"),
    ],
)
def test_shorthand_is_written_out(shorthand: str, words: str) -> None:
    assert readable(shorthand) == words


def test_titles_say_what_a_thing_is() -> None:
    titles = {row["item_id"]: row["title"] for row in rows(CompleteJourney(), "items").to_pylist()}
    assert titles["ECONOMY"] == "bacon: economy"
    assert titles["BANANAS"] == "bananas"
    assert all(title.strip(" -/&:,") == title and title for title in titles.values())


def test_a_negative_number_of_households_is_refused() -> None:
    with pytest.raises(ConfigError):
        CompleteJourney(households=-1)


def test_products_are_described_each_way_once() -> None:
    found = descriptions()
    assert len(found) == len(set(found)) > 15_000
    assert "grapes red, 18 LB" in found
    assert all(found)
