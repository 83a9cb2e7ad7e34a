"""`genrec evaluate`: ways compared on what happened last, with nothing of it known before."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from genrec.cli import main
from genrec.evaluation import judge as judge_module
from genrec.events import Event, batch
from genrec.history import History
from genrec.recommendation import Query
from genrec.recommender import Recommender
from genrec.store import Store
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
    for held_out in ("0.4", "last"):
        refused = CliRunner().invoke(main, ["evaluate", "--held-out", held_out, "-w", str(workspace)])
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


def test_everybodys_last_choice_is_left_out_and_what_that_flatters_is_said(workspace: Path) -> None:
    asked = ("evaluate", "--engine", "none", "--held-out", "last")
    found = json.loads(genrec(*asked, "--json", workspace=workspace))
    [origin] = found["origins"]
    assert (origin["target"], origin["n"], origin["future_items"]) == ("last", 60, 0), "later has one moment only"
    assert origin["cut"] == (OPENING + timedelta(days=6)).isoformat()
    assert found["ways"]["sequence"]["HR@1"] > 0.9
    assert found["settings"]["catalog"] == "whole"
    [late] = [note for note in found["notes"] if "lie after the first choice that is held out" in note]
    assert "The future helps to predict the past" in late
    told = genrec(*asked, workspace=workspace)
    assert told.startswith("60 last choices from 2024-01-07 08:00 on")
    assert "Look number 2" in told
    genrec("evaluate", "--engine", "none", workspace=workspace)
    looks = [json.loads(line) for line in (workspace / "looks.jsonl").read_text().splitlines()]
    assert [look["held_out"] for look in looks] == ["last", "last", 0.1]
    assert looks[0]["cuts"] == looks[1]["cuts"] != looks[2]["cuts"]


Lists = dict[tuple[str, str], list[tuple[str, float | None]]]
"""By prior and person, items with their log-probabilities."""


def lists_beside_what_is_left_out(folder: Path, *changed: Event) -> tuple[Lists, Lists]:
    """Lists before everybody's last moment but one, and before their last, with some of the events changed."""
    shop(folder, 9, prior="sequence", engine="none")
    with Store.open(folder / "genrec.db") as store:
        store.append([batch("events", changed)], source="test")
    found: tuple[Lists, Lists] = ({}, {})
    with open_workspace(folder) as opened:
        split = opened.split(held_out="last", n_cases=100)
        for name in ("sequence", "popularity", "ease", "blend"):
            recommender = opened.recommender(engine="none", prior=opened.fitted_prior(name, split=split))
            for lists, cases in zip(found, (split.fit, split.judge), strict=True):
                queries = [Query(user_id=case.user_id, at=case.at) for case in cases]
                for query, answer in zip(queries, recommender.recommend_many(queries), strict=True):
                    lists[name, query.user_id] = [(item.item_id, item.logprob) for item in answer.items]
    return found


@pytest.fixture(scope="module")
def unchanged(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Lists, Lists]:
    folder = tmp_path_factory.mktemp("unchanged")
    return folder, *lists_beside_what_is_left_out(folder / "shop")


@settings(max_examples=8)
@given(who=st.integers(0, 8), back=st.integers(0, 1), other=st.integers(1, 9))
def test_no_list_that_is_judged_depends_on_what_is_held_out(
    unchanged: tuple[Path, Lists, Lists], tmp_path_factory: pytest.TempPathFactory, who: int, back: int, other: int
) -> None:
    folder, fit, judge = unchanged
    user, after = f"p{who:02}", OPENING + timedelta(days=7 - back, hours=who + 1)
    with Store.open(folder / "shop" / "genrec.db") as store:
        [event] = store.history(user, after, max_events=1)
    changed = replace(event, item_id=ITEMS[(ITEMS.index(event.item_id) + other) % len(ITEMS)])
    found_fit, found_judge = lists_beside_what_is_left_out(tmp_path_factory.mktemp("changed") / "shop", changed)
    assert found_fit == fit
    for name, person in judge:
        if not back or person != user:  # who by then has it in the history
            assert found_judge[name, person] == judge[name, person]


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
    for wrong in (["--held-out", "1.5"], ["--held-out", "last", "--origins", "2"]):
        refused = CliRunner().invoke(main, ["evaluate", *wrong, "-w", str(workspace)])
        assert refused.exit_code == 3
        assert "between 0 and 1" in refused.output
    refused = CliRunner().invoke(main, ["evaluate", "--held-out", "latest", "-w", str(workspace)])
    assert refused.exit_code == 2
    assert "neither a share such as 0.1 nor last" in refused.output
