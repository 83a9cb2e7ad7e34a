"""What a threshold of grounding keeps and what it lets through, on titles of your own.

Half of the titles are the catalogue. A title of it, worded differently, should be taken for its item; a title of the
other half, which the catalogue does not have, should be lost. Both halves are of one shop, so this is hard.

    python benchmarks/grounding.py items.parquet   # any Parquet file with a column `title`, or `texts`
"""

from __future__ import annotations

import random
import re
import sys

import numpy as np
import pyarrow.parquet as pq

from genrec.catalog import Catalog
from genrec.events import Item
from genrec.ground import Grounder, normalise
from genrec.models import model_folder
from genrec.vectors import Embedder, TextVectors

THRESHOLDS = (0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)


def typo(title: str, draw: random.Random) -> str:
    """Two neighbouring letters of one longer word change places, or one goes, or one comes twice."""
    at = draw.choice([m.start() + 1 for m in re.finditer(r"[A-Za-z]{4,}", title)] or [0])
    at += draw.randrange(2)
    kind = draw.randrange(3)
    if kind == 0:
        return title[:at] + title[at + 1 : at + 2] + title[at : at + 1] + title[at + 2 :]
    return title[:at] + title[at + 1 :] if kind == 1 else title[:at] + title[at : at + 1] + title[at:]


def shorter(title: str, draw: random.Random) -> str:
    """One word goes, where there are several."""
    words = title.split()
    if len(words) > 1:
        words.pop(draw.randrange(len(words)))
    return " ".join(words)


def plural(title: str, draw: random.Random) -> str:
    """The last word in the plural, or out of it."""
    return title[:-1] if title.endswith("s") else f"{title}s"


def article(title: str, draw: random.Random) -> str:
    """With an article, or without."""
    return title[4:] if title.casefold().startswith("the ") else f"the {title}"


def swapped(title: str, draw: random.Random) -> str:
    """The first word comes last."""
    first, _, rest = title.partition(" ")
    return f"{rest} {first}".strip()


def measure(titles: list[str], embedder: Embedder) -> None:
    """Print one table: rows are ways of wording, columns thresholds."""
    draw = random.Random(1)
    titles = sorted({normalise(title): title for title in titles}.values())
    draw.shuffle(titles)
    half = len(titles) // 2
    catalog = Catalog.of(Item(item_id=str(n), title=title) for n, title in enumerate(titles[:half]))
    vectors = TextVectors.of(catalog.texts, embedder)
    grounder = Grounder(catalog)
    print(f"{half} titles in the catalogue, {len(titles) - half} not")
    print(f"{'':<10}{'exact':>7}" + "".join(f"{t:>14}" for t in THRESHOLDS))
    for change in (typo, shorter, plural, article, swapped):
        written = [change(title, draw) for title in titles[:half]]
        report(change.__name__, written, grounder, vectors, list(range(half)))
    report("absent", titles[half:], grounder, vectors, None)


def report(name: str, written: list[str], grounder: Grounder, vectors: TextVectors, truth: list[int] | None) -> None:
    """One row: of the titles that are no exact match, how many are taken for the right item and for a wrong one."""
    exact = np.array([bool(len(grounder.ground([title], k=1).rows)) for title in written])
    rows, cosines = vectors.nearest(written)
    right = rows[:, 0] == truth if truth is not None else np.zeros(len(written), bool)
    rest = ~exact
    cells = []
    for threshold in THRESHOLDS:
        taken = (cosines[:, 0] >= threshold)[rest]
        cells.append(f"{(taken & right[rest]).mean():>8.1%}{(taken & ~right[rest]).mean():>6.1%}")
    print(f"{name:<10}{exact.mean():>7.1%}" + "".join(cells))


if __name__ == "__main__":
    model = Embedder(model_folder("minilm-l6-v2"))
    for file in sys.argv[1:]:
        print(file)
        measure([str(title) for title in pq.read_table(file, columns=["title"])["title"].to_pylist()], model)
