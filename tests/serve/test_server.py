"""`genrec serve` without vLLM, over real HTTP: every route, every refusal, and an end that is clean."""

from __future__ import annotations

import asyncio
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from genrec.store import Store
from genrec.workspace import open_workspace
from tests.support.corner_shop import make_workspace
from tests.support.server import Server, running

pytest.importorskip("fastapi", reason="pip install 'genrec[serve]'")
import httpx2

KEY = "a-key-of-the-corner-shop"
AT = "2025-06-15T09:00-04:00"


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    folder = tmp_path_factory.mktemp("served") / "shop"
    return make_workspace(folder, {"model": str(tiny_model), "dtype": "float32", "scoring": "masked"})


@pytest.fixture(scope="module", params=["none", "transformers"])
def server(request: pytest.FixtureRequest, shop: Path) -> Iterator[Server]:
    options = ["--engine", request.param, "--api-key", "env:SHOP_KEY", "--max-queue", "8"]
    with running(shop, *options, env={"SHOP_KEY": KEY}) as server:
        yield server


@pytest.fixture
def client(server: Server) -> Iterator[httpx2.Client]:
    with httpx2.Client(base_url=server.url, headers={"Authorization": f"Bearer {KEY}"}, timeout=60) as client:
        yield client


def recommend(client: httpx2.Client, **body: Any) -> dict[str, Any]:
    answer = client.post("/v1/recommendations", json=body)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def refused(answer: httpx2.Response, status: int) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert set(error) == {"type", "message", "hint", "retryable"}
    return dict(error)


def without_costs(answer: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in answer.items() if name not in ("timings_s", "usage")}


def nearly(answer: dict[str, Any]) -> dict[str, Any]:
    """What equals this answer up to what it cost and the rounding of float32."""
    numbers = ("logprob", "score", "probability")
    items = [item | {name: pytest.approx(item[name], abs=1e-4) for name in numbers} for item in answer["items"]]
    return without_costs(answer | {"items": items})


def test_the_answer_is_the_one_that_python_gives(client: httpx2.Client, shop: Path) -> None:
    engine = client.get("/v1/status").json()["engine"]
    with open_workspace(shop, engine=engine) as workspace:
        expected = workspace.recommender().recommend("ann", at=AT, k=3, place="home").to_dict()
    answer = recommend(client, user_id="ann", at=AT, k=3, place="home")
    assert without_costs(answer) == nearly(expected)


def test_an_answer_is_explained_where_that_was_asked_for(client: httpx2.Client) -> None:
    queries = [{"user_id": "bob", "at": AT, "k": 1, "explain": explain} for explain in (True, "context", False)]
    [best], [now], [same] = (answer["items"] for answer in recommend(client, queries=queries)["answers"])
    had = {one["what"]: one["n_events"] for one in best["evidence"] if one["kind"] == "item"}
    assert had == {"Beer": 3, "Milk": 1}
    whole, part = ({one["what"]: one["change"] for one in i["evidence"] if one["kind"] != "item"} for i in (best, now))
    assert part == pytest.approx(whole, abs=1e-4)
    assert len(part) == len(now["evidence"])
    assert best["item_id"] == now["item_id"] == same["item_id"]
    assert "evidence" not in same


def test_status_says_what_answers(client: httpx2.Client) -> None:
    status = client.get("/v1/status").json()
    assert status["engine"] in ("none", "transformers")
    assert status["catalog"]["n_items"] - status["catalog"]["n_retired"] == 5
    assert (status["max_queue"], status["n_in_flight"], status["openai"]) == (8, 0, False)
    assert (status["model"] is None) == (status["engine"] == "none") == (status["usage"] is None)


def test_nothing_but_health_without_the_key(server: Server) -> None:
    with httpx2.Client(base_url=server.url) as stranger:
        for path in ("/v1/status", "/openapi.json", "/metrics", "/v1/recommendations", "/v1/models", "/docs", "/"):
            refused(stranger.get(path), 401)
            refused(stranger.post(path, json={"user_id": "ann"}), 401)
        assert stranger.get("/healthz").json() == {"status": "ok"}


def test_a_batch_answers_or_refuses_each(client: httpx2.Client) -> None:
    queries = [{"user_id": "bob", "at": AT}, {"user_id": "ann", "at": "noon"}, {"user_id": "ann", "at": AT, "k": 1}]
    answer = recommend(client, queries=queries)
    first, second, third = answer["answers"]
    assert (first["user_id"], third["user_id"], len(third["items"]), answer["n_errors"]) == ("bob", "ann", 1, 1)
    assert second["error"]["message"] == "cannot read the time 'noon'"
    nobody = client.post("/v1/recommendations", json={"queries": queries[1:2]})
    assert (nobody.status_code, nobody.json()["n_errors"]) == (422, 1)


