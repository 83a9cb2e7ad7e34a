"""What it takes to make a large catalogue ready."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np

from genrec.bench.report import Row, Say
from genrec.catalog import BAR, SEPARATOR, Catalog
from genrec.events import Item
from genrec.tokenizer import Tokenizer
from genrec.trie import Trie, build

_WORDS = (
    "amber anchor apple arrow ash autumn baker basin beacon birch blue bridge bronze canyon cedar chalk cinder clay "
    "cloud copper coral cotton crane crown dawn delta drift dune eagle east echo elm ember falcon fern field fjord "
    "flint forest fox garden glass gold grain granite green grove harbor hawk hazel heron hill honey iron ivory jade"
).split()


def catalogue(tokenizer: Tokenizer, folder: Path, *, n_items: int, say: Say) -> Row:
    """Time what it takes to make a catalogue of generated titles: texts, token ids, trie, writing and mapping it."""
    rng = np.random.default_rng(0)
    words = np.array(_WORDS)
    titles = [
        " ".join(words[rng.integers(0, len(words), 4)]) + f" ({year})" for year in rng.integers(1950, 2026, n_items)
    ]
    items = [Item(item_id=str(number), title=title) for number, title in enumerate(titles)]
    started_s = time.perf_counter()
    catalog = Catalog.of(items)
    texts_s = time.perf_counter() - started_s
    ids = tokenizer.encode([f" {text}" for text in catalog.texts], after=BAR)
    tokens_s = time.perf_counter() - started_s - texts_s
    [separator] = tokenizer.encode([SEPARATOR], after="x")
    indptr = np.cumsum([0, *(len(one) + len(separator) for one in ids)])
    flat = np.array([token for one in ids for token in (*one, *separator)])
    started_s = time.perf_counter()
    trie = build(indptr, flat)
    build_s = time.perf_counter() - started_s
    trie.save(folder)
    started_s = time.perf_counter()
    loaded = Trie.load(folder)
    row: Row = {
        "name": f"catalogue of {n_items:,} items",
        "n_items": n_items,
        "n_nodes": loaded.n_nodes,
        "texts_s": texts_s,
        "tokens_s": tokens_s,
        "trie_s": build_s,
        "load_s": time.perf_counter() - started_s,
        "megabytes": sum(file.stat().st_size for file in folder.iterdir()) / 1e6,
    }
    say(
        f"{row['name']}: texts {texts_s:.2f} s, tokens {tokens_s:.2f} s, trie {build_s:.2f} s "
        f"({row['n_nodes']:,} nodes, {row['megabytes']:.0f} MB), mapped again in {row['load_s'] * 1e3:.1f} ms"
    )
    return row
