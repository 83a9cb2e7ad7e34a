"""`genrec evaluate`: ways compared on what happened last, with nothing of it known before."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner

from genrec.cli import main
from genrec.config import create_workspace
from genrec.events import Event, Item, batch
from genrec.recommendation import Query
from genrec.store import Store
from genrec.workspace import open_workspace
from tests.support.cli import genrec
from tests.support.people import ITEMS

START = datetime(2024, 1, 1, 8, tzinfo=UTC)


@pytest.fixture
def workspace(tmp_path: Path, tiny_model: Path) -> Path:
    """Sixty people who take the items in turn; who is late begins with an item nobody had."""
    folder = tmp_path / "shop"
    create_workspace(
        folder, {"model": str(tiny_model), "engine": "transformers", "dtype": "float32", "prior": "sequence"}
    )
    with Store.open(folder / "genrec.db") as store:
        store.put("items", [batch("items", [Item(item_id=name, title=name) for name in (*ITEMS, "novelty")])])
        events = [
            Event(user_id=f"p{p:02}", item_id=ITEMS[(p + i) % len(ITEMS)], at=START + timedelta(days=i, hours=p % 9))
            for p in range(60)
            for i in range(8)
        ]
        events.append(Event(user_id="late", item_id="novelty", at=START + timedelta(days=8)))
        store.append([batch("events", events)], source="test")
    return folder


def test_ways_are_compared_on_the_same_people(workspace: Path, tmp_path: Path) -> None:
    out = tmp_path / "found.json"
    told = genrec("evaluate", "--out", str(out), workspace=workspace)
    found = json.loads(out.read_text())
    assert list(found["ways"]) == ["sequence", "popularity", "model", "both"]
    by_prior, popular = found["ways"]["sequence"], found["ways"]["popularity"]
    assert by_prior["HR@1"] > 0.9 > popular["HR@1"], "what comes next is plain to who counts transitions"
    assert found["differences"]["popularity - sequence"]["HR@1"]["tied"] is False
    assert found["ways"]["model"]["HR@1"] < 0.9, "a model with random weights knows nothing"
    assert {row["n"] for row in found["ways"].values()} == {found["n"]}
    assert "new to the person" in told
    assert "[" in told

    priors_alone = json.loads(genrec("evaluate", "--engine", "none", "--json", workspace=workspace))
    assert list(priors_alone["ways"]) == ["sequence", "popularity"]
    assert priors_alone["ways"]["sequence"]["HR@10"] == by_prior["HR@10"]


def test_a_place_is_that_of_the_list(workspace: Path) -> None:
    at = START + timedelta(days=8, hours=8)
    queries = [Query(user_id=f"p{p:02}", at=at, k=11, exclude_seen=bool(p % 2)) for p in range(8)]
    with open_workspace(workspace) as opened:
        for engine, scoring in (("none", None), ("transformers", "joint"), ("transformers", "fused")):
            recommender = opened.recommender(engine=engine, scoring=scoring)  # type: ignore[arg-type]
            lists = [[item.item_id for item in one.items] for one in recommender.recommend_many(queries)]
            for item in (*ITEMS, "novelty", "unheard of"):
                expected = [one.index(item) if item in one[:5] else 5 for one in lists]
                assert recommender.places(queries, [item] * len(queries), within=5) == expected


def test_an_adapter_is_not_judged_by_what_it_has_learned(workspace: Path) -> None:
    quick = ["--rank", "4", "--epochs", "1", "--set", "max_steps=2", "--cases", "5", "--engine", "transformers"]
    genrec("train", "--name", "early", *quick, "--keep", workspace=workspace)
    genrec("adapters", "use", "early", workspace=workspace)
    genrec("evaluate", "--cases", "5", workspace=workspace)
    refused = CliRunner().invoke(main, ["evaluate", "--held-out", "0.4", "-w", str(workspace)])
    assert refused.exit_code == 3
    assert "has learned from what happened until" in refused.output


def test_what_is_typed_wrong_is_said(workspace: Path) -> None:
    refused = CliRunner().invoke(main, ["evaluate", "--held-out", "1.5", "-w", str(workspace)])
    assert refused.exit_code == 3
    assert "between 0 and 1" in refused.output
