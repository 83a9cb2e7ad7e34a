"""Training from the command line: an adapter comes out, is put to use where it is better, and answers."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner

from genrec.cli import main
from genrec.errors import ModelError
from genrec.events import Event, Item, batch
from genrec.finetune.adapter import NEVER_MERGED
from genrec.store import Store
from genrec.workspace import open_workspace
from tests.support.cli import genrec
from tests.support.people import ITEMS, OPENING, shop

QUICK = ["--rank", "4", "--epochs", "4", "--learning-rate", "0.01", "--set", "step_tokens=600", "--cases", "10"]


@pytest.fixture
def workspace(tmp_path: Path, tiny_model: Path) -> Path:
    """Forty people who take the items in turn, which popularity cannot know."""
    return shop(tmp_path / "shop", 40, model=str(tiny_model), engine="transformers", dtype="float32")


def test_people_become_an_adapter_that_answers(workspace: Path) -> None:
    enough = ("--epochs", "8", "--set", "schedule=constant")
    told = genrec("train", "--name", "first", *QUICK, *enough, workspace=workspace)
    assert "untuned model" in told
    assert "tuned with prior" in told
    assert "In use from now on: first" in told
    card = json.loads(genrec("adapters", "show", "first", workspace=workspace))
    metrics = card["metrics"]
    assert metrics["tuned"]["nats"] < metrics["untuned"]["nats"] - 0.3
    assert metrics["both"]["nats"] <= metrics["prior"]["nats"]
    assert card["gamma"] > 0.1
    [row] = json.loads(genrec("adapters", "list", "--json", workspace=workspace))
    assert (row["name"], row["in use"]) == ("first", True)
    assert (workspace / "adapters" / "first" / "curve.csv").read_text().startswith("step,")

    with open_workspace(workspace) as opened:
        recommender = opened.recommender()
        assert recommender.scoring.gamma == card["gamma"]
        likes = recommender.recommend("p00", at=OPENING + timedelta(days=8, hours=8), k=3)
    with open_workspace(workspace, adapter="none") as opened:
        plain = opened.recommender().recommend("p00", at=OPENING + timedelta(days=8, hours=8), k=3)
    assert [i.logprob for i in likes.items] != [i.logprob for i in plain.items]

    genrec("adapters", "use", "none", workspace=workspace)
    with open_workspace(workspace) as opened:
        assert opened.card is None


def test_an_adapter_learns_on_from_what_has_happened_since(workspace: Path) -> None:
    genrec("train", "--name", "first", *QUICK, workspace=workspace)
    nothing_new = CliRunner().invoke(main, ["train", "--since", "first", *QUICK, "-w", str(workspace)])
    assert nothing_new.exit_code == 11
    assert "Bring new events in" in nothing_new.output
    with Store.open(workspace / "genrec.db") as store:
        events = [
            Event(user_id=f"p{p:02}", item_id=ITEMS[(p + i) % len(ITEMS)], at=OPENING + timedelta(days=i, hours=p % 9))
            for p in range(20)
            for i in range(8, 16)
        ]
        events += [  # who has been idle since
            Event(user_id=f"q{q:02}", item_id=ITEMS[(q + i) % len(ITEMS)], at=OPENING + timedelta(days=i))
            for q in range(60)
            for i in range(3)
        ]
        store.append([batch("events", events)], source="later")
    told = genrec("train", "--since", "first", "--name", "second", *QUICK, workspace=workspace)
    assert "first with prior" in told
    card = json.loads(genrec("adapters", "show", "second", workspace=workspace))
    assert card["data"]["since"] == "first"
    assert 40 < card["data"]["people"] < 80  # of a hundred: those with news, and half as many of the others
    assert card["metrics"]["both"]["nats"] < card["metrics"]["before"]["nats"] + 0.05
    better = min(card["metrics"][f"both - {rival}"]["NDCG@10"]["difference"] for rival in ("prior", "before")) > 0
    assert ("In use from now on: second" in told) == better


def test_an_adapter_that_is_no_better_is_not_put_to_use(workspace: Path) -> None:
    told = genrec("train", *QUICK, "--set", "learning_rate=1e-12", "--set", "max_steps=1", workspace=workspace)
    assert "Not put to use" in told or "In use" in told
    with open_workspace(workspace) as opened:
        assert (opened.adapter_name == "adapter-1") == ("In use" in told)


def test_no_adapter_is_replaced_and_names_are_found(workspace: Path) -> None:
    short = [*QUICK, "--set", "max_steps=2", "--set", "loss=full-vocabulary"]
    genrec("train", *short, workspace=workspace)
    genrec("train", *short, workspace=workspace)
    names = [row["name"] for row in json.loads(genrec("adapters", "list", "--json", workspace=workspace))]
    assert names == ["adapter-1", "adapter-2"]
    refused = CliRunner().invoke(main, ["train", "--name", "adapter-1", *short, "-w", str(workspace)])
    assert refused.exit_code == 3
    assert "already" in refused.output

    stopped = genrec("train", *short, "--minutes", "0.0001", workspace=workspace)
    assert "the same command goes on" in stopped
    again = genrec("train", *short, workspace=workspace)
    assert "the same command goes on" not in again
    names = [row["name"] for row in json.loads(genrec("adapters", "list", "--json", workspace=workspace))]
    assert names == ["adapter-1", "adapter-2", "adapter-3"]


def test_an_adapter_is_refused_over_what_it_was_not_made_for(workspace: Path) -> None:
    genrec("train", "--keep", *QUICK, "--set", "max_steps=1", workspace=workspace)
    prompts = workspace / "prompts"
    prompts.mkdir()
    (prompts / "own.md.j2").write_text("---\ndescription: Mine.\n---\n{% block system %}Other words.{% endblock %}\n")
    with (
        open_workspace(workspace, adapter="adapter-1", prompt="own") as opened,
        pytest.raises(ModelError, match="trained with another prompt template"),
    ):
        opened.recommender()
    with open_workspace(workspace, adapter="gone") as opened, pytest.raises(ModelError, match="There are: adapter-1"):
        opened.recommender()
    with Store.open(workspace / "genrec.db") as store:
        store.put("items", [batch("items", [Item(item_id=f"new{i}", title=f"new {i}") for i in range(10)])])
    with open_workspace(workspace, adapter="adapter-1") as opened:
        opened.recommender()
        assert "The adapter adapter-1 has never seen 50% of the items." in opened.notes


@pytest.mark.parametrize("method", NEVER_MERGED)
def test_what_can_be_no_part_of_the_weights_is_served_by_transformers_alone(workspace: Path, method: str) -> None:
    train = ["train", "--method", method, *QUICK, "--set", "max_steps=1"]
    refused = CliRunner().invoke(main, [*train, "--engine", "vllm", "-w", str(workspace)])
    assert f"cannot judge a {method}" in refused.output
    genrec(*train, workspace=workspace)
    with open_workspace(workspace, adapter="adapter-1") as opened:
        _, beside = opened.adapted(workspace / "adapters" / "adapter-1", "transformers")
        assert beside == workspace / "adapters" / "adapter-1"
        for engine in ("vllm", "vllm-server"):
            with pytest.raises(ModelError, match=f"is a {method}, which can be no part of the weights"):
                opened.adapted(beside, engine)


def test_what_is_typed_wrong_is_said(workspace: Path) -> None:
    def fails(*arguments: str) -> str:
        result = CliRunner().invoke(main, ["train", *arguments, "-w", str(workspace)])
        assert result.exit_code != 0
        return str(result.exception) + result.output

    assert "no training option 'speed'" in fails("--set", "speed=9")
    assert "rank is a number" in fails("--set", "rank=many")
    assert "weight_decay" in genrec("train", "--show-options", workspace=workspace)


def test_options_are_tried_and_remembered(workspace: Path, tmp_path: Path) -> None:
    pytest.importorskip("optuna", reason="pip install 'genrec[tune]'")
    common = ["--try", "learning_rate=0.001..0.05", "--try", "rank=2|4", "--set", "step_tokens=600", "--cases", "10"]
    common += ["--set", "max_steps=4", "--json"]
    first = json.loads(genrec("tune", "--trials", "2", *common, workspace=workspace))
    plot = tmp_path / "trials.png"
    more = json.loads(genrec("tune", "--trials", "3", *common, "--plot", str(plot), workspace=workspace))
    assert {row["trial"] for row in first} <= {row["trial"] for row in more}
    assert [row["nats"] for row in more] == sorted(row["nats"] for row in more)
    assert all(row["rank"] in (2, 4) and 0.001 <= row["learning_rate"] <= 0.05 for row in more)
    assert plot.read_bytes().startswith(b"\x89PNG")
    again = json.loads(genrec("tune", "--trials", "3", *common, workspace=workspace))
    assert again == more, "nothing is left to try"
    result = CliRunner().invoke(main, ["tune", "--try", "rank=many", "-w", str(workspace)])
    assert "says not what to try" in result.output
