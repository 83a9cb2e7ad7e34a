"""What a large catalogue costs: to make, to keep, to open, to change while it serves, to filter."""

from __future__ import annotations

import resource
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow as pa

from genrec import catalog as sizes
from genrec.assortment import add_items
from genrec.bench.report import Row, Say
from genrec.catalog import Catalog, EncodedCatalog
from genrec.decoding.scoring import Scoring
from genrec.decoding.search import search
from genrec.events import SCHEMAS, Context, Item
from genrec.filters import Filters
from genrec.history import History
from genrec.priors.popularity import Popularity
from genrec.recommendation import Query
from genrec.recommender import Recommender, _best
from genrec.store import Store
from genrec.tokenizer import Tokenizer
from genrec.trie import Trie, build

_WORDS = (
    "amber anchor apple arrow ash autumn baker basin beacon birch blue bridge bronze canyon cedar chalk cinder clay "
    "cloud copper coral cotton crane crown dawn delta drift dune eagle east echo elm ember falcon fern field fjord "
    "flint forest fox garden glass gold grain granite green grove harbor hawk hazel heron hill honey iron ivory jade"
).split()
_N_ADDED, _N_ASKED, _N_SEEN = 50, 11, 300
_CHUNK = 50_000


@dataclass(frozen=True, kw_only=True)
class Big:
    """A large catalogue that is ready to be searched, and the store that it lies in."""

    store: Store
    catalog: Catalog
    encoded: EncodedCatalog
    n_real: int
    """How many of the titles were given; the others are made up."""
    seconds: dict[str, float]
    """What each step took."""


@contextmanager
def big_catalogue(tokenizer: Tokenizer, folder: Path, *, n_items: int, titles: Sequence[str] = ()) -> Iterator[Big]:
    """Make a catalogue in a store in `folder`, as an import and a first start do, and close the store at the end.

    Every item has a category of 200, a tenant of 20, a place on earth, and nine in ten are available. At a million
    items this takes minutes, 1 GB of disk and 3 GB of memory.

    Args:
        tokenizer: Of the model that is to search it.
        folder: Empty.
        n_items: How many items.
        titles: Real titles, which come first; the rest is made up of four words and a year.
    """
    seconds: dict[str, float] = {}
    real = list(islice(dict.fromkeys(titles), n_items))
    with Store.open(folder / "genrec.db") as store:
        with _timed(seconds, "put_s"):
            store.put("items", _items(n_items, real))
        with _timed(seconds, "texts_s"):
            catalog = Catalog.read(store.items(), {})
        with _timed(seconds, "save_texts_s"):
            store.save_texts(catalog.new_texts)
        del catalog
        with _timed(seconds, "catalog_s"):
            catalog = Catalog.read(store.items(), store.texts(), retired=store.retired())
        with _timed(seconds, "fingerprint_s"):
            _ = catalog.fingerprint
        with _timed(seconds, "encode_s"):
            catalog.encode(tokenizer, cache=folder / "catalogs")
        with _timed(seconds, "encode_again_s"):
            encoded = catalog.encode(tokenizer, cache=folder / "catalogs")
        yield Big(store=store, catalog=catalog, encoded=encoded, n_real=len(real), seconds=seconds)
        encoded.settle()


