"""Measuring this machine: what a recommendation costs beside reading its prompt, and whether it is exact.

Times are ratios within one run, on a workspace's own people and prompts. Peers and brute force are written from the
model's plain interface, on purpose without the project's tree or search code. Each measurement is a plain row of
figures; `report` adds what is needed to judge and repeat them.
"""

from __future__ import annotations

from genrec.bench.catalogue import Big, big_catalogue, catalogue
from genrec.bench.decode import PARTS, decode
from genrec.bench.exact import brute_force, exact
from genrec.bench.people import Plan, queries
from genrec.bench.report import Book, Row, Say, report

__all__ = [
    "PARTS",
    "Big",
    "Book",
    "Plan",
    "Row",
    "Say",
    "big_catalogue",
    "brute_force",
    "catalogue",
    "decode",
    "exact",
    "queries",
    "report",
]
