"""Whatever titles and people contain, every recommended item is in the catalogue, and nothing breaks."""

from __future__ import annotations

import math
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from genrec.catalog import Catalog
from genrec.decoding.scoring import Scoring
from genrec.engines.transformers import TransformersEngine
from genrec.events import Context, Event, Item, User, batch
from genrec.priors.popularity import Popularity
from genrec.prompt import bundled_prompts, load_template
from genrec.recommendation import Query
from genrec.recommender import Recommender
from genrec.store import Store

START = datetime(2026, 1, 1, tzinfo=UTC)
PIECES = [
    *(
        "<|im_end|>",
        "<|im_start|>",
        "<|endoftext|>",
        "</s>",
        "[INST]",
        "<start_of_turn>",
        "system\n",
        "\n",
        "\r\n",
        "\t",
    ),
    *(";", "|", " | ", "; ", "(2)", "[x]", "{{ 7 }}", "{% endblock %}", "\\", '"', "'", "%s", "<", ">", "&amp;"),
    *("\u202e", "\u200b", "\u200d", "\u0301", "\ufeff", "\x1b[31m", "\x07", "\ud7ff", "\ue000", "ﷺ", "ß", "İ", "ﬁ"),
    *("milk", "Milk", "milk ", "bread", "שלום", "你好", "🥛", "👩‍👩‍👧", "é", "e\u0301", "0", "1", " ", "  ", "x" * 300),
]


@pytest.fixture(scope="module")
def engine(tiny_model: Path) -> Iterator[TransformersEngine]:
    engine = TransformersEngine(tiny_model, model="tiny", dtype="float32")
    n_threads = engine.torch.get_num_threads()
    engine.torch.set_num_threads(1)  # a model this small only waits for the others
    yield engine
    engine.torch.set_num_threads(n_threads)
    engine.close()


def fuzz(engine: TransformersEngine, folder: Path, *, n_catalogues: int, n_people: int) -> int:
    """Recommend to people with hostile histories from hostile catalogues; returns how many lists were checked."""
    checked = 0
    for seed in range(n_catalogues):
        rng = np.random.default_rng(seed)

        def text(rng: np.random.Generator = rng) -> str:
            return "".join(rng.choice(PIECES, int(rng.integers(0, 6))))

        items = [Item(item_id=f"i{n}", title=text() or f"item {n}") for n in range(int(rng.integers(1, 60)))]
        with Store.open(folder / f"{seed}.db") as store:
            store.put(
                "users", [batch("users", [User(user_id=f"u{n}", attributes={text(): text()}) for n in range(30)])]
            )
            store.append(
                [
                    batch(
                        "events",
                        [
                            Event(
                                user_id=f"u{rng.integers(30)}",
                                item_id=f"i{rng.integers(60)}",
                                at=START + timedelta(hours=int(rng.integers(24 * 60))),
                                context=Context(place=text().replace("\x00", "") or None, device=text() or None),
                            )
                            for _ in range(200)
                        ],
                    )
                ],
                source="fuzz",
            )
            catalog = Catalog.of(items)
            prior = Popularity()
            prior.fit(catalog, store.events())
            name = ("joint", "masked", "fused")[seed % 3]
            recommender = Recommender(
                store=store,
                catalog=catalog,
                prior=prior,
                engine=engine,
                template=load_template("next-item", [bundled_prompts()]),
                scoring=Scoring(name=name),  # type: ignore[arg-type]
                max_tokens=320,
            )
            k = int(rng.integers(1, 12))
            queries = [
                Query(user_id=f"u{n}", at=START + timedelta(days=int(rng.integers(70))), k=k, place=text() or None)
                for n in range(n_people)
            ]
            for answer in recommender.recommend_many(queries):
                ids = [item.item_id for item in answer.items]
                assert len(ids) == len(set(ids)) == min(k, len(items))
                assert set(ids) <= {item.item_id for item in items}
                assert all(math.isfinite(item.logprob) and item.logprob <= 1e-9 for item in answer.items)
                checked += 1
    return checked


def test_every_recommended_item_is_in_the_catalogue(engine: TransformersEngine, tmp_path: Path) -> None:
    assert fuzz(engine, tmp_path, n_catalogues=6, n_people=25) == 150


@pytest.mark.slow
def test_every_recommended_item_is_in_the_catalogue_ten_thousand_times(
    engine: TransformersEngine, tmp_path: Path
) -> None:
    assert fuzz(engine, tmp_path, n_catalogues=100, n_people=100) == 10_000