def catalogue(tokenizer: Tokenizer, folder: Path, *, n_items: int, titles: Sequence[str] = (), say: Say) -> Row:
    """Time a large catalogue: making it, opening it, filters, one item more; the arguments are `big_catalogue`'s."""
    with big_catalogue(tokenizer, folder, n_items=n_items, titles=titles) as big:
        row: Row = {
            "name": f"catalogue of {n_items:,} items",
            "n_items": n_items,
            "n_real_titles": big.n_real,
            "n_made_up_titles": n_items - big.n_real,
            "n_nodes": big.encoded.trie.n_nodes,
            **big.seconds,
        }
        say(
            f"{row['name']}, {big.n_real:,} of the titles real: stored in {row['put_s']:.1f} s, texts given in "
            f"{row['texts_s']:.1f} s and saved in {row['save_texts_s']:.1f} s, opened in {row['catalog_s']:.1f} s, "
            f"encoded in {row['encode_s']:.1f} s, again from the cache in {row['encode_again_s']:.2f} s"
        )
        row |= _trie(big, folder / "trie")
        say(
            f"trie of {row['n_nodes']:,} nodes: built in {row['trie_s']:.2f} s, {row['megabytes']:.0f} MB, "
            f"mapped in {row['load_s'] * 1e3:.1f} ms"
        )
        row |= _queries(big)
        say(
            "each recommendation, whatever the model: "
            + ", ".join(f"{name[:-2]} {row[name] * 1e3:.1f} ms" for name in ("prior_s", "below_s", "search_setup_s"))
            + f"; by the prior alone {row['recommend_s'] * 1e3:.1f} ms, with every filter "
            f"{row['recommend_filtered_s'] * 1e3:.1f} ms"
        )
        say("filters: " + ", ".join(f"{name} {s * 1e3:.2f} ms" for name, s in row["filters_s"].items()))
        row |= _growth(big)
        row["max_rss_gb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
        say(
            f"one item more, on the disk and to be found: {row['add_s'] * 1e3:.1f} ms (at most "
            f"{row['add_max_s'] * 1e3:.1f}, with all that wait {row['add_last_s'] * 1e3:.1f}); "
            f"{sizes.MERGE_AT:,} merged in {row['merge_s']:.1f} s, in which a reader waited "
            f"{row['merge_stall_s'] * 1e3:.0f} ms at most; {row['max_rss_gb']:.1f} GB of memory at most"
        )
        return row


def _items(n_items: int, real: Sequence[str]) -> Iterator[pa.RecordBatch]:
    rng = np.random.default_rng(0)
    words = np.array(_WORDS)
    for start in range(0, n_items, _CHUNK):
        n = min(_CHUNK, n_items - start)
        years = rng.integers(1950, 2026, n).tolist()
        made_up = [" ".join(four) for four in words[rng.integers(0, len(words), (n, 4))].tolist()]
        titles = list(real[start : start + n])
        titles += [
            f"{title} ({year})" for title, year in zip(made_up[len(titles) :], years[len(titles) :], strict=True)
        ]
        tenants, are_available = rng.integers(20, size=n).tolist(), (rng.random(n) < 0.9).tolist()
        norths, easts = np.degrees(np.arcsin(rng.uniform(-1, 1, n))).tolist(), rng.uniform(-180, 180, n).tolist()
        categories = rng.integers(200, size=n).tolist()
        yield pa.RecordBatch.from_pydict(
            {
                "item_id": [str(start + i) for i in range(n)],
                "title": titles,
                "category": [f"category {number}" for number in categories],
                "attributes": [
                    f'{{"available":"{"yes" if is_available else "no"}","latitude":"{north:.5f}",'
                    f'"longitude":"{east:.5f}","tenant":"{tenant}"}}'
                    for is_available, north, east, tenant in zip(are_available, norths, easts, tenants, strict=True)
                ],
            },
            schema=SCHEMAS["items"],
        )


def _trie(big: Big, folder: Path) -> Row:
    seconds: dict[str, float] = {}
    with _timed(seconds, "trie_s"):
        trie = build(np.array(big.encoded.indptr), np.array(big.encoded.tokens))
    trie.save(folder)
    with _timed(seconds, "load_s"):
        Trie.load(folder)
    size = sum((folder / f"{field.name}.npy").stat().st_size for field in fields(Trie))
    return {**seconds, "megabytes": size / 1e6}


def _queries(big: Big) -> Row:
    """What a recommendation costs that grows with the number of items, step by step; medians."""
    rng = np.random.default_rng(1)
    n = len(big.catalog)
    start = datetime(2026, 1, 1, tzinfo=UTC)
    prior = Popularity()
    taken = [str(item) for item in (rng.pareto(1.0, 200_000) * 1_000).astype(int) % n]
    whens = [start + timedelta(minutes=minute) for minute in range(len(taken))]
    columns = {"user_id": ["ann"] * len(taken), "item_id": taken, "at": whens, "action": ["buy"] * len(taken)}
    nothing = {field.name: [None] * len(taken) for field in SCHEMAS["events"] if field.name not in columns}
    prior.fit(big.catalog, [pa.RecordBatch.from_pydict(columns | nothing, schema=SCHEMAS["events"])])
    history = History(user_id="ann", user=None, at=whens[-1] + timedelta(days=1), moments=())
    log_mass = prior.log_mass(history, Context())
    mass = np.exp(log_mass)
    trie, filters = big.encoded.trie, Filters(big.catalog)
    seen = rng.integers(0, n, _N_SEEN).tolist()
    ask = {"categories": ("category 1", "category 2", "category 3"), "where": {"tenant": "1", "available": "yes"}}
    circle = {"near": (48.86, 2.35), "within_km": 5_000.0}
    started_s = time.perf_counter()
    filters.live(n, **ask, **circle)  # type: ignore[arg-type]
    columns_s = time.perf_counter() - started_s
    available = filters.live(n, where={"available": "yes"})
    recommender = Recommender(store=big.store, catalog=big.catalog, prior=prior)
    recommender.filters = filters

    def set_up(live: np.ndarray | None) -> None:
        next(search(trie, k=10, scoring=Scoring(name="fused"), live=live, log_mass=log_mass))

    return {
        "filter_columns_s": columns_s,
        "filters_s": {
            "seen": _median(lambda: filters.live(n, without=seen)),
            "category": _median(lambda: filters.live(n, categories=ask["categories"])),
            "tenant and availability": _median(lambda: filters.live(n, where=ask["where"])),  # type: ignore[arg-type]
            "distance": _median(lambda: filters.live(n, **circle)),  # type: ignore[arg-type]
            "all": _median(lambda: filters.live(n, **ask, **circle, without=seen)),  # type: ignore[arg-type]
        },
        "prior_s": _median(lambda: prior.log_mass(history, Context())),
        "below_s": _median(lambda: trie.below(mass)),
        "search_setup_s": _median(lambda: set_up(None)),
        "search_setup_filtered_s": _median(lambda: set_up(available)),
        "best_s": _median(lambda: _best(log_mass, 10)),
        "recommend_s": _median(lambda: recommender.recommend_many([Query(user_id="ann", at=history.at)])),
        "recommend_filtered_s": _median(
            lambda: recommender.recommend_many(
                [Query(user_id="ann", at=history.at, exclude_seen=True, **ask, **circle)]  # type: ignore[arg-type]
            )
        ),
    }


def _growth(big: Big) -> Row:
    """Items one by one, then as many as make the background merge, with somebody searching meanwhile."""
    adds_s = []
    rng = np.random.default_rng(2)

    def newcomer(number: int) -> Item:
        words = " ".join(rng.choice(_WORDS, 4))
        return Item(item_id=f"new {number}", title=words, category="category 1", attributes={"tenant": "1"})

    for number in range(_N_ADDED):
        item = newcomer(number)
        started_s = time.perf_counter()
        add_items(big.store, big.catalog, [item])
        trie = big.encoded.trie
        adds_s.append(time.perf_counter() - started_s)
        assert trie.n_leaves == len(big.catalog)
    add_items(big.store, big.catalog, [newcomer(number) for number in range(_N_ADDED, sizes.MERGE_AT)])
    big.encoded.grow()
    item = newcomer(sizes.MERGE_AT)
    started_s = time.perf_counter()
    add_items(big.store, big.catalog, [item])
    big.encoded.grow()  # begins the merge
    late_s = time.perf_counter() - started_s
    merging_s = stall_s = 0.0
    started_s = time.perf_counter()
    while big.encoded.is_merging:
        before_s = time.perf_counter()
        time.sleep(0.001)
        big.encoded.ids(5)
        stall_s = max(stall_s, time.perf_counter() - before_s)
        merging_s = time.perf_counter() - started_s
    return {
        "add_s": statistics.median(adds_s),
        "add_max_s": max(adds_s),
        "add_last_s": late_s,
        "merge_s": merging_s,
        "merge_stall_s": stall_s,
    }


def _median(ask: Callable[[], object]) -> float:
    times_s = []
    for _ in range(_N_ASKED):
        started_s = time.perf_counter()
        ask()
        times_s.append(time.perf_counter() - started_s)
    return statistics.median(times_s)


@contextmanager
def _timed(seconds: dict[str, float], name: str) -> Iterator[None]:
    started_s = time.perf_counter()
    yield
    seconds[name] = time.perf_counter() - started_s
