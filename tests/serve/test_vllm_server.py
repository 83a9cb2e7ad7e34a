"""`genrec serve` on vLLM: exact beside everybody else, OpenAI's routes beside ours, and every way it can go wrong.

Nothing here waits for luck: what must be under way while something happens is held there by stopping vLLM's engine
process with a signal.
"""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from genrec.config import create_workspace
from genrec.events import Event, Item, batch
from genrec.recommendation import Query
from genrec.store import Store
from genrec.workspace import open_workspace
from tests.support.server import Server, running

pytest.importorskip("vllm", reason="vLLM is not installed")
pytest.importorskip("fastapi", reason="pip install 'genrec[serve]'")
import httpx2
import psutil

pytestmark = pytest.mark.vllm

KEY = "a-key-of-the-big-shop"
HEADERS = {"Authorization": f"Bearer {KEY}"}
AT = "2025-06-15T09:00Z"
MAX_QUEUE = 16
WORDS = "milk bread butter eggs cheese yoghurt coffee tea sugar flour beer wine salad buns".split()


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """196 items of two words each, twenty people with histories of their own."""
    folder = tmp_path_factory.mktemp("served") / "shop"
    engines = {"vllm": {"options": {"kv_cache_memory_bytes": 64 << 20}}}
    settings = {"model": str(tiny_model), "dtype": "float32", "scoring": "masked", "engines": engines}
    create_workspace(folder, settings)
    items = [Item(item_id=f"{a}-{b}", title=f"{a.title()} {b}") for a in WORDS for b in WORDS]
    rng = np.random.default_rng(3)
    events = [
        Event(
            user_id=f"u{user}", item_id=items[int(row)].item_id, at=datetime(2025, 6, day, 9, tzinfo=UTC), action="buy"
        )
        for user in range(20)
        for day, row in enumerate(rng.choice(len(items), 10, replace=False), start=1)
    ]
    with Store.open(folder / "genrec.db") as store:
        store.put("items", [batch("items", items)])
        store.append([batch("events", events)], source="test")
    return folder


@pytest.fixture(scope="module")
def server(shop: Path) -> Iterator[Server]:
    options = ["--engine", "vllm", "--api-key", "env:SHOP_KEY", "--max-queue", str(MAX_QUEUE)]
    with running(shop, *options, env={"SHOP_KEY": KEY}) as server:
        yield server


@pytest.fixture
def client(server: Server) -> Iterator[httpx2.Client]:
    with httpx2.Client(base_url=server.url, headers=HEADERS, timeout=120) as client:
        yield client


def engine_process(server: Server) -> psutil.Process:
    [found] = [p for p in psutil.Process(server.process.pid).children() if "EngineCore" in "".join(p.cmdline())]
    return found


@contextmanager
def held(server: Server) -> Iterator[psutil.Process]:
    """Let the engine stand still while the block runs."""
    process = engine_process(server)
    process.send_signal(signal.SIGSTOP)
    try:
        yield process
    finally:
        with suppress(psutil.NoSuchProcess):
            process.send_signal(signal.SIGCONT)


def until(client: httpx2.Client, n_in_flight: int) -> dict[str, Any]:
    """Wait until so many people are under way; gives the status then."""
    deadline = time.monotonic() + 60
    while (status := client.get("/v1/status").json())["n_in_flight"] != n_in_flight:
        assert time.monotonic() < deadline, status
        time.sleep(0.05)
    return dict(status)


def is_idle(client: httpx2.Client) -> bool:
    """Whether neither server nor engine has anything to do; the engine's own numbers come with its next step."""
    until(client, 0)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        assert client.post("/v1/recommendations", json={"user_id": "u0", "at": AT, "k": 1}).status_code == 200
        lines = client.get("/metrics").text.splitlines()
        names = ("vllm:num_requests_running{", "vllm:num_requests_waiting{")
        if all(float(line.split()[-1]) == 0 for line in lines if line.startswith(names)):
            return True
    return False


async def together(url: str, bodies: list[dict[str, Any]], timeout_s: float = 120) -> list[httpx2.Response | Exception]:
    """All requests at the same time."""
    async with httpx2.AsyncClient(base_url=url, headers=HEADERS, timeout=timeout_s) as client:
        asked = (client.post("/v1/recommendations", json=body) for body in bodies)
        return list(await asyncio.gather(*asked, return_exceptions=True))  # type: ignore[arg-type]


