"""What commands share: the workspace option, JSON output, tables and a progress bar that knows when to be silent."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

workspace_option = click.option(
    "-w",
    "--workspace",
    type=click.Path(file_okay=False, path_type=Path),
    envvar="GENREC_WORKSPACE",
    default=".",
    show_default="this folder",
    help="The workspace, a folder with a genrec.toml.",
)
"""Gives a command the parameter ``workspace: Path``."""


class NameValue(click.ParamType[tuple[str, str]]):
    """A name and a value with an equals sign between them.

    Args:
        example: How to write it.
    """

    name = "NAME=VALUE"

    def __init__(self, example: str) -> None:
        self.example = example

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, str]:
        """What stands before and behind the first equals sign."""
        name, is_there, wanted = str(value).partition("=")
        if not is_there:
            self.fail(f"{value!r} has no value; write it like {self.example}", param, ctx)
        return name.strip(), wanted.strip()


json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON for other programs.")
"""Gives a command the parameter ``as_json: bool``."""

Advance = Callable[[int], None]
"""Says how many more units are done."""


def print_json(value: Any) -> None:
    """Print a value as JSON on standard output; what JSON cannot say (paths, instants) is written as text."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False, default=str))


def plain(text: str) -> str:
    """Text from data as a terminal may show it: on its line, without what moves cursors or turns reading around."""
    return "".join(c if c.isprintable() or c == "\u200d" else " " for c in text)  # the joiner holds emoji together


def peak_memory_mib() -> int | None:
    """The most memory that this process ever held, in MiB; None where the system does not say."""
    try:
        import resource
    except ModuleNotFoundError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (2**20 if sys.platform == "darwin" else 2**10))


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows with the same keys as aligned columns, numbers to the right.

    Args:
        rows: At least the keys of the first row in each.
    """
    if not rows:
        return ""
    cells = [[_cell(row[key]) for key in rows[0]] for row in rows]
    right = [all(isinstance(row[key], (int, float)) for row in rows) for key in rows[0]]
    widths = [max(len(line[i]) for line in [list(rows[0]), *cells]) for i in range(len(rows[0]))]
    lines = [
        "  ".join(c.rjust(w) if r else c.ljust(w) for c, w, r in zip(line, widths, right, strict=True)).rstrip()
        for line in [list(rows[0]), *cells]
    ]
    return "\n".join(lines)


def _cell(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "-"}[value]
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}" if isinstance(value, float) else plain(str(value))


@contextmanager
def progress(label: str, n_total: int | None = None) -> Iterator[Advance]:
    """Show progress on standard error while the block runs; nothing where standard error is not a terminal.

    Args:
        label: What is being done, e.g. ``importing events``.
        n_total: How many units there are, if known.

    Yields:
        A function that takes how many more units are done.
    """
    if not sys.stderr.isatty():
        yield lambda n: None
        return
    n_done, drawn_at_s = 0, 0.0

    def advance(n: int) -> None:
        nonlocal n_done, drawn_at_s
        n_done += n
        if time.monotonic() - drawn_at_s >= 0.1:
            drawn_at_s = time.monotonic()
            _draw(label, n_done, n_total)

    try:
        _draw(label, 0, n_total)
        yield advance
    finally:
        click.echo("\r\x1b[K", nl=False, err=True)


def _draw(label: str, n_done: int, n_total: int | None) -> None:
    state = f"{n_done:,}" if n_done else "…"
    if n_total:
        share = min(n_done / n_total, 1.0)
        state = f"[{'#' * int(30 * share):<30}] {share:4.0%}"
    click.echo(f"\r\x1b[K{label} {state}", nl=False, err=True)
