"""The plugin that plugins/README.md shows is built, installed, tested and used as it says."""

from __future__ import annotations

import os
import re
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

README = Path(__file__).parents[1] / "plugins" / "README.md"
FILE = re.compile(r"^\*\*`([^`]+)`\*\*.*?\n\n```\w+\n(.*?)^```", re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the README's files in it and, under `site`, the distribution installed from them."""
    folder = tmp_path_factory.mktemp("plugins")
    files = dict(FILE.findall(README.read_text(encoding="utf-8")))
    assert len(files) == 3
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    pip = [
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "--no-index",
        "--disable-pip-version-check",
    ]
    run(folder, *pip, "--target", str(folder / "site"), str(folder / "genrec-tunes"))
    return folder


def run(folder: Path, *module: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(folder / "site"), "GENREC_PLUGINS": "tunes"}
    done = subprocess.run(
        [sys.executable, "-m", *module], cwd=folder, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_it_keeps_the_contract(shelf: Path) -> None:
    said = run(shelf, "pytest", "-q", "-p", "no:cacheprovider", "genrec-tunes")
    assert re.search(r"\d{2} passed", said)


def test_it_brings_data_in(shelf: Path) -> None:
    with sqlite3.connect(shelf / "tunes.db") as log:
        log.execute("CREATE TABLE tracks (id INTEGER, title TEXT, artist TEXT)")
        log.execute("CREATE TABLE plays (user TEXT, track INTEGER, at INTEGER)")
        log.execute("INSERT INTO tracks VALUES (1, 'Blue in Green', 'Davis')")
        log.executemany("INSERT INTO plays VALUES ('ann', 1, ?)", [(1704110400 + 60 * i,) for i in range(3)])
    log.close()
    (shelf / "genrec.toml").write_text("")
    said = run(shelf, "genrec", "import", "tunes", "--option", "path=tunes.db")
    assert "items: 1 row" in said
    assert "3 new, 0 known before, 0 corrected; source 'tunes:tunes.db'" in said
    assert "tunes" in run(shelf, "genrec", "plugins", "list")


def test_every_folder_is_listed() -> None:
    text = README.read_text(encoding="utf-8")
    for folder in README.parent.iterdir():
        if (folder / "pyproject.toml").is_file():
            assert f"[`{folder.name}`]({folder.name})" in text
