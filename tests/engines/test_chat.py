"""The chat client against a real server that answers, stalls, fails and lies."""

from __future__ import annotations

import socket
from typing import Any

import pytest

from genrec.engines import chat as module
from genrec.engines.chat import Chat
from genrec.errors import ConfigError, EngineError, ModelError
from genrec.plugins import Registry
from tests.support.endpoint import Reply, fails, says, serving

TURNS = (("system", "You know ann."), ("user", "Go on."))


def ask(base_url: str, **options: Any) -> list[str]:
    options = {"model": "gpt", "n_answers": 1, "timeout_s": 5.0} | options
    [answers] = Chat(base_url=base_url, **options).answers([TURNS], 10)
    return answers


@pytest.fixture(autouse=True)
def _no_long_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_WAIT_S", 0.01)


def test_a_request_says_what_was_asked_for() -> None:
    with serving(lambda number, body: says("Milk")) as endpoint:
        answers = ask(f"{endpoint.base_url}/", api_key=" sesame\n", temperature=0.2, options={"top_p": 0.9, "seed": 1})
    assert answers == ["Milk"]
    [request] = endpoint.requests
    assert request.path == "/v1/chat/completions"
    assert request.headers["Authorization"] == "Bearer sesame"
    assert request.body == {
        "model": "gpt",
        "messages": [{"role": "system", "content": "You know ann."}, {"role": "user", "content": "Go on."}],
        "temperature": 0.2,
        "max_tokens": 192,
        "top_p": 0.9,
        "seed": 1,
    }


def test_an_empty_option_leaves_a_field_out() -> None:
    with serving(lambda number, body: says("Milk")) as endpoint:
        ask(endpoint.base_url, options={"max_tokens": "", "max_completion_tokens": 500})
    assert "max_tokens" not in endpoint.requests[0].body
    assert endpoint.requests[0].body["max_completion_tokens"] == 500
    assert "Authorization" not in endpoint.requests[0].headers


def test_many_people_get_their_own_answers_in_order() -> None:
    def echo(number: int, body: dict[str, Any]) -> Reply:
        return says(body["messages"][0]["content"].upper())

    with serving(echo) as endpoint:
        people = [(("user", f"person {n}"),) for n in range(20)]
        answers = Chat(model="gpt", base_url=endpoint.base_url, n_answers=3, n_parallel=5).answers(people, 10)
    assert answers == [[f"PERSON {n}"] * 3 for n in range(20)]
    assert len(endpoint.requests) == 60


def test_what_passes_is_tried_again() -> None:
    script = [fails(429, "slow down", Retry_After="0"), fails(503), fails(500, "oops"), says("Milk")]
    with serving(lambda number, body: script[number]) as endpoint:
        assert ask(endpoint.base_url) == ["Milk"]
    assert len(endpoint.requests) == 4


def test_what_does_not_pass_is_an_error_with_what_the_server_said() -> None:
    says_ = "answered 500: out of memory, 3 times"
    with (
        serving(lambda number, body: fails(500, "out of\nmemory")) as endpoint,
        pytest.raises(EngineError, match=says_) as caught,
    ):
        ask(endpoint.base_url, n_retries=2)
    assert len(endpoint.requests) == 3
    assert "Try again later" in (caught.value.hint or "")


def test_one_failure_ends_the_asking_for_all() -> None:
    with serving(lambda number, body: fails(401, "no such key")) as endpoint:
        people = [(("user", f"person {n}"),) for n in range(200)]
        with pytest.raises(EngineError):
            Chat(model="gpt", base_url=endpoint.base_url, n_parallel=2).answers(people, 10)
    assert len(endpoint.requests) < 200


