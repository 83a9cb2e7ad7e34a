"""`genrec demo` on its real data, with a tiny model in place of the real one."""

from __future__ import annotations

import json
import re
import shlex
from datetime import UTC, datetime
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

import genrec
from genrec.cli import main
from genrec.cli.demo import MOMENTS
from genrec.plugins import installed
from genrec.store import Store
from genrec.workspace import ScoringName
from tests.support import corner_shop


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("demo") / "groceries"


@pytest.fixture(scope="module")
def told(folder: Path, tiny_model: Path) -> str:
    """What the first run says."""
    done = demo(folder, "--engine", "transformers", "--model", str(tiny_model))
    assert done.exit_code == 0, done.output
    return done.stdout


def demo(folder: Path, *arguments: str) -> Result:
    return CliRunner().invoke(main, ["demo", "--workspace", str(folder), *arguments])


def test_it_tells_the_story_in_order(told: str) -> None:
    assert [line[0] for line in told.splitlines() if re.match(r"\d  ", line)] == list("123456")
    assert "300 households" in told
    assert "Thanksgiving" in told
    assert told.count("Thursday 1 June 2017, 09:00") == told.count("Wednesday 22 November 2017, 18:00") == 7
    assert told.count("▸ Thursday morning, summer") == 3


def test_every_list_has_five_numbered_items(told: str) -> None:
    by_prior, by_model, by_both = (told.split(f"\n{n}  ")[1].split(f"\n{n + 1}  ")[0] for n in (2, 3, 4))
    # two numbered columns: probabilities where there are any, log-probabilities for the model alone
    shape = r"^     (\d) +{0} +\S.*? {{2,}}(\d) +{0} +\S"
    ranks = [(str(rank), str(rank)) for rank in range(1, 6)]
    assert re.findall(shape.format(r"[\d.]+%"), by_prior, re.MULTILINE) == 3 * ranks
    assert re.findall(shape.format(r"-[\d.]+"), by_model, re.MULTILINE) == 3 * ranks
    assert re.findall(shape.format(r"[\d.]+%"), by_both, re.MULTILINE) == ranks


@pytest.mark.parametrize(("name", "scoring"), [("both", "auto"), ("model", "joint")])
def test_what_moved_items_is_what_leaving_words_out_gives(
    told: str, folder: Path, tiny_model: Path, name: str, scoring: ScoringName
) -> None:
    head = "change = prior + past + words weekday part of day season holiday since"
    assert head in re.sub(" +", " ", told)
    rows = re.findall(rf"^     {name} +(\S.*?) {{2,}}([-+ .0-9]+)$", told.split("\n4  ")[1], re.MULTILINE)
    assert 2 <= len(rows) <= 4
    with genrec.open(folder, engine="transformers", model=str(tiny_model)) as workspace:
        asked = workspace.recommender(scoring=scoring)
        lists = [{item.item_id for item in asked.recommend("1985", at=at, k=5).items} for at in MOMENTS]
        every = tuple(set.union(*lists))
        before, after = (
            {item.title: item for item in asked.recommend("1985", at=at, candidates=every, explain=True).items}
            for at in MOMENTS
        )

    def change(title: str, kind: str, name: str) -> float:
        """Of what leaving one thing out does, between the moments."""
        was, now = (
            [one.change for one in items[title].evidence or () if one.kind == kind and name in (one.what, one.feature)]
            for items in (before, after)
        )
        return sum(now) - sum(was)

    shown = 0.0051 if name == "both" else 0.051  # what printing them takes away from numbers
    for cut, numbers in rows:
        [title] = [title for title in after if title.startswith(cut.removesuffix("…"))]
        assert (after[title].item_id in lists[0]) != (after[title].item_id in lists[1])
        moved = after[title].logprob - before[title].logprob
        prior = [moved - change(title, "voice", "the model")] if name == "both" else []
        words = change(title, "now", "all words of now")
        alone = [change(title, "context", f) for f in ("weekday", "part_of_day", "season", "holiday", "since")]
        expected = [moved, *prior, moved - sum(prior) - words, words, *alone]
        assert [float(number) for number in numbers.split()] == pytest.approx(expected, abs=shown)
        assert max(map(abs, expected)) > 4 * shown
    every_words = [change(title, "now", "all words of now") for title in after]
    assert max(map(abs, every_words)) > 4 * shown


def test_every_stage_says_how_long_it_took(told: str) -> None:
    steps = re.findall(r"^ +[\d.]+ s  (.*)$", told, re.MULTILINE)
    assert steps == [
        "data imported",
        "prior fitted",
        "6 lists by the prior",
        "model found or fetched",
        "transformers started, catalogue encoded",
        "6 lists by the language model",
        "2 lists by both",
        "what moved their items, by both and by the model",
        "together",
    ]


def test_the_commands_it_names_work(told: str, folder: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    go, *commands = told.split("Go on\n")[1].splitlines()
    assert shlex.split(go) == ["cd", str(folder)]
    assert len(commands) == 3
    monkeypatch.chdir(folder)
    monkeypatch.setenv("GENREC_ENGINE", "transformers")
    monkeypatch.setenv("GENREC_MODEL", str(tiny_model))
    for command in commands:
        program, *arguments = shlex.split(command)
        assert program == "genrec"
        done = CliRunner().invoke(main, arguments)
        assert done.exit_code == 0, done.output


def test_a_second_run_uses_the_folder_again(told: str, folder: Path) -> None:
    with Store.open(folder / "genrec.db") as store:
        before = store.summary()
    again = demo(folder, "--engine", "none")
    assert again.exit_code == 0
    assert "earlier run" in again.stdout
    with Store.open(folder / "genrec.db") as store:
        assert store.summary().n_events == before.n_events
    # without a model it stops after the prior, and what it suggests needs none
    assert "The language model" not in again.stdout
    assert "--engine none" in again.stdout


def test_it_leaves_a_workspace_of_yours_alone(tmp_path: Path) -> None:
    shop = corner_shop.make_workspace(tmp_path / "shop")
    done = demo(shop)
    assert done.exit_code == 3
    assert "did not make" in done.stderr
    assert "--workspace DIR" in done.stderr
    with Store.open(shop / "genrec.db") as store:
        assert store.summary().n_items == len(corner_shop.ITEMS)


def test_without_the_data_it_says_what_to_install_and_goes_on_afterwards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed.cache_clear()
    monkeypatch.setenv("GENREC_PLUGINS", "core")
    missing = demo(tmp_path / "demo", "--engine", "none")
    assert missing.exit_code == 6
    assert "pip install 'genrec[demo]'" in missing.stderr
    monkeypatch.delenv("GENREC_PLUGINS")
    installed.cache_clear()
    done = demo(tmp_path / "demo", "--engine", "none")
    assert done.exit_code == 0
    assert "300 households" in done.stdout


@pytest.mark.llm
def test_the_real_model_prefers_things_a_household_buys(folder: Path, told: str) -> None:
    del told  # makes the folder
    done = CliRunner().invoke(
        main, ["recommend", "1985", "-w", str(folder), "--at", "2017-11-22T18:00", "--engine", "transformers", "--json"]
    )
    assert done.exit_code == 0, done.output
    with Store.open(folder / "genrec.db") as store:
        bought = {event.item_id for event in store.history("1985", datetime.now(UTC), max_events=10_000)}
    # 2,242 items, of which the household ever bought a tenth: a model that read nothing would name one of ten
    assert sum(item["item_id"] in bought for item in json.loads(done.stdout)["items"]) >= 4
