"""Whose recommendations are measured, and how long their prompts are."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from genrec.decoding.scoring import Scoring
from genrec.errors import ConfigError, PromptError
from genrec.recommendation import Query
from genrec.recommender import Recommender
from genrec.workspace import Workspace, open_workspace

ScoringName = Literal["fused", "masked", "joint"]
SCORINGS: tuple[ScoringName, ...] = ("fused", "masked", "joint")
_NO_LIMIT = 1_000_000


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What to measure with."""

    workspace: Path
    engines: tuple[str, ...] = ("transformers", "vllm")
    n_people: int = 32
    """The most active people, each at the end of what the store knows; vLLM and the server get all at once."""
    n_slow: int = 8
    """The first of them, for what takes long."""
    n_repeats: int = 5
    """How often what all people get at once is repeated; the median counts."""
    k: int = 10
    """Length of a list."""
    n_tokens: int = 305
    """What the median prompt comes close to."""
    n_long: int = 1_000
    """How many tokens a long history has at least."""
    sizes: tuple[int, ...] = (1_700, 17_000, 170_000, 1_000_000)
    """Items of the generated catalogues; vLLM gets the first and the last."""


def queries(workspace: Workspace, *, n_people: int, k: int) -> list[Query]:
    """The workspace's most active people, each at the end of what the store knows.

    Raises:
        ConfigError: If the store knows fewer than two people.
    """
    at = workspace.store.summary().last_at
    users = workspace.store.user_ids(limit=n_people)
    if at is None or len(users) < 2:
        raise ConfigError(
            "this workspace has too few people to measure with", hint="genrec demo makes one that has enough."
        )
    return [Query(user_id=user, at=at, k=k) for user in users]


@contextmanager
def opened(plan: Plan, **overrides: Any) -> Iterator[tuple[Workspace, list[Query]]]:
    """The plan's workspace without a bound on prompts, for `fit_window` to set one, and its people."""
    history = {"max_tokens": _NO_LIMIT, **overrides.pop("history", {})}
    with open_workspace(plan.workspace, history=history, **overrides) as workspace:
        yield workspace, queries(workspace, n_people=plan.n_people, k=plan.k)


def fit_window(recommender: Recommender, asked: Sequence[Query], n_tokens: int) -> int:
    """Choose the longest prompt, ``history.max_tokens``, so that the median one comes closest to `n_tokens`.

    A window that overflows drops a quarter at once, so prompts are a good deal shorter than the longest allowed.

    Returns:
        The bound, which is set in the recommender, too.

    Raises:
        PromptError: If the instructions alone are longer.
    """
    assert recommender.engine is not None
    lengths: dict[int, float] = {}
    failure: PromptError | None = None
    most = recommender.engine.max_tokens - int(np.diff(recommender.encoded.indptr).max())
    for limit in range(min(n_tokens, most), min(2 * n_tokens, most) + 1, max(16, n_tokens // 20)):
        recommender.max_tokens = limit
        try:
            lengths[limit] = statistics.median(len(prompt.token_ids) for prompt in recommender.prompts(asked))
        except PromptError as error:
            failure = error
    if not lengths:
        assert failure is not None
        raise failure
    recommender.max_tokens = min(lengths, key=lambda limit: (abs(lengths[limit] - n_tokens), limit))
    return recommender.max_tokens


def with_scoring(workspace: Workspace, engine: str, scoring: ScoringName) -> Recommender:
    """The workspace's recommender under another scoring; the prior stays, for `masked` guesses with it."""
    recommender = workspace.recommender(engine=engine)
    recommender.scoring = Scoring(name=scoring)
    return recommender


def prompt_ids(recommender: Recommender, asked: Sequence[Query]) -> list[list[int]]:
    """What the model reads for each query."""
    return [list(prompt.token_ids) for prompt in recommender.prompts(asked)]
