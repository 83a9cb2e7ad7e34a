"""The desk: who is admitted, how long it may take, and what becomes of each."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

import pytest

from genrec.errors import ConfigError, DataError, EngineError, GenrecError, PromptError, StoreError
from genrec.events import Context
from genrec.recommendation import Query, Recommendation
from genrec.serve.answers import Desk, said
from genrec.serve.errors import ServeError, as_serve_error


def answer_to(query: Query) -> Recommendation:
    return Recommendation(
        user_id=query.user_id,
        at=datetime(2025, 6, 14, tzinfo=UTC),
        context=Context(),
        items=(),
        model=None,
        prompt=None,
        catalog="",
        engine="none",
        scoring="prior",
        timings_s={},
    )


class Scripted:
    """Answers as the test says: at once, never, or with an error, by the person's name."""

    def __init__(self, act: Callable[[Query], Awaitable[None]]) -> None:
        self.act = act
        self.n_ended = 0
        self.prior = True

    async def answer(self, query: Query, *, by_prior: bool = False) -> Recommendation:
        try:
            if not by_prior:
                await self.act(query)
            elif not self.prior:
                raise ConfigError("there is no prior that could answer")
        finally:
            self.n_ended += 1
        return answer_to(query)


async def at_once(query: Query) -> None:
    await asyncio.sleep(0)


async def never(query: Query) -> None:
    await asyncio.sleep(0 if query.user_id == "quick" else 3600)


def people(*names: str) -> list[Query | ServeError]:
    return [Query(user_id=name) for name in names]


def test_answers_come_in_the_order_asked_with_errors_in_their_places() -> None:
    async def act(query: Query) -> None:
        await asyncio.sleep(0.02 if query.user_id == "slow" else 0)
        if query.user_id == "bad":
            raise PromptError("does not fit")

    async def run() -> None:
        desk = Desk(Scripted(act), max_queue=9, timeout_s=60)
        refused = ServeError("no", status=422, type="bad_request")
        answers = await desk.answer([*people("slow", "bad"), refused, *people("quick")])
        assert [a.user_id if isinstance(a, Recommendation) else a.status for a in answers] == [
            "slow",
            422,
            422,
            "quick",
        ]
        assert (desk.n_in_flight, desk.n_answered, desk.n_failed) == (0, 2, 1)

    asyncio.run(run())


def test_who_exceeds_the_queue_is_sent_away_and_nobody_else() -> None:
    async def run() -> None:
        go = asyncio.Event()
        desk = Desk(Scripted(lambda query: go.wait()), max_queue=3, timeout_s=60)  # type: ignore[arg-type,return-value]
        first = asyncio.ensure_future(desk.answer(people("a", "b")))
        await asyncio.sleep(0)
        with pytest.raises(ServeError, match="2 people are under way") as busy:
            await desk.answer(people("c", "d"))
        assert (busy.value.status, busy.value.retryable, busy.value.headers["Retry-After"]) == (429, True, "1")
        with pytest.raises(ServeError, match="a batch of 4 is larger") as large:
            await desk.answer(people("c", "d", "e", "f"))
        assert (large.value.status, large.value.retryable) == (413, False)
        third = asyncio.ensure_future(desk.answer(people("c")))
        await asyncio.sleep(0)
        assert desk.n_in_flight == 3
        go.set()
        assert [len(await first), len(await third), desk.n_in_flight] == [2, 1, 0]

    asyncio.run(run())


def test_who_takes_too_long_is_ended_and_the_others_keep_their_answers() -> None:
    async def run() -> None:
        scripted = Scripted(never)
        desk = Desk(scripted, max_queue=9, timeout_s=60)
        quick, slow = await desk.answer(people("quick", "slow"), timeout_s=0.05)
        assert isinstance(quick, Recommendation)
        assert isinstance(slow, ServeError)
        assert (slow.status, slow.retryable) == (504, True)
        assert (scripted.n_ended, desk.n_in_flight) == (2, 0)

    asyncio.run(run())


