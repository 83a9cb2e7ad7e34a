"""`genrec evaluate`: ways compared on what happened last, with nothing of it known before."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from genrec.cli import main
from genrec.evaluation import judge as judge_module
from genrec.events import Event
from genrec.history import History
from genrec.recommendation import Query
from genrec.recommender import Recommender
from genrec.workspace import open_workspace
from tests.support.cli import genrec
from tests.support.people import ITEMS, OPENING, shop


@pytest.fixture
def workspace(tmp_path: Path, tiny_model: Path) -> Path:
    """Sixty people who take the items in turn; who is late begins with an item nobody had."""
    return shop(
        tmp_path / "shop",
        60,
        Event(user_id="later", item_id="novelty", at=OPENING + timedelta(days=8)),
        model=str(tiny_model),
        engine="transformers",
        dtype="float32",
        prior="sequence",
    )


def test_ways_are_compared_on_the_same_people(workspace: Path, tmp_path: Path) -> None:
    told = genrec("evaluate", "--report", str(tmp_path), workspace=workspace)
    found = json.loads((tmp_path / "evaluation.json").read_text())
    assert list(found["ways"]) == ["sequence", "popularity", "model", "both"]
    by_prior, popular = found["ways"]["sequence"], found["ways"]["popularity"]
    assert by_prior["HR@1"] > 0.9 > popular["HR@1"], "what comes next is plain to who counts transitions"
    assert found["differences"]["popularity - sequence"]["HR@1"]["tied"] is False
    assert found["ways"]["model"]["HR@1"] < 0.9, "a model with random weights knows nothing"
    assert {row["n"] for row in found["ways"].values()} == {found["n"]}
    assert "New to the person" in told
    assert "[" in told
    assert found["best_prior"] == "sequence"
    assert (
        found["buys"]["both"]["added_ms"] > 0 == by_prior["tokens_a_person"] < found["ways"]["both"]["tokens_a_person"]
    )
    shown = by_prior["lists"]
    assert shown["n"] == min(found["n"], 100)
    assert 0.9 < shown["coverage"] < 1, "whoever has had all items but one gets ten others, and one item is not known"
    assert shown["novelty"] == pytest.approx(np.log2(11), abs=0.3), "eleven are taken as often"
    assert 0 < shown["diversity"] <= 1
    assert sum(one["n"] for one in by_prior["calibration"]["bins"]) == 10 * shown["n"]
    html, markdown = ((tmp_path / f"evaluation.{kind}").read_text() for kind in ("html", "md"))
    assert html.count("<svg") == 2
    assert "http" not in re.sub(
        r'xmlns\S+|"http://www.w3.org\S+|http://purl.org\S+|https://matplotlib.org\S+', "", html
    )
    for page in (html, markdown):
        assert f"{by_prior['HR@1']:.3f}" in page

    priors_alone = json.loads(genrec("evaluate", "--engine", "none", "--json", workspace=workspace))
    assert list(priors_alone["ways"]) == ["sequence", "popularity"]
    assert priors_alone["ways"]["sequence"]["HR@10"] == by_prior["HR@10"]


def test_a_place_is_that_of_the_list(workspace: Path) -> None:
    at = OPENING + timedelta(days=8, hours=8)
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


def test_what_came_after_the_cut_is_not_ranked_and_is_missed(workspace: Path) -> None:
    known, whole = (
        json.loads(genrec("evaluate", "--engine", "none", "--catalog", which, "--json", workspace=workspace))
        for which in ("known", "whole")
    )
    assert known["origins"][0]["future_items"] == whole["origins"][0]["future_items"] == 1
    assert known["ways"]["sequence"]["slices"]["never seen before"]["n"] == 1
    assert whole["ways"]["sequence"]["HR@20"] == 1, "there are twelve items"
    assert known["ways"]["sequence"]["HR@20"] == pytest.approx(1 - 1 / known["n"])
    assert whole["notes"][0].startswith("Look number 2")
    looks = [json.loads(line) for line in (workspace / "looks.jsonl").read_text().splitlines()]
    assert [look["catalog"] for look in looks] == ["known", "whole"]


def test_origins_are_pooled_and_each_knows_no_more_than_was_known(workspace: Path) -> None:
    asked = ("evaluate", "--engine", "none", "--held-out", "0.1", "--json")
    one = json.loads(genrec(*asked, workspace=workspace))
    three = json.loads(genrec(*asked, "--origins", "3", workspace=workspace))
    assert len(three["origins"]) == 3
    cuts = [origin["cut"] for origin in three["origins"]]
    assert cuts == sorted(cuts, reverse=True)
    assert cuts[0] == one["origins"][0]["cut"]
    assert three["n"] == sum(origin["n"] for origin in three["origins"]) > one["n"]
    assert three["ways"]["sequence"]["n"] == three["n"]


def test_a_run_that_was_stopped_goes_on(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = ("evaluate", "--engine", "none", "--lists", "0", "--json")
    whole = json.loads(genrec(*asked, workspace=workspace))
    monkeypatch.setattr(judge_module, "_AT_ONCE", 4)
    calls: list[int] = []

    def interrupted(recommender: Recommender, cases: Sequence[History]) -> list[int]:
        calls.append(len(cases))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return places(recommender, cases)

    places = judge_module.places
    monkeypatch.setattr(judge_module, "places", interrupted)
    assert CliRunner().invoke(main, [*asked, "-w", str(workspace)]).exit_code != 0
    [kept] = (workspace / ".genrec" / "evaluations").iterdir()
    assert len(kept.read_text().split("\n")) == 1 + 2
    with kept.open("a") as out:
        out.write('\n{"way": "half a li')
    resumed = json.loads(genrec(*asked, workspace=workspace))
    assert {name: row["HR@10"] for name, row in resumed["ways"].items()} == {
        name: row["HR@10"] for name, row in whole["ways"].items()
    }
    again = [n for n in calls[3:] if n == 4]
    assert len(again) < whole["n"] * 2 // 4 - 1, "what was placed before the stop is not placed again"
    assert not kept.exists()


def test_what_is_typed_wrong_is_said(workspace: Path) -> None:
    refused = CliRunner().invoke(main, ["evaluate", "--held-out", "1.5", "-w", str(workspace)])
    assert refused.exit_code == 3
    assert "between 0 and 1" in refused.output
