"""The road where the language model writes titles: a real endpoint, scripted answers, the corner shop."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from datetime import datetime
from math import log
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import genrec
from genrec.catalog import Catalog
from genrec.cli import main
from genrec.engines.chat import Chat
from genrec.errors import ConfigError, EmptyCatalogError, ModelError
from genrec.events import Item, items_of
from genrec.prompt import Prompt, bundled_prompts, load_template
from genrec.recommendation import Query
from genrec.recommender import Recommender
from genrec.rerank import Diversity
from genrec.store import Store
from tests.support import corner_shop
from tests.support.corner_shop import NEW_YORK
from tests.support.endpoint import Endpoint, Reply, says, serving

LATER = datetime(2025, 6, 16, 9, tzinfo=NEW_YORK)


def answer(number: int, body: dict[str, Any]) -> Reply:
    """Beer for bob, who has beer in his history; tea and something the shop does not have for anyone else."""
    text = " ".join(message["content"] for message in body["messages"])
    return says("Beer; Milk; Wasabi;" if "Beer" in text else "1. Unicorn\n2. tea\n3. Milk")


@pytest.fixture(scope="module")
def endpoint() -> Iterator[Endpoint]:
    with serving(answer) as endpoint:
        yield endpoint


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    with Store.open(tmp_path_factory.mktemp("shop") / "genrec.db") as store:
        corner_shop.fill(store)
        yield store


def by_chat(store: Store, endpoint: Endpoint, **options: Any) -> Recommender:
    return Recommender(
        store=store,
        catalog=Catalog.of(items_of(store.items())),
        chat=Chat(model="gpt", base_url=endpoint.base_url, n_answers=2),
        template=load_template("next-item", [bundled_prompts()]),
        **options,
    )


def test_what_has_no_log_probability_is_not_explained(store: Store, endpoint: Endpoint) -> None:
    with pytest.raises(ConfigError, match="nothing speaks for an item") as caught:
        by_chat(store, endpoint).recommend("bob", at=LATER, explain=True)
    assert caught.value.hint == "Choose vllm, transformers or none."


def test_written_titles_become_a_list(store: Store, endpoint: Endpoint) -> None:
    seen: list[tuple[str, Any]] = []
    found = by_chat(store, endpoint).recommend(
        "bob", at=LATER, k=3, trace=lambda user_id, stage, value: seen.append((stage, value))
    )
    assert [item.title for item in found.items] == ["Beer", "Milk"]
    given = 2 * (1 + 1 / 2 + 1 / 3)  # by two answers, the lost wasabi included
    assert [item.logprob for item in found.items] == pytest.approx([log(2 / given), log(1 / given)])
    assert all(item.probability is None and item.score == item.logprob for item in found.items)
    assert (found.engine, found.scoring, found.model, found.prompt) == ("chat", "ground", "gpt", "next-item")
    assert found.notes == (
        "gpt wrote 6 titles in 2 answers: 4 are in the catalogue by name, 0 by the nearest vector, 2 are lost.",
    )
    assert [stage for stage, _ in seen] == list(found.timings_s) == ["history", "prompt", "ground", "rerank"]
    prompt = dict(seen)["prompt"]
    sent = [(message["role"], message["content"]) for message in endpoint.requests[-1].body["messages"]]
    assert isinstance(prompt, Prompt)
    assert list(prompt.turns) == sent
    assert sent[2:4] == [("assistant", "Beer;"), ("user", "Sunday, next day")]
    assert "[assistant] Beer;" in prompt.text


def test_each_of_many_gets_their_own(store: Store, endpoint: Endpoint) -> None:
    bob, zoe = by_chat(store, endpoint).recommend_many([Query(user_id=user, at=LATER) for user in ("bob", "zoe")])
    assert [item.title for item in bob.items] == ["Beer", "Milk"]
    assert [item.title for item in zoe.items] == ["Tea", "Milk"]
    assert "Nothing that zoe chose" in zoe.notes[0]


def test_what_was_seen_is_left_out(store: Store, endpoint: Endpoint) -> None:
    recommender = by_chat(store, endpoint)
    with pytest.raises(EmptyCatalogError, match="4 of those found may not be recommended"):
        recommender.recommend("bob", at=LATER, exclude_seen=True)
    assert "not named before" in endpoint.requests[-1].body["messages"][-1]["content"]


def test_a_shortlist_is_a_filter(store: Store, endpoint: Endpoint) -> None:
    found = by_chat(store, endpoint).recommend("bob", at=LATER, candidates=["i-milk", "i-tea"])
    assert [item.title for item in found.items] == ["Milk"]
    assert not found.exact


def test_rerankers_get_the_candidates_they_want(store: Store, endpoint: Endpoint) -> None:
    recommender = by_chat(store, endpoint, rerankers=[Diversity(per_category=1, pool=5)])
    assert [item.title for item in recommender.recommend("bob", at=LATER, k=1).items] == ["Beer"]
    assert "(The 5 most likely items" in endpoint.requests[-1].body["messages"][-1]["content"]


def test_a_long_history_is_cut_to_the_budget(store: Store, endpoint: Endpoint) -> None:
    short = by_chat(store, endpoint, max_tokens=80).prompts([Query(user_id="ann", at=LATER)])[0]
    long = by_chat(store, endpoint).prompts([Query(user_id="ann", at=LATER)])[0]
    assert len(short.turns) < len(long.turns)
    assert sum(len(text) for _, text in short.turns) < 320 + len(short.turns[-1][1])


def test_newcomers_can_be_recommended_and_retired_items_cannot(tmp_path: Path) -> None:
    with Store.open(tmp_path / "genrec.db") as store, serving(lambda number, body: says("Kefir; Beer;")) as endpoint:
        corner_shop.fill(store)
        recommender = by_chat(store, endpoint)
        recommender.add_items([Item(item_id="i-kefir", title="Kefir")])
        assert [item.title for item in recommender.recommend("bob", at=LATER).items] == ["Kefir", "Beer"]
        recommender.retire_items(["i-beer"])
        assert [item.title for item in recommender.recommend("bob", at=LATER).items] == ["Kefir"]


def test_it_answers_on_an_event_loop_too(store: Store, endpoint: Endpoint) -> None:
    found = asyncio.run(by_chat(store, endpoint).answer(Query(user_id="bob", at=LATER)))
    assert [item.title for item in found.items] == ["Beer", "Milk"]
    assert list(found.timings_s) == ["history", "prompt", "ground", "rerank"]


def test_parts_that_do_not_go_together(store: Store, endpoint: Endpoint) -> None:
    catalog = Catalog.of(corner_shop.ITEMS)
    chat = Chat(model="gpt", base_url=endpoint.base_url)
    engine: Any = object()
    with pytest.raises(ConfigError, match="not both"):
        Recommender(store=store, catalog=catalog, chat=chat, engine=engine)
    with pytest.raises(ConfigError, match="prompt template"):
        Recommender(store=store, catalog=catalog, chat=chat)


@pytest.mark.llm
def test_from_the_command_line(endpoint: Endpoint, tmp_path: Path) -> None:
    options = {"base_url": endpoint.base_url, "n_answers": 1}
    shop = corner_shop.make_workspace(tmp_path / "shop", {"engine": "chat", "engines": {"chat": options}})
    asked = ["recommend", "zoe", "--at", "2025-06-16T09:00Z", "--model", "gpt", "--workspace", str(shop)]
    done = CliRunner().invoke(main, [*asked, "--json"])
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert [item["title"] for item in found["items"]] == ["Tea", "Milk"]
    assert (found["engine"], found["scoring"], found["model"]) == ("chat", "ground", "gpt")
    assert [item["probability"] for item in found["items"]] == [None, None]
    table = CliRunner().invoke(main, [*asked, "--trace"])
    assert "log share" in table.stdout
    assert "2 candidates, 3 titles in 1 answers, 1 lost" in table.stderr
    with genrec.open(shop) as workspace:
        assert len(workspace.vectors.values) == 5
        with pytest.raises(ConfigError, match="no log-probabilities"):
            workspace.engine()
    assert len(list((shop / ".genrec" / "vectors").iterdir())) == 1


def test_without_the_embedding_model_it_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GENREC_CACHE", str(tmp_path / "empty"))
    options = {"base_url": "http://localhost:9/v1"}
    shop = corner_shop.make_workspace(tmp_path / "shop", {"engine": "chat", "engines": {"chat": options}})
    with genrec.open(shop) as workspace, pytest.raises(ModelError) as caught:
        workspace.recommender()
    assert caught.value.hint == "genrec models get minilm-l6-v2"


def test_without_an_address_it_says_where_to_set_it(tmp_path: Path) -> None:
    with (
        genrec.open(corner_shop.make_workspace(tmp_path / "shop"), engine="chat") as workspace,
        pytest.raises(ConfigError, match="needs the option base_url"),
    ):
        workspace.recommender()
