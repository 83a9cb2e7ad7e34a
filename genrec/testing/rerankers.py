"""What every reranker keeps to, as tests to inherit.

    from genrec.testing import RerankerContract

    class TestRecency(RerankerContract):
        reranker = Recency()

Uses plain asserts, so it runs under pytest without importing it.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from genrec.events import Context
from genrec.history import History, Moment
from genrec.rerank import Candidate, Reranker, n_candidates, rerank


def candidates(n: int) -> list[Candidate]:
    """Candidates ``item 0`` to ``item n-1``, best first, in three categories and none."""
    return [
        Candidate(
            item_id=f"item {rank}",
            title=f"Thing {rank}",
            category=("bakery", "dairy", "produce", None)[rank % 4],
            logprob=-1.0 - 0.1 * rank,
            score=-1.0 - 0.1 * rank,
        )
        for rank in range(n)
    ]


def history_of(*item_ids: str, user_id: str = "ann") -> History:
    """A history with one item a day, the last one yesterday."""
    now = datetime(2025, 6, 2, 9, 0, tzinfo=UTC)
    moments = [
        Moment(at=now - timedelta(days=len(item_ids) - day), context=Context(), item_ids=(item_id,))
        for day, item_id in enumerate(item_ids)
    ]
    return History(user_id=user_id, user=None, at=now, moments=tuple(moments))


class RerankerContract:
    """Inherit, and set `reranker` to one of yours."""

    reranker: Reranker

    def test_it_keeps_the_rules_of_the_chain(self) -> None:
        """Nothing is invented or repeated and only scores change, for people and lists of every size."""
        for history in (history_of(), history_of("item 1", "item 3", "item 3", "gone")):
            for k in (1, 3, 10):
                for n in (0, 1, 2, n_candidates([self.reranker], k)):
                    returned = rerank([self.reranker], candidates(n), history, Context(), k)
                    assert len(returned) <= k

    def test_it_fills_the_list_when_it_gets_what_it_asked_for(self) -> None:
        """`n_wanted` candidates are enough for `k` places."""
        for k in (1, 3, 10):
            given = candidates(n_candidates([self.reranker], k))
            assert len(rerank([self.reranker], given, history_of("item 1"), Context(), k)) == k

    def test_it_gives_the_same_answer_twice(self) -> None:
        """The same input gives the same list, and the input stays as it was."""
        n = n_candidates([self.reranker], 5)
        given = candidates(n)
        first, second = (
            self.reranker.rerank(given, history_of("item 1"), Context(device="phone"), 5) for _ in range(2)
        )
        assert first == second
        assert given == candidates(n)
