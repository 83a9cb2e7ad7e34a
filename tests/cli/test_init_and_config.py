"""`genrec init` makes a workspace and `genrec config` says what holds in it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from genrec import config
from genrec.cli import main


@pytest.fixture(autouse=True)
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No settings of the real user, and an empty folder to stand in."""
    monkeypatch.setattr(config, "user_config_path", lambda name: tmp_path / "home" / name)
    monkeypatch.delenv("GENREC_WORKSPACE", raising=False)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")


def genrec(*args: str) -> Result:
    return CliRunner().invoke(main, args)


def test_a_workspace_in_this_folder() -> None:
    made = genrec("init", "--country", "US", "--time-zone", "America/New_York")
    assert made.exit_code == 0, made.stderr
    assert made.stdout.splitlines()[0] == "Wrote genrec.toml."
    shown = {row["key"]: row for row in json.loads(genrec("config", "--json").stdout)}
    assert (shown["country"]["value"], shown["country"]["origin"]) == ("US", "genrec.toml")
    assert (shown["k"]["value"], shown["k"]["origin"]) == (10, "default")
    assert shown["k"]["help"] == "How many items to recommend."


def test_a_second_init_changes_nothing() -> None:
    assert genrec("init", "shop", "--prompt", "grocery").exit_code == 0
    again = genrec("init", "shop")
    assert again.exit_code == 3
    assert again.stderr.splitlines() == [
        "error: shop already is a workspace, or something else is in the way of shop/genrec.toml",
        "hint: See its settings with: genrec config --workspace shop",
    ]
    assert 'prompt = "grocery"' in Path("shop/genrec.toml").read_text()


def test_init_refuses_a_wrong_value() -> None:
    refused = genrec("init", "--time-zone", "Mars/Olympus")
    assert refused.exit_code == 3
    assert "there is no time zone 'Mars/Olympus'" in refused.stderr
    assert not Path("genrec.toml").exists()


def test_the_place_of_a_new_workspace_as_json() -> None:
    made = json.loads(genrec("init", "shop", "--json").stdout)
    assert Path(made["workspace"]) == Path("shop").resolve()


def test_a_workspace_is_named_by_option_or_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    genrec("init", "shop", "--prompt", "grocery")
    assert "grocery" in genrec("config", "--workspace", "shop").stdout
    monkeypatch.setenv("GENREC_WORKSPACE", "shop")
    table = genrec("config").stdout.splitlines()
    assert table[0].split() == ["setting", "value", "comes", "from"]
    assert any(line.split() == ["prompt", "grocery", "shop/genrec.toml"] for line in table)
    assert any(line.split() == ["rerank", "-", "default"] for line in table)


def test_elsewhere_is_no_workspace() -> None:
    shown = genrec("config")
    assert shown.exit_code == 3
    assert "this folder is not a genrec workspace: it holds no genrec.toml" in shown.stderr
    assert "genrec init" in shown.stderr


def test_a_password_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    genrec("init")
    monkeypatch.setenv("GENREC_STORE", "postgresql://ann:secret@db/shop")
    for args in (["config"], ["config", "--json"]):
        shown = genrec(*args).stdout
        assert "postgresql://ann:***@db/shop" in shown
        assert "secret" not in shown