def test_told_to_stop_while_it_starts_it_leaves_nothing_behind(shop: Path) -> None:
    command = [sys.executable, "-m", "genrec", "serve", "--workspace", str(shop), "--port", "0", "--engine", "vllm"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 300
        while not any("EngineCore" in "".join(p.cmdline()) for p in psutil.Process(process.pid).children()):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.5)
        started = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 1
    assert psutil.wait_procs(started, timeout=60)[1] == []


def test_lists_are_exact_whoever_else_is_asking(server: Server, shop: Path) -> None:
    """Sixteen at once with filters of their own, against transformers one by one."""
    bodies = [
        {"user_id": f"u{user}", "at": AT, "k": k, "exclude_seen": exclude}
        for user, k, exclude in zip(
            range(16), [1, 5, 10, 20] * 4, [False] * 3 + [True] * 5 + [False, True] * 4, strict=True
        )
    ]
    with open_workspace(shop, engine="transformers") as workspace:
        expected = workspace.recommender().recommend_many([Query(**body) for body in bodies])  # type: ignore[arg-type]
    answers = asyncio.run(together(server.url, bodies))
    for body, answer, truth in zip(bodies, answers, expected, strict=True):
        assert isinstance(answer, httpx2.Response)
        items = answer.json()["items"]
        assert [item["item_id"] for item in items] == [item.item_id for item in truth.items]
        assert len(items) == body["k"]
        np.testing.assert_allclose([i["logprob"] for i in items], [i.logprob for i in truth.items], atol=1e-4)


def test_status_names_vllm(client: httpx2.Client, tiny_model: Path) -> None:
    status = client.get("/v1/status").json()
    assert (status["engine"], status["model"], status["openai"]) == ("vllm", str(tiny_model), True)
    assert status["usage"]["n_requests"] > 0


def test_no_route_of_vllm_answers_without_the_key(server: Server) -> None:
    vllms = ["/metrics", "/tokenize", "/health", "/ping", "/version", "/load", "/v1/models", "/generative_scoring"]
    with httpx2.Client(base_url=server.url) as stranger:
        for path in [*vllms, "/v1/completions", "/invocations", "/v1/status", "/openapi.json"]:
            for key in ({}, {"Authorization": "Bearer wrong-key-0123456789"}):
                assert stranger.get(path, headers=key).status_code == 401
                assert stranger.post(path, headers=key, json={}).status_code == 401
        assert stranger.get("/healthz").status_code == 200


def test_openais_routes_work_with_it(client: httpx2.Client, tiny_model: Path) -> None:
    assert [model["id"] for model in client.get("/v1/models").json()["data"]] == [str(tiny_model)]
    body = {"model": str(tiny_model), "prompt": "milk;", "max_tokens": 4, "temperature": 0}
    first, second = (client.post("/v1/completions", json=body) for _ in range(2))
    assert first.status_code == 200
    assert first.json()["choices"][0]["text"] == second.json()["choices"][0]["text"] != ""
    chat = {"model": str(tiny_model), "messages": [{"role": "user", "content": "milk"}], "max_tokens": 4}
    assert client.post("/v1/chat/completions", json=chat).json()["usage"]["completion_tokens"] > 0
    with client.stream("POST", "/v1/completions", json=body | {"stream": True}) as streamed:
        assert "[DONE]" in "".join(streamed.iter_text())


ASKS = [
    ("/v1/completions", {"prompt": "milk", "logprobs": 0}),
    ("/v1/completions", {"prompt": "milk", "logprobs": 3, "stream": True}),
    ("/v1/completions", {"prompt": "milk", "prompt_logprobs": 1}),
    ("/v1/completions", {"prompt": "milk", "echo": True, "logprobs": 1}),
    ("/v1/completions", {"prompt": "milk", "use_beam_search": True, "n": 2}),
    ("/v1/chat/completions", {"messages": [{"role": "user", "content": "a"}], "logprobs": True}),
    ("/v1/chat/completions", {"messages": [{"role": "user", "content": "a"}], "logprobs": True, "top_logprobs": 2}),
    ("/v1/chat/completions", {"messages": [{"role": "user", "content": "a"}], "prompt_logprobs": 1}),
    ("/v1/responses", {"input": "a", "include": ["message.output_text.logprobs"], "top_logprobs": 2}),
]


