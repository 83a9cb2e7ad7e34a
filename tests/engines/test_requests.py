"""The event loop in a thread of its own, and the searches that it drives."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from typing import ClassVar

import numpy as np
import pytest

from genrec.engines.base import Job, Search, TokenTree, Usage
from genrec.engines.requests import Background, Question, RequestEngine, all_of
from genrec.errors import EngineError


def test_an_interrupt_that_comes_before_the_waiting_ends_the_work_too(monkeypatch: pytest.MonkeyPatch) -> None:
    there = Background("test")
    under_way: list[str] = []

    async def endless() -> None:
        under_way.append("begun")
        try:
            await asyncio.Event().wait()
        finally:
            under_way.append("ended")

    submit = asyncio.run_coroutine_threadsafe

    def interrupted(work, loop):  # type: ignore[no-untyped-def]
        submit(work, loop)
        submit(asyncio.sleep(0.01), loop).result()
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(asyncio, "run_coroutine_threadsafe", interrupted)
        with pytest.raises(KeyboardInterrupt):
            there.wait(endless())
    there.wait(asyncio.sleep(0.01))
    assert under_way == ["begun", "ended"]
    there.stop()
    with pytest.raises(EngineError, match="the engine is closed"):
        there.wait(endless())


class Answers(RequestEngine):
    """Answers every question with 0, and fails where a prompt begins with 13."""

    name: ClassVar[str] = "answers"

    def __init__(self, *, n_parallel: int) -> None:
        super().__init__(Background("test"), n_parallel=n_parallel)
        self.usage, self.asked, self.most, self.now = Usage(), list[int](), 0, 0

    async def _ask(self, prompt: list[int], questions: Sequence[Question]) -> tuple[list[list[float]], Usage]:
        self.asked.append(prompt[0])
        self.now += 1
        self.most = max(self.most, self.now)
        await asyncio.sleep(0.001)
        self.now -= 1
        if prompt[0] == 13:
            raise EngineError("out of luck")
        return [[0.0] * len(tokens) for _, tokens in questions], Usage()

    def forget(self) -> None:
        """Nothing is kept."""

    def close(self) -> None:
        """End the loop."""
        assert self._background is not None
        self._background.stop()


TREE = TokenTree(parent=np.array([-1], np.int32), token=np.array([5], np.int32), wanted=np.ones(1, bool))


def ask(n_rounds: int) -> Search[int]:
    for _ in range(n_rounds):
        yield TREE
    return n_rounds


def test_searches_are_under_way_while_the_next_are_still_being_made() -> None:
    engine, asked_before = Answers(n_parallel=3), list[int]()

    def jobs() -> Iterator[Job[int]]:
        for i in range(20):
            asked_before.append(len(engine.asked))
            yield [i if i < 13 else i + 1], ask(1 + i % 3)

    assert engine.run(jobs()) == [1 + i % 3 for i in range(20)]
    assert asked_before[0] == 0
    assert asked_before[-1] > 20
    assert engine.most == 3
    engine.close()


def test_after_a_failure_no_more_searches_are_begun() -> None:
    engine, n_made = Answers(n_parallel=3), 0

    def jobs() -> Iterator[Job[int]]:
        nonlocal n_made
        for i in range(1000):
            n_made += 1
            yield [i], ask(2)

    with pytest.raises(EngineError, match="out of luck"):
        engine.run(jobs())
    assert n_made < 30
    engine.close()


def test_what_fails_while_it_is_being_made_is_raised_as_it_is() -> None:
    engine = Answers(n_parallel=3)

    def jobs() -> Iterator[Job[int]]:
        yield [1], ask(2)
        raise KeyError("nobody")

    with pytest.raises(KeyError, match="nobody"):
        engine.run(jobs())
    assert engine.run([([1], ask(2))]) == [2]
    engine.close()


def test_a_failure_keeps_its_cause_and_whoever_makes_searches_may_ask_too() -> None:
    engine = Answers(n_parallel=3)

    async def strange() -> None:
        try:
            raise ValueError("the root")
        except ValueError as error:
            raise EngineError("failed") from error

    with pytest.raises(EngineError, match="failed") as caught:
        asyncio.run(all_of([strange(), asyncio.sleep(1)]))
    assert str(caught.value.__cause__) == "the root"

    def jobs() -> Iterator[Job[int]]:
        for i in range(2):
            yield [1], ask(engine.run([([2], ask(i + 1))])[0])

    assert engine.run(jobs()) == [1, 2]
    engine.close()
