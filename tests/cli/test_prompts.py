"""`genrec prompts`: what is there, what it writes, and how to own one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from genrec.cli import main
from genrec.prompt import bundled_prompts, template_names
from tests.support import corner_shop


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    return corner_shop.make_workspace(tmp_path / "shop")


def run(*args: str) -> Result:
    return CliRunner().invoke(main, ["prompts", *args])


def test_list_needs_no_workspace() -> None:
    listed = json.loads(run("list", "--json").stdout)
    assert [row["name"] for row in listed] == template_names([bundled_prompts()])
    assert "What a household buys next in a grocery store." in run("list").stdout


def test_list_names_what_the_workspace_adds_and_what_is_wrong_with_it(shop: Path) -> None:
    (shop / "prompts").mkdir()
    (shop / "prompts/films.md.j2").write_text("---\ndescription: Films.\n---\n{% block user %}x{% endblock %}")
    (shop / "prompts/odd.md.j2").write_text("{% block user %}{{ now }}{% endblock %}")
    result = run("list", "--json", "--workspace", str(shop))
    said = {row["name"]: row["description"] for row in json.loads(result.stdout)}
    assert set(said) == {"films", "odd", *template_names([bundled_prompts()])}
    assert said["films"] == "Films."
    assert said["odd"].startswith("broken: ")
    assert "no variable 'now'" in said["odd"]


def test_show_prints_the_file() -> None:
    assert run("show", "grocery").stdout == (bundled_prompts() / "grocery.md.j2").read_text(encoding="utf-8")


def test_an_unknown_template_is_an_error_with_advice() -> None:
    result = run("show", "grocry")
    assert result.exit_code == 7
    assert "no prompt template 'grocry'. There are: advertising, city," in result.stderr
    assert "hint: See: genrec prompts list" in result.stderr


def test_render_shows_a_made_up_person_without_workspace_or_model() -> None:
    result = run("render", "grocery")
    assert result.exit_code == 0
    assert result.stdout.splitlines()[-5:] == [
        "Monday morning, summer, store 3 | milk; bread; coffee;",
        "Wednesday, two days later | eggs; bread;",
        "a week later, store 8 | milk; bananas; butter;",
        "Thursday, next day | milk;",
        "Sunday evening, three days later, store 3 |",
    ]
    assert "[user] age: 35-44, household: 4." in result.stdout


def test_render_shows_somebody_of_the_workspace(shop: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GENREC_MODEL", str(tiny_model))
    args = ("--user", "ann", "--at", "2025-06-16T09:00", "--workspace", str(shop))
    result = run("render", "next-item", *args)
    assert result.exit_code == 0, result.stderr
    *_, before, last, now = result.stdout.splitlines()
    assert before in ("Monday, five days later | Milk; Bread;", "Monday, five days later | Bread; Milk;")
    assert last in ("Saturday | Milk; Bread;", "Saturday | Bread; Milk;"), "five days later again"
    assert now == "Monday, two days later |"
    assert "[user] kids: 2." in result.stdout
    assert "0 older moments left out" in result.stderr


def test_copy_gives_a_template_to_change(shop: Path) -> None:
    result = run("copy", "grocery", str(shop / "prompts"), "--workspace", str(shop))
    assert 'prompt = "grocery"' in result.stdout
    file = shop / "prompts/grocery.md.j2"
    file.write_text(file.read_text().replace("one household", "one café"), encoding="utf-8")
    assert "You know one café well." in run("render", "grocery", "--workspace", str(shop)).stdout
    again = run("copy", "grocery", str(shop / "prompts"))
    assert again.exit_code == 7
    assert "is there already" in again.stderr


def test_a_copy_elsewhere_is_used_by_its_path(tmp_path: Path) -> None:
    result = run("copy", "next-item", str(tmp_path))
    path = tmp_path / "next-item.md.j2"
    assert f'prompt = "{path}"' in result.stdout
    assert run("render", str(path)).stdout == run("render", "next-item").stdout
    blocked = run("copy", "next-item", str(path / "below"))
    assert blocked.exit_code == 7
    assert "cannot write" in blocked.stderr
