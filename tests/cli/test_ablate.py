"""What parts of the context are worth: what decides is missed, what does not is tied, and nothing is told too early."""

from __future__ import annotations

import json
import random
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from genrec.cli import ablate as ablate_module
from genrec.cli import main
from genrec.cli.ablate import Trial
from genrec.config import create_workspace
from genrec.context import FEATURES
from genrec.events import Context, Event, Item, User, batch
from genrec.finetune import train as train_module
from genrec.store import Store
from genrec.workspace import open_workspace
from tests.support.cli import genrec
from tests.support.people import ITEMS, OPENING

HOURS = {"coffee": 7, "soup": 12, "cake": 16, "beer": 22}
DEVICES = ("phone", "tablet", "watch", "fridge")
QUICK = (
    "--steps",
    "60",
    "--set",
    "epochs=20",
    "--set",
    "rank=8",
    "--set",
    "learning_rate=0.01",
    "--set",
    "step_tokens=1000",
)


def household(folder: Path, decides: str, *, also: str = "", **settings: Any) -> Path:
    """Eighty people who take one of four things a day, not that of the day before, as the hour or the device has it.

    With it they take something else, if that is named.
    """
    create_workspace(folder, settings)
    chance = random.Random(0)
    events = []
    for p in range(80):
        hour, device = ("", 0), ""
        for day in range(10):
            hour = chance.choice([one for one in HOURS.items() if one != hour])
            device = chance.choice([one for one in DEVICES if one != device])
            item = hour[0] if decides == "part_of_day" else list(HOURS)[DEVICES.index(device)]
            at = datetime(2024, 1, 1 + day, hour[1], chance.randrange(60), tzinfo=UTC)
            basket = [item, also] if also else [item]
            events += [Event(user_id=f"p{p:02}", item_id=one, at=at, context=Context(device=device)) for one in basket]
    with Store.open(folder / "genrec.db") as store:
        names = [*HOURS, also] if also else [*HOURS]
        store.put("items", [batch("items", [Item(item_id=name, title=name) for name in names])])
        store.put(
            "users", [batch("users", [User(user_id=f"p{p:02}", attributes={"age": str(p % 7)}) for p in range(80)])]
        )
        store.append([batch("events", events)], source="test")
    return folder