def test_a_batch_larger_than_the_queue_is_refused(client: httpx2.Client) -> None:
    error = refused(client.post("/v1/recommendations", json={"queries": [{"user_id": "ann"}] * 9}), 413)
    assert "takes 8" in error["message"]


def test_more_items_than_there_are(client: httpx2.Client) -> None:
    answer = recommend(client, user_id="ann", at=AT, k=100)
    assert len(answer["items"]) == 5
    assert "100 items were asked for, and 5 are left." in answer["notes"]


def test_somebody_who_has_everything_gets_an_empty_list_and_a_note(client: httpx2.Client) -> None:
    events = [
        {"user_id": "dan", "item_id": f"i-{name}", "at": "2025-06-01T08:00Z", "event_id": f"dan-{name}"}
        for name in ("milk", "bread", "beer", "eggs", "tea")
    ]
    assert client.post("/v1/events", json={"events": events}).status_code == 200
    answer = recommend(client, user_id="dan", at=AT, exclude_seen=True)
    assert answer["items"] == []
    assert any("No item is left" in note for note in answer["notes"])


def test_an_event_is_seen_by_the_next_recommendation_and_stored_once(client: httpx2.Client, shop: Path) -> None:
    user_id = client.get("/v1/status").json()["engine"] + "-newcomer"
    event = {"user_id": user_id, "item_id": "i-tea", "at": "2025-06-14T08:00-04:00", "event_id": f"{user_id}-1"}
    before = recommend(client, user_id=user_id, at=AT, exclude_seen=True)
    assert {item["item_id"] for item in before["items"]} >= {"i-tea"}
    for n_new in (1, 0):
        done = client.post("/v1/events", json=event | {"action": "buy", "place": "corner shop"})
        assert done.json() == {"n_new": n_new, "n_known": 1 - n_new, "n_corrected": 0}
    after = recommend(client, user_id=user_id, at=AT, exclude_seen=True)
    assert {item["item_id"] for item in after["items"]} == {"i-milk", "i-bread", "i-beer", "i-eggs"}
    with Store.open(shop / "genrec.db") as store:
        [stored] = store.history(user_id, datetime.now(UTC), max_events=9)
    assert (stored.item_id, stored.action, stored.context.place) == ("i-tea", "buy", "corner shop")


def test_items_come_and_go_while_it_serves(client: httpx2.Client) -> None:
    item_id = f"i/{client.get('/v1/status').json()['engine']} coffee"
    asked = {"user_id": "ann", "at": AT, "k": 100, "categories": ["hot drinks"]}
    coffee = {"item_id": item_id, "title": "Coffee", "category": "hot drinks"}
    for counts in ({"n_new": 1, "n_replaced": 0}, {"n_new": 0, "n_replaced": 1}):
        assert client.post("/v1/items", json=coffee).json() == counts
    assert [item["item_id"] for item in recommend(client, **asked)["items"]] == [item_id]
    assert client.delete(f"/v1/items/{quote(item_id, safe='')}").json() == {"n_retired": 1}
    answer = recommend(client, **asked)
    assert answer["items"] == []
    assert any("none is on offer" in note for note in answer["notes"])
    refused(client.delete("/v1/items/nobody"), 404)
    assert (
        "tea bags"
        in refused(client.post("/v1/recommendations", json=asked | {"categories": ["tea bags"]}), 422)["message"]
    )


def test_what_is_malformed_is_refused_in_one_form(client: httpx2.Client) -> None:
    json_type = {"Content-Type": "application/json"}
    for path in ("/v1/recommendations", "/v1/events", "/v1/items"):
        assert refused(client.post(path, content=b"{", headers=json_type), 400)["type"] == "malformed"
        refused(client.post(path, content=b'{"user_id": "ann"}', headers={"Content-Type": "text/plain"}), 415)
        refused(client.post(path, json={"user_id": "ann", "nonsense": 1}), 422)
        refused(client.get(path), 405)
        assert refused(client.post(path, content=bytes(9 << 20), headers=json_type), 413)["type"] == "too_large"
        large = (bytes(1 << 20) for _ in range(9))
        assert refused(client.post(path, content=large, headers=json_type), 413)["type"] == "too_large"
    refused(client.get("/nowhere"), 404)
    refused(client.post("/v1/recommendations", json={"user_id": "ann", "at": "9999-12-31"}), 422)
    nul = {"user_id": "a\0b", "item_id": "i", "at": AT}
    assert "NUL" in refused(client.post("/v1/events", json=nul), 422)["message"]
    far = client.post("/v1/recommendations", json={"user_id": "ann", "at": AT, "place": "very far away " * 9_999})
    assert far.status_code in (200, 422)  # a field of a line has a limit of its own
    assert client.get("/v1/status").json()["n_in_flight"] == 0