def test_a_client_cannot_wait_longer_than_the_server_allows() -> None:
    async def run() -> None:
        [late] = await Desk(Scripted(never), max_queue=1, timeout_s=0.05).answer(people("slow"), timeout_s=3600)
        assert str(late) == "no answer within 0.05 s"

    asyncio.run(run())


def test_searches_beyond_the_engines_measure_wait_their_turn() -> None:
    n_now = n_most = 0

    async def act(query: Query) -> None:
        nonlocal n_now, n_most
        n_now += 1
        n_most = max(n_most, n_now)
        await asyncio.sleep(0)
        n_now -= 1

    async def run() -> None:
        desk = Desk(Scripted(act), max_queue=9, timeout_s=60, n_parallel=2)
        assert len(await desk.answer(people(*"abcdefg"))) == desk.n_answered == 7

    asyncio.run(run())
    assert n_most == 2


def test_cancelling_ends_every_search() -> None:
    async def run() -> None:
        scripted = Scripted(never)
        desk = Desk(scripted, max_queue=9, timeout_s=60)
        task = asyncio.ensure_future(desk.answer(people("a", "b")))
        await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert task.cancelled()
        assert (scripted.n_ended, desk.n_in_flight, desk.n_failed) == (2, 0, 2)

    asyncio.run(run())


@pytest.mark.parametrize(
    ("error", "status", "retryable"),
    [
        (ConfigError("x"), 422, False),
        (DataError("x"), 422, False),
        (PromptError("x"), 422, False),
        (StoreError("x"), 503, True),
        (EngineError("x"), 500, False),
        (GenrecError("x"), 500, False),
        (KeyError("x"), 500, False),
    ],
)
def test_every_error_has_a_status(error: Exception, status: int, retryable: bool) -> None:
    told = as_serve_error(error)
    assert (told.status, told.retryable) == (status, retryable)


def test_clients_are_not_told_where_the_store_is(caplog: pytest.LogCaptureFixture) -> None:
    told = said(StoreError("cannot write postgresql://db.internal/shop"))
    assert "internal" not in str(told)
    assert "db.internal" in caplog.text


def test_an_engine_that_may_recover_is_worth_another_try() -> None:
    error = EngineError("the engine died", retryable=True)
    assert (as_serve_error(error).status, as_serve_error(error).retryable) == (503, True)


@pytest.mark.parametrize("may_pass", [True, False])
def test_the_prior_can_answer_while_the_engine_is_down(may_pass: bool) -> None:
    error = EngineError("no answer from the server", retryable=may_pass)

    async def act(query: Query) -> None:
        raise error

    scripted = Scripted(act)
    [refused] = asyncio.run(Desk(scripted, max_queue=9, timeout_s=60).answer(people("ann")))
    assert isinstance(refused, ServeError)
    scripted.prior = False
    [refused] = asyncio.run(Desk(scripted, max_queue=9, timeout_s=60, prior_when_down=True).answer(people("ann")))
    assert "no answer from the server" in str(refused), "without a prior, that is the trouble"
    scripted.prior = True
    [answer] = asyncio.run(Desk(scripted, max_queue=9, timeout_s=60, prior_when_down=True).answer(people("ann")))
    if may_pass:
        assert isinstance(answer, Recommendation)
        assert "the prior answered alone" in answer.notes[-1]
    else:
        assert isinstance(answer, ServeError), "a prompt that is too long is the client's to know"


def test_what_nobody_foresaw_is_logged_without_quoting_a_person(caplog: pytest.LogCaptureFixture) -> None:
    async def act(query: Query) -> None:
        raise KeyError(f"secret history of {query.user_id}")

    with caplog.at_level(logging.ERROR):
        [answer] = asyncio.run(Desk(Scripted(act), max_queue=9, timeout_s=60).answer(people("ann")))
    assert isinstance(answer, ServeError)
    assert "history of ann" not in str(answer.to_dict()) + caplog.text
    assert "KeyError while answering" in caplog.text
