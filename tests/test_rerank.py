"""The chain keeps rerankers honest; diversity keeps a list from being all of one kind."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from genrec.errors import ConfigError, PluginError
from genrec.events import Context
from genrec.history import History
from genrec.plugins import Registry
from genrec.rerank import Candidate, Diversity, Reranker, n_candidates, rerank
from genrec.testing.rerankers import RerankerContract, candidates, history_of


class TestDiversity(RerankerContract):
    reranker = Diversity(per_category=2, pool=3)


def items(*names: str) -> list[Candidate]:
    """``dairy:milk`` is the item milk of the category dairy; ``milk`` has none. Best first."""
    made = []
    for rank, name in enumerate(names):
        category, _, title = name.rpartition(":")
        made.append(Candidate(item_id=title, title=title, category=category or None, logprob=-rank, score=-rank))
    return made


def ids(found: Sequence[Candidate]) -> list[str]:
    return [candidate.item_id for candidate in found]


def test_diversity_takes_the_best_two_of_each_category() -> None:
    given = items("dairy:milk", "dairy:butter", "dairy:cream", "bakery:bread", "produce:pears")
    assert ids(rerank([Diversity()], given, history_of(), Context(), 4)) == ["milk", "butter", "bread", "pears"]


def test_diversity_does_not_limit_items_without_category() -> None:
    given = items("milk", "butter", "cream", "dairy:bread")
    assert ids(rerank([Diversity(per_category=1)], given, history_of(), Context(), 3)) == ["milk", "butter", "cream"]


def test_diversity_fills_up_with_the_best_of_what_it_passed_over() -> None:
    given = items("dairy:milk", "dairy:butter", "dairy:cream", "bakery:bread")
    kept = rerank([Diversity(per_category=1)], given, history_of(), Context(), 4)
    assert ids(kept) == ["milk", "bread", "butter", "cream"]


@given(st.lists(st.sampled_from("abc"), max_size=30), st.integers(1, 4), st.integers(1, 10))
def test_diversity_exceeds_a_category_only_when_nothing_else_is_left(categories: str, limit: int, k: int) -> None:
    given = items(*(f"{category}:{rank}" for rank, category in enumerate(categories)))
    kept = rerank([Diversity(per_category=limit)], given, history_of(), Context(), k)
    assert len(kept) == min(k, len(given))
    counts = {c: sum(candidate.category == c for candidate in kept) for c in "abc"}
    if max(counts.values()) > limit:
        assert all(counts[c] >= min(limit, list(categories).count(c)) for c in "abc")


@pytest.mark.parametrize("options", [{"per_category": 0}, {"pool": 0}, {"max_alike": 2}])
def test_diversity_refuses_options_without_sense(options: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match="pool from 1, and max_alike from 0 to 1"):
        Diversity(**options)


def test_core_registers_it_through_the_plugin_door() -> None:
    reranker = Registry().build("rerankers", "diversity", {"per_category": 1})
    assert reranker == Diversity(per_category=1)


@dataclass(kw_only=True)
class Reverse(Reranker):
    """Worst first, looking at twice as many as needed."""

    def n_wanted(self, k: int) -> int:
        return 2 * k

    def rerank(self, candidates: Sequence[Candidate], history: History, now: Context, k: int) -> list[Candidate]:
        assert len(candidates) <= 2 * k
        return [replace(candidate, score=-candidate.score) for candidate in reversed(candidates)]


class TestReverse(RerankerContract):
    reranker = Reverse()


def test_the_chain_runs_in_the_order_given() -> None:
    given = items("dairy:milk", "dairy:butter", "bakery:bread", "bakery:rolls")
    one = Diversity(per_category=1, pool=2)
    assert ids(rerank([one, Reverse()], given, history_of(), Context(), 1)) == ["bread"]
    assert ids(rerank([Reverse(), one], given, history_of(), Context(), 1)) == ["rolls"]


def test_the_chain_asks_for_enough_for_all_its_members() -> None:
    assert n_candidates([], 10) == 10
    assert n_candidates([Diversity(pool=5)], 10) == 50
    assert n_candidates([Diversity(pool=5), Reverse()], 10) == 100


def test_what_shares_too_many_words_with_something_taken_is_passed_over() -> None:
    given = [
        replace(one, description=one.title if one.title != "item 17" else "item 17 ORGANIC OAT MILK 1L")
        for one in items("organic oat milk 1l", "item 17", "rye bread", "oat flakes")
    ]
    chain: list[Reranker] = [Diversity(max_alike=0.7)]
    assert ids(rerank(chain, given, history_of(), Context(), 3)) == ["organic oat milk 1l", "rye bread", "oat flakes"]
    assert ids(rerank(chain, given, history_of(), Context(), 4))[-1] == "item 17", "where nothing else is left"
    assert ids(rerank([Diversity()], given, history_of(), Context(), 2)) == ["organic oat milk 1l", "item 17"]


def test_without_rerankers_the_best_k_remain() -> None:
    assert ids(rerank([], candidates(5), history_of(), Context(), 2)) == ["item 0", "item 1"]


@dataclass(kw_only=True)
class Rogue(Reranker):
    """Breaks one rule."""

    how: str

    def rerank(self, candidates: Sequence[Candidate], history: History, now: Context, k: int) -> list[Candidate]:
        first = candidates[0]
        if self.how == "invents":
            return [replace(first, item_id="unicorn")]
        return [first, first] if self.how == "repeats" else [replace(first, logprob=-9.0)]


@pytest.mark.parametrize(
    ("how", "says"),
    [("invents", "'unicorn', which was not among"), ("repeats", "'milk' twice"), ("changes", "more than the score")],
)
def test_a_reranker_that_breaks_a_rule_is_named(how: str, says: str) -> None:
    with pytest.raises(PluginError, match=says) as caught:
        rerank([Rogue(how=how)], items("milk", "bread"), history_of(), Context(), 2)
    assert "Rogue" in str(caught.value)
    assert caught.value.hint is not None
    assert "RerankerContract" in caught.value.hint
