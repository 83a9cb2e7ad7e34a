"""The chain of rerankers: what the search found, shaped into the list a person gets.

A reranker leaves candidates out, reorders them and gives them scores; it never invents or repeats one, and the model's
numbers stay what they were. The chain checks that. Knows nothing of prompts, tokens or engines.
"""

from __future__ import annotations

import math
import re
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from genrec.errors import ConfigError, PluginError
from genrec.events import Context

if TYPE_CHECKING:
    from genrec.history import History


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """An item on its way into the list."""

    item_id: str
    title: str
    category: str | None = None
    description: str = ""
    """What is said of it: its title, and what its pictures, sounds and texts were read as."""
    logprob: float
    """What the search gave it, nats; comparable between candidates of one list."""
    probability: float | None = None
    """``exp(logprob)`` where the scoring is a distribution over the catalogue, null where it is not."""
    score: float
    """What the list is ordered by; the log-probability until a reranker says otherwise."""


class Reranker(ABC):
    """Shapes a list; a dataclass whose fields are its options, one sentence under each."""

    def n_wanted(self, k: int) -> int:
        """How many candidates it needs to fill `k` places; asks for no more than `k` unless overridden."""
        return k

    @abstractmethod
    def rerank(self, candidates: Sequence[Candidate], history: History, now: Context, k: int) -> list[Candidate]:
        """Choose and order.

        Args:
            candidates: Best first, different items; at most ``n_wanted(k)``, fewer when the catalogue has no more.
            history: What the person did before the moment to recommend for, ``history.at``.
            now: Context of that moment.
            k: How many will be used; returning more does no harm.

        Returns:
            Some or all of the candidates, best first, none twice; of each only `score` may differ (use
            ``dataclasses.replace``).
        """


@dataclass(kw_only=True)
class Diversity(Reranker):
    """At most a few items of one category in a list, and none too like another, however much the person likes them.

    Goes through the candidates best first and passes over those whose category is full (having none never is) and those
    that share too many words with one taken before. Where nothing else is left the best of those passed over come back,
    so the list stays full.
    """

    per_category: int = 2
    """Items of one category in a list."""
    pool: int = 5
    """Candidates to look at for each place in the list."""
    max_alike: float = 1.0
    """Cosine of their words above which two items are too alike for one list; at 1 none are."""

    def __post_init__(self) -> None:
        if self.per_category < 1 or self.pool < 1 or not 0 <= self.max_alike <= 1:
            raise ConfigError("the reranker 'diversity' needs per_category and pool from 1, and max_alike from 0 to 1")

    def n_wanted(self, k: int) -> int:
        """`pool` candidates a place."""
        return self.pool * k

    def rerank(self, candidates: Sequence[Candidate], history: History, now: Context, k: int) -> list[Candidate]:
        """See `Reranker.rerank`; scores stay as they are."""
        taken: Counter[str | None] = Counter()
        words: list[set[str]] = []
        kept: list[Candidate] = []
        passed: list[Candidate] = []
        for candidate in candidates:
            own = set(re.findall(r"\w+", candidate.description.lower())) if self.max_alike < 1 else set()
            full = candidate.category is not None and taken[candidate.category] >= self.per_category
            if full or any(_cosine(own, other) > self.max_alike for other in words):
                passed.append(candidate)
            else:
                kept.append(candidate)
                words.append(own)
                taken[candidate.category] += 1
        return (kept + passed)[:k]


def _cosine(some: set[str], others: set[str]) -> float:
    """How alike two sets of words are."""
    return len(some & others) / math.sqrt(len(some) * len(others)) if some and others else 0.0


def n_candidates(rerankers: Sequence[Reranker], k: int) -> int:
    """How many candidates the search must find so that the whole chain can fill `k` places."""
    for reranker in reversed(rerankers):
        k = max(k, reranker.n_wanted(k))
    return k


def rerank(
    rerankers: Sequence[Reranker], candidates: Sequence[Candidate], history: History, now: Context, k: int
) -> list[Candidate]:
    """Send candidates through the chain, in the order given, and cut the list at `k`.

    Args:
        rerankers: Each gets what the one before returned.
        candidates: Best first, at least ``n_candidates(rerankers, k)`` where the catalogue has them.
        history: What the person did before ``history.at``.
        now: Context of the moment.
        k: Length of the list.

    Returns:
        At most `k` candidates, best first.

    Raises:
        PluginError: If a reranker returned an item it was not given, one twice, or changed more than a score.
    """
    current = list(candidates)
    for position, reranker in enumerate(rerankers):
        given = {candidate.item_id: candidate for candidate in current}
        current = reranker.rerank(current, history, now, n_candidates(rerankers[position + 1 :], k))
        if broken := _broken_rule(given, current):
            name = f"{type(reranker).__name__} ({type(reranker).__module__})"
            raise PluginError(
                f"the reranker {name} {broken}",
                hint="This is a mistake in the plugin: test it with genrec.testing.RerankerContract, "
                "or take it out of `rerank` in genrec.toml.",
            )
    return current[:k]


def _broken_rule(given: dict[str, Candidate], returned: Sequence[Candidate]) -> str | None:
    """What a reranker did that it may not do, if anything."""
    seen: set[str] = set()
    for candidate in returned:
        if candidate.item_id not in given:
            return f"returned {candidate.item_id!r}, which was not among its candidates"
        if candidate.item_id in seen:
            return f"returned {candidate.item_id!r} twice"
        if replace(candidate, score=0.0) != replace(given[candidate.item_id], score=0.0):
            return f"changed more than the score of {candidate.item_id!r}"
        seen.add(candidate.item_id)
    return None
