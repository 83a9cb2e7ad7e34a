"""The work behind the routes: how many people at once, for how long, and what becomes of each.

Every person is one task on the event loop, so their searches share engine steps. Who is admitted is counted until that
person's search has really ended; who would exceed the limit is sent away at once, so nothing piles up. Knows no HTTP
but the statuses of errors.
"""

from __future__ import annotations

import asyncio
import logging
import traceback
from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

from genrec.errors import ConfigError, EngineError
from genrec.recommendation import Query, Recommendation
from genrec.serve.errors import ServeError, as_serve_error, timed_out

log = logging.getLogger(__name__)

RETRY_AFTER_S = 1
"""What a client that was sent away is told to wait, in seconds."""


class Recommends(Protocol):
    """What answers one query on the running event loop: a `Recommender`."""

    async def answer(self, query: Query, *, by_prior: bool = False) -> Recommendation:
        """One person's recommendation, without the engine where the prior alone is asked for."""


class Desk:
    """Takes queries in and gives answers out, so many at once.

    Args:
        recommender: Answers one person.
        max_queue: Most people admitted at once.
        timeout_s: Longest time for one request, in seconds.
        n_parallel: Most searches under way; the other people wait for one to end. With too many of them the engine's
            cache cannot hold all prompts, and each is read again and again.
        prior_when_down: Whether the prior alone answers where the engine fails in a way that may pass.
    """

    def __init__(
        self,
        recommender: Recommends,
        *,
        max_queue: int,
        timeout_s: float,
        n_parallel: int = 64,
        prior_when_down: bool = False,
    ) -> None:
        self.recommender, self.max_queue, self.timeout_s = recommender, max_queue, timeout_s
        self.prior_when_down = prior_when_down
        self._places = asyncio.Semaphore(n_parallel)
        self.n_in_flight = 0
        """People whose searches are under way or waiting."""
        self.n_answered = 0
        """People answered since the start."""
        self.n_failed = 0
        """People not answered since the start: errors, time-outs and clients that went away."""

    async def answer(
        self, queries: Sequence[Query | ServeError], timeout_s: float | None = None
    ) -> list[Recommendation | ServeError]:
        """Answer people at the same time; if this is cancelled, so are their searches.

        Args:
            queries: The queries; an error in the place of one is passed on.
            timeout_s: Longest time in seconds, within the limit of the server.

        Returns:
            A whole recommendation or an error for each, in their order.

        Raises:
            ServeError: If nobody is admitted: the batch is too large, or too many are under way.
        """
        asked = [query for query in queries if isinstance(query, Query)]
        self._admit(len(asked))
        limit_s = min(timeout_s or self.timeout_s, self.timeout_s)
        tasks = [asyncio.ensure_future(self._one(query)) for query in asked]
        for task in tasks:
            task.add_done_callback(self._leave)
        try:
            if tasks:
                await asyncio.wait(tasks, timeout=limit_s)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        outcomes = iter([_outcome(task, limit_s) for task in tasks])
        return [query if isinstance(query, ServeError) else next(outcomes) for query in queries]

    async def _one(self, query: Query) -> Recommendation:
        async with self._places:
            try:
                answer = await self.recommender.answer(query)
            except EngineError as error:
                if not (self.prior_when_down and error.retryable):
                    raise
                try:
                    answer = await self.recommender.answer(query, by_prior=True)
                except ConfigError:  # there is no prior
                    raise error from None
                note = f"The language model could not be asked ({error}): the prior answered alone."
                answer = replace(answer, notes=(*answer.notes, note))
        if 0 < len(answer.items) < query.k:  # an empty list comes with a note of its own
            note = f"{query.k} items were asked for, and {len(answer.items)} are left."
            answer = replace(answer, notes=(*answer.notes, note))
        return answer

    def _admit(self, n: int) -> None:
        if n > self.max_queue:
            raise ServeError(
                f"a batch of {n} is larger than the queue of this server, which takes {self.max_queue}",
                status=413,
                type="too_large",
                hint="Send it in several requests, or start the server with a larger --max-queue.",
            )
        if self.n_in_flight + n > self.max_queue:
            raise ServeError(
                f"{self.n_in_flight} people are under way, and this server takes {self.max_queue} at once",
                status=429,
                type="busy",
                hint=f"Try again in {RETRY_AFTER_S} s.",
                retryable=True,
                headers={"Retry-After": str(RETRY_AFTER_S)},
            )
        self.n_in_flight += n

    def _leave(self, task: asyncio.Future[Recommendation]) -> None:
        self.n_in_flight -= 1
        if task.cancelled() or task.exception() is not None:
            self.n_failed += 1
        else:
            self.n_answered += 1


def _outcome(task: asyncio.Future[Recommendation], limit_s: float) -> Recommendation | ServeError:
    if task.cancelled():
        return timed_out(limit_s)
    error = task.exception()
    if error is None:
        return task.result()
    return said(error) if isinstance(error, Exception) else timed_out(limit_s)


def said(error: Exception) -> ServeError:
    """An error as the client is told; what it is not told is logged.

    One that nobody foresaw is logged without its message, which may quote a person.
    """
    known = as_serve_error(error)
    if known.type == "store_failed":
        log.error("the store failed: %s", error)
    if known.type == "internal":
        where = "".join(traceback.format_tb(error.__traceback__))
        log.error("%s while answering:\n%s", type(error).__name__, where)
    return known
