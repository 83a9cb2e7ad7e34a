"""The routes of genrec as one FastAPI application, with OpenAI's routes below it where there are any.

Bodies are read here and not by FastAPI, so that every error has one form. A client that goes away while it waits ends
its own searches: uvicorn tells, but cancels nothing by itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from genrec import __version__
from genrec.assortment import add_items, retire_items
from genrec.catalog import Catalog
from genrec.events import batch
from genrec.recommendation import Recommendation
from genrec.serve.answers import Desk, said
from genrec.serve.bodies import read_adapter, read_events, read_items, read_queries, schemas
from genrec.serve.errors import ServeError
from genrec.serve.security import OPEN

if TYPE_CHECKING:
    from genrec.store import Store

T = TypeVar("T")
Status = Callable[[], dict[str, Any]]

OPENAI_ROUTES = ("/v1/models", "/v1/completions", "/v1/chat/completions", "/v1/responses", "/v1/embeddings")
"""What a server without vLLM is asked for in vain."""
GONE = 499
"""Status of an answer that nobody waits for; it is never sent."""


def application(
    *,
    desk: Desk,
    store: Store,
    catalog: Catalog,
    status: Status,
    alive: Callable[[], bool],
    k: int,
    switch: Callable[[str], Callable[[], None]],
    openai: FastAPI | None,
) -> FastAPI:
    """Put the routes together.

    Args:
        desk: Answers queries.
        store: Keeps events and items.
        catalog: What can be recommended.
        status: What ``GET /v1/status`` says beyond the desk's numbers.
        alive: Whether the engine lives.
        k: How many items where a query names no number.
        switch: Prepares that the model answers with another adapter, by name; what it returns does it at once.
        openai: vLLM's application; without it OpenAI's routes say why they are missing.
    """
    writers = ThreadPoolExecutor(2, thread_name_prefix="genrec-write")  # who waits for the disk keeps no reader waiting

    switching = asyncio.Lock()

    async def write(work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(writers, work)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        context: AbstractAsyncContextManager[Any] = openai.router.lifespan_context(openai) if openai else _nothing()
        async with context:  # a mounted application's own is not run by Starlette
            yield
        writers.shutdown()

    app = FastAPI(title="genrec", version=__version__, docs_url=None, redoc_url=None, lifespan=lifespan)
    app.add_exception_handler(HTTPException, _http_error)
    described = schemas()

    @app.get(OPEN, summary="Whether the server lives; needs no key.")
    async def health() -> JSONResponse:
        return JSONResponse({"status": "ok"}) if alive() else JSONResponse({"status": "dead"}, 503)

    @app.get("/v1/status", summary="What answers here, and how much it has to do.")
    async def show_status() -> dict[str, Any]:
        return {
            "version": __version__,
            **status(),
            "openai": openai is not None,
            "n_in_flight": desk.n_in_flight,
            "n_answered": desk.n_answered,
            "n_failed": desk.n_failed,
            "max_queue": desk.max_queue,
            "timeout_s": desk.timeout_s,
        }

    @app.post(
        "/v1/recommendations",
        summary="Recommend to one person, or to several at once.",
        openapi_extra=_body(described["recommendations"]),
    )
    async def recommend(request: Request) -> JSONResponse:
        async def work() -> JSONResponse:
            queries, timeout_s, is_batch = read_queries(await _json_body(request), k=k)
            if not is_batch and isinstance(queries[0], ServeError):
                raise queries[0]
            answers = await _while_there(request, desk.answer(queries, timeout_s))
            if is_batch:
                return _batch(answers)
            [answer] = answers
            if isinstance(answer, ServeError):
                raise answer
            return JSONResponse(answer.to_dict())

        return await _answered(work())

    @app.post("/v1/events", summary="Add what people did.", openapi_extra=_body(described["events"]))
    async def add_events(request: Request) -> JSONResponse:
        async def work() -> JSONResponse:
            events, source = read_events(await _json_body(request))
            done = await write(lambda: store.append([batch("events", events)], source=source))
            return JSONResponse(vars(done))

        return await _answered(work())

    @app.post("/v1/items", summary="Add items or replace them.", openapi_extra=_body(described["items"]))
    async def put_items(request: Request) -> JSONResponse:
        async def work() -> JSONResponse:
            items = read_items(await _json_body(request))
            added = await write(lambda: add_items(store, catalog, items))
            return JSONResponse({"n_new": len(added.rows), "n_replaced": added.n_replaced})

        return await _answered(work())

    @app.delete("/v1/items/{item_id:path}", summary="Take an item off offer; adding it again brings it back.")
    async def retire_item(item_id: str) -> JSONResponse:
        async def work() -> JSONResponse:
            if not await write(lambda: retire_items(store, catalog, [item_id])):
                raise ServeError("there is no such item", status=404, type="not_found")
            return JSONResponse({"n_retired": 1})

        return await _answered(work())

    @app.post(
        "/v1/adapter",
        summary="Answer with another adapter from now on, without a restart.",
        openapi_extra=_body(described["adapter"]),
    )
    async def change_adapter(request: Request) -> JSONResponse:
        async def work() -> JSONResponse:
            name = read_adapter(await _json_body(request))
            async with switching:
                (await asyncio.to_thread(switch, name))()
            return JSONResponse({"adapter": None if name == "none" else name})

        return await _answered(work())

    if openai is not None:
        app.mount("/", openai)
        return app

    async def no_openai() -> JSONResponse:
        return _error(
            ServeError(
                f"the OpenAI routes need vLLM, and this server runs the engine {status()['engine']!r}",
                status=501,
                type="not_implemented",
                hint="Start it with: genrec serve --engine vllm",
            )
        )

    for path in OPENAI_ROUTES:
        app.add_api_route(path, no_openai, methods=["GET", "POST"], include_in_schema=False)
    return app


@asynccontextmanager
async def _nothing() -> AsyncIterator[None]:
    yield


async def _json_body(request: Request) -> bytes:
    """The body; only of a request that says it is JSON, which no foreign web page can send without being asked."""
    kind = request.headers.get("content-type", "").split(";")[0].strip().lower()
    if kind != "application/json":
        raise ServeError(
            f"the body must be application/json, not {kind or 'of no named type'}",
            status=415,
            type="unsupported_media_type",
            hint="Send the header Content-Type: application/json.",
        )
    return await request.body()


async def _while_there(request: Request, work: Awaitable[T]) -> T:
    """Wait for work, and end it when the client goes away."""
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_gone(request))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientDisconnect
        return task.result()
    finally:
        for waiting in (task, gone):
            waiting.cancel()
        await asyncio.gather(task, gone, return_exceptions=True)


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _answered(work: Awaitable[JSONResponse]) -> JSONResponse:
    """An answer, or the error that it ended in, in the one form."""
    try:
        return await work
    except ClientDisconnect:
        return JSONResponse(None, GONE)
    except HTTPException as error:
        return _http_response(error)
    except Exception as error:
        return _error(said(error))


def _batch(answers: list[Recommendation | ServeError]) -> JSONResponse:
    """Answers and errors in order; if nobody was answered, the gravest error's status is that of the whole."""
    errors = [answer for answer in answers if isinstance(answer, ServeError)]
    body = {"answers": [answer.to_dict() for answer in answers], "n_errors": len(errors)}
    status = max(error.status for error in errors) if len(errors) == len(answers) else 200
    return JSONResponse(body, status)


def _error(error: ServeError) -> JSONResponse:
    return JSONResponse(error.to_dict(), error.status, headers=error.headers)


async def _http_error(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    return _http_response(error)


def _http_response(error: HTTPException) -> JSONResponse:
    type_ = {404: "not_found", 405: "method_not_allowed", 413: "too_large"}.get(error.status_code, "http")
    known = ServeError(str(error.detail), status=error.status_code, type=type_, headers=error.headers)
    return _error(known)


def _body(schema: dict[str, Any]) -> dict[str, Any]:
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}
