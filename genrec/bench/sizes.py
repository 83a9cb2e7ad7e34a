"""What a recommendation costs as the catalogue grows, with generated titles and made-up people."""

from __future__ import annotations

import gc
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa

from genrec.bench.ours import measure
from genrec.bench.people import Plan, fit_window
from genrec.bench.report import Book, Row
from genrec.catalog import Catalog
from genrec.decoding.scoring import Scoring
from genrec.engines.base import Engine
from genrec.events import SCHEMAS, Event, Item, batch
from genrec.priors.popularity import Popularity
from genrec.prompt import load_template
from genrec.recommendation import Query
from genrec.recommender import Recommender
from genrec.store import Store
from genrec.workspace import Workspace, open_workspace

N_EVENTS = 200_000
N_WORDS = 5_000
_START = datetime(2026, 1, 1, tzinfo=UTC)
_ONSETS = "b br c ch d dr f fl g gr h j k l m n p pl pr qu r s sh st t th tr v w z".split()
_VOWELS = "a e i o u ai ea ee oa ou".split()


def catalogue(plan: Plan, book: Book) -> None:
    """On transformers at every size, on vLLM at the first and the last; each with and without a filter."""
    for name in plan.engines:
        with book.attempt(name):
            sizes = plan.sizes if name == "transformers" else tuple(dict.fromkeys((plan.sizes[0], plan.sizes[-1])))
            if not book.lacks(*(row for n_items in sizes for row, *_ in _rows(name, n_items))):
                continue
            with open_workspace(plan.workspace) as workspace:
                engine = workspace.engine(name)
                assert engine is not None
                with closing(engine):
                    for n_items in sizes:
                        with book.attempt(f"{name}, {n_items:,} items"):
                            if book.lacks(*(row for row, *_ in _rows(name, n_items))):
                                _one_size(plan, book, workspace, engine, n_items)
                        gc.collect()


def _rows(engine: str, n_items: int) -> Iterator[tuple[str, str, bool]]:
    for scoring in ("fused", "masked"):
        for filtered in (False, True):
            yield f"{engine}, {n_items:,} items, {scoring}{', filtered' * filtered}", scoring, filtered


def _one_size(plan: Plan, book: Book, workspace: Workspace, engine: Engine, n_items: int) -> None:
    rng = np.random.default_rng(0)
    started_s = time.perf_counter()
    catalog = Catalog.of(Item(item_id=str(i), title=title) for i, title in enumerate(titles(rng, n_items)))
    made_s = time.perf_counter() - started_s
    encoded = catalog.encode(engine.tokenizer)
    encode_s = time.perf_counter() - started_s - made_s
    prior = Popularity()
    started_s = time.perf_counter()
    prior.fit(catalog, [_events(rng, n_items)])
    fit_s = time.perf_counter() - started_s
    with tempfile.TemporaryDirectory() as folder, Store.open(Path(folder) / "genrec.db") as store:
        people = [f"person {number}" for number in range(plan.n_slow)]
        store.append([batch("events", _histories(rng, people, n_items))], source="bench")
        recommender = Recommender(
            store=store,
            catalog=catalog,
            prior=prior,
            engine=engine,
            encoded=encoded,
            template=load_template("next-item", workspace.prompt_folders),
            max_events=1_000,
        )
        asked = [Query(user_id=user, at=_START + timedelta(days=400), k=plan.k) for user in people]
        fit_window(recommender, asked, plan.n_tokens)
        sizes: Row = {
            "n_items": n_items,
            "n_nodes": encoded.trie.n_nodes,
            "tokens_an_item": float(np.diff(encoded.indptr).mean()),
            "catalog_s": made_s,
            "encode_s": encode_s,
            "prior_s": fit_s,
        }
        for name, scoring, filtered in _rows(engine.name, n_items):
            recommender.scoring = Scoring(name=scoring)  # type: ignore[arg-type]
            queries = [replace(query, exclude_seen=filtered) for query in asked]
            book.add(name, partial(_measure, recommender, queries, plan.n_repeats, sizes | {"filtered": filtered}))


def _measure(recommender: Recommender, asked: list[Query], n_repeats: int, sizes: Row) -> Row:
    row = sizes | measure(recommender, asked, n_repeats=n_repeats)
    answers = recommender.recommend_many(asked)
    stages = {stage for answer in answers for stage in answer.timings_s}
    row["stages_s"] = {
        stage: statistics.median(answer.timings_s[stage] for answer in answers) for stage in sorted(stages)
    }
    return row


def titles(rng: np.random.Generator, n: int) -> Iterator[str]:
    """Made-up titles of two to five words, frequent and rare ones as in a language, some of them more than once."""

    def syllable() -> str:
        return str(rng.choice(_ONSETS)) + str(rng.choice(_VOWELS))

    words = np.array(["".join(syllable() for _ in range(rng.integers(1, 4))).capitalize() for _ in range(N_WORDS)])
    for start in range(0, n, 10_000):
        drawn = words[_zipf(rng, (min(10_000, n - start), 5), N_WORDS)]
        for row, length in zip(drawn, rng.integers(2, 6, len(drawn)), strict=True):
            yield " ".join(row[:length])


def _zipf(rng: np.random.Generator, size: int | tuple[int, ...], n: int) -> np.ndarray:
    """Draw from 0 to n - 1, the first most often: how often falls as one over the rank."""
    ranks: np.ndarray = np.minimum(np.exp(rng.random(size) * np.log(n + 1)).astype(np.int64), n) - 1
    return ranks


def _taken(rng: np.random.Generator, size: int, n_items: int) -> np.ndarray:
    """Items by Zipf's law, popular ones spread over the catalogue."""
    step = next(step for step in (7919, 7907, 7901) if n_items % step)
    taken: np.ndarray = _zipf(rng, size, n_items) * step % n_items
    return taken


def _events(rng: np.random.Generator, n_items: int) -> pa.RecordBatch:
    """What everybody took in 2026, for the prior."""
    taken = _taken(rng, N_EVENTS, n_items)
    at = np.datetime64("2026-01-01", "us") + np.sort(rng.integers(0, 365 * 86_400, N_EVENTS)).astype("timedelta64[s]")
    columns = {
        "user_id": pa.array(["somebody"] * N_EVENTS),
        "item_id": pa.array(taken.astype(str).tolist()),
        "at": pa.array(at, pa.timestamp("us")).cast(pa.timestamp("us", tz="UTC")),
        "action": pa.array(["buy"] * N_EVENTS),
    }
    schema = SCHEMAS["events"]
    return pa.RecordBatch.from_arrays(
        [columns[f.name] if f.name in columns else pa.nulls(N_EVENTS, f.type) for f in schema], schema=schema
    )


def _histories(rng: np.random.Generator, people: list[str], n_items: int) -> Iterator[Event]:
    """Forty visits a person, three items each."""
    for user in people:
        for visit, items in enumerate(_taken(rng, 120, n_items).reshape(40, 3).tolist()):
            at = _START + timedelta(days=9 * visit, hours=int(rng.integers(24)))
            yield from (Event(user_id=user, item_id=str(item), at=at, action="buy") for item in items)
