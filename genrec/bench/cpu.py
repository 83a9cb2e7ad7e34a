"""What int8 weights, compilation and fewer layers buy on a CPU, and what they cost in quality.

The model is changed in place behind the transformers engine, with what torch and torchao bring. Quality is against the
whole model in float32: how much of its true top-k is found, and how far the log-probabilities of those items are off.
"""

from __future__ import annotations

import statistics
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from functools import partial
from typing import Any

import numpy as np

from genrec.bench.ours import measure
from genrec.bench.people import Plan, ScoringName, fit_window, opened, prompt_ids, with_scoring
from genrec.bench.report import Book, Row, seconds
from genrec.decoding.scoring import Scoring
from genrec.decoding.search import Ranking, score, search
from genrec.engines.transformers import TransformersEngine
from genrec.recommender import Recommender

JUDGED: tuple[ScoringName, ...] = ("joint", "masked")

Truth = Mapping[str, Sequence[tuple[np.ndarray, np.ndarray]]]
"""For each scoring and person the rows and log-probabilities of the whole model's top-k."""


def _int8_torch(lm: Any) -> None:
    import torch
    from torch.ao.quantization import quantize_dynamic

    quantize_dynamic(lm, {torch.nn.Linear}, dtype=torch.qint8, inplace=True)


def _int8_weights_torchao(lm: Any) -> None:
    from torchao.quantization import Int8WeightOnlyConfig, quantize_

    quantize_(lm, Int8WeightOnlyConfig())


def _int8_dynamic_torchao(lm: Any) -> None:
    from torchao.quantization import Int8DynamicActivationInt8WeightConfig, quantize_

    quantize_(lm, Int8DynamicActivationInt8WeightConfig())


def _compile(lm: Any) -> None:
    import torch

    # A pass with and without a cache, a mask, unread prompt … is a graph each; beyond the limit nothing is compiled.
    torch._dynamo.config.recompile_limit = 64
    lm.forward = torch.compile(lm.forward, dynamic=True)


def _layers(share: float, lm: Any) -> None:
    layers = lm.model.layers
    lm.model.layers = layers[: max(1, round(share * len(layers)))]


VARIANTS: Mapping[str, tuple[str, Callable[[Any], None] | None]] = {
    "float32": ("float32", None),
    "bfloat16": ("bfloat16", None),
    "int8, dynamic, torch": ("float32", _int8_torch),
    "int8 weights, torchao": ("bfloat16", _int8_weights_torchao),
    "int8, dynamic, torchao": ("bfloat16", _int8_dynamic_torchao),
    "float32, torch.compile": ("float32", _compile),
    "bfloat16, torch.compile": ("bfloat16", _compile),
    "bfloat16, first 5/6 of the layers": ("bfloat16", partial(_layers, 5 / 6)),
    "bfloat16, first 2/3 of the layers": ("bfloat16", partial(_layers, 2 / 3)),
    "bfloat16, first half of the layers": ("bfloat16", partial(_layers, 1 / 2)),
}
"""Number format to load the model in, and what is done to it then."""


def cpu(plan: Plan, book: Book, variants: Sequence[str] = tuple(VARIANTS)) -> None:
    """Each variant on the same people and prompts."""
    if "transformers" not in plan.engines or not book.lacks(*variants):
        return
    with opened(plan, dtype="float32") as (workspace, everybody):
        engine = workspace.engine("transformers")
        assert isinstance(engine, TransformersEngine)
        with closing(engine):
            recommender = with_scoring(workspace, "transformers", "masked")
            window = fit_window(recommender, everybody, plan.n_tokens)
            prompts = prompt_ids(recommender, everybody[: plan.n_slow])
            truth: Truth = {
                name: [(r.rows, r.logprobs) for r in _search(engine, recommender, prompts, name, plan.k)]
                for name in JUDGED
            }
    for name in variants:
        book.add(name, partial(_variant, plan, name, window, truth))


def _variant(plan: Plan, name: str, window: int, truth: Truth) -> Row:
    dtype, change = VARIANTS[name]
    with opened(plan, dtype=dtype) as (workspace, everybody):
        engine = workspace.engine("transformers")
        assert isinstance(engine, TransformersEngine)
        with closing(engine), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch deprecates its own quantisation, and says so for every layer
            n_layers = len(engine.lm.model.layers)
            if change:
                change(engine.lm)
            asked = everybody[: plan.n_slow]
            recommender = with_scoring(workspace, "transformers", "masked")
            recommender.max_tokens = window
            first_s = seconds(lambda: recommender.recommend_many(asked)) / len(asked)
            row = measure(recommender, asked, n_repeats=1)
            row |= {"n_layers": len(engine.lm.model.layers), "n_layers_whole": n_layers, "first_s": first_s}
            prompts = prompt_ids(recommender, asked)
            for scoring in JUDGED:
                found = _search(engine, recommender, prompts, scoring, plan.k)
                again = engine.run(
                    (prompt, score(recommender.encoded.trie, rows.tolist(), scoring=Scoring(name=scoring)))
                    for prompt, (rows, _) in zip(prompts, truth[scoring], strict=True)
                )
                row[f"recall_{scoring}"] = statistics.fmean(
                    len(set(ranking.rows.tolist()) & set(rows.tolist())) / len(rows)
                    for ranking, (rows, _) in zip(found, truth[scoring], strict=True)
                )
                row[f"mean_difference_{scoring}"] = statistics.fmean(
                    float(np.abs(new - old).mean()) for new, (_, old) in zip(again, truth[scoring], strict=True)
                )
            return row


def _search(
    engine: TransformersEngine, recommender: Recommender, prompts: Sequence[Sequence[int]], scoring: ScoringName, k: int
) -> list[Ranking]:
    trie, scored = recommender.encoded.trie, Scoring(name=scoring)
    return engine.run((prompt, search(trie, k=k, scoring=scored)) for prompt in prompts)
