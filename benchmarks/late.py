"""Fusion after the search, to compare with the one inside the trie.

    python benchmarks/late.py --data DIR --work WORK --name NAME

The model's exact best and the prior's, each weighing the other's items too, are mixed log-linearly: the model, the
prior, and the model without any history (what it says of everybody). The first two weights depend on whether a visit
goes on, on how much is known of the person and on how sure the prior is, or, ungated, on nothing. The three or nine
weights are fitted to validation rows by likelihood. Judged on the test rows of `finetune.py test`, whose trained model
NAME is; see there for DIR and WORK.
"""

from __future__ import annotations

import json
import random
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
import numpy as np
from rows import DATA, RESULTS, Rows, half, look, options

from genrec.bench.report import Book
from genrec.decoding.scoring import Scoring
from genrec.decoding.search import score, search
from genrec.evaluation.metrics import difference, summary
from genrec.events import Context
from genrec.history import History
from genrec.models import fingerprint
from genrec.priors.sequence import VISIT
from genrec.prompt import render

N_OURS, N_THEIRS = 20, 30
"""Items that late fusion takes from the model's list and from the prior's."""
TERMS = ("model", "prior", "model without a history")
GATES = ("always", "same visit", "events known", "the prior's entropy")


@click.command(help=__doc__)
@options
@click.option("--cases", default=500, show_default=True, help="Validation rows that weights are fitted to.")
@click.option("--n-test", default=0, show_default=True, help="Test rows, drawn by chance; all when 0.")
@click.option("--part", "share", default="0/1", show_default=True, help="1/2: ask about the second half alone.")
def main(dataset: str, data: Path, work: Path, model: str, name: str, cases: int, n_test: int, share: str) -> None:
    """Fuse late: the model's list and the prior's, each weighing the other's items, log-linear, gated."""
    from genrec.engines.transformers import TransformersEngine

    rows = DATA[dataset](data, model)
    folder = work / dataset / name / "merged"
    engine = TransformersEngine(folder, model=name)
    part, n_parts = (int(number) for number in share.split("/"))
    test = rows.cases("test")
    numbers = random.Random(1).sample(range(len(test)), n_test) if n_test else list(range(len(test)))
    fit = [case for case in rows.cases("valid") if half(case.user_id)]
    random.Random(2).shuffle(fit)
    made = {
        "model": fingerprint(folder),
        "prior": rows.prior.weights.round(6).tolist(),
        "rows": [cases, len(numbers), share],
    }
    pools = {
        split: candidates_of(rows, some[part::n_parts], engine, work / dataset / name / f"late-{split}-{part}", made)
        for split, some in (("valid", fit[:cases]), ("test", [test[n] for n in numbers]))
    }
    engine.close()
    if n_parts > 1:
        for other in set(range(n_parts)) - {part}:
            if not all((work / dataset / name / f"late-{s}-{other}.done").exists() for s in pools):
                return
        pools = {
            split: [
                pool
                for n in range(max(len(one) for one in parts))
                for pool in (one[n] for one in parts if n < len(one))
            ]
            for split, parts in (
                (
                    s,
                    [
                        kept_pools(
                            work / dataset / name / f"late-{s}-{p}",
                            made | {"rows": [cases, len(numbers), f"{p}/{n_parts}"]},
                        )
                        for p in range(n_parts)
                    ],
                )
                for s in pools
            )
        }
    look(dataset, f"late-{name}", len(numbers))
    people = [test[n].user_id for n in numbers]
    book = Book(
        RESULTS / dataset / f"late-{name}.json",
        stage=f"late-{name}",
        dataset=dataset,
        settings={"model": model, "cases": cases, "test": len(numbers), "ours": N_OURS, "theirs": N_THEIRS},
        say=click.echo,
    )
    recall = round(float(np.mean([pool["target"] >= 0 for pool in pools["test"]])), 4)
    kept = RESULTS / dataset / f"test-{name}.json"
    ours = [row for row in json.loads(kept.read_text())["rows"] if "ranks" in row] if kept.is_file() else []
    for way, gated in (("late", False), ("late, gated", True)):
        weights = fit_late(pools["valid"], len(TERMS), len(GATES), gated=gated)
        ranks = [late_rank(pool, weights) for pool in pools["test"]]
        found = {**summary(ranks, people), "recall": recall, "weights": weights.round(3).tolist(), "ranks": ranks}
        book.add(way, lambda found=found: found)
        for row in ours:
            theirs = [row["ranks"][n] for n in numbers]
            book.add(f"{way} - {row['name']}", lambda a=ranks, b=theirs: difference(a, b, people))


