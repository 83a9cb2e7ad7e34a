"""A wheel built from the tree works where there is no tree."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from importlib.metadata import distribution, entry_points
from pathlib import Path

import pytest

from genrec import __version__

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True, text=True)
    [built] = out.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def elsewhere(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment that holds the wheel and its dependencies, but nothing of the checkout and no plugin."""
    folder = tmp_path_factory.mktemp("elsewhere")
    venv.create(folder / "env", with_pip=False, symlinks=True)
    site = next((folder / "env").glob("lib/python*/site-packages"))
    pip = [sys.executable, "-m", "pip", "--python", str(folder / "env/bin/python"), "--disable-pip-version-check"]
    subprocess.run([*pip, "install", "--quiet", "--no-deps", "--no-index", str(wheel)], check=True)
    # The dependencies come from this environment, entry by entry, so that its own genrec stays out.
    for place in {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}:
        for entry in Path(place).iterdir():
            ours = entry.name.lower().lstrip("_").startswith("genrec") or entry.suffix == ".pth"
            if not ours and not (site / entry.name).exists():
                (site / entry.name).symlink_to(entry)
    return folder


def genrec(elsewhere: Path, *args: str) -> str:
    env = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "GENREC"))}
    run = subprocess.run(
        [str(elsewhere / "env/bin/genrec"), *args],
        capture_output=True,
        text=True,
        cwd=elsewhere,
        env=env,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    return run.stdout


def test_the_wheel_holds_code_prompts_and_migrations_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    assert {name.split("/")[0] for name in names} == {"genrec", f"genrec-{__version__}.dist-info"}
    on_disk = {str(p.relative_to(ROOT)) for p in (ROOT / "genrec").rglob("*") if p.suffix in {".py", ".typed"}}
    assert on_disk <= names
    templates = {f"genrec/{p.relative_to(ROOT)}" for p in (ROOT / "prompts").rglob("*.j2")}
    assert templates
    assert templates <= names
    assert any("migrations" in name for name in names)
    assert f"genrec-{__version__}.dist-info/licenses/LICENSE" in names


def test_the_source_archive_holds_what_readme_and_make_speak_of(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "build", "--sdist", "--no-isolation", "--outdir", str(tmp_path), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True, text=True)
    with tarfile.open(next(tmp_path.glob("*.tar.gz"))) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    linked = set(re.findall(r"\]\((?!https?:)([^)#]+)", (ROOT / "README.md").read_text()))
    assert linked
    assert linked <= names
    assert {"Makefile", ".ci/run", "plugins/genrec-completejourney/pyproject.toml", "tests/conftest.py"} <= names


def test_the_wheel_runs_away_from_the_checkout(elsewhere: Path) -> None:
    where = subprocess.run(
        [str(elsewhere / "env/bin/python"), "-c", "import genrec; print(genrec.__file__)"],
        capture_output=True,
        text=True,
        cwd=elsewhere,
        check=True,
    )
    assert where.stdout.startswith(str(elsewhere))
    assert "Start with `genrec demo`" in genrec(elsewhere, "--help")
    assert f"genrec {__version__}" in genrec(elsewhere, "plugins", "list")


def test_the_wheel_lists_and_renders_its_prompts(elsewhere: Path) -> None:
    listed = genrec(elsewhere, "prompts", "list")
    assert "next-item" in listed
    assert "grocery" in listed
    assert genrec(elsewhere, "prompts", "render", "next-item").strip()


def test_the_wheel_makes_a_workspace_with_a_store(elsewhere: Path) -> None:
    genrec(elsewhere, "init", "shop")
    (elsewhere / "events.csv").write_text(
        "user_id,item_id,at\nann,milk,2026-03-01T08:00:00Z\nann,rye,2026-03-02T08:00:00Z\n"
    )
    genrec(elsewhere, "import", "file", "events.csv", "--workspace", "shop")
    assert '"n_events": 2' in genrec(elsewhere, "describe", "--workspace", "shop", "--json")


def test_core_is_declared_as_scripts_and_plugins_expect() -> None:
    assert {e.name: e.value for e in entry_points(group="genrec")}["core"] == "genrec.defaults"
    scripts = [e for e in distribution("genrec").entry_points if e.group == "console_scripts"]
    assert [(e.name, e.value) for e in scripts] == [("genrec", "genrec.cli:main")]
