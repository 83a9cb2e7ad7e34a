"""What a whole recommendation costs beside the prefill of its prompt."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from contextlib import closing
from functools import partial

from genrec.bench.people import SCORINGS, Plan, fit_window, opened, prompt_ids, with_scoring
from genrec.bench.report import Book, Row, seconds
from genrec.engines.transformers import TransformersEngine
from genrec.recommendation import Query
from genrec.recommender import Recommender


def ours(plan: Plan, book: Book) -> None:
    """Both engines, all scorings."""
    for name in plan.engines:
        names = [f"{name}, {scoring}" for scoring in SCORINGS]
        with book.attempt(name):
            if not book.lacks(*names):
                continue
            with opened(plan) as (workspace, asked):
                engine = workspace.engine(name)
                assert engine is not None
                window = None
                with closing(engine):
                    for scoring in SCORINGS:
                        recommender = with_scoring(workspace, name, scoring)
                        window = recommender.max_tokens = window or fit_window(recommender, asked, plan.n_tokens)
                        # An untuned model's raw scores make the search look at hundreds of branches: slow on vLLM.
                        n_repeats = min(plan.n_repeats, 3) if scoring == "joint" else plan.n_repeats
                        book.add(f"{name}, {scoring}", partial(measure, recommender, asked, n_repeats=n_repeats))


def measure(recommender: Recommender, asked: Sequence[Query], *, n_repeats: int) -> Row:
    """Time whole recommendations against the prefill of their prompts alone, in pairs, nothing cached.

    transformers answers one person at a time, so the medians are over people; vLLM answers all at once, so they are
    over repetitions. Which of a pair comes first takes turns, for a busy machine slows whatever comes at the time.
    """
    engine = recommender.engine
    assert engine is not None
    prompts = prompt_ids(recommender, asked)
    recommender.recommend_many(asked)  # whatever the first calls set up
    engine.forget()
    engine.prefill(prompts)
    groups = [[i] for i in range(len(asked))] if isinstance(engine, TransformersEngine) else [[*range(len(asked))]]
    n_repeats = 1 if len(groups) > 1 else n_repeats
    pairs: list[tuple[float, float]] = []
    n_computed = 0
    for turn, group in enumerate([group for group in groups for _ in range(n_repeats)]):
        took_s = {}
        for what in ("prefill", "whole") if turn % 2 else ("whole", "prefill"):
            engine.forget()
            before = engine.usage.n_computed_tokens
            if what == "prefill":
                took_s[what] = seconds(partial(engine.prefill, [prompts[i] for i in group]))
            else:
                took_s[what] = seconds(partial(recommender.recommend_many, [asked[i] for i in group]))
                n_computed += engine.usage.n_computed_tokens - before
        pairs.append((took_s["prefill"] / len(group), took_s["whole"] / len(group)))
    return {
        "engine": engine.name,
        "scoring": recommender.scoring.name,
        "n_people": len(asked),
        "n_at_once": len(groups[0]),
        "n_repeats": n_repeats,
        "k": asked[0].k,
        "max_tokens": recommender.max_tokens,
        "prompt_tokens": statistics.median(len(prompt) for prompt in prompts),
        "computed_tokens": n_computed / (len(asked) * n_repeats),
        **ratios(pairs),
    }


def ratios(pairs: Sequence[tuple[float, float]]) -> Row:
    """Medians of pairs of seconds a person, prefill and whole, and of their ratio."""
    each = [whole_s / prefill_s for prefill_s, whole_s in pairs]
    return {
        "prefill_s": statistics.median(prefill_s for prefill_s, _ in pairs),
        "whole_s": statistics.median(whole_s for _, whole_s in pairs),
        "ratio": statistics.median(each),
        "ratio_min": min(each),
        "ratio_max": max(each),
    }
