"""Changing the adapter of a server that answers: nobody is dropped, and what comes after is the new one's."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from genrec.config import create_workspace
from genrec.events import Event, Item, batch
from genrec.store import Store
from genrec.tokenizer import HfTokenizer
from genrec.workspace import open_workspace
from tests.support.adapters import make_lora
from tests.support.people import ITEMS, writing_with
from tests.support.server import running

pytest.importorskip("vllm", reason="vLLM is not installed")
pytest.importorskip("fastapi", reason="pip install 'genrec[serve]'")
import httpx2

pytestmark = pytest.mark.vllm
AT = "2025-06-15T09:00Z"


def asked(client: httpx2.Client, user: str) -> list[tuple[str, float]]:
    answer = client.post("/v1/recommendations", json={"user_id": user, "at": AT, "k": 5})
    assert answer.status_code == 200, answer.text
    return [(item["item_id"], item["logprob"]) for item in answer.json()["items"]]


def test_an_adapter_is_changed_under_load(tmp_path: Path, tiny_model: Path) -> None:
    folder = tmp_path / "shop"
    engines = {"vllm": {"options": {"kv_cache_memory_bytes": 64 << 20}}}
    create_workspace(folder, {"model": str(tiny_model), "dtype": "float32", "engines": engines})
    with Store.open(folder / "genrec.db") as store:
        store.put("items", [batch("items", [Item(item_id=name, title=name) for name in ITEMS])])
        start = datetime(2025, 6, 1, tzinfo=UTC)
        events = [
            Event(user_id=f"u{u}", item_id=ITEMS[(u + d) % 10], at=start + timedelta(days=d))
            for u in range(8)
            for d in range(6)
        ]
        store.append([batch("events", events)], source="test")
    expected: dict[str, Any] = {}
    with open_workspace(folder) as opened:
        for name, step in (("one", 1), ("two", 3)):
            make_lora(
                tiny_model,
                writing_with(HfTokenizer(tiny_model)),
                opened.adapters / name,
                step=step,
                catalog=opened.catalog,
                template=opened.template,
            )
        opened.use_adapter("one")
    for name in ("one", "two"):
        with open_workspace(folder, engine="transformers", adapter=name) as opened:
            answer = opened.recommender().recommend("u3", at=AT, k=5)
            expected[name] = [(item.item_id, pytest.approx(item.logprob, abs=1e-3)) for item in answer.items]
    assert [i for i, _ in expected["one"]] != [i for i, _ in expected["two"]]

    with running(folder, "--engine", "vllm") as server, httpx2.Client(base_url=server.url, timeout=120) as client:
        assert client.get("/v1/status").json()["adapter"] == "one"
        assert asked(client, "u3") == expected["one"]
        with ThreadPoolExecutor(8) as many:
            answers = [many.submit(asked, client, f"u{i % 8}") for i in range(60)]
            assert client.post("/v1/adapter", json={"name": "two"}).json() == {"adapter": "two"}
            answers += [many.submit(asked, client, "u3") for _ in range(8)]
            found = [one.result() for one in answers]
        assert all(len(one) == 5 for one in found)
        assert found[-1] == expected["two"]
        assert client.get("/v1/status").json()["adapter"] == "two"
        for name in ("gone", "../one", "."):
            refused = client.post("/v1/adapter", json={"name": name})
            assert (refused.status_code, refused.json()["error"]["type"]) == (409, "refused")
        assert asked(client, "u3") == expected["two"]
    with open_workspace(folder) as opened:
        assert opened.adapter_name == "two", "and after a restart"
