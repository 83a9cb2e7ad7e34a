"""Measuring this machine: what a recommendation costs beside reading its prompt, and whether it is exact.

Times are ratios within one run, on the workspace's own people and prompts. The peer and the brute force are written
here from the model's plain interface, on purpose without the project's tree or search code.
"""

from __future__ import annotations

import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from genrec.catalog import EncodedCatalog
from genrec.decoding.scoring import Scoring
from genrec.decoding.search import Ranking, search
from genrec.engines.base import Engine
from genrec.engines.transformers import TransformersEngine
from genrec.errors import ConfigError
from genrec.recommendation import Query
from genrec.recommender import Recommender
from genrec.workspace import Workspace

Row = dict[str, Any]
Say = Callable[[str], None]


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
    before = dict(vars(engine.usage))
    prefilled = 0
    for group in [group for group in groups for _ in range(repeats)]:
        engine.forget()
        prefill_s = _seconds(partial(engine.prefill, [prompts[i] for i in group]))
        prefilled += sum(len(prompts[i]) for i in group)
        engine.forget()
        whole_s = _seconds(partial(recommender.recommend_many, [asked[i] for i in group]))
        pairs.append((prefill_s / len(group), whole_s / len(group)))
    ratios = [whole / prefill for prefill, whole in pairs]
    n_asked = len(asked) * repeats
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
        "computed_tokens": (engine.usage.n_computed_tokens - before["n_computed_tokens"] - prefilled) / n_asked,
    }
    say(
        f"{row['name']}: whole / prefill {row['ratio']:.2f} ({row['whole_s'] * 1e3:.0f} ms a person, "
        f"{row['prompt_tokens']:.0f} prompt tokens)"
    )
    return row


def peer_generate(
    engine: TransformersEngine, encoded: EncodedCatalog, prompts: Sequence[Sequence[int]], *, k: int, say: Say
) -> tuple[Row, list[list[int]]]:
    """The usual way: `generate` with k beams and a prefix function, on the same model and prompts.

    Returns:
        The measurements, and the rows that each prompt's beams ended in, best first.
    """
    torch, lm = engine.torch, engine.lm
    allowed: dict[tuple[int, ...], set[int]] = {}
    row_of: dict[tuple[int, ...], int] = {}
    end = int(lm.config.eos_token_id if isinstance(lm.config.eos_token_id, int) else lm.config.eos_token_id[0])
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
            return lists.get(tuple(ids[n_prompt:].tolist()), [end])

        ids = torch.tensor([list(prompt)], device=lm.device)
        started_s = time.perf_counter()
        with torch.inference_mode():
            out = lm.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                num_beams=k,
                num_return_sequences=k,
                max_new_tokens=longest + 1,
                do_sample=False,
                length_penalty=0.0,
                early_stopping=True,
                eos_token_id=end,
                pad_token_id=end,
                prefix_allowed_tokens_fn=after,
            )
        times.append(time.perf_counter() - started_s)
        beams = [[t for t in beam if t != end] for beam in out[:, n_prompt:].tolist()]
        found.append([row_of[tuple(beam)] for beam in beams if tuple(beam) in row_of])
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


def peer(
    engine: TransformersEngine,
    recommender: Recommender,
    asked: Sequence[Query],
    ours: Sequence[Row],
    *,
    k: int,
    say: Say,
) -> Row:
    """`peer_generate` on the same people, with how much of the true top-k it finds and how much slower it is."""
    prompts = [list(prompt.token_ids) for prompt in recommender.prompts(asked)]
    row, found = peer_generate(engine, recommender.encoded, prompts, k=k, say=say)
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


def brute_force(engine: TransformersEngine, encoded: EncodedCatalog, prompt: Sequence[int]) -> dict[str, np.ndarray]:
    """Weigh every item of the catalogue by reading every item's tokens after the prompt, without trie or search.

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
    by_length: dict[int, list[int]] = {}
    for row, ids in enumerate(sequences):
        by_length.setdefault(len(ids), []).append(row)
    with torch.inference_mode():
        read = lm(input_ids=torch.tensor([list(prompt)]), use_cache=True, logits_to_keep=1)
        first = read.logits[0, -1].float().log_softmax(-1)
        for length, rows in by_length.items():
            for start in range(0, len(rows), 64):
                some = rows[start : start + 64]
                after = first.expand(len(some), 1, -1)
                if length > 1:
                    cache = _repeated(read.past_key_values, len(some))
                    inputs = torch.tensor([sequences[row][:-1] for row in some])
                    out = lm(input_ids=inputs, past_key_values=cache, use_cache=True)
                    after = torch.cat([after, out.logits.float().log_softmax(-1)], dim=1)  # (B, length, n_vocab)
                for at, row in enumerate(some):
                    for depth, token in enumerate(sequences[row]):
                        logprob = after[at, depth]
                        joint[row] += float(logprob[token])
                        among = logprob[options[tuple(sequences[row][:depth])]]
                        masked[row] += float(logprob[token] - among.logsumexp(0))
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


def report(stage: str, workspace: Workspace, rows: Sequence[Row], started_s: float) -> Row:
    """Rows with all that is needed to judge and repeat them."""
    return {
        "dataset": workspace.folder.resolve().name,
        "stage": stage,
        "rows": list(rows),
        "command": " ".join(["genrec", *sys.argv[1:]]),
        "commit": _commit(),
        "machine": _machine(),
        "wall_s": round(time.perf_counter() - started_s, 1),
    }


def _repeated(cache: Any, times: int) -> Any:
    import copy

    repeated = copy.deepcopy(cache)
    repeated.batch_repeat_interleave(times)
    return repeated


def _seconds(work: Callable[[], object]) -> float:
    started_s = time.perf_counter()
    work()
    return time.perf_counter() - started_s


def _commit() -> str | None:
    with suppress(OSError, subprocess.CalledProcessError):
        here = Path(__file__).parent
        found = subprocess.run(["git", "rev-parse", "HEAD"], cwd=here, capture_output=True, text=True, check=True)
        return found.stdout.strip()
    return None


def _machine() -> str:
    cpu = platform.processor() or platform.machine()
    with suppress(OSError):
        models: Iterable[str] = Path("/proc/cpuinfo").read_text().splitlines()
        cpu = next((line.split(":")[1].strip() for line in models if line.startswith("model name")), cpu)
    memory_gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{cpu}, {os.cpu_count()} cores, {memory_gib:.0f} GiB, Python {platform.python_version()}"
