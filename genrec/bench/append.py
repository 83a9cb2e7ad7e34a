"""What the next recommendation costs once a person did one thing more.

Real people: recommend for one of their moments, then for the next, which sees one moment more. Warm is that second
recommendation behind the first; cold is the same with nothing cached.
"""

from __future__ import annotations

import statistics
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from datetime import datetime
from functools import partial

from genrec.bench.people import Plan, fit_window, opened, with_scoring
from genrec.bench.report import Book, Row, seconds
from genrec.engines.transformers import TransformersEngine
from genrec.errors import ConfigError
from genrec.history import read_history
from genrec.recommendation import Query
from genrec.recommender import Recommender
from genrec.workspace import Workspace

MAX_EVENTS = 5_000


def append(plan: Plan, book: Book) -> None:
    """Both engines: histories that grow, short and long, and a full window that has to let go of the oldest."""
    for name in plan.engines:
        growing = {n_tokens: f"{name}, a history of {n_tokens:,} tokens" for n_tokens in (plan.n_tokens, plan.n_long)}
        full = f"{name}, a full window of about {plan.n_long:,} tokens"
        with book.attempt(name):
            if not book.lacks(*growing.values(), full):
                continue
            with opened(plan, history={"max_events": MAX_EVENTS}) as (workspace, everybody):
                engine = workspace.engine(name)
                assert engine is not None
                with closing(engine):
                    recommender = with_scoring(workspace, name, "fused")
                    moments = {query.user_id: _moments(workspace, query) for query in everybody}
                    for n_tokens, row in growing.items():
                        book.add(row, partial(_growing, recommender, moments, n_tokens, plan))
                    book.add(full, partial(_full, recommender, moments, plan))


def _moments(workspace: Workspace, query: Query) -> list[datetime]:
    """When a person did something, in order."""
    assert isinstance(query.at, datetime)
    history = read_history(workspace.store, query.user_id, query.at, max_events=MAX_EVENTS)
    return [moment.at for moment in history.moments]


def _growing(recommender: Recommender, moments: Mapping[str, Sequence[datetime]], n_tokens: int, plan: Plan) -> Row:
    """Each person at the first moment for which the prompt has so many tokens, and at the next; nothing is let go."""
    pairs: list[tuple[Query, Query]] = []
    for user, whens in moments.items():
        asked = [Query(user_id=user, at=at, k=plan.k) for at in whens]

        def length(query: Query) -> int:
            return len(recommender.prompts([query])[0].token_ids)

        i = bisect_left(asked, n_tokens, key=length)
        if i + 1 < len(asked) and len(pairs) < plan.n_slow:
            pairs.append((asked[i], asked[i + 1]))
    if not pairs:
        raise ConfigError(f"nobody has a history of {n_tokens} tokens", hint="Choose fewer with --long-tokens.")
    return _measure(recommender, pairs, plan.n_repeats)


def _full(recommender: Recommender, moments: Mapping[str, Sequence[datetime]], plan: Plan) -> Row:
    """Each person at the last moment but one and at the last, with a window that has long been full."""
    pairs = [
        (Query(user_id=user, at=whens[-2], k=plan.k), Query(user_id=user, at=whens[-1], k=plan.k))
        for user, whens in moments.items()
        if len(whens) > 2
    ][: plan.n_slow]
    fit_window(recommender, [first for first, _ in pairs], plan.n_long)
    return _measure(recommender, pairs, plan.n_repeats)


def _measure(recommender: Recommender, pairs: Sequence[tuple[Query, Query]], n_repeats: int) -> Row:
    engine = recommender.engine
    assert engine is not None
    firsts, nexts = [first for first, _ in pairs], [after for _, after in pairs]
    before, after = recommender.prompts(firsts), recommender.prompts(nexts)
    everybody = range(len(pairs))
    one_by_one = isinstance(engine, TransformersEngine)
    groups = [[i] for i in everybody] if one_by_one else [[*everybody]] * n_repeats
    recommender.recommend_many(nexts)  # whatever the first call sets up
    times: list[tuple[float, float]] = []
    computed, n_cached = {"warm": 0, "cold": 0}, 0
    for group in groups:
        took_s = {}
        for what in ("warm", "cold"):
            engine.forget()
            if what == "warm":
                recommender.recommend_many(firsts[i] for i in group)
            usage = replace(engine.usage)
            took_s[what] = seconds(partial(recommender.recommend_many, [nexts[i] for i in group])) / len(group)
            computed[what] += engine.usage.n_computed_tokens - usage.n_computed_tokens
            n_cached += (engine.usage.n_cached_tokens - usage.n_cached_tokens) * (what == "warm")
        times.append((took_s["warm"], took_s["cold"]))
    n_done = sum(map(len, groups))
    each = [warm_s / cold_s for warm_s, cold_s in times]
    return {
        "engine": engine.name,
        "scoring": recommender.scoring.name,
        "n_people": len(pairs),
        "n_at_once": len(groups[0]),
        "max_tokens": recommender.max_tokens,
        "prompt_tokens": statistics.median(len(prompt.token_ids) for prompt in after),
        "prompt_tokens_min": min(len(prompt.token_ids) for prompt in after),
        "new_tokens": statistics.median(new.n_stable - old.n_stable for old, new in zip(before, after, strict=True)),
        # The window moved where the beginning that the two prompts should share is not the same.
        "n_moved": sum(
            old.token_ids[: old.n_stable] != new.token_ids[: old.n_stable]
            for old, new in zip(before, after, strict=True)
        ),
        "warm_s": statistics.median(warm_s for warm_s, _ in times),
        "cold_s": statistics.median(cold_s for _, cold_s in times),
        "warm_to_cold": statistics.median(each),
        "warm_to_cold_min": min(each),
        "warm_to_cold_max": max(each),
        "computed_warm": computed["warm"] / n_done,
        "computed_cold": computed["cold"] / n_done,
        "cached_warm": n_cached / n_done,
    }
