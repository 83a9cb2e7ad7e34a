"""The engine over HTTP against vLLM's own server, and against servers that misbehave."""

from __future__ import annotations

import asyncio
import json
import math
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from signal import SIGCONT, SIGSTOP
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import genrec
from genrec.catalog import Catalog
from genrec.config import create_workspace
from genrec.decoding.scoring import Scoring
from genrec.decoding.search import search
from genrec.engines.base import Search, TokenTree
from genrec.engines.requests import MAX_NAMED_TOKENS, Question
from genrec.engines.transformers import TransformersEngine
from genrec.engines.vllm_server import SAMPLE, VllmServerEngine, share_calls
from genrec.errors import ConfigError, EngineError, ModelError
from genrec.events import Item
from genrec.tokenizer import HfTokenizer
from tests.support.stock_server import StockServer

Answer = tuple[int, Any]
"""A status code, and what to send: bytes as they are, or anything else as JSON."""


class Scripted:
    """An HTTP server that answers like vLLM's where the script does not say otherwise.

    Every named token is worth minus its id; of the tokens of `SAMPLE` it knows what it has been told.
    """

    def __init__(self, sample: list[int]) -> None:
        self.sample, self.bodies, self.n_connections = sample, list[Any](), 0
        self.script: Callable[[str, Any], Answer | None] = lambda path, body: None
        self.headers: dict[str, str] = {}
        scripted = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def setup(self) -> None:
                scripted.n_connections += 1
                super().setup()

            def answer(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers.get("content-length", 0))) or "null")
                scripted.bodies.append(body)
                answer = scripted.script(self.path, body) or scripted.usual(self.path, body)
                if answer[0] == 0:  # hang up
                    self.close_connection = True
                    return
                sent = answer[1] if isinstance(answer[1], bytes) else json.dumps(answer[1]).encode()
                self.send_response(answer[0])
                for name, value in {"content-length": str(len(sent)), **scripted.headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(sent)

            do_GET = do_POST = answer  # noqa: N815

            def log_message(self, format: str, *args: Any) -> None:
                pass

        class Server(ThreadingHTTPServer):
            def handle_error(self, request: Any, client_address: Any) -> None:
                pass  # whoever asked has gone

        self.server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def usual(self, path: str, body: Any) -> Answer:
        if path == "/v1/models":
            return 200, {"data": [{"id": "tiny", "max_model_len": 512}]}
        n_prompts = 1 if isinstance(body["prompt"], str) else len(body["prompt"])
        top = {f"token_id:{token}": -float(token) for token in body["logprob_token_ids"]}
        choice: dict[str, Any] = {"finish_reason": "length", "logprobs": {"top_logprobs": [top]}}
        if body["return_token_ids"]:
            choice["prompt_token_ids"] = self.sample
        choices = [{"index": i, **choice} for i in range(n_prompts)]
        return 200, {"choices": choices[::-1], "system_fingerprint": "one", "usage": {"prompt_tokens_details": None}}


@pytest.fixture
def scripted(tiny_tokenizer: HfTokenizer) -> Iterator[Scripted]:
    scripted = Scripted(tiny_tokenizer.encode([SAMPLE])[0])
    thread = threading.Thread(target=scripted.server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield scripted
    scripted.server.shutdown()
    scripted.server.server_close()
    thread.join()


@contextmanager
def connected(folder: Path, server: Scripted | StockServer, **options: Any) -> Iterator[VllmServerEngine]:
    where = server.options if isinstance(server, StockServer) else {"base_url": server.url}
    engine = VllmServerEngine(folder, model="tiny", **(where | options))
    try:
        yield engine
    finally:
        engine.close()


def completions(answer: Callable[[Any], Answer | None]) -> Callable[[str, Any], Answer | None]:
    """A script for questions; the list of models and the first trial are answered as usual."""
    return lambda path, body: answer(body) if body and isinstance(body["prompt"], list) else None


def leaves(*tokens: int) -> TokenTree:
    n = len(tokens)
    return TokenTree(parent=np.full(n, -1, np.int32), token=np.array(tokens, np.int32), wanted=np.ones(n, bool))


def ask(tree: TokenTree) -> Search[np.ndarray]:
    return (yield tree)


@given(st.lists(st.sets(st.integers(0, 400), min_size=1, max_size=MAX_NAMED_TOKENS), max_size=40))
def test_calls_hold_every_question_once_and_never_name_too_much(named: list[set[int]]) -> None:
    calls = share_calls([Question([], sorted(tokens)) for tokens in named])
    assert sorted(i for call in calls for i in call) == list(range(len(named)))
    assert all(len(set().union(*(named[i] for i in call))) <= MAX_NAMED_TOKENS for call in calls)


def test_a_round_is_one_call_that_carries_ids_and_nothing_else(tiny_model: Path, scripted: Scripted) -> None:
    tree = TokenTree(
        parent=np.array([-1, -1, 0, 0, 1], np.int32),
        token=np.array([11, 12, 13, 14, 15], np.int32),
        wanted=np.ones(5, bool),
    )
    with connected(tiny_model, scripted, base_url=f"{scripted.url}/v1/", max_tokens=4096) as engine:
        assert engine.max_tokens == 512
        [value] = engine.run([([7, 8, 9], ask(tree))])
        np.testing.assert_array_equal(value, [-11, -12, -13, -14, -15])
        assert (engine.usage.n_requests, engine.usage.n_prompt_tokens) == (3, 11)
    models, trial, question = scripted.bodies
    assert models is None
    assert trial["prompt"] == SAMPLE
    assert question["prompt"] == [[7, 8, 9], [7, 8, 9, 11], [7, 8, 9, 12]]
    assert sorted(question["logprob_token_ids"]) == [11, 12, 13, 14, 15]
    assert scripted.n_connections == 1


def test_what_the_server_calls_impossible_is_impossible(tiny_model: Path, scripted: Scripted) -> None:
    with connected(tiny_model, scripted) as engine:
        [value] = engine.run([([7], ask(leaves(5, 9999)))])
        np.testing.assert_array_equal(value, [-5, -math.inf])


def test_another_salt_for_every_engine_unless_one_is_given(tiny_model: Path, scripted: Scripted) -> None:
    for options in ({}, {}, {"cache_salt": "ours"}, {"cache_salt": "ours"}):
        with connected(tiny_model, scripted, **options) as engine:
            engine.forget()
            engine.run([([7], ask(leaves(5)))])
    salts = [body["cache_salt"] for body in scripted.bodies if body]
    assert salts[4] == salts[6] == "ours"
    assert len(set(salts)) == 7


def test_a_busy_server_is_asked_again(tiny_model: Path, scripted: Scripted) -> None:
    trouble: list[Answer] = [
        (429, {"error": "slowly"}),
        (503, b"starting"),
        (0, b""),
        (502, b"<html>"),
        (504, {"detail": "late"}),
    ]
    scripted.headers = {"retry-after": "0"}
    with connected(tiny_model, scripted) as engine:
        scripted.script = completions(lambda body: trouble.pop(0) if trouble else None)
        [value] = engine.run([([7], ask(leaves(5)))])
        np.testing.assert_array_equal(value, [-5])
    assert not trouble


@pytest.mark.parametrize("trouble", [(503, {"error": {"message": "overloaded"}}), (0, b"")])
def test_a_server_that_stays_away_is_an_error_worth_another_try(
    tiny_model: Path, scripted: Scripted, trouble: Answer
) -> None:
    rounds: list[int] = []

    def two_rounds() -> Search[None]:
        yield leaves(5)
        scripted.script = lambda path, body: trouble
        rounds.append(1)
        yield leaves(6)
        rounds.append(2)

    with connected(tiny_model, scripted, timeout_s=0.5) as engine:
        with pytest.raises(EngineError, match=r"does not answer: nothing within timeout_s = 0\.5") as caught:
            engine.run([([7], two_rounds())])
        assert caught.value.retryable
        assert rounds == [1]
        scripted.script = lambda path, body: None
        [value] = engine.run([([7], ask(leaves(5)))])  # and the engine goes on
        np.testing.assert_array_equal(value, [-5])


def test_no_server_is_said_at_once_and_without_its_password(tiny_model: Path) -> None:
    before = time.monotonic()
    with pytest.raises(EngineError, match=r"at http://127\.0\.0\.1:9 does not answer: ConnectError") as caught:
        VllmServerEngine(tiny_model, model="tiny", base_url="http://me:hush@127.0.0.1:9", timeout_s=600)
    assert "base_url" in (caught.value.hint or "")
    assert "hush" not in f"{caught.value} {caught.value.hint}"
    assert time.monotonic() - before < 60


def other(body: Any, **changes: Any) -> Answer:
    return 200, {"choices": [{"index": 0, "finish_reason": "length", **changes}], "system_fingerprint": "one"}


@pytest.mark.parametrize(
    ("answer", "says", "retryable"),
    [
        ((200, b"<html>Welcome"), "does not answer like vLLM", False),
        ((200, {"choices": []}), "another model or server", False),
        ((200, {"choices": [], "system_fingerprint": "one"}), "does not answer like vLLM", False),
        ((200, [1]), "does not answer like vLLM", False),
        (
            (200, {"choices": [], "system_fingerprint": "two"}),
            "another model or server .*: two, which was one",
            False,
        ),
        (other(None, logprobs={"top_logprobs": [{"token_id:6": -1.0}]}), "KeyError 'token_id:5'", False),
        (other(None, logprobs={"top_logprobs": [{"token_id:5": "x"}]}), "does not answer like vLLM", False),
        (other(None, logprobs={"top_logprobs": [{"token_id:5": 17.5}]}), "above zero", False),
        (other(None, logprobs={"top_logprobs": [{"token_id:5": math.nan}]}), "not a number", False),
        (other(None, finish_reason="abort", logprobs=None), "dropped", True),
        ((500, {"error": {"message": "EngineCore died"}}), "status 500, EngineCore died", True),
        ((400, {"error": {"message": "too many"}}), "status 400, too many", False),
        ((401, {"error": "Unauthorized"}), "status 401, Unauthorized", False),
        ((307, b""), "status 307, no message", False),
    ],
)
def test_any_other_answer_is_an_error(
    tiny_model: Path, scripted: Scripted, answer: Answer, says: str, retryable: bool
) -> None:
    with connected(tiny_model, scripted) as engine:
        scripted.script = completions(lambda body: answer)
        with pytest.raises(EngineError, match=says) as caught:
            engine.run([([7], ask(leaves(5)))])
        assert caught.value.retryable == retryable
        assert caught.value.hint or retryable


def test_one_of_several_models_has_to_be_chosen(tiny_model: Path, scripted: Scripted) -> None:
    cards = [{"id": "base", "max_model_len": 300}, {"id": "adapter", "max_model_len": None, "parent": "base"}]
    scripted.script = lambda path, body: (200, {"data": cards}) if path == "/v1/models" else None
    with pytest.raises(ModelError, match="does not have one model; it serves: base, adapter") as caught:
        VllmServerEngine(tiny_model, model="tiny", base_url=scripted.url)
    assert "served_model" in (caught.value.hint or "")
    with pytest.raises(ModelError, match="has no model 'bass'; it serves: base, adapter"):
        VllmServerEngine(tiny_model, model="tiny", base_url=scripted.url, served_model="bass")
    with connected(tiny_model, scripted, served_model="adapter") as engine:
        assert engine.max_tokens == 300
    assert scripted.bodies[-1]["model"] == "adapter"


def test_a_server_with_another_tokenizer_is_refused(tiny_model: Path, scripted: Scripted) -> None:
    scripted.sample = [*scripted.sample[:-1], 9]
    with pytest.raises(ModelError, match="another tokenizer"):
        VllmServerEngine(tiny_model, model="tiny", base_url=scripted.url)


@pytest.mark.parametrize("field", ["logprob_token_ids", "return_token_ids"])
def test_a_server_that_passes_over_a_field_is_refused(tiny_model: Path, scripted: Scripted, field: str) -> None:
    scripted.script = lambda path, body: (
        scripted.usual(path, body | {field: [] if field == "logprob_token_ids" else False}) if body else None
    )
    with pytest.raises(EngineError, match=f"does not know {field}"):
        VllmServerEngine(tiny_model, model="tiny", base_url=scripted.url)


@pytest.mark.parametrize("answer", [{"data": 5}, {}, [], {"data": [{}]}])
def test_a_server_that_is_no_vllm_is_refused(tiny_model: Path, scripted: Scripted, answer: Any) -> None:
    scripted.script = lambda path, body: (200, answer)
    with pytest.raises(EngineError, match="does not answer like vLLM"):
        VllmServerEngine(tiny_model, model="tiny", base_url=scripted.url)


@pytest.mark.parametrize(
    "options",
    [
        {"base_url": "localhost:8000"},
        {"base_url": "http://[::"},
        {"timeout_s": 0},
        {"n_parallel": 0},
        {"cache_salt": "a/b"},
    ],
)
def test_wrong_options_are_refused(tiny_model: Path, options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(options))):
        VllmServerEngine(tiny_model, model="tiny", **options)


def test_a_search_nobody_waits_for_hangs_up(tiny_model: Path, scripted: Scripted) -> None:
    asked, free = threading.Event(), threading.Event()

    def slow(body: Any) -> None:
        asked.set()
        free.wait(60)

    async def give_up(engine: VllmServerEngine) -> None:
        task = asyncio.ensure_future(engine.drive([7], ask(leaves(5))))
        await asyncio.to_thread(asked.wait, 60)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    with connected(tiny_model, scripted) as engine:
        scripted.script = completions(slow)
        asyncio.run(give_up(engine))
        free.set()
        scripted.script = lambda path, body: None
        assert asyncio.run(engine.drive([7], ask(leaves(5)))) == [-5]  # on another loop


def test_closing_ends_who_still_waits(tiny_model: Path, scripted: Scripted) -> None:
    asked, free = threading.Barrier(3), threading.Event()

    def slow(body: Any) -> None:
        asked.wait(60)
        free.wait(60)

    with connected(tiny_model, scripted) as engine, ThreadPoolExecutor(2) as pool:
        scripted.script = completions(slow)
        waiting = [
            pool.submit(lambda: engine.run([([7], ask(leaves(5)))])),
            pool.submit(lambda: asyncio.run(engine.drive([7], ask(leaves(5))))),
        ]
        asked.wait(60)
        engine.close()
        for one in waiting:
            with pytest.raises(EngineError, match="closed"):
                one.result(60)
        free.set()
        with pytest.raises(EngineError, match="closed"):
            engine.prefill([[7]])


def test_a_workspace_connects_with_its_options(
    tiny_model: Path, scripted: Scripted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEST_KEY", "hush")
    options = {"base_url": scripted.url, "api_key": "env:TEST_KEY", "max_tokens": 256}
    create_workspace(tmp_path, {"model": str(tiny_model), "engine": "vllm-server", "engines": {"vllm-server": options}})
    with genrec.open(tmp_path) as workspace:
        engine = workspace.engine()
        assert isinstance(engine, VllmServerEngine)
        assert (engine.model, engine.max_tokens) == (str(tiny_model), 256)
        assert engine._http.headers["authorization"] == "Bearer hush"


# What follows asks vLLM itself.


@pytest.fixture(scope="module")
def reference(opinionated_model: Path) -> Iterator[TransformersEngine]:
    engine = TransformersEngine(opinionated_model, model="tiny", dtype="float32")
    yield engine
    engine.close()


def shop(tokenizer: HfTokenizer) -> Any:
    words = "milk bread butter eggs cheese yoghurt coffee tea sugar flour beer wine salad buns potatoes".split()
    titles = [f"{a} {b}" for a in words for b in words]
    return Catalog.of([Item(item_id=title, title=title) for title in titles]).encode(tokenizer).trie


@pytest.mark.vllm
def test_naming_what_others_ask_about_changes_no_answer(
    opinionated_model: Path, stock_server: StockServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(3)
    prompt = rng.integers(3, 500, 45).tolist()
    questions = [
        Question(rng.integers(3, 500, n).tolist(), rng.choice(500, size, replace=False).tolist())
        for n, size in ((0, 128), (1, 1), (2, 60), (3, 60), (4, 7), (5, 100))
    ]
    with connected(opinionated_model, stock_server) as engine:

        async def both() -> list[list[list[float]]]:
            together, _ = await engine._ask(prompt, questions)
            alone = [(await engine._ask(prompt, [question]))[0][0] for question in questions]
            return [together, alone]

        assert len(share_calls(questions)) < len(questions)
        together, alone = asyncio.run(both())
    for one, same in zip(together, alone, strict=True):
        np.testing.assert_allclose(one, same, atol=1e-5)


@pytest.mark.vllm
def test_many_searches_on_several_loops_do_not_mix(
    opinionated_model: Path, stock_server: StockServer, reference: TransformersEngine
) -> None:
    rng = np.random.default_rng(6)
    prompts = [rng.integers(3, 500, n).tolist() for n in (20, 33, 70, 100)]
    trie = shop(reference.tokenizer)

    def searching() -> Search[Any]:
        return search(trie, k=5, scoring=Scoring(name="masked"))

    with connected(opinionated_model, stock_server) as engine:

        async def together() -> list[Any]:
            return await asyncio.gather(*(engine.drive(prompt, searching()) for prompt in prompts))

        with ThreadPoolExecutor(2) as pool:
            found = [one.result() for one in [pool.submit(lambda: asyncio.run(together())) for _ in range(2)]]
    truth = reference.run([(prompt, searching()) for prompt in prompts])
    for rankings in found:
        for ranking, true in zip(rankings, truth, strict=True):
            np.testing.assert_array_equal(ranking.rows, true.rows)
            np.testing.assert_allclose(ranking.logprobs, true.logprobs, atol=1e-3)


@pytest.mark.vllm
def test_a_wrong_key_and_a_wrong_name_are_told(opinionated_model: Path, stock_server: StockServer) -> None:
    for key in ("", "wrong"):
        with pytest.raises(EngineError, match="status 401, Unauthorized") as caught:
            VllmServerEngine(opinionated_model, model="tiny", base_url=stock_server.url, api_key=key)
        assert "api_key" in (caught.value.hint or "")
    with pytest.raises(ModelError, match="has no model 'huge'; it serves: tiny"):
        VllmServerEngine(opinionated_model, model="tiny", served_model="huge", **stock_server.options)


@pytest.mark.vllm
def test_a_server_that_hangs_is_an_error_and_is_used_again(opinionated_model: Path, stock_server: StockServer) -> None:
    def hanging() -> Search[None]:
        yield leaves(5)
        stock_server.signal(SIGSTOP)
        yield leaves(6)

    with connected(opinionated_model, stock_server) as engine:
        engine._timeout_s = 3.0
        try:
            with pytest.raises(EngineError, match="nothing within timeout_s = 3") as caught:
                engine.run([([7] * 20, hanging())])
        finally:
            stock_server.signal(SIGCONT)
        assert caught.value.retryable
        engine._timeout_s = 120.0
        assert np.isfinite(engine.run([([7] * 20, ask(leaves(5)))])[0]).all()


def resumed(inner: Search[Any], values: np.ndarray) -> Search[Any]:
    """A search that has been begun, from where it waits for values."""
    try:
        while True:
            values = yield inner.send(values)
    except StopIteration as stop:
        return stop.value


@pytest.mark.vllm
def test_a_server_that_is_killed_and_one_that_is_started_again(
    opinionated_model: Path, stock_server: StockServer, reference: TransformersEngine
) -> None:
    """Must stay the last one: it takes minutes where the machine is busy."""

    trie = shop(reference.tokenizer)
    prompt = np.random.default_rng(7).integers(3, 500, 70).tolist()

    def searching() -> Search[Any]:
        return search(trie, k=5, scoring=Scoring(name="masked"))

    gone = threading.Event()

    def kill() -> None:
        stock_server.kill()
        gone.set()

    def interrupted(between: Callable[[], Any]) -> Search[Any]:
        inner = searching()
        values = yield next(inner)
        between()
        return (yield from resumed(inner, values))

    with (
        connected(opinionated_model, stock_server, timeout_s=10) as hasty,
        connected(opinionated_model, stock_server, timeout_s=400) as patient,
        ThreadPoolExecutor(2) as pool,
    ):
        given_up = pool.submit(lambda: hasty.run([(prompt, interrupted(lambda: gone.wait(60)))]))
        waits = pool.submit(lambda: patient.run([(prompt, interrupted(kill))]))
        with pytest.raises(EngineError, match="does not answer: nothing within timeout_s = 10") as caught:
            given_up.result(60)
        assert caught.value.retryable
        stock_server.start()
        [found] = waits.result(120)
    [true] = reference.run([(prompt, searching())])
    np.testing.assert_array_equal(found.rows, true.rows)
    np.testing.assert_allclose(found.logprobs, true.logprobs, atol=1e-3)
