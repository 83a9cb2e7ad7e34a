"""Who gets in: keys before every route, and without keys this machine alone."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from genrec.errors import ConfigError

pytest.importorskip("fastapi", reason="pip install 'genrec[serve]'")
import httpx2

from genrec.serve.security import MAX_BODY, MIN_KEY, Guard, Keys, check_reach, read_keys

KEY = "0123456789abcdef"


async def echo(scope: Any, receive: Any, send: Any) -> None:
    """An application that reads the body and answers 200 to everything."""
    assert scope["type"] == "http"
    while (await receive()).get("more_body"):
        pass
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"ok"})


def ask(keys: Keys, path: str = "/v1/status", method: str = "GET", **options: Any) -> httpx2.Response:
    async def run() -> httpx2.Response:
        transport = httpx2.ASGITransport(app=Guard(echo, keys))
        base = options.pop("base", "http://localhost:8000")
        async with httpx2.AsyncClient(transport=transport, base_url=base) as client:
            return await client.request(method, path, **options)

    return asyncio.run(run())


@pytest.mark.parametrize("path", ["/v1/status", "/metrics", "/tokenize", "/health", "/", "/healthz/", "//healthz"])
@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS", "DELETE"])
def test_no_route_and_no_method_answers_without_the_key(path: str, method: str) -> None:
    answer = ask(Keys([KEY]), path, method)
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"].startswith("Bearer")
    assert answer.json()["error"] == {
        "type": "unauthorized",
        "message": "this server needs an API key",
        "hint": "Send the header Authorization: Bearer KEY.",
        "retryable": False,
    }


@pytest.mark.parametrize(
    "header", ["Bearer", "Bearer ", f"Basic {KEY}", KEY, f"Bearer {KEY}x", f"Bearer {KEY[:-1]}", "Bearer \x00"]
)
def test_a_wrong_key_is_no_key(header: str) -> None:
    answer = ask(Keys([KEY]), headers={"Authorization": header})
    assert answer.status_code == 401
    assert "not known" in answer.json()["error"]["message"]


def test_each_of_several_keys_opens() -> None:
    keys = Keys([KEY, "another-key-0123456789"])
    for key in (KEY, "another-key-0123456789"):
        assert ask(keys, headers={"Authorization": f"bearer {key}"}).status_code == 200
    assert ask(keys, headers={"Authorization": f"Bearer {KEY}"}).text == "ok"


def test_whether_the_server_lives_is_no_secret() -> None:
    assert ask(Keys([KEY]), "/healthz").status_code == 200


def test_keys_are_not_kept_in_the_clear() -> None:
    assert KEY not in str(vars(Keys([KEY])))


@pytest.mark.parametrize("key", ["short", "with a space in the key", "schlüssel-0123456789", "tab\t0123456789abcdef"])
def test_a_key_that_is_no_key_is_refused_without_being_shown(key: str) -> None:
    with pytest.raises(ConfigError, match=str(MIN_KEY)) as error:
        Keys([key])
    assert key not in f"{error.value} {error.value.hint}"


def test_keys_come_from_a_variable_and_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "keys"
    file.write_text(f"# those of June\n\n{KEY}\nanother-key-0123456789\n")
    monkeypatch.setenv("SHOP_KEY", "a-third-key-0123456789\n")
    keys = read_keys("env:SHOP_KEY", file)
    assert len(keys) == 3
    assert all(
        keys.allow(f"Bearer {key}".encode()) for key in (KEY, "another-key-0123456789", "a-third-key-0123456789")
    )
    assert len(read_keys("", None)) == 0


def test_where_keys_cannot_be_read_the_reason_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SHOP_KEY", raising=False)
    (tmp_path / "empty").write_text("# none\n")
    with pytest.raises(ConfigError, match="neither on a command line nor") as error:
        read_keys(KEY, None)
    assert KEY not in f"{error.value} {error.value.hint}"
    with pytest.raises(ConfigError, match="SHOP_KEY holds no API key"):
        read_keys("env:SHOP_KEY", None)
    with pytest.raises(ConfigError, match="cannot read the API keys"):
        read_keys("", tmp_path / "missing")
    with pytest.raises(ConfigError, match="holds no API key"):
        read_keys("", tmp_path / "empty")


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "localhost"])
def test_without_a_key_this_machine_alone_is_answered(host: str) -> None:
    check_reach(host, Keys())


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.7"])
def test_others_are_answered_only_with_a_key(host: str) -> None:
    check_reach(host, Keys([KEY]))
    with pytest.raises(ConfigError, match="without an API key"):
        check_reach(host, Keys())


def test_an_unknown_host_is_an_error() -> None:
    with pytest.raises(ConfigError, match="no address"):
        check_reach("no such host", Keys())


@pytest.mark.parametrize(
    "base", ["http://localhost:8000", "http://127.0.0.1:1", "http://[::1]:8000", "http://LOCALHOST"]
)
def test_without_a_key_requests_to_this_machine_pass(base: str) -> None:
    assert ask(Keys(), base=base).status_code == 200


@pytest.mark.parametrize("base", ["http://evil.example", "http://localhost.evil.example", "http://10.0.0.1"])
def test_without_a_key_a_web_pages_own_name_does_not_pass(base: str) -> None:
    assert ask(Keys(), base=base).status_code == 403


def test_a_body_may_be_so_large_and_no_larger() -> None:
    async def chunks(n: int) -> Any:
        for _ in range(n):
            yield bytes(1 << 20)

    assert ask(Keys(), method="POST", content=bytes(MAX_BODY)).status_code == 200
    answer = ask(Keys(), method="POST", content=bytes(MAX_BODY + 1))
    assert (answer.status_code, answer.json()["error"]["type"]) == (413, "too_large")
    with pytest.raises(Exception, match="413"):  # told by whoever reads the body
        ask(Keys(), method="POST", content=chunks(9))


def test_a_websocket_needs_the_key_too() -> None:
    sent: list[Any] = []

    async def run() -> None:
        async def send(message: Any) -> None:
            sent.append(message)

        async def receive() -> Any:
            return {"type": "websocket.connect"}

        await Guard(echo, Keys([KEY]))({"type": "websocket", "path": "/v1/realtime", "headers": []}, receive, send)

    asyncio.run(run())
    assert [message["type"] for message in sent] == ["websocket.close"]