def test_logprobs_are_refused_with_the_reason_under_load_and_without(
    client: httpx2.Client, server: Server, tiny_model: Path
) -> None:
    def refusals() -> None:
        for path, body in ASKS:
            answer = client.post(path, json={"model": str(tiny_model), "max_tokens": 2, "max_output_tokens": 16} | body)
            assert answer.status_code == 400, (path, body, answer.text)
            assert "come out wrong beside recommendations" in answer.text, (path, body, answer.text)

    named = {
        "model": str(tiny_model),
        "messages": [{"role": "user", "content": "milk"}],
        "max_tokens": 1,
        "temperature": 0,
        "logprobs": True,
        "logprob_token_ids": [10, 11, 12],
    }

    def values() -> list[float]:
        [position] = client.post("/v1/chat/completions", json=named).json()["choices"][0]["logprobs"]["content"]
        return [top["logprob"] for top in position["top_logprobs"]]

    async def under_load() -> list[list[float]]:
        bodies = [{"user_id": f"u{user}", "at": AT, "k": 20} for user in range(15)]
        load = [asyncio.ensure_future(together(server.url, bodies)) for _ in range(1)]
        await asyncio.to_thread(refusals)
        found = [await asyncio.to_thread(values) for _ in range(3)]
        for answers in await asyncio.gather(*load):
            assert all(isinstance(answer, httpx2.Response) and answer.status_code == 200 for answer in answers)
        return found

    refusals()
    alone = values()
    for found in asyncio.run(under_load()):
        np.testing.assert_allclose(found, alone, atol=1e-4)


def test_a_full_queue_sends_away_and_loses_nobody(client: httpx2.Client, server: Server) -> None:
    bodies = [{"user_id": f"u{user}", "at": AT} for user in range(MAX_QUEUE)]

    async def run() -> list[httpx2.Response | Exception]:
        with held(server):
            waiting = asyncio.ensure_future(together(server.url, bodies))
            await asyncio.to_thread(until, client, MAX_QUEUE)
            busy = await asyncio.to_thread(client.post, "/v1/recommendations", json=bodies[0])
            assert (busy.status_code, busy.headers["retry-after"]) == (429, "1")
            assert busy.json()["error"]["retryable"] is True
        return await waiting

    answers = asyncio.run(run())
    assert [a.json()["user_id"] for a in answers if isinstance(a, httpx2.Response)] == [b["user_id"] for b in bodies]
    assert is_idle(client)


def test_a_client_that_goes_away_frees_its_requests(client: httpx2.Client, server: Server) -> None:
    before = client.get("/v1/status").json()
    with held(server):
        bodies = [{"user_id": f"u{user}", "at": AT, "k": 150} for user in range(8)]
        bodies.append({"queries": bodies[:4]})
        answers = asyncio.run(together(server.url, bodies, timeout_s=2))
        assert all(isinstance(answer, httpx2.ReadTimeout) for answer in answers)
        after = until(client, 0)
    assert after["n_failed"] - before["n_failed"] == 12
    assert is_idle(client)


def test_an_engine_that_hangs_is_a_time_out(client: httpx2.Client, server: Server) -> None:
    body = {"user_id": "u1", "at": AT, "timeout_s": 0.5}
    with held(server):
        answer = client.post("/v1/recommendations", json=body)
        many = client.post("/v1/recommendations", json={"queries": [{"user_id": "u1"}] * 2, "timeout_s": 0.5})
    assert (answer.status_code, answer.json()["error"]["retryable"]) == (504, True)
    assert (many.status_code, many.json()["n_errors"]) == (504, 2)
    assert is_idle(client)
    assert client.post("/v1/recommendations", json=body | {"timeout_s": 60}).status_code == 200


def test_an_engine_that_dies_is_told_to_those_who_wait_and_ends_the_server(
    client: httpx2.Client, server: Server
) -> None:
    bodies: list[dict[str, Any]] = [{"user_id": f"u{user}", "at": AT} for user in range(4)]
    bodies.append({"queries": bodies[:2]})

    async def run() -> list[httpx2.Response | Exception]:
        with held(server) as engine:
            waiting = asyncio.ensure_future(together(server.url, bodies))
            await asyncio.to_thread(until, client, 6)
            engine.kill()
        return await waiting

    answers = asyncio.run(run())
    for answer in answers:
        assert isinstance(answer, httpx2.Response)
        assert answer.status_code == 503
        assert "items" not in answer.text
    *single, both = [answer.json() for answer in answers if isinstance(answer, httpx2.Response)]
    errors = [one["error"] for one in [*single, *both["answers"]]]
    assert {(error["type"], error["retryable"]) for error in errors} == {("engine_failed", True)}
    assert server.process.wait(60) == 9
    assert "so does the server" in server.said()
    assert KEY not in server.said()
