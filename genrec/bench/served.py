"""`genrec serve` with many clients at once, and the same search driven from outside over HTTP.

Three things take turns on one server, each with an emptied prefix cache: reading the prompts alone (OpenAI's route,
one token a prompt, the prompt as token ids), recommendations by our route, and the engine `vllm-server`, which asks
vLLM's route for the log-probabilities of named tokens. Clients and server share the machine, and the clients' own time
counts. Before that the prompts are read alone in this process, without any HTTP.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from genrec.bench.ours import ratios
from genrec.bench.people import Plan, fit_window, opened, prompt_ids, with_scoring
from genrec.bench.report import Book, Row, seconds
from genrec.errors import EngineError
from genrec.recommendation import Query
from genrec.testing.tiny import make_tiny_model

START_S = 600.0
PATIENCE_S = 600.0


def server(plan: Plan, book: Book) -> None:
    """The workspace's model and a tiny one, in which the model costs next to nothing."""
    if "vllm" not in plan.engines:
        return
    with tempfile.TemporaryDirectory() as folder:
        for model, name in ((None, "the model"), (str(Path(folder) / "tiny"), "a tiny model")):
            in_server, outside = f"{name}, in the server", f"{name}, from outside"
            if book.lacks(in_server, outside):
                with book.attempt(in_server):
                    if model:
                        make_tiny_model(Path(model))
                    _serve(plan, book, model, in_server, outside)


def _serve(plan: Plan, book: Book, model: str | None, in_server: str, outside: str) -> None:
    with opened(plan, **({"model": model} if model else {})) as (workspace, asked):
        engine = workspace.engine("vllm")
        assert engine is not None
        with closing(engine):
            recommender = with_scoring(workspace, "vllm", "fused")
            window = fit_window(recommender, asked, plan.n_tokens)
            prompts = prompt_ids(recommender, asked)
            engine.prefill(prompts)
            in_process = []
            for _ in range(plan.n_repeats):
                engine.forget()
                in_process.append(seconds(partial(engine.prefill, prompts)) / len(asked))
    shared: Row = {
        "model": workspace.settings.model if model is None else "tiny",
        "engine": "vllm",
        "scoring": "fused",
        "n_people": len(asked),
        "n_at_once": len(asked),
        "n_repeats": plan.n_repeats,
        "max_tokens": window,
        "prompt_tokens": statistics.median(map(len, prompts)),
        "prefill_in_process_s": statistics.median(in_process),
    }
    options = ["--engine", "vllm", "--scoring", "fused", "--timeout", str(PATIENCE_S)]
    options += ["--model", model] if model else []
    environment = {"GENREC_HISTORY_MAX_TOKENS": str(window), "VLLM_SERVER_DEV_MODE": "1"}
    with _running(plan.workspace, options, environment) as url, Clients(url, len(asked)) as clients:
        name = clients.get("/v1/models")["data"][0]["id"]
        reading = [("/v1/completions", {"model": name, "prompt": ids, "max_tokens": 1}) for ids in prompts]
        asking = [("/v1/recommendations", _body(query)) for query in asked]
        _inside(clients, reading, asking, book, in_server, shared, plan.n_repeats)
        engines = {"vllm-server": {"base_url": url}}
        overrides: dict[str, Any] = {"engines": engines, **({"model": model} if model else {})}
        with book.attempt(outside), opened(plan, **overrides) as (workspace, _):
            remote = workspace.engine("vllm-server")
            assert remote is not None
            remote.prompt_tail = engine.prompt_tail  # or their prompts may differ by a line break, and so their lists
            with closing(remote):
                recommender = with_scoring(workspace, "vllm-server", "fused")
                recommender.max_tokens = window
                book.add(
                    outside,
                    lambda: (
                        shared
                        | _outside(
                            clients,
                            lambda: [[item.item_id for item in a.items] for a in recommender.recommend_many(asked)],
                            reading,
                            asking,
                            plan.n_repeats,
                        )
                    ),
                )


def _body(query: Query) -> Row:
    assert query.at is not None and not isinstance(query.at, str)  # noqa: PT018
    return {"user_id": query.user_id, "at": query.at.isoformat(), "k": query.k}


Requests = Sequence[tuple[str, Row]]