@pytest.mark.parametrize(
    ("reply", "kind", "says_", "hint"),
    [
        (fails(401, "Incorrect API key"), EngineError, "401: Incorrect API key; it asks for an API key", "env:NAME"),
        (fails(403), EngineError, "answered 403; it asks for an API key", "env:NAME"),
        (fails(404, "The model `gpt` does not exist."), ModelError, "`gpt` does not exist", "--model"),
        (fails(404), EngineError, "answered 404", "most end in /v1"),
        (Reply(status=404, body=b'{"detail": "Not Found"}'), EngineError, "answered 404", "most end in /v1"),
        (fails(400, "temperature must be 1"), EngineError, "answered 400: temperature must be 1", "options"),
        (fails(301, Location="http://elsewhere.example/"), EngineError, "answered 301", "options"),
        (Reply(body=b"<html>Welcome!</html>"), EngineError, "no chat completion", "OpenAI-compatible"),
        (Reply(body=b"[1, 2]"), EngineError, "no chat completion", "base_url"),
        (Reply(body=b'{"choices": []}'), EngineError, "no chat completion", "base_url"),
        (Reply(body=b'{"choices": [{"message": {"content": 3}}]}'), EngineError, "no chat completion", "base_url"),
        (Reply(body=b"\xff\xfe"), EngineError, "no chat completion", "base_url"),
    ],
)
def test_errors_say_what_to_do(reply: Reply, kind: type[EngineError], says_: str, hint: str) -> None:
    with serving(lambda number, body: reply) as endpoint, pytest.raises(kind) as caught:
        ask(endpoint.base_url)
    assert says_ in str(caught.value)
    assert hint in (caught.value.hint or "")
    assert len(endpoint.requests) == 1


def test_a_refused_key_is_not_shown() -> None:
    with serving(lambda number, body: fails(401)) as endpoint:
        url = endpoint.base_url.replace("://", "://ann:secret@")
        with pytest.raises(EngineError, match="it refuses the API key") as caught:
            ask(url, api_key="sesame")
    assert "sesame" not in str(caught.value)
    assert "secret" not in str(caught.value)
    assert "sesame" not in repr(Chat(model="gpt", base_url=url, api_key="sesame"))


def test_an_answer_that_does_not_come() -> None:
    with (
        serving(lambda number, body: Reply(hang=True)) as endpoint,
        pytest.raises(EngineError, match=r"no answer within 0\.2 s") as caught,
    ):
        ask(endpoint.base_url, timeout_s=0.2)
    assert len(endpoint.requests) == 1
    assert "timeout_s" in (caught.value.hint or "")


def test_a_server_that_is_not_there() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, not listening: nobody else gets the port, and nobody answers
        with pytest.raises(EngineError, match="cannot be reached") as caught:
            ask(f"http://127.0.0.1:{taken.getsockname()[1]}/v1", n_retries=1)
    assert "base_url" in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("reply", "answer"),
    [
        (says(None), ""),
        (says("Milk\nRye bre", finish_reason="length"), "Milk\n"),
        (says("Milk; Rye bre", finish_reason="length"), "Milk;"),
        (says("Milk", finish_reason="length"), "Milk"),
    ],
)
def test_answers_that_end_early(reply: Reply, answer: str) -> None:
    with serving(lambda number, body: reply) as endpoint:
        assert ask(endpoint.base_url) == [answer]


@pytest.mark.parametrize(
    ("options", "says_"),
    [
        ({"base_url": "localhost:8000"}, "starts with http"),
        ({"n_answers": 0}, "n_answers above 0"),
        ({"timeout_s": -1.0}, "timeout_s above 0"),
        ({"timeout_s": float("nan")}, "timeout_s above 0"),
        ({"n_retries": -1}, "n_retries of at least 0"),
        ({"api_key": "ses\name"}, "api_key"),
        ({"api_key": "schlüssel"}, "api_key"),
    ],
)
def test_options_that_cannot_be(options: dict[str, Any], says_: str) -> None:
    with pytest.raises(ConfigError, match=says_):
        Chat(**{"model": "gpt", "base_url": "http://localhost:8000/v1"} | options)


@pytest.mark.parametrize("url", ["http://", "http://[half", "http://localhost:port/v1"])
def test_an_address_that_is_none(url: str) -> None:
    with pytest.raises((ConfigError, EngineError)):
        ask(url, n_retries=0)


def test_it_is_built_from_a_table_of_options(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOP_KEY", "sesame")
    options = {"model": "gpt", "base_url": "http://localhost:8000/v1", "api_key": "env:SHOP_KEY", "n_answers": 2}
    built = Registry().build("engines", "chat", options)
    assert (built.api_key, built.n_answers) == ("sesame", 2)
    with pytest.raises(ConfigError, match="needs the option base_url") as caught:
        Registry().build("engines", "chat", {"model": "gpt"})
    assert "[engines.chat]" in (caught.value.hint or "")
    with pytest.raises(ConfigError, match="Did you mean 'temperature'"):
        Registry().build("engines", "chat", options | {"temprature": 1})
