"""Whether a language model knows a catalogue by heart: it is shown half of a title and asked for the rest.

Works on titles and an engine; knows nothing of people. After the completion tests for data that a model was trained on
(Carlini et al. 2021, Bordt et al. 2024).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from genrec.engines.base import Engine, Search, TokenTree
from genrec.errors import DataError
from genrec.evaluation.audit import Finding, percent
from genrec.text import clean

LEAST_TOKENS = 8
"""Shorter titles are passed over: their halves follow from each other by language alone."""
ASK = "Write the full title of one item of a catalogue, and nothing else."
"""What it is asked before half a title is put into its mouth."""


def probe(engine: Engine, titles: Sequence[str], *, n: int = 100, n_others: int = 9, seed: int = 0) -> Finding:
    """Ask for the second halves of titles.

    A half counts as known by heart if each of its tokens is likelier than all others together, given those before: then
    it is what the model writes on its own. Beside it, whether the true half is likelier per token than halves of
    other titles.

    Args:
        engine: The model, without what it has learned of these people.
        titles: The catalogue's.
        n: Most titles that are asked for.
        n_others: Halves of other titles beside each true one.
        seed: Chooses titles.

    Raises:
        DataError: If fewer than two titles have `LEAST_TOKENS`.
        EngineError: If the model fails.
    """
    texts = sorted({clean(title) for title in titles} - {""})
    rng = np.random.default_rng(seed)
    sampled = [texts[i] for i in rng.permutation(len(texts))[: 20 * n]]
    ids = [tokens for tokens in engine.tokenizer.encode(sampled) if len(tokens) >= LEAST_TOKENS][:n]
    if len(ids) < 2:
        raise DataError(
            f"hardly any title has {LEAST_TOKENS} tokens, and halves of shorter ones say nothing about memory",
            hint="Leave out --probe-memory.",
        )
    prompt = engine.tokenizer.chat([("user", ASK)])
    halves = [(tokens[: len(tokens) // 2], tokens[len(tokens) // 2 :]) for tokens in ids]
    jobs = []
    for start, end in halves:
        others = rng.permutation([j for j in range(len(halves)) if halves[j][1] != end])[:n_others]
        jobs.append(([*prompt, *start], _compare([end, *(halves[j][1] for j in others)])))
    found = engine.run(jobs)
    found_true = sum(best for _, best in found) / len(found)
    chance = 1 / (1 + min(n_others, len(halves) - 1))
    return Finding(
        name="memory",
        n=sum(known for known, _ in found),
        of=len(found),
        counted=f"sampled titles are finished by {engine.model}, untuned, word for word from their first half",
        means=f"Among halves of other titles it finds the true one for {percent(found_true)} "
        f"(chance {percent(chance)}), by memory or by language: what it knows by heart may be its test, too.",
        do="Where the first share is high, judge on items newer than the model.",
    )


def _compare(ends: Sequence[Sequence[int]]) -> Search[tuple[bool, bool]]:
    """Whether the first end is known by heart, and whether it is the likeliest per token."""
    number: dict[tuple[int, ...], int] = {}
    parent: list[int] = []
    for end in ends:
        for i in range(1, len(end) + 1):
            path = tuple(end[:i])
            if path not in number:
                number[path] = len(number)
                parent.append(number.get(path[:-1], -1))
    logprob = yield TokenTree(
        parent=np.array(parent, np.int32),
        token=np.array([path[-1] for path in number], np.int32),
        wanted=np.ones(len(number), bool),
    )
    of = [logprob[[number[tuple(end[:i])] for i in range(1, len(end) + 1)]] for end in ends]
    true, *others = (float(part.mean()) for part in of)
    return bool((of[0] > np.log(0.5)).all()), all(true > other for other in others)
