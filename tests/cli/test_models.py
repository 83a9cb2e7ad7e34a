"""`genrec models` lists and fetches."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from genrec.cli import main


def test_an_alias_that_is_not_fetched_yet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GENREC_CACHE", str(tmp_path))
    row, embedding = json.loads(CliRunner().invoke(main, ["models", "list", "--json"]).stdout)
    assert row == {
        "name": "smollm2-135m",
        "model": "SmolLM2-135M-Instruct",
        "kind": "language",
        "licence": "Apache-2.0",
        "download_MB": 93,
        "folder": None,
    }
    assert (embedding["name"], embedding["kind"]) == ("minilm-l6-v2", "embedding")
    (tmp_path / "models" / "smollm2-135m").mkdir(parents=True)
    listed = CliRunner().invoke(main, ["models", "list"]).stdout
    assert str(tmp_path / "models" / "smollm2-135m") in listed


def test_get_takes_a_folder_and_says_where_it_is(tiny_model: Path) -> None:
    got = CliRunner().invoke(main, ["models", "get", str(tiny_model), "--json"])
    assert json.loads(got.stdout) == {"name": str(tiny_model), "folder": str(tiny_model)}


def test_get_of_nothing_is_an_error_with_a_way_out() -> None:
    got = CliRunner().invoke(main, ["models", "get", "smolm2-135m"])
    assert got.exit_code == 8
    assert "Did you mean 'smollm2-135m'?" in got.stderr
    assert "hint: See the aliases with: genrec models list" in got.stderr
