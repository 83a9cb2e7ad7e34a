"""The README is true: its Python runs, its tree is the tree, its commands exist."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from genrec.cli import main

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which `genrec demo` has been, without a model."""
    folder = tmp_path_factory.mktemp("readme")
    result = CliRunner().invoke(main, ["demo", "--workspace", str(folder / "genrec-demo"), "--engine", "none"])
    assert result.exit_code == 0, result.output
    return folder


def test_the_python_runs(demo: Path) -> None:
    [code] = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    done = subprocess.run([sys.executable, "-c", code], cwd=demo, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    lines = [line.split(" ", 1) for line in done.stdout.splitlines()]
    assert [rank for rank, _ in lines] == ["1", "2", "3", "4", "5"]
    assert re.fullmatch(r"[\w ,/&()-]+ -\d+\.\d+", lines[0][1])


def test_the_tree_names_every_module_and_nothing_else() -> None:
    tree = TEXT.split("```\ngenrec/")[1].split("```")[0].split("\nplugins/")[0]
    named = {name.rstrip("/") for name in re.findall(r"(?:^  |  )([a-z_]+(?:\.py|/))(?=\s)", tree, re.MULTILINE)}
    there = {
        path.name
        for path in (ROOT / "genrec").iterdir()
        if (path / "__init__.py").exists() or (path.suffix == ".py" and not path.name.startswith("_"))
    }
    assert named == there


def test_every_command_line_parses(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = re.findall(r"^\$ (genrec .*?)(?:\s{2,}#.*)?$", TEXT.replace(" && cd shop", ""), re.MULTILINE)
    assert len(lines) >= 6
    for line in lines:
        _, *arguments = shlex.split(line)
        command: click.Command = main
        context = click.Context(main)
        while isinstance(command, click.Group):
            found = command.get_command(context, arguments.pop(0))
            assert found is not None, line
            command = found
        # Parsing checks options and their types; existing files are the reader's own.
        command.make_parser(context).parse_args(list(arguments))


def test_links_lead_somewhere() -> None:
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "benchmarks" / "README.md"]:
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name}: {target}"