def _inside(
    clients: Clients, reading: Requests, asking: Requests, book: Book, name: str, shared: Row, n_repeats: int
) -> None:
    def measured() -> Row:
        clients.post(asking)  # whatever the first requests set up
        clients.cold(partial(clients.post, reading))
        pairs = []
        for _ in range(n_repeats):
            pairs.append((clients.cold(partial(clients.post, reading)), clients.cold(partial(clients.post, asking))))
        row = ratios(pairs)
        return {**shared, **row, "ratio_in_process": row["whole_s"] / shared["prefill_in_process_s"]}

    book.add(name, measured)


def _outside(
    clients: Clients, search: Callable[[], list[list[str]]], reading: Requests, asking: Requests, n_repeats: int
) -> Row:
    search()
    pairs, in_server, both = [], [], []
    for _ in range(n_repeats):
        prefill_s = clients.cold(partial(clients.post, reading))
        in_server.append(clients.cold(partial(clients.post, asking)))
        pairs.append((prefill_s, clients.cold(search)))
        both.append(pairs[-1][1] / in_server[-1])
    answers = [[item["item_id"] for item in answer["items"]] for answer in clients.post(asking)]
    found = search()
    return {
        **ratios(pairs),
        "in_server_s": statistics.median(in_server),
        "to_in_server": statistics.median(both),
        "to_in_server_min": min(both),
        "to_in_server_max": max(both),
        "same_items": statistics.fmean(
            len(set(one) & set(other)) / len(one) for one, other in zip(answers, found, strict=True)
        ),
    }


class Clients:
    """Many clients of one server, each with a connection and a thread of its own."""

    def __init__(self, url: str, n_clients: int) -> None:
        parts = urlsplit(url)
        assert parts.hostname is not None
        self.connections = [
            http.client.HTTPConnection(parts.hostname, parts.port, timeout=PATIENCE_S) for _ in range(n_clients)
        ]
        self.threads = ThreadPoolExecutor(n_clients)

    def __enter__(self) -> Clients:
        return self

    def __exit__(self, *_: object) -> None:
        self.threads.shutdown()
        for connection in self.connections:
            connection.close()

    def get(self, path: str) -> Any:
        """One client's GET."""
        return self._ask(self.connections[0], "GET", path, None)

    def post(self, requests: Requests) -> list[Any]:
        """All at once, a client each; the answers' JSON."""
        work = [
            self.threads.submit(self._ask, connection, "POST", path, body)
            for connection, (path, body) in zip(self.connections, requests, strict=True)
        ]
        return [one.result() for one in work]

    def cold(self, work: Callable[[], object]) -> float:
        """Seconds a client that something takes with an emptied prefix cache."""
        self._ask(self.connections[0], "POST", "/reset_prefix_cache", {})
        return seconds(work) / len(self.connections)

    @staticmethod
    def _ask(connection: http.client.HTTPConnection, method: str, path: str, body: Row | None) -> Any:
        headers = {"Content-Type": "application/json"}
        connection.close()  # the server hangs up on idle ones; a new one to this machine costs next to nothing
        connection.request(method, path, None if body is None else json.dumps(body), headers)
        response = connection.getresponse()
        text = response.read()
        if response.status != 200:
            raise EngineError(f"{method} {path}: status {response.status}: {text[:200].decode(errors='replace')}")
        return json.loads(text) if text else None


@contextmanager
def _running(workspace: Path, options: Sequence[str], environment: Mapping[str, str]) -> Iterator[str]:
    """`genrec serve` in a process of its own; gives its address once it answers."""
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "genrec", "serve", "--workspace", str(workspace), "--port", "0", *options],
            stderr=log,
            stdout=log,
            env=os.environ | environment,
        )

        def said() -> str:
            log.seek(0)
            return log.read().decode(errors="replace")

        try:
            deadline = time.monotonic() + START_S
            while not (found := re.search(r"^(http://\S+) answers", said(), re.MULTILINE)):
                if process.poll() is not None or time.monotonic() > deadline:
                    lines = said().strip().splitlines() or ["it said nothing"]
                    error = next((line for line in lines if line.lower().startswith("error")), lines[-1])
                    raise EngineError(f"genrec serve did not start: {error}")
                time.sleep(0.2)
            yield found.group(1)
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
                try:
                    process.wait(60)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