def test_openais_routes_say_why_they_are_missing(client: httpx2.Client) -> None:
    for path in ("/v1/completions", "/v1/chat/completions"):
        assert "need vLLM" in refused(client.post(path, json={}), 501)["message"]
    refused(client.get("/v1/models"), 501)


def test_everything_is_described(client: httpx2.Client) -> None:
    paths = client.get("/openapi.json").json()["paths"]
    ours = {
        "/healthz",
        "/v1/status",
        "/v1/recommendations",
        "/v1/events",
        "/v1/items",
        "/v1/items/{item_id}",
        "/v1/adapter",
    }
    assert set(paths) == ours


def test_people_at_once_never_see_each_others_lists(client: httpx2.Client, server: Server) -> None:
    """Eight at a time, some with filters, some without: each gets what they get alone."""
    asked = [
        {"user_id": user, "at": AT, "k": k, "exclude_seen": exclude}
        for user in ("ann", "bob", "cat", "eve")
        for exclude in (False, True)
        for k in (1, 5)
    ]
    alone = [nearly(recommend(client, **body)) for body in asked]

    async def together() -> list[dict[str, Any]]:
        headers = {"Authorization": f"Bearer {KEY}"}
        async with httpx2.AsyncClient(base_url=server.url, headers=headers, timeout=60) as many:
            places = asyncio.Semaphore(8)

            async def one(body: dict[str, Any]) -> dict[str, Any]:
                async with places:
                    answer = await many.post("/v1/recommendations", json=body)
                assert answer.status_code == 200, answer.text
                return without_costs(answer.json())

            return list(await asyncio.gather(*(one(body) for body in asked * 4)))

    assert asyncio.run(together()) == alone * 4


def test_it_says_nothing_of_keys_and_people(server: Server) -> None:
    said = server.said()
    assert KEY not in said
    assert said.count("\n") == 1
    assert "Stop with Ctrl-C" in said


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_cleanly(tmp_path: Path, number: signal.Signals) -> None:
    with running(make_workspace(tmp_path / "shop")) as server:
        assert httpx2.get(server.url + "/healthz").status_code == 200
        server.process.send_signal(number)
        assert server.process.wait(30) == 0
        assert "Traceback" not in server.said()


def refused_to_start(workspace: Path, *options: str) -> tuple[int, str]:
    command = [sys.executable, "-m", "genrec", "serve", "--workspace", str(workspace), *options]
    run = subprocess.run(command, capture_output=True, text=True, timeout=60)
    return run.returncode, run.stderr


def test_what_it_cannot_listen_on_is_said_at_once(tmp_path: Path) -> None:
    shop = make_workspace(tmp_path / "shop")
    with socket.create_server(("127.0.0.1", 0)) as other:
        code, said = refused_to_start(shop, "--port", str(other.getsockname()[1]))
    assert code == 3
    assert "is taken by another program\nhint: Stop that one" in said
    code, said = refused_to_start(shop, "--host", "0.0.0.0")
    assert code == 3
    assert "without an API key" in said
    code, said = refused_to_start(shop, "--host", "192.0.2.7", "--api-key-file", str(_keys(tmp_path)))
    assert code == 3
    assert "cannot listen on port 8000 of 192.0.2.7" in said


def _keys(folder: Path) -> Path:
    (folder / "keys").write_text(KEY)
    return folder / "keys"


def test_a_workspace_without_items_does_not_start(tmp_path: Path) -> None:
    from genrec.config import create_workspace

    create_workspace(tmp_path / "empty", {"engine": "none"})
    code, said = refused_to_start(tmp_path / "empty", "--port", "0")
    assert code == 10
    assert "no items" in said


def test_the_settings_say_where_and_how(tmp_path: Path) -> None:
    shop = make_workspace(tmp_path / "shop", {"serve": {"api_key_file": "keys", "max_queue": 3, "timeout_s": 7}})
    (shop / "keys").write_text(KEY)
    with running(shop) as server:
        assert httpx2.get(server.url + "/v1/status").status_code == 401
        status = httpx2.get(server.url + "/v1/status", headers={"Authorization": f"Bearer {KEY}"}).json()
        assert (status["max_queue"], status["timeout_s"]) == (3, 7)
