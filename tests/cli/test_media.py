"""`genrec media`, from genrec.toml to what the priors know."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from genrec.cli import main
from genrec.config import create_workspace
from genrec.errors import ConfigError
from genrec.events import Item, batch
from genrec.store import Store
from genrec.workspace import open_workspace
from tests.support.cli import genrec


def shop(folder: Path, **media: dict[str, object]) -> Path:
    """A workspace with three items, of which two name a text that is there."""
    create_workspace(folder, {"engine": "none", "media": media})
    (folder / "texts").mkdir()
    (folder / "texts" / "1.txt").write_text("Oat drink.\x1b[31m For coffee")
    (folder / "texts" / "2.txt").write_text("Rye bread")
    items = [Item(item_id=f"i{n}", title=f"Item {n}", attributes={"text": f"{n}.txt"}) for n in (1, 2, 3)]
    with Store.open(folder / "genrec.db") as store:
        store.put("items", [batch("items", items)])
    return folder


def media(workspace: Path, *arguments: str) -> Result:
    return CliRunner().invoke(main, ["media", "-w", str(workspace), *arguments])


def test_it_says_what_was_read_and_what_was_not(tmp_path: Path) -> None:
    workspace = shop(tmp_path / "shop", text={"folder": "texts"})
    result = media(workspace)
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines() == [
        "text: 2 read, 0 unchanged, 1 missing, 0 failed",
        "  i1: Oat drink. [31m For coffee",
        "  i2: Rye bread",
    ]
    assert result.stderr == "  item i3: 3.txt is not there\n"
    assert json.loads(genrec("media", "--json", workspace=workspace)) == {
        "text": {
            "n_read": 0,
            "n_unchanged": 2,
            "n_missing": 1,
            "n_failed": 0,
            "reasons": ["item i3: 3.txt is not there"],
            "examples": {},
            "unusable": "",
        }
    }
    with open_workspace(workspace) as opened:
        assert opened.catalog.descriptions() == ["Item 1 Oat drink. [31m For coffee", "Item 2 Rye bread", "Item 3"]
        assert opened.catalog.texts == ["Item 1", "Item 2", "Item 3"]
    settings = workspace / "genrec.toml"
    text = settings.read_text()
    settings.write_text(text.partition("[media.text]")[0])
    with open_workspace(workspace) as opened:
        assert opened.catalog.descriptions() == ["Item 1", "Item 2", "Item 3"], (
            "a reader that is not named says nothing"
        )
    settings.write_text(text)
    with open_workspace(workspace) as opened:
        assert opened.catalog.descriptions()[1] == "Item 2 Rye bread", "and nothing is lost"


def test_a_reader_that_is_not_there_stops_no_other(tmp_path: Path) -> None:
    workspace = shop(
        tmp_path / "shop",
        absent={"folder": "x"},
        sounds={"folder": "x", "model": "no/model-of-this-name", "attribute": "text"},
        text={"folder": "texts"},
    )
    result = media(workspace)
    assert result.exit_code == 0, result.output
    assert "text: 2 read" in result.stdout
    assert "cannot be used: no media 'absent'." in result.stderr
    assert "cannot be used: the model no/model-of-this-name is not on this machine yet" in result.stderr


def test_without_a_reader_it_says_how_to_name_one(tmp_path: Path) -> None:
    result = media(shop(tmp_path / "shop"))
    assert result.exit_code == ConfigError.exit_code
    assert "no reader of media is named" in result.stderr
    assert "[media.ocr]" in result.stderr


@pytest.mark.parametrize(("options", "says"), [({"folder": "x", "atribute": "y"}, "'attribute'"), ({}, "no reader")])
def test_a_wrong_option_is_an_error(tmp_path: Path, options: dict[str, object], says: str) -> None:
    result = media(shop(tmp_path / "shop", text=options))
    assert result.exit_code == ConfigError.exit_code
    assert says in result.stderr
