"""The contract of rerankers finds those that break it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from genrec.errors import PluginError
from genrec.events import Context
from genrec.history import History
from genrec.rerank import Candidate, Reranker
from genrec.testing import RerankerContract

KEEPS = "test_it_keeps_the_rules_of_the_chain"
FILLS = "test_it_fills_the_list_when_it_gets_what_it_asked_for"
REPEATS = "test_it_gives_the_same_answer_twice"


class Good(Reranker):
    def rerank(self, candidates: Sequence[Candidate], history: History, now: Context, k: int) -> list[Candidate]:
        return [replace(candidate, score=candidate.score + 1) for candidate in candidates]


class TestGood(RerankerContract):
    reranker = Good()


class Invents(Good):
    def rerank(self, candidates: Sequence[Candidate], history: History, now: Context, k: int) -> list[Candidate]:
        return [Candidate(item_id="new", title="New", logprob=0.0, score=0.0), *candidates]


class SaysTwice(Good):
    def rerank(self, candidates: Sequence[Candidate], history: History, now: Context, k: int) -> list[Candidate]:
        return [*candidates, *candidates]


class ChangesTheModelsNumbers(Good):
    def rerank(self, candidates: Sequence[Candidate], history: History, now: Context, k: int) -> list[Candidate]:
        return [replace(candidate, logprob=0.0) for candidate in candidates]


class LosesOne(Good):
    def rerank(self, candidates: Sequence[Candidate], history: History, now: Context, k: int) -> list[Candidate]:
        return list(candidates[1:])


class Forgetful(Good):
    def __init__(self) -> None:
        self.n_calls = 0

    def rerank(self, candidates: Sequence[Candidate], history: History, now: Context, k: int) -> list[Candidate]:
        self.n_calls += 1
        return list(candidates) if self.n_calls % 2 else list(candidates)[::-1]


class SortsWhatItIsGiven(Good):
    def rerank(self, candidates: Sequence[Candidate], history: History, now: Context, k: int) -> list[Candidate]:
        assert isinstance(candidates, list)
        candidates.sort(key=lambda candidate: candidate.item_id, reverse=True)
        return list(candidates)


@pytest.mark.parametrize(
    ("reranker", "broken"),
    [
        (Invents(), KEEPS),
        (SaysTwice(), KEEPS),
        (ChangesTheModelsNumbers(), KEEPS),
        (LosesOne(), FILLS),
        (Forgetful(), REPEATS),
        (SortsWhatItIsGiven(), REPEATS),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_a_broken_promise_is_found(reranker: Reranker, broken: str) -> None:
    contract = type("Contract", (RerankerContract,), {"reranker": reranker})()
    with pytest.raises((AssertionError, PluginError)):
        getattr(contract, broken)()
