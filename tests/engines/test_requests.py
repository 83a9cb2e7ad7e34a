"""The event loop in a thread of its own."""

from __future__ import annotations

import asyncio

import pytest

from genrec.engines.requests import Background
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
