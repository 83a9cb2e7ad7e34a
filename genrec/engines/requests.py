"""Searches as questions to a server of a language model: "what are these tokens worth after this prompt?".

What vLLM in this program and vLLM behind HTTP have in common: a token tree becomes a question for each inner node, all
questions of a round are asked at once, and any number of searches are under way together. Knows neither vLLM nor HTTP.
"""

from __future__ import annotations

import asyncio
import threading
from abc import abstractmethod
from collections.abc import AsyncIterator, Coroutine, Iterable, Sequence
from concurrent.futures import CancelledError
from contextlib import asynccontextmanager
from typing import Any, ClassVar, NamedTuple, TypeVar

import numpy as np

from genrec.engines.base import Engine, Job, Search, T, TokenTree, Usage
from genrec.errors import EngineError

R = TypeVar("R")

MAX_NAMED_TOKENS = 128
"""vLLM's limit on `logprob_token_ids` of one request."""


def _closed() -> EngineError:
    return EngineError("the engine is closed", hint="Build another one.")


class Question(NamedTuple):
    """What are these tokens worth after the prompt and this path?"""

    path: list[int]
    """Token ids between the prompt and the named tokens."""
    tokens: list[int]
    """At most `RequestEngine.max_named` different token ids."""


class Background:
    """An event loop in a thread of its own, for callers that have none."""

    def __init__(self, name: str) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name=name, daemon=True)
        self._thread.start()

    def wait(self, work: Coroutine[Any, Any, R]) -> R:
        """Run a coroutine there and wait for it; an interrupt here ends it there too.

        Raises:
            EngineError: If the loop has been stopped.
        """
        if self._loop.is_closed():
            work.close()
            raise _closed()
        task: asyncio.Task[Any] | None = None
        is_over = False

        async def begin() -> R:
            nonlocal task
            if is_over:
                work.close()
                raise asyncio.CancelledError
            task = asyncio.current_task()
            return await work

        def end() -> None:
            if task is not None:
                task.cancel()

        try:
            return asyncio.run_coroutine_threadsafe(begin(), self._loop).result()
        except CancelledError:
            raise _closed() from None
        except BaseException:
            is_over = True  # an interrupt can come before there is a future to cancel
            self._loop.call_soon_threadsafe(end)
            raise

    async def elsewhere(self, work: Coroutine[Any, Any, R]) -> R:
        """Run a coroutine there and await it on whatever loop runs here; a cancellation here ends it there too.

        Raises:
            EngineError: If the loop has been stopped, or is while this waits.
        """
        if asyncio.get_running_loop() is self._loop:
            return await work
        if self._loop.is_closed():
            work.close()
            raise _closed()
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return await asyncio.wrap_future(future)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            raise _closed() from None

    @property
    def is_stopped(self) -> bool:
        """Whether `stop` has been called."""
        return self._loop.is_closed()

    async def end_others(self) -> None:
        """Cancel what runs there beside the caller, which must run there too, and wait until it has ended."""
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    def stop(self) -> None:
        """End the loop and its thread; stopping twice does no harm."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()


class RequestEngine(Engine):
    """An engine that answers questions; subclasses say how one is asked.

    Args:
        background: Runs what is called from outside an event loop; without it only `drive` can be used.
        n_parallel: People whose searches are under way at once in `run`.
    """

    margin: ClassVar[float] = 1.0
    prompt_tail: int = 1
    max_named: int = MAX_NAMED_TOKENS
    """Most tokens of one question; a wider node is asked about in chunks."""

    def __init__(self, background: Background | None, *, n_parallel: int) -> None:
        self._background, self._n_parallel = background, n_parallel

    @abstractmethod
    async def _ask(self, prompt: list[int], questions: Sequence[Question]) -> tuple[Sequence[Sequence[float]], Usage]:
        """Log-probabilities of the tokens of each question, nats, and what that took."""

    def run(self, searches: Iterable[Job[T]]) -> list[T]:
        """Drive searches to their end, `n_parallel` at a time.

        What `searches` makes of the next one is done in a worker thread, while those before it go on.
        """

        async def run() -> list[T]:
            free = asyncio.Semaphore(self._n_parallel)

            async def one(job: Job[T]) -> T:
                try:
                    return await self.drive(*job)
                finally:
                    free.release()

            async with _together() as group:
                tasks, jobs = [], iter(searches)
                while (job := await asyncio.to_thread(next, jobs, None)) is not None:
                    await free.acquire()
                    tasks.append(group.create_task(one(job)))
            return [task.result() for task in tasks]

        return self._wait(run())

    async def drive(self, prompt: Sequence[int], search: Search[T], usage: Usage | None = None) -> T:
        """Drive one search to its end on the running event loop."""
        ids, usage = list(prompt), usage or Usage()
        try:
            tree = next(search)
            while True:
                tree = search.send(await self._evaluate(ids, tree, usage))
        except StopIteration as stop:
            result: T = stop.value
            return result
        finally:
            search.close()

    def prefill(self, prompts: Iterable[Sequence[int]]) -> None:
        """Read prompts and nothing more."""

        async def run() -> None:
            for _, used in await all_of(self._ask(list(prompt), [Question([], [0])]) for prompt in prompts):
                self.usage += used

        self._wait(run())

    async def _evaluate(self, prompt: list[int], tree: TokenTree, usage: Usage) -> np.ndarray:
        """Log-probabilities of a tree's wanted nodes: a question for each of their parents, all asked at once.

        Whichever the server takes up first reads the prompt; the others find it in the cache, be it in the same step.
        """
        logprob = np.full(len(tree), np.nan)
        if not (wanted := np.flatnonzero(tree.wanted)).size:
            return logprob
        order = wanted[np.argsort(tree.parent[wanted], kind="stable")]
        parents, starts = np.unique(tree.parent[order], return_index=True)
        questions: list[Question] = []
        for parent, nodes in zip(parents.tolist(), np.split(order, starts[1:]), strict=True):
            path, tokens = _path(tree, parent), tree.token[nodes].tolist()
            chunks = range(0, len(nodes), self.max_named)
            questions += [Question(path, tokens[start : start + self.max_named]) for start in chunks]
        answers, used = await self._ask(prompt, questions)
        usage += used
        self.usage += used
        logprob[order] = np.concatenate(answers)
        return logprob

    def _wait(self, work: Coroutine[Any, Any, R]) -> R:
        if self._background is None:
            work.close()
            raise EngineError("this engine lives on its server's event loop: only drive() can be used")
        return self._background.wait(work)


@asynccontextmanager
async def _together() -> AsyncIterator[asyncio.TaskGroup]:
    """A task group whose first failure ends the rest and is raised as it is."""
    try:
        async with asyncio.TaskGroup() as group:
            yield group
    except BaseExceptionGroup as failures:
        raise (first := failures.exceptions[0]) from first.__cause__


async def all_of(work: Iterable[Coroutine[Any, Any, R]]) -> list[R]:
    """Run coroutines together; the first failure ends the rest and is raised as it is."""
    async with _together() as group:
        tasks = [group.create_task(one) for one in work]
    return [task.result() for task in tasks]


def _path(tree: TokenTree, node: int) -> list[int]:
    path = []
    while node >= 0:
        path.append(int(tree.token[node]))
        node = int(tree.parent[node])
    return path[::-1]