def kept_pools(file: Path, made: dict[str, Any]) -> list[dict[str, Any]]:
    """What is known already of the same model and prior."""
    lines = file.read_text().splitlines() if file.is_file() else []
    return [json.loads(line) for line in lines[1:]] if lines and json.loads(lines[0]) == made else []


def candidates_of(
    rows: Rows, cases: list[History], engine: Any, file: Path, made: dict[str, Any]
) -> list[dict[str, Any]]:
    """Of each case the best items of the model and of the prior, with what each gives to all of them."""
    writing, pools = rows.writing, kept_pools(file, made)
    done = file.with_name(f"{file.name}.done")
    if not pools:
        done.unlink(missing_ok=True)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(made) + "\n")
    masked, trie = Scoring(name="masked"), writing.encoded.trie

    def ids_of(history: History) -> tuple[int, ...]:
        prompt = render(writing.template, history, Context(), writing.encoded, writing.tokenizer, words=writing.words)
        return prompt.token_ids

    if len(pools) >= len(cases):
        return pools
    stranger = History(user_id="", user=None, at=cases[0].at, moments=())
    pieces = np.array_split(np.arange(len(rows.catalog)), 40)
    nobody = np.concatenate(engine.run([(ids_of(stranger), score(trie, some, scoring=masked)) for some in pieces]))
    for start in range(len(pools), len(cases), 32):
        some = cases[start : start + 32]
        ids = [ids_of(case.before(-1)) for case in some]
        masses = [rows.log_mass(case) for case in some]
        lists = engine.run(
            (one, search(trie, k=N_OURS, scoring=masked, log_mass=mass, live=rows.live(case)))
            for one, mass, case in zip(ids, masses, some, strict=True)
        )
        jobs, wanted = [], []
        for case, one, mass, found in zip(some, ids, masses, lists, strict=True):
            live = rows.live(case)
            theirs = np.argsort(-(mass if live is None else np.where(live, mass, -np.inf)), kind="stable")[:N_THEIRS]
            wanted.append(np.union1d(found.rows, theirs))
            jobs.append((one, score(trie, wanted[-1], scoring=masked)))
        for case, mass, listed, logprob in zip(some, masses, wanted, engine.run(jobs), strict=True):
            target = rows.catalog.row[case.moments[-1].item_ids[0]]
            before = case.moments[-2].at if len(case.moments) > 1 else datetime.min.replace(tzinfo=UTC)
            pools.append(
                {
                    "target": int(np.searchsorted(listed, target)) if target in listed else -1,
                    "terms": [
                        logprob.round(4).tolist(),
                        mass[listed].round(4).tolist(),
                        nobody[listed].round(4).tolist(),
                    ],
                    "gates": [
                        1.0,
                        float(case.at - before < VISIT),
                        float(np.log1p(len(case.moments) - 1)),
                        float(-(np.exp(mass) @ mass)),
                    ],
                }
            )
        with file.open("a") as out:
            out.writelines(json.dumps(pool) + "\n" for pool in pools[start:])
        click.echo(f"{len(pools)} of {len(cases)}")
    done.touch()
    return pools


def fit_late(pools: list[dict[str, Any]], n_terms: int, n_gates: int, *, gated: bool) -> np.ndarray:
    """Weights under which the targets are likeliest among their candidates. Shape ``(n_terms, n_gates)``."""
    import torch

    free = torch.ones(n_terms, n_gates)
    free[0 if not gated else 2 :, 1:] = 0  # what the model says of everybody has one weight
    weights = torch.zeros(n_terms, n_gates)
    weights[:2, 0] = 0.5
    weights.requires_grad_()
    optimizer = torch.optim.LBFGS([weights], max_iter=200, line_search_fn="strong_wolfe")
    known = [
        (torch.tensor(pool["terms"]), torch.tensor(pool["gates"]), pool["target"])
        for pool in pools
        if pool["target"] >= 0
    ]

    def again() -> Any:
        optimizer.zero_grad()
        losses = [-torch.log_softmax(((weights * free) @ gates) @ terms, 0)[target] for terms, gates, target in known]
        loss = torch.stack(losses).mean() + 0.01 * (weights[:, 1:] ** 2).sum()
        loss.backward()
        return loss

    optimizer.step(again)
    return (weights * free).detach().numpy()


def late_rank(pool: dict[str, Any], weights: np.ndarray) -> int:
    """Place of the target among the candidates; 10 where it is none of them."""
    if pool["target"] < 0:
        return 10
    scores = (weights @ np.array(pool["gates"])) @ np.array(pool["terms"])
    return min(int((scores > scores[pool["target"]]).sum()), 10)


if __name__ == "__main__":
    main()
