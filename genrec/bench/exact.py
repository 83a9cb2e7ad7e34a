"""Whether the search finds what brute force finds."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

import numpy as np

from genrec.bench.report import Row, Say
from genrec.catalog import EncodedCatalog
from genrec.decoding.scoring import Scoring
from genrec.decoding.search import Ranking, search
from genrec.engines.base import Engine
from genrec.engines.transformers import TransformersEngine


def brute_force(engine: TransformersEngine, encoded: EncodedCatalog, prompt: Sequence[int]) -> dict[str, np.ndarray]:
    """Weigh every item of the catalogue by reading every item's tokens behind the prompt, without trie or search.

    Some dozens of items at a time stand side by side behind the prompt; each sees the prompt and itself.

    Returns:
        For `joint` and `masked`, each row's log-probability in nats, shape ``(n_items,)``.
    """
    torch, lm = engine.torch, engine.lm
    sequences = [encoded.ids(row) for row in range(len(encoded.catalog))]
    choices: dict[tuple[int, ...], set[int]] = {}
    for ids in sequences:
        for depth, token in enumerate(ids):
            choices.setdefault(tuple(ids[:depth]), set()).add(token)
    options = {prefix: torch.tensor(sorted(tokens)) for prefix, tokens in choices.items()}
    joint, masked = np.zeros(len(sequences)), np.zeros(len(sequences))
    n_prompt = len(prompt)
    with torch.inference_mode():
        read = lm(input_ids=torch.tensor([list(prompt)]).to(lm.device), use_cache=True, logits_to_keep=1)
        first = read.logits[0, -1].float().log_softmax(-1).cpu()
        for start in range(0, len(sequences), 64):
            rows = range(start, min(start + 64, len(sequences)))
            owner = np.repeat(np.arange(len(rows)), [len(sequences[row]) - 1 for row in rows])
            depth_of = np.concatenate([np.arange(len(sequences[row]) - 1) for row in rows])
            own = (owner[:, None] == owner) & (depth_of[:, None] >= depth_of)  # (n, n)
            sees = np.concatenate([np.ones((len(own), n_prompt), bool), own], axis=1)
            mask = torch.zeros(1, 1, *sees.shape, dtype=lm.dtype)
            mask[0, 0].masked_fill_(~torch.from_numpy(sees), torch.finfo(lm.dtype).min)
            out = lm(
                input_ids=torch.tensor([[token for row in rows for token in sequences[row][:-1]]]).to(lm.device),
                position_ids=torch.from_numpy(n_prompt + depth_of)[None].to(lm.device),
                attention_mask=mask.to(lm.device),
                past_key_values=read.past_key_values,
                use_cache=True,
            )
            read.past_key_values.crop(n_prompt)
            after = out.logits[0].float().log_softmax(-1).cpu()  # (n, n_vocab)
            at = 0
            for row in rows:
                for depth, token in enumerate(sequences[row]):
                    logprob = after[at - 1] if depth else first
                    joint[row] += float(logprob[token])
                    masked[row] += float(logprob[token] - logprob[options[tuple(sequences[row][:depth])]].logsumexp(0))
                    at += depth < len(sequences[row]) - 1
    return {"joint": joint, "masked": masked}


def exact(
    engine: Engine,
    encoded: EncodedCatalog,
    prompts: Sequence[Sequence[int]],
    truths: Sequence[dict[str, np.ndarray]],
    *,
    k: int,
    say: Say,
) -> list[Row]:
    """Compare the search with brute force.

    Args:
        engine: Runs the search.
        encoded: The catalogue.
        prompts: One for each person.
        truths: `brute_force` of each prompt.
        k: Length of the lists.
        say: Is told the outcome.

    Returns:
        A row for each scoring: how many lists are equal, the largest difference of a log-probability, and the regret
        (probability mass of the true top-k minus that of the list found).
    """
    rows = []
    for name in ("joint", "masked"):
        scoring = Scoring(name=name)
        rankings: list[Ranking] = engine.run((prompt, search(encoded.trie, k=k, scoring=scoring)) for prompt in prompts)
        worst, regrets, n_equal = 0.0, [], 0
        for ranking, truth in zip(rankings, truths, strict=True):
            weights = truth[name]
            best = np.argsort(-weights, kind="stable")[:k]
            worst = max(worst, float(np.abs(ranking.logprobs - weights[ranking.rows]).max()))
            regrets.append(float(np.exp(weights[best]).sum() - np.exp(weights[ranking.rows]).sum()))
            # Two items may lie closer together than arithmetic can tell: equal up to such a swap.
            n_equal += bool(np.abs(weights[best] - weights[ranking.rows]).max() < 1e-3)
        row: Row = {
            "name": f"{engine.name} {name}",
            "engine": engine.name,
            "scoring": name,
            "n_people": len(prompts),
            "n_items": len(encoded.catalog),
            "k": k,
            "n_equal": n_equal,
            "n_same_order": sum(
                ranking.rows.tolist() == np.argsort(-truth[name], kind="stable")[:k].tolist()
                for ranking, truth in zip(rankings, truths, strict=True)
            ),
            "max_difference": worst,
            "mean_regret": statistics.fmean(regrets),
            "max_regret": max(regrets),
        }
        say(
            f"{row['name']}: {n_equal} of {len(prompts)} lists equal, largest difference {worst:.1e} nats, "
            f"mean regret {row['mean_regret']:.1e}"
        )
        rows.append(row)
    return rows
