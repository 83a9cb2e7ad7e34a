"""What docs/media.md shows is so: pictures change what is recommended, and the reader shown is one."""

from __future__ import annotations

import json
import re
import shlex
import tomllib
from dataclasses import fields
from pathlib import Path
from types import ModuleType

import pytest
from click.testing import CliRunner

from genrec.cli import main
from genrec.errors import DataError
from genrec.media.reading import MAX_BYTES, MAX_CHARS
from genrec.plugins import Registry
from genrec.store import Store
from tests.support.ocr import needs_ocr

PAGE = (Path(__file__).parents[1] / "docs/media.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


@needs_ocr
def test_the_example_leads_from_files_to_another_recommendation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    exec(compile(blocks("python")[0], "docs/media.md", "exec", dont_inherit=True), {})
    Path("genrec.toml").write_text(blocks("toml")[0], encoding="utf-8")
    [console] = blocks("console")
    said = []
    for line in console.splitlines():
        _, genrec, *arguments = shlex.split(line)
        assert genrec == "genrec"
        result = CliRunner().invoke(main, [*arguments, *(["--json"] if "recommend" in arguments else [])])
        assert result.exit_code == 0, result.output
        said.append(result.stdout)
    _, first, media, second = said
    assert f"```\n{media}```" in PAGE
    assert [best(first), best(second)] == ["13", "12"]
    assert "The first answer is item 13" in PAGE
    assert "The second is item 12" in PAGE
    with Store.open("genrec.db") as store:
        words = {one.item_id: one.words.upper() for one in store.media()}
    assert {"ORGANIC", "OAT", "MILK"} <= set(words["11"].split())
    assert {"OAT", "MILK"} <= set(words["12"].split())


def best(answer: str) -> str:
    return str(json.loads(answer)["items"][0]["item_id"])


def test_the_reader_shown_is_a_plugin() -> None:
    plugin = ModuleType("genrec_tracker")
    exec(compile(blocks("python")[1], "docs/media.md", "exec", dont_inherit=True), vars(plugin))
    reader = Registry({"genrec-tracker 1.0:tracker": plugin}).build("media", "tracker", {"folder": "songs"})
    song = b"axel f".ljust(1080, b"\0") + b"M.K." + bytes(1000)
    assert reader.read(song).words.strip("\0") == "axel f"
    with pytest.raises(DataError, match="is no module"):
        reader.read(b"ID3")


def test_the_settings_shown_are_settings() -> None:
    shown = [tomllib.loads(block)["media"] for block in blocks("toml")]
    assert len(shown) == 3
    for readers in shown:
        for name, options in readers.items():
            Registry().build("media", name, options)


def test_every_reader_of_ours_is_in_the_table_and_the_limits_are_those() -> None:
    registry = Registry()
    names = list(registry.names("media"))
    assert sorted(re.findall(r"^\| `(\w+)` \|", PAGE, re.MULTILINE)) == sorted(names)
    for name in names:
        assert {"folder", "attribute"} <= {field.name for field in fields(registry.get("media", name))}
    assert f"{MAX_BYTES >> 20} MiB" in PAGE
    assert f"at most {MAX_CHARS} characters" in PAGE
