"""What docs/prompts.md says is so."""

from __future__ import annotations

import re
from pathlib import Path

from click.testing import CliRunner

from genrec.cli import main
from genrec.context import FEATURES
from genrec.prompt import bundled_prompts, load_template, template_names
from genrec.prompt.rules import FILTERS, METHODS

PAGE = (Path(__file__).parents[2] / "docs/prompts.md").read_text(encoding="utf-8")


def test_the_prompt_shown_is_the_one_that_the_command_prints() -> None:
    [shown] = re.findall(r"```\n(\[system\].*?)```", PAGE, re.DOTALL)
    printed = CliRunner().invoke(main, ["prompts", "render", "grocery"]).stdout
    assert shown.split() == printed.split()


def test_the_template_shown_works(tmp_path: Path) -> None:
    [shown] = re.findall(r"```jinja\n(.*?)```", PAGE, re.DOTALL)
    (tmp_path / "films.md.j2").write_text(shown, encoding="utf-8")
    template = load_template("films", [tmp_path, bundled_prompts()])
    assert template.description == "What somebody watches next."
    assert template.features == ("weekday", "part_of_day", "holiday", "since", "device")
    (_, system), (_, user) = template.turns({"age": "40"})
    assert "what they watch, one line a moment: when and where first, then the films and series" in system
    assert user == "The person is 40 years old.\nGo on with the list."


def test_every_template_that_ships_is_named() -> None:
    shipped = PAGE.split("## The templates that ship")[1].split("\n## ")[0]
    named = [name for row in re.findall(r"^\|.*\| (`.*`) \|$", shipped, re.MULTILINE) for name in row.split(", ")]
    assert sorted(name.strip("`") for name in named) == template_names([bundled_prompts()])


def test_every_feature_filter_and_method_is_named() -> None:
    assert re.findall(r"^\| `(\w+)`", PAGE, re.MULTILINE) == list(FEATURES)
    for name in {*FILTERS} - {"d"}:
        assert f"`{name}`" in PAGE
    for name in METHODS:
        assert f"`profile.{name}`" in PAGE or f"`.{name}`" in PAGE
