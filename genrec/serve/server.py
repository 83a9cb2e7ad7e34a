"""From an open workspace to a server that listens: parts put together, signals, and an end that leaves nothing behind.

The address is taken before a model is loaded, so a taken port is known at once; connections are accepted when
everything is ready. Where the engine dies, the server tells those who wait, ends, and says so by its exit code: what
supervises it starts it anew.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import multiprocessing
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

import uvicorn

from genrec.errors import ConfigError, EngineError
from genrec.recommendation import Query
from genrec.serve.answers import Desk
from genrec.serve.routes import application
from genrec.serve.security import Guard, Keys, check_reach, read_keys

if TYPE_CHECKING:
    from genrec.workspace import Workspace

N_PARALLEL = 64
"""Searches under way at once where the engine's options do not say otherwise."""
GRACE_S = 20
"""How long requests under way may go on when the server is told to stop, in seconds."""


def serve(workspace: Workspace, on_ready: Callable[[str, dict[str, Any]], None]) -> None:
    """Serve a workspace until a signal says stop.

    Args:
        workspace: Open, with the settings that count.
        on_ready: Called with the address and the status once requests are accepted.

    Raises:
        ConfigError: If the address cannot be listened on, or would be open to others without a key.
        EngineError: If the engine died.
        GenrecError: If a part cannot be had.
    """
    settings = workspace.settings.serve
    keys = read_keys(settings.api_key, workspace.folder / settings.api_key_file if settings.api_key_file else None)
    check_reach(settings.host, keys)
    sock = listening_socket(settings.host, settings.port)
    loop_factory = uvicorn.Config("").get_loop_factory()  # uvloop where it is installed
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _end_at_once)
    with sock, asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(_serve(workspace, keys, sock, on_ready))


def _end_at_once(number: int, frame: object) -> None:
    """End while parts still start: nothing is under way yet, and vLLM's start would swallow an interrupt."""
    for child in multiprocessing.active_children():
        child.kill()
    os._exit(1)


async def _serve(
    workspace: Workspace, keys: Keys, sock: socket.socket, on_ready: Callable[[str, dict[str, Any]], None]
) -> None:
    settings, started_s = workspace.settings, time.monotonic()
    name = workspace.engine_name()
    if name == "chat":
        raise ConfigError("the engine 'chat' cannot be served", hint="Choose vllm, transformers, vllm-server or none.")
    async with AsyncExitStack() as stack:
        llm = openai = None
        options = {} if name == "none" else workspace.engine_options(name)
        n_parallel = options.pop("n_parallel", N_PARALLEL)
        if name == "vllm":
            from genrec.serve.openai import engine_and_routes

            folder, adapter = workspace.adapted(workspace.adapter, name)
            parts = engine_and_routes(folder, adapter=adapter, **options)
            engine, llm, openai = await stack.enter_async_context(parts)
            engine.use(adapter)
            recommender = workspace.recommender(engine=engine)
        else:
            recommender = workspace.recommender(engine=name)
        catalog, asked = recommender.catalog, recommender.engine
        # The first answer takes seconds more than the next ones; and what cannot answer must not say that it is ready.
        await asyncio.to_thread(recommender.filters.prepare)
        await recommender.answer(Query(user_id="", k=1))

        def alive() -> bool:
            return llm is None or not llm.errored

        def status() -> dict[str, Any]:
            return {
                "engine": asked.name if asked else "none",
                "model": asked.model if asked else None,
                "adapter": workspace.card.name if workspace.card else None,
                "scoring": recommender.scoring.name if asked else "prior",
                "prompt": recommender.template.name if recommender.template else None,
                "catalog": {
                    "fingerprint": catalog.fingerprint,
                    "n_items": len(catalog),
                    "n_retired": len(catalog.retired),
                },
                "usage": vars(asked.usage) if asked else None,
                "uptime_s": round(time.monotonic() - started_s, 1),
                "notes": workspace.notes,
            }

        desk = Desk(
            recommender,
            max_queue=settings.serve.max_queue,
            prior_when_down=settings.serve.prior_when_down,
            timeout_s=settings.serve.timeout_s,
            n_parallel=n_parallel,
        )
        app = application(
            desk=desk,
            store=workspace.store,
            catalog=catalog,
            status=status,
            alive=alive,
            k=settings.k,
            switch=lambda name: workspace.switch(name, recommender),
            openai=openai,
        )
        config = uvicorn.Config(
            Guard(app, keys),
            log_level="warning",
            access_log=False,
            server_header=False,
            lifespan="on",
            timeout_graceful_shutdown=GRACE_S,
        )
        server = _Server(config, lambda: on_ready(_url(sock), status()))
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, server.handle_exit, number, None)
        watch = asyncio.ensure_future(_end_when_dead(server, alive))
        try:
            await server.serve(sockets=[sock])
        except OSError as error:  # another program, too, had taken the address but not listened yet
            raise _cannot_listen(error, settings.serve.host, settings.serve.port) from None
        finally:
            watch.cancel()
        if not alive():
            raise EngineError("the process that runs the model ended; so does the server", hint="Start it again.")


async def _end_when_dead(server: uvicorn.Server, alive: Callable[[], bool]) -> None:
    """Let the server end once the engine is dead; who waits has been told by then."""
    while alive():
        await asyncio.sleep(0.5)
    server.should_exit = True


def _url(sock: socket.socket) -> str:
    host, port = sock.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def listening_socket(host: str, port: int) -> socket.socket:
    """Take an address; nobody is accepted yet.

    Raises:
        ConfigError: If it is taken or not ours.
    """
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except (OSError, UnicodeError) as error:
        raise ConfigError(f"there is no address {host!r}: {error}", hint="Choose another with --host.") from None
    sock = socket.socket(family, kind)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind(address)
    except OSError as error:
        sock.close()
        raise _cannot_listen(error, host, port) from None
    return sock


def _cannot_listen(error: OSError, host: str, port: int) -> ConfigError:
    if error.errno == errno.EADDRINUSE:
        return ConfigError(
            f"port {port} of {host} is taken by another program",
            hint="Stop that one, or choose another port with --port.",
        )
    return ConfigError(
        f"cannot listen on port {port} of {host}: {error.strerror or error}",
        hint="Choose another address with --host and --port.",
    )


class _Server(uvicorn.Server):
    """A uvicorn without signal handlers of its own, which would end this process before vLLM's is stopped."""

    def __init__(self, config: uvicorn.Config, on_ready: Callable[[], None]) -> None:
        super().__init__(config)
        self.on_ready = on_ready

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to the event loop."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to accept requests, and say so."""
        await super().startup(sockets)
        if self.started:
            self.on_ready()
