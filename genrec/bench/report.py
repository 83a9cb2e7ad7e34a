"""A measurement with all that is needed to judge and repeat it."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

Row = dict[str, Any]
"""One measurement: figures by name."""
Say = Callable[[str], None]
"""Is told each outcome as it comes, for people."""


def report(stage: str, dataset: str, rows: Sequence[Row], started_s: float) -> Row:
    """Rows with all that is needed to judge and repeat them."""
    return {
        "dataset": dataset,
        "stage": stage,
        "rows": list(rows),
        "command": " ".join(["genrec", *sys.argv[1:]]),
        "commit": _commit(),
        "machine": _machine(),
        "wall_s": round(time.perf_counter() - started_s, 1),
    }


def _commit() -> str | None:
    with suppress(OSError, subprocess.CalledProcessError):
        here = Path(__file__).parent
        found = subprocess.run(["git", "rev-parse", "HEAD"], cwd=here, capture_output=True, text=True, check=True)
        return found.stdout.strip()
    return None


def _machine() -> str:
    cpu = platform.processor() or platform.machine()
    with suppress(OSError):
        models: Iterable[str] = Path("/proc/cpuinfo").read_text().splitlines()
        cpu = next((line.split(":")[1].strip() for line in models if line.startswith("model name")), cpu)
    memory_gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{cpu}, {os.cpu_count()} cores, {memory_gib:.0f} GiB, Python {platform.python_version()}"
