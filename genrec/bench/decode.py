"""The parts of `genrec bench decode`: each can be run alone, and each has a file of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from genrec.bench.append import append
from genrec.bench.cpu import cpu
from genrec.bench.ours import ours
from genrec.bench.peers import peers
from genrec.bench.people import Plan, opened
from genrec.bench.report import Book, Row, Say, save
from genrec.bench.served import server
from genrec.bench.sizes import catalogue

PARTS: Mapping[str, Callable[[Plan, Book], None]] = {
    "ours": ours,
    "server": server,
    "peers": peers,
    "append": append,
    "catalogue": catalogue,
    "cpu": cpu,
}
"""What can be measured, in the order in which it is."""


def decode(plan: Plan, parts: Sequence[str], *, folder: Path | None, say: Say) -> list[Row]:
    """Measure parts, one after the other.

    Args:
        plan: What to measure with.
        parts: Names of `PARTS`.
        folder: Keeps a JSON file for each part, which a run that was cut off goes on with.
        say: Is told each outcome as it comes.

    Returns:
        The parts' reports.

    Raises:
        ConfigError: If the workspace has too few people.
    """
    with opened(plan) as (workspace, _):
        dataset, model = workspace.folder.resolve().name, workspace.settings.model
    settings = {name: value for name, value in asdict(plan).items() if name not in ("workspace", "engines")}
    reports = []
    for name in parts:
        file = folder / f"{name}.json" if folder else None
        data = "generated titles" if name == "catalogue" else dataset
        book = Book(file, stage=name, dataset=data, settings={**settings, "model": model}, say=say)
        with book.attempt(name):
            PARTS[name](plan, book)
        reports.append(book.report())
        if file:
            save(reports[-1], file)
    return reports
