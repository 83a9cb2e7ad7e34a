"""Ten thousand requests of 64 clients, a tenth of them malformed or given up: nothing breaks, nothing stays behind."""

from __future__ import annotations

import asyncio
import random
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.support.corner_shop import make_workspace
from tests.support.server import Server, running

pytest.importorskip("fastapi", reason="pip install 'genrec[serve]'")
import httpx2

psutil = pytest.importorskip("psutil", reason="vLLM brings it")

N_REQUESTS, N_WARM, N_CLIENTS = 10_000, 2_000, 64
MAX_GROWTH = 24 << 20
"""Bytes by which the server's process may grow between the two readings; a leak of 3 KiB a request shows."""
MAX_WORKER_GROWTH = 192 << 20
"""The same for vLLM's processes. On CPUs its worker grows by 100 MiB, ever more slowly, hardly after 8,000
requests; what it keeps is not ours, and does not depend on the size of the KV cache."""


def memory(server: Server) -> tuple[int, int]:
    """Resident bytes of the server's process, and of its children together."""
    process = psutil.Process(server.process.pid)
    return process.memory_info().rss, sum(child.memory_info().rss for child in process.children(recursive=True))


async def one(client: httpx2.AsyncClient, rng: random.Random) -> str:
    """One request of a random kind; says what came of it."""
    body: dict[str, Any] = {"user_id": rng.choice(["ann", "bob", "cat", f"s{rng.random()}"]), "k": rng.randint(1, 5)}
    kind = rng.random()
    if kind < 0.05:  # malformed
        content = rng.choice([b"{", b'{"k": 0}', b'{"user_id": 3}', b"[]", bytes(100), b'{"queries": []}'])
        answer = await client.post("/v1/recommendations", content=content, headers={"Content-Type": "application/json"})
        return f"malformed {answer.status_code}"
    if kind < 0.10:  # gives up
        try:
            await client.post("/v1/recommendations", json=body, timeout=rng.uniform(0.001, 0.05))
        except httpx2.TimeoutException:
            return "gave up"
        return "answered in time"
    if kind < 0.15:
        event = {"user_id": "eve", "item_id": "i-tea", "at": "2025-06-14T08:00Z", "event_id": str(rng.randint(1, 50))}
        return f"event {(await client.post('/v1/events', json=event)).status_code}"
    if kind < 0.20:
        answer = await client.post("/v1/recommendations", json={"queries": [body, body | {"exclude_seen": True}]})
        return f"batch {answer.status_code}"
    answer = await client.post("/v1/recommendations", json=body)
    return f"one {answer.status_code}"


async def load(url: str, n: int, seed: int) -> Counter[str]:
    """`n` requests, by 64 clients."""
    came: Counter[str] = Counter()
    left = iter(range(n))

    async def work(number: int) -> None:
        rng = random.Random(f"{seed} {number}")
        async with httpx2.AsyncClient(base_url=url, timeout=120) as client:
            for _ in left:
                came[await one(client, rng)] += 1

    await asyncio.gather(*(work(number) for number in range(N_CLIENTS)))
    return came


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["none", "transformers", pytest.param("vllm", marks=pytest.mark.vllm)])
def test_ten_thousand_requests_leave_nothing_behind(tmp_path: Path, tiny_model: Path, engine: str) -> None:
    if engine == "vllm":
        pytest.importorskip("vllm", reason="vLLM is not installed")
    engines = {"vllm": {"options": {"kv_cache_memory_bytes": 8 << 20}}}
    settings = {"model": str(tiny_model), "dtype": "float32", "scoring": "masked", "engines": engines}
    with running(make_workspace(tmp_path / "shop", settings), "--engine", engine) as server:
        came = asyncio.run(load(server.url, N_WARM, seed=1))
        early = memory(server)
        came += asyncio.run(load(server.url, N_REQUESTS - N_WARM, seed=2))
        late = memory(server)
        print(f"{engine}: {dict(sorted(came.items()))}; bytes {early}, then {late}")

        assert came.total() == N_REQUESTS
        allowed = {"one 200", "batch 200", "event 200", "gave up", "answered in time", "malformed 400", "malformed 422"}
        assert set(came) <= allowed
        status = httpx2.get(server.url + "/v1/status").json()
        assert status["n_in_flight"] == 0
        assert late[0] - early[0] < MAX_GROWTH
        assert late[1] - early[1] < MAX_WORKER_GROWTH
        if engine == "vllm":
            assert httpx2.post(server.url + "/v1/recommendations", json={"user_id": "ann"}).status_code == 200
            for line in httpx2.get(server.url + "/metrics").text.splitlines():
                if line.startswith(("vllm:num_requests_running{", "vllm:num_requests_waiting{")):
                    assert float(line.split()[-1]) == 0, line
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(60) == 0
        assert server.said().count("\n") == 1  # the line that it answers, and nothing else in ten thousand requests
