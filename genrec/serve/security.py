"""Who may ask: API keys before every route, and no key at all only for this machine itself.

Pure ASGI around the whole application, so no route can be added beside it. Keys are kept as hashes and compared in
constant time. Knows nothing of what the routes do.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import os
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from genrec.errors import ConfigError
from genrec.serve.errors import ServeError

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

OPEN = "/healthz"
"""The one path that answers without a key: whether the server lives, and nothing else."""
MIN_KEY = 16
"""Shortest key, in characters."""
MAX_BODY = 8 << 20
"""Longest body of a request, in bytes."""


class Keys:
    """API keys, kept as hashes.

    Args:
        keys: The keys in the clear.

    Raises:
        ConfigError: If one is too short or cannot stand in a header.
    """

    def __init__(self, keys: Sequence[str] = ()) -> None:
        for key in keys:
            if len(key) < MIN_KEY or not key.isascii() or not key.isprintable() or " " in key:
                raise ConfigError(
                    f"an API key must be {MIN_KEY} or more printable ASCII characters without spaces",
                    hint='Make one with: python3 -c "import secrets; print(secrets.token_urlsafe(32))"',
                )
        self._hashes = [_hash(key.encode()) for key in keys]

    def __len__(self) -> int:
        return len(self._hashes)

    def allow(self, authorization: bytes | None) -> bool:
        """Whether an ``Authorization`` header carries one of the keys."""
        scheme, _, key = (authorization or b"").partition(b" ")
        if scheme.lower() != b"bearer":
            return False
        asked = _hash(key.strip())
        return sum(hmac.compare_digest(asked, known) for known in self._hashes) > 0  # all of them, whichever it is


def read_keys(api_key: str, file: Path | None) -> Keys:
    """Read the keys that the settings name.

    Args:
        api_key: ``env:NAME``, or empty.
        file: A file of keys, one a line; empty lines and lines behind ``#`` are passed over.

    Raises:
        ConfigError: If a named variable or file is missing or holds no key.
    """
    keys: list[str] = []
    if api_key:
        if not api_key.startswith("env:"):
            raise ConfigError(
                "an API key belongs neither on a command line nor among the settings, where others can read it",
                hint="Put it into a variable and say --api-key env:NAME, or into a file and say --api-key-file FILE.",
            )
        name = api_key.removeprefix("env:")
        if not os.environ.get(name, "").strip():
            raise ConfigError(
                f"the environment variable {name} holds no API key", hint=f"Set it: export {name}=…; or leave it out."
            )
        keys.append(os.environ[name].strip())
    if file is not None:
        try:
            lines = [line.strip() for line in file.read_text(encoding="utf-8").splitlines()]
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"cannot read the API keys in {file}: {error}") from None
        found = [line for line in lines if line and not line.startswith("#")]
        if not found:
            raise ConfigError(f"{file} holds no API key", hint="Write one into it, a line each.")
        keys += found
    return Keys(keys)


def check_reach(host: str, keys: Keys) -> None:
    """Let a server without keys listen on this machine's own addresses only.

    Raises:
        ConfigError: If others could reach it, or the host is unknown.
    """
    if not len(keys) and not _is_loopback(host):
        raise ConfigError(
            f"without an API key, the server would answer everybody who can reach {host}",
            hint="Name a key with --api-key env:NAME or --api-key-file FILE, or listen on 127.0.0.1.",
        )


def _is_loopback(host: str) -> bool:
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise ConfigError(f"there is no address {host!r} to listen on: {error}") from None
    return all(ipaddress.ip_address(str(address[0]).split("%")[0]).is_loopback for *_, address in found)


class Guard:
    """Lets through only who has a key, and bodies only up to `MAX_BODY`.

    Without keys it lets through only requests that were addressed to this machine by name: a web page that a browser
    here has open can send requests here too, under a name of its own.

    Args:
        app: The whole application.
        keys: Which keys open it; none for a server that only this machine reaches.
    """

    def __init__(self, app: ASGIApp, keys: Keys) -> None:
        self.app, self.keys = app, keys

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer 401, 403 or 413, or hand the request on."""
        if scope["type"] == "lifespan" or (scope["type"] == "http" and scope["path"] == OPEN):
            await self.app(scope, receive, send)
            return
        headers = dict(reversed(scope["headers"]))  # of a header sent twice, the first counts
        refusal = self._refusal(headers)
        if refusal is None:
            await self.app(scope, _limited(receive) if scope["type"] == "http" else receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008, "reason": "unauthorized"})
        else:
            from starlette.responses import JSONResponse

            response = JSONResponse(refusal.to_dict(), status_code=refusal.status, headers=refusal.headers)
            await response(scope, receive, send)

    def _refusal(self, headers: dict[bytes, bytes]) -> ServeError | None:
        if len(self.keys):
            if not self.keys.allow(headers.get(b"authorization")):
                return ServeError(
                    "this server needs an API key" if b"authorization" not in headers else "this API key is not known",
                    status=401,
                    type="unauthorized",
                    hint="Send the header Authorization: Bearer KEY.",
                    headers={"WWW-Authenticate": 'Bearer realm="genrec"'},
                )
        elif not _names_this_machine(headers.get(b"host", b"localhost")):
            return ServeError(
                "a server without API keys answers only requests to localhost",
                status=403,
                type="forbidden",
                hint="Call it as localhost or 127.0.0.1, or start it with an API key.",
            )
        length = headers.get(b"content-length", b"0")
        return _too_large() if length.isdigit() and int(length) > MAX_BODY else None


def _names_this_machine(host: bytes) -> bool:
    try:
        name = urlsplit(f"//{host.decode('latin-1')}").hostname or ""
        return name == "localhost" or ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def _limited(receive: Receive) -> Receive:
    """The same messages until the body is too large; a body in chunks announces no length."""
    n_bytes = 0

    async def limited() -> Message:
        nonlocal n_bytes
        message = await receive()
        n_bytes += len(message.get("body", b""))
        if n_bytes > MAX_BODY:
            from starlette.exceptions import HTTPException

            raise HTTPException(413, str(_too_large()))
        return message

    return limited


def _too_large() -> ServeError:
    return ServeError(
        f"the body is larger than {MAX_BODY >> 20} MiB",
        status=413,
        type="too_large",
        hint="Send it in several requests.",
    )


def _hash(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()
