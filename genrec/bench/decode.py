"""What a whole recommendation costs beside the prefill of its prompt, and beside constrained beam search."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from genrec.bench.report import Row, Say
from genrec.catalog import EncodedCatalog
from genrec.decoding.scoring import Scoring
from genrec.decoding.search import search
from genrec.engines.transformers import TransformersEngine
from genrec.errors import ConfigError
from genrec.recommendation import Query
from genrec.recommender import Recommender
from genrec.workspace import Workspace


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


def decode(recommender: Recommender, asked: Sequence[Query], *, n_repeats: int, say: Say) -> Row:
    """Time whole recommendations against the prefill of their prompts alone.

    transformers answers one person at a time, so the median is over people; vLLM answers all at once, so it is over
    repetitions, each with an empty prefix cache.
    """
    engine = recommender.engine
    assert engine is not None
    recommender.recommend_many(asked)  # whatever the first call sets up
    prompts = [list(prompt.token_ids) for prompt in recommender.prompts(asked)]
    groups = [[i] for i in range(len(asked))] if isinstance(engine, TransformersEngine) else [range(len(asked))]
    repeats = 1 if len(groups) > 1 else n_repeats
    pairs: list[tuple[float, float]] = []
    n_computed = 0
    for group in [group for group in groups for _ in range(repeats)]:
        engine.forget()
        prefill_s = _seconds(partial(engine.prefill, [prompts[i] for i in group]))
        engine.forget()
        n_before = engine.usage.n_computed_tokens
        whole_s = _seconds(partial(recommender.recommend_many, [asked[i] for i in group]))
        n_computed += engine.usage.n_computed_tokens - n_before
        pairs.append((prefill_s / len(group), whole_s / len(group)))
    ratios = [whole / prefill for prefill, whole in pairs]
    row: Row = {
        "name": f"{engine.name} {recommender.scoring.name}",
        "engine": engine.name,
        "scoring": recommender.scoring.name,
        "n_people": len(asked),
        "n_at_once": max(len(group) for group in groups),
        "prompt_tokens": statistics.median(len(prompt) for prompt in prompts),
        "prefill_s": statistics.median(prefill for prefill, _ in pairs),
        "whole_s": statistics.median(whole for _, whole in pairs),
        "ratio": statistics.median(ratios),
        "ratio_min": min(ratios),
        "ratio_max": max(ratios),
        "computed_tokens": n_computed / (len(asked) * repeats),
    }
    say(
        f"{row['name']}: whole / prefill {row['ratio']:.2f} ({row['whole_s'] * 1e3:.0f} ms a person, "
        f"{row['prompt_tokens']:.0f} prompt tokens)"
    )
    return row


def peer(
    engine: TransformersEngine,
    recommender: Recommender,
    asked: Sequence[Query],
    ours: Sequence[Row],
    *,
    k: int,
    say: Say,
) -> Row:
    """Constrained `generate` with k beams, same people: how much of the true top-k it finds, how much slower it is."""
    prompts = [list(prompt.token_ids) for prompt in recommender.prompts(asked)]
    row, found = _generate(engine, recommender.encoded, prompts, k=k, say=say)
    trie = recommender.encoded.trie
    truth = engine.run((prompt, search(trie, k=k, scoring=Scoring(name="joint"))) for prompt in prompts)
    row["recall_of_true_top_k"] = statistics.fmean(
        len(set(f) & set(t.rows.tolist())) / len(t.rows) for f, t in zip(found, truth, strict=True)
    )
    row["slower_than"] = {o["name"]: row["whole_s"] / o["whole_s"] for o in ours}
    for name, times in row["slower_than"].items():
        say(f"  {times:.1f} x the time of {name}")
    say(f"  finds {row['recall_of_true_top_k']:.1%} of the true top-{k}")
    return row


def _generate(
    engine: TransformersEngine, encoded: EncodedCatalog, prompts: Sequence[Sequence[int]], *, k: int, say: Say
) -> tuple[Row, list[list[int]]]:
    """The usual way: `generate` with k beams and a prefix function, on the same model and prompts.

    Returns:
        The measurements, and the rows that each prompt's beams ended in, best first.
    """
    torch, lm = engine.torch, engine.lm
    allowed: dict[tuple[int, ...], set[int]] = {}
    row_of: dict[tuple[int, ...], int] = {}
    end = encoded.ids(0)[-1]  # the separator closes every item, so a beam ends with it
    for row in range(len(encoded.catalog)):
        ids = encoded.ids(row)
        row_of[tuple(ids)] = row
        for depth, token in enumerate(ids):
            allowed.setdefault(tuple(ids[:depth]), set()).add(token)
    lists = {prefix: sorted(tokens) for prefix, tokens in allowed.items()}
    longest = max(len(ids) for ids in row_of)
    times: list[float] = []
    found: list[list[int]] = []
    for prompt in prompts:
        n_prompt = len(prompt)

        def after(batch: int, ids: Any, n_prompt: int = n_prompt) -> list[int]:
            return lists.get(tuple(ids[n_prompt:].tolist()), [end])  # asked about beams that have ended, too

        ids = torch.tensor([list(prompt)], device=lm.device)
        started_s = time.perf_counter()
        with torch.inference_mode():
            out = lm.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                num_beams=k,
                num_return_sequences=k,
                max_new_tokens=longest,
                do_sample=False,
                length_penalty=0.0,
                eos_token_id=end,
                pad_token_id=end,
                prefix_allowed_tokens_fn=after,
            )
        times.append(time.perf_counter() - started_s)
        beams = [tuple(beam[: beam.index(end) + 1]) for beam in out[:, n_prompt:].tolist() if end in beam]
        found.append([row_of[beam] for beam in beams if beam in row_of])
    measured: Row = {
        "name": f"transformers generate, {k} beams",
        "engine": "transformers",
        "scoring": "joint, beam search",
        "n_people": len(prompts),
        "n_at_once": 1,
        "whole_s": statistics.median(times),
    }
    say(f"{measured['name']}: {measured['whole_s'] * 1e3:.0f} ms a person")
    return measured, found


def _seconds(work: Callable[[], object]) -> float:
    started_s = time.perf_counter()
    work()
    return time.perf_counter() - started_s
