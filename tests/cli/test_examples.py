"""The made-up examples: what one is said to see is there, it is said that they are made up, and they work as told."""

from __future__ import annotations

import csv
import io
import json
import shlex
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from genrec.cli import main
from genrec.cli._examples import EXAMPLES, MADE_UP, MOODS, NOW
from genrec.events import SCHEMAS


def run(command: str) -> Result:
    done = CliRunner().invoke(main, shlex.split(command)[1:])
    assert done.exit_code == 0, done.output
    return done


def tables(name: str) -> dict[str, list[dict[str, str]]]:
    files = EXAMPLES[name].files()
    return {file: [*csv.DictReader(io.StringIO(text))] for file, text in files.items() if file.endswith(".csv")}


@pytest.mark.parametrize("name", EXAMPLES)
def test_what_init_prints_leads_to_a_list(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    said = run(f"genrec init 'my {name}' --example {name}").stdout
    assert MADE_UP in said
    assert MADE_UP in Path(f"my {name}/README.txt").read_text(encoding="utf-8")
    then = [line.partition(": ")[2] for line in said.splitlines() if line.startswith(("Next: ", "Then: "))]
    imported, answer = (json.loads(run(f"{command} --json").stdout) for command in then)
    assert not imported["problems"]["n"]
    assert len(answer["items"]) == 10
    settings = {row["key"]: row["value"] for row in json.loads(run(f"genrec config -w 'my {name}' --json").stdout)}
    assert settings["prompt"] == name


@pytest.mark.parametrize("name", EXAMPLES)
def test_tables_fit_together_and_are_always_the_same(name: str) -> None:
    found = tables(name)
    users, items = ({row[f"{kind}_id"] for row in found[f"{kind}s.csv"]} for kind in ("user", "item"))
    events = found["events.csv"]
    assert 300 <= len(events) <= 700
    assert EXAMPLES[name].somebody in users
    assert users == {row["user_id"] for row in events}
    assert {row["item_id"] for row in events} <= items
    assert len({row["title"] for row in found["items.csv"]}) == len(items)
    assert all(datetime.fromisoformat(row["at"]) < NOW for row in events)
    assert {*events[0]} <= {*SCHEMAS["events"].names}
    assert EXAMPLES[name].files() == EXAMPLES[name].files()


def test_who_follows_somebody_opens_what_they_opened() -> None:
    found = tables("posts")
    follows = {(row["from_id"], row["to_id"]) for row in found["edges.csv"]}
    opened: dict[str, list[str]] = {}
    followed = 0
    for row in found["events.csv"]:
        before = opened.setdefault(row["item_id"], [])
        followed += any((row["user_id"], other) in follows for other in before)
        before.append(row["user_id"])
    assert followed > 0.7 * len(found["events.csv"])
    assert {row["weight"] for row in found["edges.csv"]} == {"1.0", "0.25"}
    assert max(len(those) for those in opened.values()) < len(found["users.csv"]), "no post is for everybody"


def test_news_go_stale() -> None:
    found = tables("news")
    born = {
        row["item_id"]: datetime.strptime(f"2026 {row['title'].split(', ')[1]}", "%Y %d %B %H h").replace(tzinfo=UTC)
        for row in found["items.csv"]
    }
    ages = [datetime.fromisoformat(row["at"]) - born[row["item_id"]] for row in found["events.csv"]]
    assert min(ages) > timedelta(0)
    assert sum(age < timedelta(days=1) for age in ages) > 0.7 * len(ages)


def test_music_depends_on_the_hour() -> None:
    found = tables("music")
    moods = {row["item_id"]: row["category"] for row in found["items.csv"]}
    fits = [datetime.fromisoformat(row["at"]).hour == MOODS[moods[row["item_id"]]] for row in found["events.csv"]]
    assert sum(fits) > 0.85 * len(fits)


def test_an_example_goes_over_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("users.csv").write_text("mine", encoding="utf-8")
    refused = CliRunner().invoke(main, ["init", "--example", "news"])
    assert refused.exit_code == 3
    assert "users.csv is there already" in refused.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["users.csv"]
    run("genrec init news --example news --prompt next-item")
    assert 'prompt = "next-item"' in Path("news/genrec.toml").read_text(encoding="utf-8"), "what was asked for"
    shop = json.loads(run("genrec init shop --json").stdout)
    news = json.loads(run("genrec init again --example news --json").stdout)
    assert {*news} - {*shop} == {"example"}