def ablate(workspace: Path, *more: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(genrec("ablate", "--json", *more, workspace=workspace))
    return found


def lost(found: dict[str, Any], metric: str = "HR@1") -> dict[str, float]:
    """What is lost without each part, those that are tied left out."""
    beside = {name: one["difference"][metric] for name, one in found["without"].items()}
    return {name: -one["difference"] for name, one in beside.items() if not one["tied"]}


@pytest.fixture
def habits(tmp_path: Path) -> Path:
    return household(tmp_path / "habits", "part_of_day", engine="none", prior="repeat")


def test_a_prior_misses_the_hour_and_no_device(habits: Path, tmp_path: Path) -> None:
    found = ablate(habits, "--report", str(tmp_path / "report"))
    assert list(found["without"]) == ["weekday", "part_of_day", "season", "since", "device", "all", "profile"]
    assert found["whole"]["HR@1"] > 0.8
    assert set(lost(found)) == {"part_of_day", "all"}
    assert lost(found)["part_of_day"] > 0.2
    assert found["without"]["device"]["difference"]["HR@1"] == {"difference": 0, "interval": [0, 0], "tied": True}
    assert found["sensitivity"] == {}, "a prior reads no words"
    assert found["again"] is None, "and has no seed"
    assert json.loads((tmp_path / "report" / "ablation.json").read_text()) == found
    markdown = (tmp_path / "report" / "ablation.md").read_text()
    assert "| without device | " in markdown
    assert "+0.0000 [+0.0000, +0.0000] tied" in markdown
    told = genrec("ablate", "--without", "device", workspace=habits)
    assert told.startswith(f"{found['n']} choices: all that {found['people']} people chose at their first moment after")
    assert "Look number 2" in told
    refused = CliRunner().invoke(main, ["ablate", "--without", "devise", "-w", str(habits)])
    assert refused.exit_code == 3
    assert "there is no 'devise' to do without. Did you mean 'device'?" in refused.output


def test_without_the_hour_a_prior_misses_it_where_a_template_names_it(tmp_path: Path) -> None:
    workspace = household(tmp_path / "home", "part_of_day", engine="none", prior="repeat", prompt="news")
    found = ablate(workspace)
    assert list(found["without"]) == ["weekday", "part_of_day", "hour", "since", "device", "all", "profile"]
    assert set(lost(found)) == {"part_of_day", "hour", "all"}


def test_the_less_is_known_of_the_moment_the_less_the_hour_tells(habits: Path) -> None:
    exact, request, nothing = (
        ablate(habits, "--now", now, "--without", "part_of_day") for now in ("exact", "request", "none")
    )
    assert exact["whole"]["HR@1"] >= request["whole"]["HR@1"] > nothing["whole"]["HR@1"] + 0.2
    assert not lost(nothing)
    assert lost(request)["part_of_day"] > 0.2


def test_events_of_a_kind_are_missed_by_all_and_their_choices_still_judge(tmp_path: Path) -> None:
    create_workspace(tmp_path, {"engine": "none", "prior": "sequence"})
    chance = random.Random(0)
    looks, buys, noise = list[Event](), list[Event](), list[Event]()
    for p in range(60):
        for day in range(5):
            item, at = chance.choice(ITEMS), OPENING + timedelta(days=day)
            looks.append(Event(user_id=f"p{p}", item_id=item, at=at, action="look"))
            buys.append(Event(user_id=f"p{p}", item_id=item, at=at + timedelta(hours=1), action="buy"))
            buys.append(Event(user_id=f"p{p}", item_id=chance.choice(ITEMS), at=at + timedelta(hours=2), action="hide"))
    noise = [Event(user_id="cat", item_id=item, at=OPENING, action="look") for item in ITEMS]
    with Store.open(tmp_path / "genrec.db") as store:
        store.put("items", [batch("items", [Item(item_id=name, title=name) for name in ITEMS])])
        store.append([batch("events", looks), batch("events", buys)], source="shop")
        store.append([batch("events", noise)], source="door")
    found = ablate(tmp_path, "--without", "action:look", "--without", "source:door")
    assert found["whole"]["HR@1"] > 0.9, "what was looked at is bought"
    assert lost(found)["action:look"] > 0.5
    assert "source:door" not in lost(found)
    assert found["without"]["action:look"]["n"] == found["n"]
    refused = CliRunner().invoke(main, ["ablate", "--without", "action:hide", "-w", str(tmp_path)])
    assert refused.exit_code == 3, "what was refused is in no history that it could be left out of"
    assert "action:buy, action:look, source:door, source:shop" in refused.output


@pytest.mark.parametrize(
    ("decides", "other", "prior", "steps"),
    [("part_of_day", "device", "repeat", "10"), ("device", "part_of_day", "popularity", "140")],
)
def test_model_and_prior_miss_what_decides_and_nothing_else(
    tmp_path: Path, tiny_model: Path, decides: str, other: str, prior: str, steps: str
) -> None:
    workspace = household(
        tmp_path / "home", decides, model=str(tiny_model), engine="transformers", dtype="float32", prior=prior
    )
    quick = (*QUICK, "--steps", steps)
    found = ablate(workspace, *quick, "--without", decides, "--without", other)
    assert found["whole"]["HR@1"] > 0.8
    assert set(lost(found)) == {decides}
    assert lost(found)[decides] > 0.2
    assert found["again"]["difference"]["HR@1"]["tied"]
    assert found["again"]["nats"] != found["whole"]["nats"], "it was another training"
    if prior == "popularity":  # or the model has had little time to learn
        nats = {name: one["difference"]["nats"] for name, one in found["without"].items()}
        assert nats[decides]["difference"] > 0.1
        assert not nats[decides]["tied"]
    leans = {name: one["difference"]["HR@1"] for name, one in found["sensitivity"].items()}
    assert list(leans) == [f"{name} {how}" for name in (decides, other) for how in ("shuffled", "silenced")]
    if prior == "popularity":  # or the prior goes on knowing
        assert leans[f"{decides} shuffled"]["difference"] < -0.3
    assert leans[f"{other} shuffled"]["tied"]
    [folder] = (workspace / ".genrec" / "ablations").iterdir()
    assert {path.suffix for path in folder.iterdir()} == {".json"}, "neither adapters nor checkpoints stay"
    assert ablate(workspace, *quick, "--without", decides)["without"][decides] == found["without"][decides]


def test_a_stopped_run_goes_on_where_it_was(habits: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = ("ablate", "--without", "device", "--without", "part_of_day", "--without", "all", "-w", str(habits))
    judged, calls = ablate_module.places_by_prior, list[int]()

    def stopped(*args: Any) -> Any:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return judged(*args)

    monkeypatch.setattr(ablate_module, "places_by_prior", stopped)
    assert CliRunner().invoke(main, list(asked)).exit_code != 0
    found = CliRunner().invoke(main, list(asked), catch_exceptions=False)
    assert len(calls) == 3 + 2, "the whole and the first part are not judged again"
    assert "4 of 4: without all" in found.stderr


def test_a_stopped_training_goes_on_from_its_checkpoint(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = household(tmp_path / "home", "device", model=str(tiny_model), engine="transformers", dtype="float32")
    quick = ("--steps", "6", "--set", "rank=4", "--set", "save_every=2", "--cases", "12", "--without", "device")
    losses, steps = train_module.target_losses, list[int]()

    def stopped(*args: Any) -> Any:
        steps.append(1)
        if len(steps) == 5:
            raise KeyboardInterrupt
        return losses(*args)

    monkeypatch.setattr(train_module, "target_losses", stopped)
    assert CliRunner().invoke(main, ["ablate", *quick, "-w", str(workspace)]).exit_code != 0
    told = genrec("ablate", *quick, workspace=workspace)
    assert len(steps) == 5 + 2 + 6 + 6, "the whole goes on behind its fourth step"
    assert "Sensitivity alone" in told
    assert "whole, another seed" in told
    assert "device shuffled" in told


def test_the_model_in_use_is_asked_without_training(tmp_path: Path, tiny_model: Path) -> None:
    settings = {"model": str(tiny_model), "engine": "transformers", "dtype": "float32", "prior": "repeat"}
    workspace = household(tmp_path / "home", "device", also="bread", **settings)
    quick = ("--rank", "4", "--set", "max_steps=2", "--cases", "20")
    genrec("train", "--name", "early", *quick, "--keep", workspace=workspace)
    genrec("adapters", "use", "early", workspace=workspace)
    found = ablate(workspace, "--refit", "--cases", "20", "--without", "device", "--without", "profile")
    assert (found["settings"]["adapter"], found["settings"]["training"]) == ("early", None)
    assert list(found["sensitivity"]) == [
        f"{name} {how}" for name in ("device", "profile") for how in ("shuffled", "silenced")
    ]
    assert (found["people"], found["n"]) == (20, 40), "bread and something else"
    assert found["whole"]["HR@1"] == 0.5, "bread, always"
    told = genrec("ablate", "--refit", "--cases", "20", "--without", "device", workspace=workspace)
    assert "the model's nats - whole" in told
    refused = CliRunner().invoke(main, ["ablate", "--refit", "--held-out", "0.4", "-w", str(workspace)])
    assert "has learned from what happened until" in refused.output


def test_a_line_of_which_the_time_is_unknown_has_no_clock_words(tmp_path: Path, tiny_model: Path) -> None:
    telling = {"prompt": "all", "country": "DE"}
    workspace = household(
        tmp_path / "home", "device", model=str(tiny_model), engine="transformers", dtype="float32", **telling
    )
    (workspace / "prompts").mkdir(exist_ok=True)
    everything = f"---\ncontext: [{', '.join(FEATURES)}]\n---\n{{% extends 'next-item.md.j2' %}}\n"
    (workspace / "prompts" / "all.md.j2").write_text(everything)
    with open_workspace(workspace) as opened:
        lines: dict[str, list[str]] = {}
        for now in ("exact", "none"):
            trial = Trial(opened, now, None, None, held_out=0.1, cases=9)  # type: ignore[arg-type]
            tokenizer = trial.whole.writing.tokenizer
            texts = [tokenizer.decode(row.token_ids[: row.position[0] + 1]) for _, row in trial.whole.judged]
            lines[now] = [text.splitlines()[-1] for text in texts]
    assert all(re.search(r"day\b.* [ap]m", line) for line in lines["exact"])
    assert {line.removesuffix("|").strip() for line in lines["none"]} <= {"", *DEVICES}
